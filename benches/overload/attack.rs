//! The attacks by name, and those that speak QUIC and get as far as a connection.
//!
//! Each runs on a thread of its own until it is told to stop, at a pace that leaves the client on the same CPU its
//! share, and says what it has done.

use crate::handshakes::{garbage, half_handshakes};
use crate::http::{flood, slowloris};
use crate::line::{Target, endpoint, greet};
use anyhow::{Context, Result};
use highwater_client::{ClientConfig, Producer};
use highwater_proto::{
    BATCH_VIEWS_MAX, BatchBuilder, Epoch, FrameHeader, FrameKind, ProducerId, Pushed, Sequence, Subscribe, View,
};
use quinn::{Connection, RecvStream, SendStream};
use rand::RngExt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One way to harm an engine.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// What the engine may use.
    pub(crate) memory: &'static str,
    /// How many of whatever it is made of.
    pub(crate) count: usize,
    /// Whether the engine counts views of the attackers, so that the client cannot verify the lists.
    pub(crate) counts: bool,
    pub(crate) act: fn(&Target, usize, &AtomicBool) -> Result<String>,
}

const fn attack(
    name: &'static str,
    memory: &'static str,
    count: usize,
    counts: bool,
    act: fn(&Target, usize, &AtomicBool) -> Result<String>,
) -> Attack {
    Attack { name, memory, count, counts, act }
}

/// All attacks, the first one being none.
pub(crate) const ATTACKS: [Attack; 15] = [
    attack("nothing", "1GiB", 0, false, nothing),
    attack("connections", "1GiB", 10_000, false, connections),
    attack("connections-that-fit", "8GiB", 10_000, false, connections),
    attack("churn", "1GiB", 200, false, churn),
    attack("unread-snapshots", "1GiB", 500, false, unread_snapshots),
    attack("unread-acks", "1GiB", 50, true, unread_acks),
    attack("half-batches", "1GiB", 1000, false, half_batches),
    attack("one-video", "1GiB", 500_000, true, one_video),
    attack("new-videos", "512MiB", 1_000_000, true, new_videos),
    attack("half-handshakes", "1GiB", 2000, false, half_handshakes),
    attack("garbage", "1GiB", 20_000, false, garbage),
    attack("migration", "1GiB", 20, true, migration),
    attack("slow-disk", "1GiB", 2, false, slow_disk),
    attack("http-slowloris", "1GiB", 2000, false, slowloris),
    attack("http-flood", "1GiB", 8, false, flood),
];

/// Runs what an attack does on a runtime of its own.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Waits until the attack is told to stop, or this long.
pub(crate) async fn pause(stop: &AtomicBool, time: Duration) {
    let end = Instant::now() + time;
    // Relaxed: a flag that is only ever set.
    while !stop.load(Ordering::Relaxed) && Instant::now() < end {
        tokio::time::sleep(time.min(Duration::from_millis(20))).await;
    }
}

pub(crate) fn is_over(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

async fn rest(stop: &AtomicBool) {
    while !is_over(stop) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn nothing(_: &Target, _: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        rest(stop).await;
        Ok("nothing".to_owned())
    })
}

/// Connections attempted at a time.
const WAVE: usize = 32;

/// Opens as many connections as it can, up to a number, at most [`WAVE`] at a time; returns them and how many failed.
async fn open_many(target: &Target, count: usize, window: u32, stop: &AtomicBool) -> Result<(Vec<Connection>, usize)> {
    let (endpoint, config) = (endpoint()?, target.config(window)?);
    let (mut opened, mut failed) = (Vec::new(), 0);
    while opened.len() + failed < count && !is_over(stop) {
        let mut wave = tokio::task::JoinSet::new();
        for _ in 0..WAVE.min(count - opened.len() - failed) {
            let (target, endpoint, config) = (target.clone(), endpoint.clone(), config.clone());
            wave.spawn(async move { target.connect(&endpoint, &config).await });
        }
        while let Some(connected) = wave.join_next().await {
            match connected? {
                Ok(connection) => opened.push(connection),
                Err(_) => failed += 1,
            }
        }
    }
    Ok((opened, failed))
}

fn connections(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (opened, mut failed) = open_many(target, count, 1 << 16, stop).await?;
        let mut streams = Vec::new();
        for connection in &opened {
            match greet(connection, rand::rng().random()).await {
                Ok(line) => streams.push(line),
                Err(_) => failed += 1,
            }
        }
        rest(stop).await;
        Ok(format!("{} producers connected, {failed} could not", streams.len()))
    })
}

fn churn(target: &Target, per_second: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (endpoint, config) = (endpoint()?, target.config(1 << 16)?);
        let (mut greeted, mut failed) = (0, 0);
        while !is_over(stop) {
            let connected = target.connect(&endpoint, &config).await;
            match connected {
                Ok(connection) if greet(&connection, rand::rng().random()).await.is_ok() => greeted += 1,
                _ => failed += 1,
            }
            tokio::time::sleep(Duration::from_secs(1) / per_second as u32).await;
        }
        Ok(format!("{greeted} producers came and left, {failed} could not"))
    })
}

fn unread_snapshots(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (opened, failed) = open_many(target, count, 4096, stop).await?;
        let mut frame = Vec::new();
        Subscribe { from_epoch: Epoch(0) }.encode(&mut frame);
        let mut streams = Vec::new();
        for connection in &opened {
            let (mut send, receive) = connection.open_bi().await?;
            send.write_all(&frame).await?;
            streams.push((send, receive));
        }
        rest(stop).await;
        let closed = opened.iter().filter(|one| one.close_reason().is_some()).count();
        Ok(format!("{} subscribers that read nothing, {failed} refused, {closed} closed", opened.len()))
    })
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn view<'a>(video_id: &'a str, now_ms: u64) -> View<'a> {
    View { video_id, timestamp_ms: now_ms, user_id: "attacker", region: "XX", device: "none" }
}

fn batch_of(producer: u128, sequence: u64, video_ids: &[String]) -> Result<bytes::Bytes> {
    let mut batch = BatchBuilder::new(BATCH_VIEWS_MAX, highwater_proto::BATCH_BYTES_MAX as u32);
    let now_ms = now_ms();
    for id in video_ids {
        anyhow::ensure!(
            batch.push(&view(id, now_ms))? == Pushed::Added,
            "{} videos are more than a batch takes",
            video_ids.len()
        );
    }
    Ok(batch.encode(ProducerId(producer), Sequence(sequence)))
}

fn unread_acks(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (opened, failed) = open_many(target, count, 4096, stop).await?;
        let mut lines: Vec<(u128, SendStream, RecvStream)> = Vec::new();
        for connection in &opened {
            let id = rand::rng().random();
            let (send, receive) = greet(connection, id).await?;
            lines.push((id, send, receive));
        }
        let (mut sent, video) = (0_u64, ["unread".to_owned()]);
        for sequence in 1.. {
            if is_over(stop) {
                break;
            }
            for (id, send, _) in &mut lines {
                let batch = batch_of(*id, sequence, &video)?;
                let write = tokio::time::timeout(Duration::from_millis(5), send.write_all(&batch));
                sent += u64::from(write.await.is_ok_and(|written| written.is_ok()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let closed = opened.iter().filter(|one| one.close_reason().is_some()).count();
        Ok(format!("{sent} batches by {} producers that read no ack, {failed} refused, {closed} closed", opened.len()))
    })
}

fn half_batches(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (opened, failed) = open_many(target, count, 1 << 16, stop).await?;
        let header = FrameHeader { kind: FrameKind::Batch, payload_bytes: highwater_proto::BATCH_BYTES_MAX as u32 };
        let mut tasks = tokio::task::JoinSet::new();
        for connection in &opened {
            let connection = connection.clone();
            tasks.spawn(async move {
                let id = rand::rng().random();
                let Ok((mut send, _receive)) = greet(&connection, id).await else { return };
                let most = [&header.encode()[..], &[7; 300_000]].concat();
                if send.write_all(&most).await.is_err() {
                    return;
                }
                // As slowly as can be.
                while send.write_all(&[7]).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
        rest(stop).await;
        let closed = opened.iter().filter(|one| one.close_reason().is_some()).count();
        Ok(format!("{} producers with half a batch, {failed} refused, {closed} closed", opened.len()))
    })
}

/// Views of a batch of the attackers that send as much as they can.
const VIEWS_PER_BATCH: u64 = 4096;

/// Sends batches of views, so many a second, until it is told to stop.
async fn send_views(
    target: &Target,
    views_per_s: usize,
    stop: &AtomicBool,
    mut video_id: impl FnMut(u64) -> String,
) -> Result<u64> {
    let config = ClientConfig::with_ca_file(target.quic.to_string(), &target.ca)?;
    let mut producer = Producer::connect(config, |_| ()).await?;
    let mut batch = producer.batch_builder();
    let (began, mut sent) = (Instant::now(), 0_u64);
    while !is_over(stop) {
        let due = (began.elapsed().as_secs_f64() * views_per_s as f64) as u64;
        if sent >= due {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        let now_ms = now_ms();
        let before = sent;
        while sent < before + VIEWS_PER_BATCH && batch.push(&view(&video_id(sent), now_ms))? == Pushed::Added {
            sent += 1;
        }
        producer.send(&mut batch, 0).await?;
    }
    producer.finish().await?;
    Ok(sent)
}

fn one_video(target: &Target, views_per_s: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let sent = send_views(target, views_per_s, stop, |_| "flooded".to_owned()).await?;
        Ok(format!("{sent} views of one video by one producer"))
    })
}

fn new_videos(target: &Target, views_per_s: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let sent = send_views(target, views_per_s, stop, |number| format!("new{number:x}")).await?;
        Ok(format!("{sent} views of as many videos"))
    })
}

fn migration(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let (config, video) = (target.config(1 << 16)?, ["moved".to_owned()]);
        let mut lines = Vec::new();
        for _ in 0..count {
            let (endpoint, id) = (endpoint()?, rand::rng().random());
            let connection = target.connect(&endpoint, &config).await?;
            let (send, receive) = greet(&connection, id).await?;
            lines.push((endpoint, id, send, receive));
        }
        let (mut moved, mut acked, mut lost) = (0_u64, 0_u64, 0_u64);
        for sequence in 1.. {
            if is_over(stop) || lines.is_empty() {
                break;
            }
            let mut kept = Vec::new();
            for (endpoint, id, mut send, mut receive) in lines {
                endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0")?)?;
                moved += 1;
                send.write_all(&batch_of(id, sequence, &video)?).await?;
                let mut header = [0; highwater_proto::FRAME_HEADER_BYTES];
                let read = tokio::time::timeout(Duration::from_secs(5), receive.read_exact(&mut header));
                if !read.await.is_ok_and(|read| read.is_ok()) {
                    lost += 1;
                    continue;
                }
                let mut rest = vec![0; FrameHeader::decode(&header)?.payload_bytes as usize];
                receive.read_exact(&mut rest).await?;
                acked += 1;
                kept.push((endpoint, id, send, receive));
            }
            lines = kept;
            pause(stop, Duration::from_millis(50)).await;
        }
        Ok(format!("{count} producers moved {moved} times to another port, {acked} batches acknowledged, {lost} lost"))
    })
}

fn slow_disk(target: &Target, writers: usize, stop: &AtomicBool) -> Result<String> {
    let write = |number: usize| -> Result<u64> {
        let path = target.folder.join(format!("ballast{number}"));
        let mut file = std::fs::File::create(&path).context("the ballast cannot be written")?;
        let (block, mut written) = (vec![number as u8; 8 << 20], 0);
        while !is_over(stop) {
            file.write_all(&block)?;
            file.sync_all()?;
            written += block.len() as u64;
            if written.is_multiple_of(1 << 30) {
                file = std::fs::File::create(&path)?;
            }
        }
        Ok(written)
    };
    let written = std::thread::scope(|scope| {
        let writing: Vec<_> = (0..writers).map(|number| scope.spawn(move || write(number))).collect();
        writing
            .into_iter()
            .map(|one| one.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
            .sum::<Result<u64>>()
    })?;
    Ok(format!("{} MB written and synced by {writers} others on the same disk", written / 1_000_000))
}
