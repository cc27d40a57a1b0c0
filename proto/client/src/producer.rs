//! The producer as its user sees it: send batches, learn their fates, finish.
//!
//! The connection lives in a task of its own ([`crate::session`]); this side encodes and waits for room. Invariant: at
//! most `in_flight_max` batches are without a fate, so memory is bounded by that many frames.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use highwater_proto::{BatchBuilder, HelloMode, InstanceId, PreparedBatch, ProducerId, Welcome};
use highwater_proto::{CloseReason, Sequence};
use rand::RngExt;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::dial::{Dialer, Welcomed};
use crate::error::ClientError;
use crate::in_flight::{Fate, InFlight};
use crate::session::Session;
use crate::stream::Broken;

/// What is said of attempts that only ran out of time.
pub(crate) const NO_ANSWER: &str = "no answer";

/// What both sides of a producer see.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Wakes the writer: there is something to write, or the producer finishes.
    pub(crate) work: Notify,
    /// One permit per batch that may still be sent.
    pub(crate) room: Semaphore,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) in_flight: InFlight,
    pub(crate) failed: Option<ClientError>,
    pub(crate) finishing: bool,
    pub(crate) reconnects: u32,
    /// Encodings of batches that both sides take, by the latest welcome.
    pub(crate) encodings: u32,
    /// When the engine last said something.
    pub(crate) heard_at: Instant,
}

impl Shared {
    /// The state; a panic elsewhere leaves it whole, because every change is one call.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a finished producer did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSummary {
    /// The last sequence acknowledged.
    pub last: Sequence,
    /// How often a lost connection was replaced.
    pub reconnects: u32,
}

/// Sends batches of one producer id to its home core.
///
/// Dropping it without [`Producer::finish`] abandons what is not acknowledged.
#[derive(Debug)]
pub struct Producer {
    id: ProducerId,
    welcome: Welcome,
    shared: Arc<Shared>,
    session: JoinHandle<Result<(), ClientError>>,
    /// All that there are of `room`.
    permits: u32,
}

impl Producer {
    /// Connects a new producer under a fresh random id. `on_fate` is called once for each batch, in sequence order,
    /// from the connection's task: it must not block.
    ///
    /// # Errors
    /// As [`ClientError`] says; a new attempt is made until `connect_timeout` for everything that may mend itself.
    pub async fn connect(
        config: ClientConfig,
        on_fate: impl FnMut(Fate) + Send + 'static,
    ) -> Result<Self, ClientError> {
        Self::start(config, None, on_fate).await
    }

    /// Takes up a producer id that an engine has welcomed before, in this process or an earlier one; older connections
    /// of the id are fenced. The next batch bears the sequence after the engine's last.
    ///
    /// # Errors
    /// As [`Producer::connect`]; an id the engine does not know is refused as `producer_unknown`.
    pub async fn resume(
        config: ClientConfig,
        id: ProducerId,
        on_fate: impl FnMut(Fate) + Send + 'static,
    ) -> Result<Self, ClientError> {
        Self::start(config, Some(id), on_fate).await
    }

    async fn start(
        config: ClientConfig,
        resumed: Option<ProducerId>,
        on_fate: impl FnMut(Fate) + Send + 'static,
    ) -> Result<Self, ClientError> {
        let mut dialer = Dialer::new(config)?;
        let (id, welcomed) = first_welcome(&mut dialer, resumed).await?;
        let welcome = welcomed.welcome.clone();
        let window = window(dialer.config(), &welcome);
        let encodings = dialer.config().encodings & welcome.encodings;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                in_flight: InFlight::new(welcome.last, window),
                failed: None,
                finishing: false,
                reconnects: 0,
                encodings,
                heard_at: Instant::now(),
            }),
            work: Notify::new(),
            room: Semaphore::new(window),
        });
        let session = Session::new(id, dialer, Arc::clone(&shared), Box::new(on_fate));
        let session = tokio::spawn(session.run(welcomed));
        let permits = u32::try_from(window).unwrap_or(u32::MAX);
        Ok(Self { id, welcome, shared, session, permits })
    }

    /// The producer's id: what [`Producer::resume`] needs later.
    #[must_use]
    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// The engine's data directory.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.welcome.instance
    }

    /// The first welcome, with the engine's limits.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// A builder that keeps the engine's limits, of batches in encodings that it takes and the configuration allows.
    #[must_use]
    pub fn batch_builder(&self) -> BatchBuilder {
        BatchBuilder::new(self.welcome.batch_views_max, self.welcome.batch_bytes_max).with_encodings(self.encodings())
    }

    /// The encodings of its batches, by their bits in a welcome; a reconnect may change them.
    #[must_use]
    pub fn encodings(&self) -> u32 {
        self.shared.state().encodings
    }

    /// How often a lost connection was replaced so far.
    #[must_use]
    pub fn reconnects(&self) -> u32 {
        self.shared.state().reconnects
    }

    /// Whether a batch could be sent without waiting for an answer to an earlier one.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shared.room.available_permits() > 0
    }

    /// Sends what the builder holds, and empties it; waits while too many batches are unanswered. `token` comes back in
    /// the batch's [`Fate`]. Returns once the batch is in flight, not when it is durable. Dropping the future while it
    /// waits sends nothing and leaves the builder as it was.
    ///
    /// # Errors
    /// [`ClientError::EmptyBatch`], or the error that ended the producer.
    pub async fn send(&mut self, batch: &mut BatchBuilder, token: u64) -> Result<Sequence, ClientError> {
        if batch.is_empty() {
            return Err(ClientError::EmptyBatch);
        }
        let view_count = batch.len();
        batch.restrict_encodings(self.encodings());
        self.send_encoded(view_count, token, |id, sequence| batch.encode(id, sequence)).await
    }

    /// Like [`Producer::send`], for a batch that was encoded before: all its views happened at `timestamp_ms`.
    ///
    /// # Errors
    /// The error that ended the producer.
    pub async fn send_prepared(
        &mut self,
        batch: &PreparedBatch,
        timestamp_ms: u64,
        token: u64,
    ) -> Result<Sequence, ClientError> {
        let view_count = batch.view_count();
        self.send_encoded(view_count, token, |id, sequence| batch.encode(id, sequence, timestamp_ms)).await
    }

    async fn send_encoded(
        &mut self,
        view_count: u32,
        token: u64,
        encode: impl FnOnce(ProducerId, Sequence) -> Bytes,
    ) -> Result<Sequence, ClientError> {
        let Ok(permit) = self.shared.room.acquire().await else {
            return Err(self.failure());
        };
        // The permit comes back with the batch's fate.
        permit.forget();
        let sent_at = Instant::now();
        let mut state = self.shared.state();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let sequence = state.in_flight.next_sequence();
        let frame = encode(self.id, sequence);
        state.in_flight.push(frame, view_count, token, sent_at);
        drop(state);
        self.shared.work.notify_one();
        Ok(sequence)
    }

    /// Waits until every batch has its fate; the connection stays.
    ///
    /// # Errors
    /// The error that ended the producer.
    pub async fn settled(&mut self) -> Result<(), ClientError> {
        // Every batch without a fate holds a permit; these go back as soon as all were there together.
        match self.shared.room.acquire_many(self.permits).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.failure()),
        }
    }

    /// Waits until every batch has its fate, then closes the connection.
    ///
    /// # Errors
    /// The error that ended the producer before.
    pub async fn finish(mut self) -> Result<ProducerSummary, ClientError> {
        self.shared.state().finishing = true;
        self.shared.work.notify_one();
        match (&mut self.session).await {
            Ok(result) => result?,
            Err(error) => return Err(ClientError::System(format!("the connection's task ended: {error}"))),
        }
        let state = self.shared.state();
        Ok(ProducerSummary { last: Sequence(state.in_flight.next_sequence().0 - 1), reconnects: state.reconnects })
    }

    fn failure(&self) -> ClientError {
        let failed = self.shared.state().failed.clone();
        failed.unwrap_or_else(|| ClientError::System("the connection's task ended".into()))
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.session.abort();
    }
}

/// How many batches may be unanswered: the lower of both sides' limits.
pub(crate) fn window(config: &ClientConfig, welcome: &Welcome) -> usize {
    usize::from(config.in_flight_max.min(welcome.in_flight_batches_max))
}

/// Attempts until welcomed or `connect_timeout`. A new producer takes a fresh id for each attempt, because an engine
/// may have logged an id whose welcome was lost.
async fn first_welcome(
    dialer: &mut Dialer,
    resumed: Option<ProducerId>,
) -> Result<(ProducerId, Box<Welcomed>), ClientError> {
    let limit = dialer.config().connect_timeout;
    let engine = dialer.config().engine.clone();
    let started = Instant::now();
    let mut backoff = Backoff::default();
    let mut last = NO_ANSWER.to_owned();
    loop {
        let (mode, id) = match resumed {
            Some(id) => (HelloMode::Resume, id),
            None => (HelloMode::New, ProducerId(rand::rng().random())),
        };
        let left = limit.saturating_sub(started.elapsed());
        let attempt = timeout(left.min(backoff.attempt_timeout()), dialer.welcome(mode, id)).await;
        match attempt {
            Ok(Ok(welcomed)) => return Ok((id, welcomed)),
            Ok(Err(Broken::Fatal(ClientError::Closed { reason: CloseReason::ProducerExists, text })))
                if resumed.is_none() =>
            {
                last = text;
            }
            Ok(Err(Broken::Fatal(error))) => return Err(error),
            Ok(Err(Broken::Lost(reason))) => last = reason,
            // What an attempt before it said tells more.
            Err(_) => {}
        }
        let waited = started.elapsed();
        if waited >= limit {
            return Err(ClientError::Unreachable { engine, waited, last });
        }
        tokio::time::sleep(backoff.delay()).await;
    }
}
