//! Reading: snapshots as they are published, and one video's counts.
//!
//! It sends no views. Invariant: a subscriber's epochs only grow, over reconnects too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use highwater_proto::{Epoch, FrameKind, Lookup, Snapshot, Subscribe, VIDEO_ID_BYTES_MAX, VideoCounts};
use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;
use tracing::info;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::dial::Dialer;
use crate::error::ClientError;
use crate::producer::NO_ANSWER;
use crate::stream::{Broken, read_frame, unexpected};

/// An open stream; dropping any part would end it.
#[derive(Debug)]
struct OpenStream {
    connection: Connection,
    _send: SendStream,
    receive: RecvStream,
}

/// A subscription to an engine's snapshots; reconnects by itself.
#[derive(Debug)]
pub struct Subscriber {
    dialer: Dialer,
    stream: Option<OpenStream>,
    next_epoch: Epoch,
    connected: Connected,
}

/// Tells whether a subscriber's connection stands, while [`Subscriber::next`] waits or repairs it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connected(Arc<AtomicBool>);

impl Connected {
    /// Whether the connection stood when the subscriber last heard of it.
    #[must_use]
    pub fn stands(&self) -> bool {
        // A hint for people; nothing is read because of it.
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, stands: bool) {
        self.0.store(stands, Ordering::Relaxed);
    }
}

impl Subscriber {
    /// Subscribes from the newest snapshot on.
    ///
    /// # Errors
    /// As [`ClientError`] says; attempts are repeated until `connect_timeout`.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let limit = config.connect_timeout;
        let mut dialer = Dialer::new(config)?;
        let stream = open(&mut dialer, &subscribe(Epoch(0)), limit).await?;
        let connected = Connected(Arc::new(AtomicBool::new(true)));
        Ok(Self { dialer, stream: Some(stream), next_epoch: Epoch(0), connected })
    }

    /// Tells others whether this subscriber's connection stands.
    #[must_use]
    pub fn connected(&self) -> Connected {
        self.connected.clone()
    }

    /// Ends the subscription and lets the engine hear of it, so that it need not keep the connection until it is idle
    /// for too long. Takes up to half a second.
    pub async fn close(mut self) {
        if let Some(stream) = self.stream.take() {
            stream.connection.close(0_u8.into(), b"enough");
        }
        self.dialer.farewell().await;
    }

    /// Waits for the next snapshot: the newest there is, so epochs may be skipped. Dropping the future
    /// while it waits loses nothing but the connection, which the next call opens anew.
    ///
    /// # Errors
    /// As [`ClientError`] says; a lost connection is repaired for up to `reconnect_timeout`.
    pub async fn next(&mut self) -> Result<Snapshot, ClientError> {
        loop {
            // Taken out while reading: a future dropped half-way through a frame must not leave half of it behind.
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => {
                    self.connected.set(false);
                    let limit = self.dialer.config().reconnect_timeout;
                    open(&mut self.dialer, &subscribe(self.next_epoch), limit).await?
                }
            };
            match read_snapshot(&mut stream.receive).await {
                Ok(snapshot) if snapshot.epoch < self.next_epoch => {
                    return Err(ClientError::Protocol(format!(
                        "it sent epoch {} where {} or later was due",
                        snapshot.epoch.0, self.next_epoch.0
                    )));
                }
                Ok(snapshot) => {
                    self.next_epoch = Epoch(snapshot.epoch.0 + 1);
                    self.stream = Some(stream);
                    self.connected.set(true);
                    return Ok(snapshot);
                }
                Err(Broken::Lost(reason)) => info!(reason, "subscription lost"),
                Err(Broken::Fatal(error)) => return Err(error),
            }
        }
    }
}

/// Asks for one video's counts in every period.
///
/// # Errors
/// As [`ClientError`] says; [`ClientError::Config`] for an id that has not 1 to 255 bytes.
pub async fn lookup(config: ClientConfig, video_id: &str) -> Result<VideoCounts, ClientError> {
    if video_id.is_empty() || video_id.len() > VIDEO_ID_BYTES_MAX {
        return Err(ClientError::Config {
            what: "video id",
            value: video_id.to_owned(),
            reason: format!("it has {} bytes; 1 to {VIDEO_ID_BYTES_MAX} are allowed", video_id.len()),
        });
    }
    let limit = config.connect_timeout;
    let engine = config.engine.clone();
    let mut dialer = Dialer::new(config)?;
    let mut question = Vec::new();
    Lookup { video_id: video_id.into() }.encode(&mut question);
    let started = Instant::now();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let mut stream = open(&mut dialer, &question, left).await?;
        let answer = timeout(left, read_answer(&mut stream.receive)).await;
        stream.connection.close(0_u8.into(), b"answered");
        dialer.farewell().await;
        let last = match answer {
            Ok(Ok(counts)) => return Ok(counts),
            Ok(Err(Broken::Fatal(error))) => return Err(error),
            Ok(Err(Broken::Lost(reason))) => reason,
            Err(_) => NO_ANSWER.to_owned(),
        };
        let waited = started.elapsed();
        if waited >= limit {
            return Err(ClientError::Unreachable { engine, waited, last });
        }
    }
}

fn subscribe(from_epoch: Epoch) -> Vec<u8> {
    let mut frame = Vec::new();
    Subscribe { from_epoch }.encode(&mut frame);
    frame
}

async fn read_snapshot(receive: &mut RecvStream) -> Result<Snapshot, Broken> {
    let frame = read_frame(receive).await?;
    match frame.kind {
        FrameKind::Snapshot => Ok(Snapshot::decode(&frame.payload).map_err(ClientError::from)?),
        kind => Err(unexpected(kind, "SNAPSHOT")),
    }
}

async fn read_answer(receive: &mut RecvStream) -> Result<VideoCounts, Broken> {
    let frame = read_frame(receive).await?;
    match frame.kind {
        FrameKind::LookupAnswer => Ok(VideoCounts::decode(&frame.payload).map_err(ClientError::from)?),
        kind => Err(unexpected(kind, "LOOKUP_ANSWER")),
    }
}

/// Attempts to open a stream until `limit`.
async fn open(dialer: &mut Dialer, first: &[u8], limit: Duration) -> Result<OpenStream, ClientError> {
    let started = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let attempt = timeout(left.min(backoff.attempt_timeout()), dialer.open(first)).await;
        let last = match attempt {
            Ok(Ok((connection, send, receive))) => {
                return Ok(OpenStream { connection, _send: send, receive });
            }
            Ok(Err(Broken::Fatal(error))) => return Err(error),
            Ok(Err(Broken::Lost(reason))) => reason,
            Err(_) => NO_ANSWER.to_owned(),
        };
        let waited = started.elapsed();
        if waited >= limit {
            let engine = dialer.config().engine.clone();
            return Err(ClientError::Unreachable { engine, waited, last });
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}
