//! Clients that do what they should not: garbage, half frames, silence, acknowledgements never read.
//!
//! Invariant shown: a bad client costs a bounded amount and harms no other.

use crate::support::{Engine, Load, block_on, raw, wait_for};
use highwater_proto::{BATCH_BYTES_MAX, BatchBuilder, Epoch, Hello, HelloMode, Lookup, Sequence, Subscribe, View};
use highwater_proto::{CloseReason, PROTOCOL_VERSION, ProducerId, Pushed};
use quinn::ConnectionError;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Write;
use std::net::{TcpStream, UdpSocket};

const WINDOW_BYTES: u32 = 1 << 20;

const LOAD: [&str; 5] = ["run", "--rate=20000", "--duration=1s", "--videos=2000", "--batch=500"];

fn hello(producer: u128) -> Vec<u8> {
    let mut frame = Vec::new();
    let producer = ProducerId(producer);
    Hello { version: PROTOCOL_VERSION, mode: HelloMode::New, producer, token: Vec::new() }.encode(&mut frame);
    frame
}

fn batch(producer: u128, sequence: u64) -> Vec<u8> {
    let mut batch = BatchBuilder::new(10, BATCH_BYTES_MAX as u32);
    let timestamp_ms = crate::support::now_ms();
    let view = View { video_id: "v", timestamp_ms, user_id: "u", region: "", device: "" };
    assert_eq!(batch.push(&view), Ok(Pushed::Added));
    batch.encode(ProducerId(producer), Sequence(sequence)).to_vec()
}

#[test]
fn garbage_datagrams_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(folder.path());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut load = Load::verified(&engine, &LOAD);
    let mut sent = 0_u64;
    let mut bytes = [0; 1500];
    while load.runs() && sent < 200_000 {
        let len = random.random_range(0..=bytes.len());
        random.fill_bytes(&mut bytes[..len]);
        if sent.is_multiple_of(2) && len >= 7 {
            // The beginning of an Initial packet of version 1, so that the parser gets further.
            bytes[..7].copy_from_slice(&[0xC3, 0, 0, 0, 1, 8, 7]);
        }
        // A full socket buffer is no failure of the engine.
        let _ = socket.send_to(&bytes[..len], engine.address());
        sent += 1;
    }
    load.finish().assert_verified();
    assert!(sent > 1000 && engine.runs(), "{sent} datagrams sent");
}

#[test]
fn half_a_frame_and_half_a_request_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let mut half_request = TcpStream::connect(engine.url().trim_start_matches("http://")).unwrap();
    half_request.write_all(b"GET /v1/videos/top?period=h").unwrap();
    block_on(async {
        let (_endpoint, connection) = raw::connect(&engine, WINDOW_BYTES).await;
        let (mut send, _receive) = connection.open_bi().await.unwrap();
        let frame = hello(1);
        send.write_all(&frame[..frame.len() - 3]).await.unwrap();
        let load = tokio::task::spawn_blocking({
            let load = Load::verified(&engine, &LOAD);
            move || load.finish()
        });
        load.await.unwrap().assert_verified();
        assert!(connection.close_reason().is_none(), "a slow client is no bad one");
    });
}

#[test]
fn a_client_that_never_reads_its_acknowledgements_is_closed_as_overloaded() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let others = Load::unverified(&engine, &LOAD);
    let (close, sent) = block_on(async {
        // A window that holds the welcome and not much more.
        let (_endpoint, connection) = raw::connect(&engine, 256).await;
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&hello(5)).await.unwrap();
        receive.read(&mut [0; 256]).await.unwrap();
        let mut sent = 0;
        while send.write_all(&batch(5, sent + 1)).await.is_ok() {
            sent += 1;
        }
        (connection.closed().await, sent)
    });
    let ConnectionError::ApplicationClosed(close) = close else { panic!("closed by {close} after {sent} batches") };
    assert_eq!(close.error_code.into_inner(), u64::from(CloseReason::Overloaded.code()), "{close:?} after {sent}");
    let done = others.finish();
    assert_eq!((done.code, done.figure("views_acked")), (Some(0), 20_000), "{done:?}");
    let counted = wait_for("all views in the metrics", || {
        let counted = engine.metric("views_counted_total");
        (counted > 20_000).then_some(counted)
    });
    assert!(counted <= 20_000 + sent, "{counted} counted of {sent} and 20000 sent");
}

#[test]
fn a_stalled_subscriber_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    block_on(async {
        let (_endpoint, connection) = raw::connect(&engine, 64).await;
        let (mut subscription, _unread) = connection.open_bi().await.unwrap();
        let mut frame = Vec::new();
        Subscribe { from_epoch: Epoch(0) }.encode(&mut frame);
        subscription.write_all(&frame).await.unwrap();
        let (mut question, _unread_answer) = connection.open_bi().await.unwrap();
        frame.clear();
        Lookup { video_id: "v".into() }.encode(&mut frame);
        question.write_all(&frame).await.unwrap();
        let load = Load::verified(&engine, &LOAD);
        tokio::task::spawn_blocking(move || load.finish()).await.unwrap().assert_verified();
    });
}
