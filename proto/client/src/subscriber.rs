//! Following the rankings: snapshots as they are published.
//!
//! It sends no views and looks nothing up. Invariant: a subscriber's snapshots are of one instance and their epochs
//! only grow, over reconnects too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_proto::{Epoch, FrameKind, InstanceId, Snapshot, Subscribe};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::info;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::dial::Dialer;
use crate::error::ClientError;
use crate::producer::NO_ANSWER;
use crate::sockets::Sockets;
use crate::stream::{Broken, read_frame, unexpected};

/// An open stream; dropping any part would end it.
#[derive(Debug)]
struct OpenStream {
    connection: Connection,
    _send: SendStream,
    receive: RecvStream,
}

/// How a subscription stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether the subscription is open. An engine that died in silence is believed in for `idle_timeout`.
    pub connected: bool,
    /// What keeps newer snapshots from coming, as far as is known; empty when nothing does.
    pub trouble: String,
    /// How often the subscription was opened again after it was lost.
    pub reconnects: u64,
}

/// A subscription to an engine's snapshots; reconnects by itself.
#[derive(Debug)]
pub struct Subscriber {
    dialer: Dialer,
    stream: Option<OpenStream>,
    /// Instance and epoch of the newest snapshot given out.
    newest: Option<(InstanceId, Epoch)>,
    opened: bool,
    link: watch::Sender<Link>,
    backoff: Backoff,
    /// Due before the next attempt.
    pause: Option<Duration>,
}

impl Subscriber {
    /// Subscribes from the newest snapshot on.
    ///
    /// # Errors
    /// As [`ClientError`] says; attempts are repeated until `connect_timeout`.
    pub async fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let limit = config.connect_timeout;
        let sockets = Arc::new(Sockets::new(&config)?);
        let mut subscriber = Self::over(config, sockets);
        let stream = open(&mut subscriber.dialer, limit).await?;
        subscriber.set_open(stream);
        Ok(subscriber)
    }

    /// A subscriber that has not connected yet.
    pub(crate) fn over(config: ClientConfig, sockets: Arc<Sockets>) -> Self {
        Self {
            dialer: Dialer::over(config, sockets),
            stream: None,
            newest: None,
            opened: false,
            link: watch::Sender::default(),
            backoff: Backoff::default(),
            pause: None,
        }
    }

    /// How the subscription stands, now and from now on.
    #[must_use]
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.subscribe()
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
            if self.stream.is_none() {
                let limit = self.dialer.config().reconnect_timeout;
                let stream = open(&mut self.dialer, limit).await?;
                self.set_open(stream);
            }
            match self.read().await {
                Ok(Some(snapshot)) => return Ok(snapshot),
                Ok(None) => {}
                Err(Broken::Lost(reason)) => self.set_lost(reason),
                Err(Broken::Fatal(error)) => {
                    self.set_lost(error.to_string());
                    return Err(error);
                }
            }
        }
    }

    /// As [`Subscriber::next`], for as long as it takes: whatever goes wrong is shown in [`Subscriber::link`] and tried
    /// again, with pauses of up to a second.
    ///
    /// # Errors
    /// Only [`ClientError::OtherInstance`]: another engine has come in place of the one that was followed. A further
    /// call looks whether the old one is back.
    pub async fn wait_next(&mut self) -> Result<Snapshot, ClientError> {
        loop {
            match self.attempt().await {
                Ok(Some(snapshot)) => {
                    self.backoff.reset();
                    return Ok(snapshot);
                }
                Ok(None) => {}
                Err(broken) => {
                    self.pause = Some(self.backoff.delay());
                    match broken {
                        Broken::Lost(reason) => self.set_lost(reason),
                        Broken::Fatal(error) => {
                            self.set_lost(error.to_string());
                            if matches!(error, ClientError::OtherInstance { .. }) {
                                return Err(error);
                            }
                        }
                    }
                }
            }
        }
    }

    /// One step towards the next snapshot.
    async fn attempt(&mut self) -> Result<Option<Snapshot>, Broken> {
        if self.stream.is_none() {
            if let Some(pause) = self.pause {
                tokio::time::sleep(pause).await;
                self.pause = None;
            }
            let opening = timeout(self.backoff.attempt_timeout(), open_once(&mut self.dialer)).await;
            let stream = opening.unwrap_or_else(|_| Err(Broken::Lost(NO_ANSWER.to_owned())))?;
            self.set_open(stream);
        }
        self.read().await
    }

    /// Reads the next snapshot; `None` for one that is not newer than what was given out.
    async fn read(&mut self) -> Result<Option<Snapshot>, Broken> {
        // Taken out while reading: a future dropped half-way through a frame must not leave half of it behind.
        let Some(mut stream) = self.stream.take() else { return Ok(None) };
        let snapshot = read_snapshot(&mut stream.receive).await?;
        if let Some((instance, epoch)) = self.newest {
            if snapshot.instance != instance {
                return Err(ClientError::OtherInstance { expected: instance, found: snapshot.instance }.into());
            }
            if snapshot.epoch <= epoch {
                // The last one again, or another core's that lags by a moment; or one of an older copy.
                if snapshot.epoch < epoch {
                    let found = snapshot.epoch.0;
                    let text = format!(
                        "the engine is at epoch {found}, but had published epoch {} before: it may run on an older copy \
                         of its data directory",
                        epoch.0
                    );
                    self.link.send_modify(|link| link.trouble = text);
                }
                self.stream = Some(stream);
                return Ok(None);
            }
        }
        self.newest = Some((snapshot.instance, snapshot.epoch));
        self.stream = Some(stream);
        self.link.send_if_modified(|link| {
            let had_trouble = !link.trouble.is_empty();
            link.trouble.clear();
            had_trouble
        });
        Ok(Some(snapshot))
    }

    fn set_open(&mut self, stream: OpenStream) {
        let again = self.opened;
        self.opened = true;
        self.stream = Some(stream);
        self.link.send_modify(|link| {
            link.connected = true;
            link.trouble.clear();
            link.reconnects += u64::from(again);
        });
    }

    fn set_lost(&mut self, reason: String) {
        self.stream = None;
        if self.link.borrow().connected {
            info!(reason, "subscription lost");
        }
        self.link.send_modify(|link| {
            link.connected = false;
            link.trouble = reason;
        });
    }
}

async fn read_snapshot(receive: &mut RecvStream) -> Result<Snapshot, Broken> {
    let frame = read_frame(receive).await?;
    match frame.kind {
        FrameKind::Snapshot => Ok(Snapshot::decode(&frame.payload).map_err(ClientError::from)?),
        kind => Err(unexpected(kind, "SNAPSHOT")),
    }
}

/// One attempt to subscribe. It asks for the newest, whatever it is, also after a loss: another engine's epochs may be
/// lower, and would be waited for in vain.
async fn open_once(dialer: &mut Dialer) -> Result<OpenStream, Broken> {
    let mut frame = dialer.config().token_frame();
    Subscribe { from_epoch: Epoch(0) }.encode(&mut frame);
    let (connection, send, receive) = dialer.open(&frame).await?;
    Ok(OpenStream { connection, _send: send, receive })
}

/// Attempts to subscribe until `limit`.
async fn open(dialer: &mut Dialer, limit: Duration) -> Result<OpenStream, ClientError> {
    let started = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        let left = limit.saturating_sub(started.elapsed());
        let last = match timeout(left.min(backoff.attempt_timeout()), open_once(dialer)).await {
            Ok(Ok(stream)) => return Ok(stream),
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
