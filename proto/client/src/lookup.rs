//! Questions, many of them, over connections that stay open: one video's counts, closed lists, and which there are.
//!
//! It follows no rankings. Invariants: one connection for each core's address; at most [`LOOKUPS_MAX`] questions are on
//! their way; a question that has no answer in time is given up; an answer is about what was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_proto::{
    CORES_MAX, DecodeError, FrameKind, History, HistoryAnswer, Lookup, PERIODS_MAX, Period, Periods, PeriodsAnswer,
    Redirect, VIDEO_ID_BYTES_MAX, VideoCounts,
};
use quinn::Connection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::config::ClientConfig;
use crate::dial::REDIRECTS_MAX;
use crate::error::ClientError;
use crate::producer::NO_ANSWER;
use crate::sockets::Sockets;
use crate::stream::{Broken, connection_broken, read_frame, unexpected, write_frame};
use crate::subscriber::Subscriber;

/// Most questions on their way; further ones wait, and their time runs.
pub const LOOKUPS_MAX: usize = 64;

/// Share of the time limit after which a connection that has not answered is replaced: it may be one to an engine that
/// died and came back.
const PATIENCE_DIVISOR: u32 = 3;

/// Most addresses with a connection of their own: the cores', with room for those of before a restart.
const CONNECTIONS_MAX: usize = 2 * CORES_MAX;

/// Asks an engine for counts and for closed lists. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct LookupClient {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    sockets: Arc<Sockets>,
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the next question begins: the address that answered last.
    entry: Option<SocketAddr>,
    /// Counts the entries that failed, so that each known address has its turn.
    failures: usize,
    slots: HashMap<SocketAddr, Arc<Slot>>,
}

/// The connection to one address; whoever holds the lock while there is none dials for all who wait.
type Slot = tokio::sync::Mutex<Option<Connection>>;

/// A question's frames, and the kind of frame that answers it.
struct Question {
    frame: Vec<u8>,
    answer: FrameKind,
}

enum Answer {
    Payload(Vec<u8>),
    Elsewhere(Redirect),
}

impl LookupClient {
    /// Checks the configuration; the first look-up connects.
    ///
    /// # Errors
    /// [`ClientError::Config`] for what cannot be used.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let sockets = Arc::new(Sockets::new(&config)?);
        let permits = Semaphore::new(LOOKUPS_MAX);
        Ok(Self { shared: Arc::new(Shared { config, sockets, permits, state: Mutex::default() }) })
    }

    /// A subscriber to the same engine, which shares sockets and what is learnt of the cores' addresses. It connects
    /// when it is first asked for a snapshot.
    #[must_use]
    pub fn subscriber(&self) -> Subscriber {
        Subscriber::over(self.shared.config.clone(), Arc::clone(&self.shared.sockets))
    }

    /// Asks for one video's counts in every period, for up to `lookup_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Config`] for an id that has not 1 to 255 bytes, [`ClientError::NoAnswer`] when the time is up,
    /// or what no new attempt mends.
    pub async fn lookup(&self, video_id: &str) -> Result<VideoCounts, ClientError> {
        if video_id.is_empty() || video_id.len() > VIDEO_ID_BYTES_MAX {
            return Err(ClientError::Config {
                what: "video id",
                value: video_id.to_owned(),
                reason: format!("it has {} bytes; 1 to {VIDEO_ID_BYTES_MAX} are allowed", video_id.len()),
            });
        }
        let mut frame = self.shared.config.token_frame();
        Lookup { video_id: video_id.into() }.encode(&mut frame);
        let counts = self.ask(frame, FrameKind::LookupAnswer, VideoCounts::decode).await?;
        if *counts.video_id != *video_id {
            let text = format!("it answered about {:?} when asked about {video_id:?}", counts.video_id);
            return Err(ClientError::Protocol(text));
        }
        Ok(counts)
    }

    /// Asks for the final list of the hour, day or month that starts at `start_ms`, for up to `lookup_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Config`] for all-time, else as of [`lookup`](Self::lookup).
    pub async fn history(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, ClientError> {
        check_calendar(period)?;
        let mut frame = self.shared.config.token_frame();
        History { period, start_ms }.encode(&mut frame);
        let answer = self.ask(frame, FrameKind::HistoryAnswer, HistoryAnswer::decode).await?;
        if (answer.period, answer.start_ms) != (period, start_ms) {
            let (found, at) = (answer.period, answer.start_ms);
            let text = format!("it answered about the {found} at {at} when asked about the {period} at {start_ms}");
            return Err(ClientError::Protocol(text));
        }
        Ok(answer)
    }

    /// Asks which closed periods that start before `before_ms` (any where there is none) have a list, at most `limit`
    /// of them, the newest first; for up to `lookup_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Config`] for all-time or a limit that is not 1 to [`PERIODS_MAX`], else as of
    /// [`lookup`](Self::lookup).
    pub async fn periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, ClientError> {
        check_calendar(period)?;
        if !(1..=PERIODS_MAX).contains(&usize::from(limit)) {
            let reason = format!("1 to {PERIODS_MAX} periods can be asked for");
            return Err(ClientError::Config { what: "limit", value: limit.to_string(), reason });
        }
        let before_ms = before_ms.unwrap_or(u64::MAX);
        let mut frame = self.shared.config.token_frame();
        Periods { period, limit, before_ms }.encode(&mut frame);
        let answer = self.ask(frame, FrameKind::PeriodsAnswer, PeriodsAnswer::decode).await?;
        let listed = answer.periods.as_ref().map_or(&[][..], |listed| &listed.periods);
        let asked_for = listed.iter().all(|one| one.start_ms < before_ms) && listed.len() <= usize::from(limit);
        if answer.period != period || !asked_for {
            let text = format!("it listed other periods than at most {limit} of the kind {period} before {before_ms}");
            return Err(ClientError::Protocol(text));
        }
        Ok(answer)
    }

    /// One question and its answer, within the time limit.
    async fn ask<T>(
        &self,
        frame: Vec<u8>,
        answer: FrameKind,
        decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<T, ClientError> {
        let limit = self.shared.config.lookup_timeout;
        let started = Instant::now();
        let mut last = NO_ANSWER.to_owned();
        match timeout(limit, self.shared.ask(&Question { frame, answer }, &mut last)).await {
            Ok(answered) => Ok(decode(&answered?)?),
            Err(_) => {
                let engine = self.shared.config.engine.clone();
                Err(ClientError::NoAnswer { engine, waited: started.elapsed(), last })
            }
        }
    }
}

/// All-time is never closed.
fn check_calendar(period: Period) -> Result<(), ClientError> {
    if period != Period::AllTime {
        return Ok(());
    }
    let reason = "it has no history; hour, day and month have".to_owned();
    Err(ClientError::Config { what: "period", value: period.to_string(), reason })
}

impl Shared {
    /// Attempts until there is an answer; `last` is what the last one said.
    async fn ask(&self, question: &Question, last: &mut String) -> Result<Vec<u8>, ClientError> {
        "all questions that may be on their way are".clone_into(last);
        let _permit = self.permits.acquire().await.map_err(|error| ClientError::System(error.to_string()))?;
        NO_ANSWER.clone_into(last);
        let mut backoff = Backoff::default();
        loop {
            match self.attempt(question).await {
                Ok(payload) => return Ok(payload),
                Err(Broken::Fatal(error)) => return Err(error),
                Err(Broken::Lost(reason)) => *last = reason,
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    /// One question, from an entry core to the one that has the answer.
    async fn attempt(&self, question: &Question) -> Result<Vec<u8>, Broken> {
        let mut address = self.entry().await?;
        for _ in 0..=REDIRECTS_MAX {
            match self.exchange(address, question).await {
                Ok(Answer::Payload(payload)) => {
                    self.state().entry = Some(address);
                    return Ok(payload);
                }
                Ok(Answer::Elsewhere(redirect)) => address = self.sockets.redirected(&redirect, address).await?,
                Err(broken) => {
                    let mut state = self.state();
                    state.entry = None;
                    state.failures = state.failures.wrapping_add(1);
                    return Err(broken);
                }
            }
        }
        Err(Broken::Lost(format!("more than {REDIRECTS_MAX} redirects in a row")))
    }

    async fn entry(&self) -> Result<SocketAddr, Broken> {
        if let Some(entry) = self.state().entry {
            return Ok(entry);
        }
        let addresses = self.sockets.addresses().await?;
        let turn = self.state().failures % addresses.len();
        Ok(addresses[turn])
    }

    /// Asks one core, on a stream of its own.
    async fn exchange(&self, address: SocketAddr, question: &Question) -> Result<Answer, Broken> {
        let patience = self.config.lookup_timeout / PATIENCE_DIVISOR;
        let slot = self.slot(address);
        let connecting = timeout(patience, self.connection(&slot, address)).await;
        let connection = connecting.map_err(|_| Broken::Lost(NO_ANSWER.to_owned()))??;
        match timeout(patience, exchange_on(&connection, question)).await {
            Ok(answer) => answer,
            Err(_) => {
                forget(&slot, &connection, patience).await;
                Err(Broken::Lost(NO_ANSWER.to_owned()))
            }
        }
    }

    /// The connection to an address, dialled if there is none that lives.
    async fn connection(&self, slot: &Slot, address: SocketAddr) -> Result<Connection, Broken> {
        let mut slot = slot.lock().await;
        if let Some(connection) = &*slot
            && connection.close_reason().is_none()
        {
            return Ok(connection.clone());
        }
        let connection = self.sockets.connect(address).await?;
        *slot = Some(connection.clone());
        Ok(connection)
    }

    fn slot(&self, address: SocketAddr) -> Arc<Slot> {
        let mut state = self.state();
        if state.slots.len() >= CONNECTIONS_MAX && !state.slots.contains_key(&address) {
            state.slots.clear();
        }
        Arc::clone(state.slots.entry(address).or_default())
    }

    /// The state; a panic elsewhere leaves it whole, because every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the next question dial anew. Those on their way keep the old connection, which closes after the last of them.
async fn forget(slot: &Slot, connection: &Connection, patience: Duration) {
    if let Ok(mut slot) = timeout(patience, slot.lock()).await
        && slot.as_ref().is_some_and(|one| one.stable_id() == connection.stable_id())
    {
        *slot = None;
    }
}

async fn exchange_on(connection: &Connection, question: &Question) -> Result<Answer, Broken> {
    // Waits here while as many streams are open as the engine allows.
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| connection_broken(&error))?;
    write_frame(&mut send, &question.frame).await?;
    // Fails only on a stream that was finished or reset before.
    let _ = send.finish();
    let frame = read_frame(&mut receive).await?;
    match frame.kind {
        kind if kind == question.answer => Ok(Answer::Payload(frame.payload)),
        FrameKind::Redirect => Ok(Answer::Elsewhere(Redirect::decode(&frame.payload).map_err(ClientError::from)?)),
        kind => Err(unexpected(kind, &format!("{} or REDIRECT", question.answer))),
    }
}
