//! The task that owns a producer's connection: writes, reads answers, reconnects.
//!
//! The rules are in [`crate::in_flight`]; here is only I/O and patience. Invariant: one connection at a time, and on
//! each the unanswered batches are written from the oldest on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_proto::{Ack, BatchRefused, FrameKind, HelloMode, ProducerId};
use quinn::{RecvStream, SendStream};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::dial::{Dialer, Welcomed};
use crate::error::ClientError;
use crate::in_flight::{Fate, NextWrite};
use crate::producer::{NO_ANSWER, Shared, window};
use crate::stream::{Broken, Frame, read_frame, unexpected, write_broken};

/// How a connection ended.
enum End {
    Finished,
    Broken(Broken),
}

/// The connection side of a producer.
pub(crate) struct Session {
    id: ProducerId,
    dialer: Dialer,
    shared: Arc<Shared>,
    on_fate: Box<dyn FnMut(Fate) + Send>,
    /// Since when nothing was achieved although it should have been.
    stalled_since: Option<Instant>,
}

impl Session {
    pub(crate) fn new(
        id: ProducerId,
        dialer: Dialer,
        shared: Arc<Shared>,
        on_fate: Box<dyn FnMut(Fate) + Send>,
    ) -> Self {
        Self { id, dialer, shared, on_fate, stalled_since: None }
    }

    /// Runs until the producer finishes or fails for good.
    pub(crate) async fn run(mut self, first: Box<Welcomed>) -> Result<(), ClientError> {
        let result = self.sessions(first).await;
        if let Err(error) = &result {
            self.shared.state().failed = Some(error.clone());
        }
        // Whoever waits for room learns of the end.
        self.shared.room.close();
        result
    }

    async fn sessions(&mut self, first: Box<Welcomed>) -> Result<(), ClientError> {
        let mut welcomed = first;
        loop {
            let Welcomed { connection, mut send, mut receive, .. } = *welcomed;
            match self.serve(&mut send, &mut receive).await {
                End::Finished => {
                    connection.close(0_u8.into(), b"finished");
                    self.dialer.farewell().await;
                    return Ok(());
                }
                End::Broken(Broken::Fatal(error)) => {
                    connection.close(0_u8.into(), b"the client stops");
                    self.dialer.farewell().await;
                    return Err(error);
                }
                End::Broken(Broken::Lost(reason)) => {
                    connection.close(0_u8.into(), b"reconnecting");
                    match self.reconnect(reason).await? {
                        Some(next) => welcomed = next,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    /// One connection, from welcome to end.
    async fn serve(&mut self, send: &mut SendStream, receive: &mut RecvStream) -> End {
        let shared = Arc::clone(&self.shared);
        let limit = self.dialer.config().reconnect_timeout;
        tokio::select! {
            end = write_all(&shared, send) => end,
            end = self.read_all(receive) => end,
            end = watch(&shared, limit) => end,
        }
    }

    async fn read_all(&mut self, receive: &mut RecvStream) -> End {
        loop {
            let handled = match read_frame(receive).await {
                Ok(frame) => self.handle_frame(&frame),
                Err(broken) => Err(broken),
            };
            match handled {
                Ok(false) => {}
                Ok(true) => return End::Finished,
                Err(broken) => return End::Broken(broken),
            }
        }
    }

    /// Handles an answer; true when it was the last one due.
    fn handle_frame(&mut self, frame: &Frame) -> Result<bool, Broken> {
        let now = Instant::now();
        match frame.kind {
            FrameKind::Ack => {
                let ack = Ack::decode(&frame.payload).map_err(ClientError::from)?;
                let mut state = self.shared.state();
                state.heard_at = now;
                let fate = state.in_flight.handle_ack(ack, now)?;
                let last = state.finishing && state.in_flight.is_empty();
                drop(state);
                self.stalled_since = None;
                (self.on_fate)(fate);
                self.shared.room.add_permits(1);
                // A window narrowed by a reconnect may have kept the writer waiting for this answer.
                self.shared.work.notify_one();
                Ok(last)
            }
            FrameKind::BatchRefused => {
                let refused = BatchRefused::decode(&frame.payload).map_err(ClientError::from)?;
                debug!(sequence = refused.sequence.0, reason = refused.reason.as_str(), "batch refused");
                let mut state = self.shared.state();
                state.heard_at = now;
                state.in_flight.handle_refused(refused, now)?;
                drop(state);
                self.stalled_since = None;
                self.shared.work.notify_one();
                Ok(false)
            }
            kind => Err(unexpected(kind, "ACK or BATCH_REFUSED")),
        }
    }

    /// Attempts until welcomed again; `None` if nothing is left to do.
    async fn reconnect(&mut self, mut reason: String) -> Result<Option<Box<Welcomed>>, ClientError> {
        info!(producer = format_args!("{:032x}", self.id.0), reason, "connection lost");
        let stalled_since = *self.stalled_since.get_or_insert_with(Instant::now);
        let limit = self.dialer.config().reconnect_timeout;
        let mut backoff = Backoff::default();
        loop {
            if self.done() {
                return Ok(None);
            }
            let waited = stalled_since.elapsed();
            if waited >= limit {
                return Err(ClientError::Unreachable {
                    engine: self.dialer.config().engine.clone(),
                    waited,
                    last: reason,
                });
            }
            tokio::time::sleep(backoff.delay()).await;
            let attempt = self.dialer.welcome(HelloMode::Resume, self.id);
            match timeout(backoff.attempt_timeout(), attempt).await {
                Ok(Ok(welcomed)) => {
                    let window = window(self.dialer.config(), &welcomed.welcome);
                    let mut state = self.shared.state();
                    state.in_flight.handle_welcome(welcomed.welcome.last, window)?;
                    state.reconnects += 1;
                    state.encodings = self.dialer.config().encodings & welcomed.welcome.encodings;
                    state.heard_at = Instant::now();
                    if state.in_flight.is_empty() {
                        self.stalled_since = None;
                    }
                    backoff.reset();
                    return Ok(Some(welcomed));
                }
                Ok(Err(Broken::Fatal(error))) => return Err(error),
                Ok(Err(Broken::Lost(lost))) => reason = lost,
                Err(_) => reason = NO_ANSWER.to_owned(),
            }
            warn!(reason, "still no connection");
        }
    }

    fn done(&self) -> bool {
        let state = self.shared.state();
        state.finishing && state.in_flight.is_empty()
    }
}

/// Ends the connection when a batch has waited for so long that no answer can be hoped for: an engine whose packets
/// flow but whose log stands still would otherwise be waited for without end.
async fn watch(shared: &Shared, limit: Duration) -> End {
    loop {
        let waited = {
            let state = shared.state();
            let since = state.in_flight.oldest_sent_at().map(|sent_at| sent_at.max(state.heard_at));
            since.map_or(Duration::ZERO, |since| since.elapsed())
        };
        if waited >= limit {
            return End::Broken(Broken::Fatal(ClientError::Unanswered { waited }));
        }
        tokio::time::sleep(limit - waited).await;
    }
}

/// Writes whatever is due, for as long as the connection lasts.
async fn write_all(shared: &Shared, send: &mut SendStream) -> End {
    loop {
        let next = {
            let mut state = shared.state();
            if state.finishing && state.in_flight.is_empty() {
                return End::Finished;
            }
            state.in_flight.next_write(Instant::now())
        };
        match next {
            NextWrite::Frame(frame) => {
                if let Err(error) = send.write_chunk(frame).await {
                    return End::Broken(write_broken(error));
                }
            }
            NextWrite::Pause(until) => {
                let pause = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                tokio::time::sleep(pause).await;
            }
            NextWrite::Idle => shared.work.notified().await,
        }
    }
}
