//! A source in another process than the engine: a subscription to its snapshots, and questions to its cores.
//!
//! It serves the last snapshot for as long as there is none newer, and says so. Invariants: all that it ever serves is
//! of one instance, and its epoch never decreases; whatever happens to the engine, it goes on trying.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use highwater_client::{ClientConfig, ClientError, Link, LookupClient, Subscriber};
use highwater_proto::{Epoch, HistoryAnswer, InstanceId, Period, PeriodsAnswer, Snapshot, VideoCounts};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::source::{LOOKUP_WAIT, LookupError, SnapshotSource, SourceStatus};

/// What an operator does about an engine with another data directory.
const REMEDY: &str = "restart this sidecar to serve the new one, or bring the old one back";

/// Snapshots of an engine elsewhere.
#[derive(Debug)]
pub struct RemoteSnapshots {
    shared: Arc<Shared>,
    lookups: LookupClient,
    /// Counted here; orders nothing.
    lookups_asked: AtomicU64,
    lookups_failed: AtomicU64,
    history_asked: AtomicU64,
    history_failed: AtomicU64,
    following: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    engine: String,
    stale_after: Duration,
    latest: watch::Sender<Option<Arc<Snapshot>>>,
    link: watch::Receiver<Link>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the newest snapshot came.
    received_at: Instant,
    /// What is said of an engine with another data directory, while it stands there.
    replaced: Option<String>,
}

impl RemoteSnapshots {
    /// Begins to follow the engine, on the tokio runtime that the caller is in; the first snapshot comes later. A
    /// snapshot is stale when none newer has come for `stale_after`.
    ///
    /// # Errors
    /// [`ClientError::Config`] for an address or authority that cannot be used.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(config: ClientConfig, stale_after: Duration) -> Result<Self, ClientError> {
        let engine = config.engine.clone();
        let config = ClientConfig { lookup_timeout: LOOKUP_WAIT, ..config };
        let lookups = LookupClient::new(config)?;
        let subscriber = lookups.subscriber();
        let shared = Arc::new(Shared {
            engine,
            stale_after,
            latest: watch::Sender::new(None),
            link: subscriber.link(),
            state: Mutex::new(State { received_at: Instant::now(), replaced: None }),
        });
        let following = tokio::spawn(follow(Arc::clone(&shared), subscriber));
        Ok(Self {
            shared,
            lookups,
            lookups_asked: AtomicU64::new(0),
            lookups_failed: AtomicU64::new(0),
            history_asked: AtomicU64::new(0),
            history_failed: AtomicU64::new(0),
            following,
        })
    }

    async fn look_up(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        let snapshot = self.followed()?;
        let counts = self.lookups.lookup(video_id).await.map_err(|error| refused(error.to_string()))?;
        self.check_instance(&snapshot, counts.instance)?;
        if counts.epoch < snapshot.epoch {
            let (found, known) = (counts.epoch.0, snapshot.epoch.0);
            return Err(refused(format!(
                "the engine answered as of epoch {found}, but has published {known}: it may run on an older copy of its \
                 data directory"
            )));
        }
        Ok(counts)
    }

    async fn find_list(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, LookupError> {
        let snapshot = self.followed()?;
        let answer = self.lookups.history(period, start_ms).await.map_err(|error| refused(error.to_string()))?;
        self.check_instance(&snapshot, answer.instance)?;
        Ok(answer)
    }

    async fn find_periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, LookupError> {
        let snapshot = self.followed()?;
        let answer = self.lookups.periods(period, before_ms, limit).await;
        let answer = answer.map_err(|error| refused(error.to_string()))?;
        self.check_instance(&snapshot, answer.instance)?;
        Ok(answer)
    }

    /// The newest snapshot, of the engine that is asked too.
    fn followed(&self) -> Result<Arc<Snapshot>, LookupError> {
        if let Some(replaced) = &self.shared.state().replaced {
            return Err(refused(replaced.clone()));
        }
        self.latest().ok_or_else(|| refused(self.shared.status().reason.into_owned()))
    }

    /// An answer of another data directory is none. The subscription will find out too; until then no answer is better
    /// than one of other views.
    fn check_instance(&self, snapshot: &Snapshot, found: InstanceId) -> Result<(), LookupError> {
        let expected = snapshot.instance;
        if found == expected {
            return Ok(());
        }
        Err(refused(replaced_text(&self.shared.engine, &ClientError::OtherInstance { expected, found })))
    }
}

fn refused(reason: String) -> LookupError {
    LookupError::Unreachable(reason)
}

impl Drop for RemoteSnapshots {
    fn drop(&mut self) {
        self.following.abort();
    }
}

fn replaced_text(engine: &str, error: &ClientError) -> String {
    format!("at {engine}: {error}; {REMEDY}")
}

/// Takes snapshots as they come, for ever.
async fn follow(shared: Arc<Shared>, mut subscriber: Subscriber) {
    loop {
        match subscriber.wait_next().await {
            Ok(snapshot) => shared.take(snapshot),
            Err(error) => shared.replaced(&error),
        }
    }
}

impl Shared {
    fn take(&self, snapshot: Snapshot) {
        {
            let mut state = self.state();
            state.received_at = Instant::now();
            if state.replaced.take().is_some() {
                tracing::info!(engine = self.engine, "the engine that was followed is back");
            }
        }
        let (epoch, instance) = (snapshot.epoch, snapshot.instance);
        let before = self.latest.send_replace(Some(Arc::new(snapshot)));
        match before {
            None => tracing::info!(engine = self.engine, epoch = epoch.0, %instance, "following the engine"),
            Some(before) => {
                let grows = before.instance == instance && before.epoch < epoch;
                assert!(grows, "bug: epoch {} of {instance} came after {}", epoch.0, before.epoch.0);
            }
        }
    }

    fn replaced(&self, error: &ClientError) {
        let text = replaced_text(&self.engine, error);
        let mut state = self.state();
        // Said once for each engine that comes, though it is met with each attempt.
        if state.replaced.as_ref() != Some(&text) {
            tracing::error!("{text}");
            state.replaced = Some(text);
        }
    }

    fn status(&self) -> SourceStatus {
        let (age, replaced) = {
            let state = self.state();
            (state.received_at.elapsed(), state.replaced.clone())
        };
        if let Some(replaced) = replaced {
            return SourceStatus::not_ready(replaced);
        }
        let engine = &self.engine;
        let link = self.link.borrow().clone();
        let why = match (link.connected, link.trouble.as_str()) {
            (true, "") => "it is connected, but publishes nothing".to_owned(),
            (false, "") => "not connected yet".to_owned(),
            (true, trouble) => trouble.to_owned(),
            (false, trouble) => format!("not connected: {trouble}"),
        };
        if self.latest.borrow().is_none() {
            return SourceStatus::not_ready(format!("no snapshot has come from the engine at {engine} yet: {why}"));
        }
        if age > self.stale_after {
            let (age_s, limit) = (age.as_secs(), self.stale_after);
            return SourceStatus::not_ready(format!(
                "the newest snapshot is {age_s} s old, the limit is {limit:?}; the engine at {engine}: {why}"
            ));
        }
        SourceStatus::ready()
    }

    /// The state; a panic elsewhere leaves it whole, because every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SnapshotSource for RemoteSnapshots {
    fn latest(&self) -> Option<Arc<Snapshot>> {
        self.shared.latest.borrow().clone()
    }

    async fn wait_for(&self, epoch: Epoch, timeout: Duration) -> bool {
        let mut latest = self.shared.latest.subscribe();
        let reached = latest.wait_for(|one| one.as_ref().is_some_and(|one| one.epoch >= epoch));
        tokio::time::timeout(timeout, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn lookup(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        let found = self.look_up(video_id).await;
        self.lookups_asked.fetch_add(1, Ordering::Relaxed);
        self.lookups_failed.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        found
    }

    async fn closed_list(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, LookupError> {
        let found = self.find_list(period, start_ms).await;
        self.history_asked.fetch_add(1, Ordering::Relaxed);
        self.history_failed.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        found
    }

    async fn closed_periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, LookupError> {
        let found = self.find_periods(period, before_ms, limit).await;
        self.history_asked.fetch_add(1, Ordering::Relaxed);
        self.history_failed.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        found
    }

    fn status(&self) -> SourceStatus {
        self.shared.status()
    }

    fn metrics(&self) -> String {
        let link = self.shared.link.borrow().clone();
        let mut page = Page::default();
        if let Some(snapshot) = self.latest() {
            let age = self.shared.state().received_at.elapsed();
            page.add("snapshot_age_ms", "gauge", "Since the newest snapshot came", age.as_millis());
            page.add("epoch", "gauge", "Epoch of the newest snapshot", snapshot.epoch.0.into());
            page.add("snapshot_as_of_ms", "gauge", "Engine time of the newest snapshot", snapshot.as_of_ms.into());
        }
        let replaced = self.shared.state().replaced.is_some();
        page.add("engine_connected", "gauge", "1 if the subscription to the engine is open", link.connected.into());
        page.add("engine_replaced", "gauge", "1 if the engine has another data directory now", replaced.into());
        page.add("engine_reconnects_total", "counter", "Subscriptions opened again", link.reconnects.into());
        let asked = self.lookups_asked.load(Ordering::Relaxed);
        let failed = self.lookups_failed.load(Ordering::Relaxed);
        page.add("lookups_total", "counter", "Look-ups that the engine was asked for", asked.into());
        page.add("lookups_failed_total", "counter", "Look-ups without an answer", failed.into());
        let asked = self.history_asked.load(Ordering::Relaxed);
        let failed = self.history_failed.load(Ordering::Relaxed);
        page.add("history_questions_total", "counter", "Closed lists and periods asked for", asked.into());
        page.add("history_questions_failed_total", "counter", "Those without an answer", failed.into());
        page.text
    }
}

/// A page in the Prometheus text format.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn add(&mut self, name: &str, kind: &str, help: &str, value: u128) {
        // Writing into a string cannot fail.
        let _ = write!(
            self.text,
            "# HELP highwater_{name} {help}.\n# TYPE highwater_{name} {kind}\nhighwater_{name} {value}\n"
        );
    }
}
