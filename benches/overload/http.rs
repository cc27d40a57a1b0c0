//! Attacks on the HTTP side: headers that never end, and questions without end. They come from another loopback address
//! than the client, as attackers would.

use crate::attack::{block_on, is_over, pause};
use crate::line::Target;
use anyhow::Result;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
/// A connection that is refused is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

async fn connect(target: &Target) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((ELSEWHERE, 0)))?;
    socket.connect(target.http).await
}

/// Counts of what the tasks of an attack did. Plain counts that order nothing.
#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

async fn trickle(target: Target, counts: Arc<Counts>) {
    loop {
        if let Ok(mut stream) = connect(&target).await {
            Counts::add(&counts.begun);
            let mut sound = stream.write_all(b"GET /v1/videos/top?period=hour HTTP/1.1\r\nx: ").await.is_ok();
            while sound {
                tokio::time::sleep(Duration::from_millis(500)).await;
                sound = stream.write_all(b"x").await.is_ok();
            }
            Counts::add(&counts.ended);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

pub(crate) fn slowloris(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let counts = Arc::new(Counts::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            tasks.spawn(trickle(target.clone(), counts.clone()));
        }
        while !is_over(stop) {
            pause(stop, Duration::from_millis(100)).await;
        }
        tasks.shutdown().await;
        let (begun, ended) = (Counts::of(&counts.begun), Counts::of(&counts.ended));
        Ok(format!("{count} clients trickle headers: {begun} connections, {ended} ended by the engine"))
    })
}

/// Asks over one connection for as long as it lasts.
async fn ask_on(stream: &mut TcpStream, counts: &Counts) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        stream.write_all(b"GET /v1/videos/top?period=hour&k=1000 HTTP/1.1\r\nhost: h\r\n\r\n").await?;
        let mut answer = Vec::new();
        let end = loop {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            answer.extend_from_slice(&buffer[..read]);
            if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        while answer.len() < end + length.unwrap_or(0) {
            let read = stream.read(&mut buffer).await?;
            if read == 0 {
                return Ok(());
            }
            answer.extend_from_slice(&buffer[..read]);
        }
        Counts::add(if head.starts_with("http/1.1 200") { &counts.answered } else { &counts.refused });
        tokio::task::yield_now().await;
    }
}

pub(crate) fn flood(target: &Target, count: usize, stop: &AtomicBool) -> Result<String> {
    block_on(async {
        let counts = Arc::new(Counts::default());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..count {
            let (target, counts) = (target.clone(), counts.clone());
            tasks.spawn(async move {
                loop {
                    if let Ok(mut stream) = connect(&target).await {
                        // However it ends, another is opened.
                        let _ = ask_on(&mut stream, &counts).await;
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
        while !is_over(stop) {
            pause(stop, Duration::from_millis(100)).await;
        }
        tasks.shutdown().await;
        let (answered, refused) = (Counts::of(&counts.answered), Counts::of(&counts.refused));
        Ok(format!("{count} clients ask without a pause: {answered} lists of 1000 answered, {refused} refused"))
    })
}
