//! Look-ups of single videos, many of them, over connections that stay open.
//!
//! It follows no rankings. Invariants: one connection for each core's address; at most [`LOOKUPS_MAX`] questions are on
//! their way; a question that has no answer in time is given up.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_proto::{CORES_MAX, FrameKind, Lookup, Redirect, VIDEO_ID_BYTES_MAX, VideoCounts};
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

/// Most look-ups on their way; further ones wait, and their time runs.
pub const LOOKUPS_MAX: usize = 64;

/// Share of the time limit after which a connection that has not answered is replaced: it may be one to an engine that
/// died and came back.
const PATIENCE_DIVISOR: u32 = 3;

/// Most addresses with a connection of their own: the cores', with room for those of before a restart.
const CONNECTIONS_MAX: usize = 2 * CORES_MAX;

/// Looks videos up at an engine. Cheap to clone; clones share connections.
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

enum Answer {
    Counts(VideoCounts),
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
        let mut question = Vec::new();
        Lookup { video_id: video_id.into() }.encode(&mut question);
        let limit = self.shared.config.lookup_timeout;
        let started = Instant::now();
        let mut last = NO_ANSWER.to_owned();
        let counts = match timeout(limit, self.shared.ask(&question, &mut last)).await {
            Ok(answered) => answered?,
            Err(_) => {
                let engine = self.shared.config.engine.clone();
                return Err(ClientError::NoAnswer { engine, waited: started.elapsed(), last });
            }
        };
        if *counts.video_id != *video_id {
            let text = format!("it answered about {:?} when asked about {video_id:?}", counts.video_id);
            return Err(ClientError::Protocol(text));
        }
        Ok(counts)
    }
}

impl Shared {
    /// Attempts until there is an answer; `last` is what the last one said.
    async fn ask(&self, question: &[u8], last: &mut String) -> Result<VideoCounts, ClientError> {
        "all look-ups that may be on their way are".clone_into(last);
        let _permit = self.permits.acquire().await.map_err(|error| ClientError::System(error.to_string()))?;
        NO_ANSWER.clone_into(last);
        let mut backoff = Backoff::default();
        loop {
            match self.attempt(question).await {
                Ok(counts) => return Ok(counts),
                Err(Broken::Fatal(error)) => return Err(error),
                Err(Broken::Lost(reason)) => *last = reason,
            }
            tokio::time::sleep(backoff.delay()).await;
        }
    }

    /// One question, from an entry core to the one that counts the video.
    async fn attempt(&self, question: &[u8]) -> Result<VideoCounts, Broken> {
        let mut address = self.entry().await?;
        for _ in 0..=REDIRECTS_MAX {
            match self.exchange(address, question).await {
                Ok(Answer::Counts(counts)) => {
                    self.state().entry = Some(address);
                    return Ok(counts);
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
    async fn exchange(&self, address: SocketAddr, question: &[u8]) -> Result<Answer, Broken> {
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

async fn exchange_on(connection: &Connection, question: &[u8]) -> Result<Answer, Broken> {
    // Waits here while as many streams are open as the engine allows.
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| connection_broken(&error))?;
    write_frame(&mut send, question).await?;
    // Fails only on a stream that was finished or reset before.
    let _ = send.finish();
    let frame = read_frame(&mut receive).await?;
    match frame.kind {
        FrameKind::LookupAnswer => Ok(Answer::Counts(VideoCounts::decode(&frame.payload).map_err(ClientError::from)?)),
        FrameKind::Redirect => Ok(Answer::Elsewhere(Redirect::decode(&frame.payload).map_err(ClientError::from)?)),
        kind => Err(unexpected(kind, "LOOKUP_ANSWER or REDIRECT")),
    }
}
