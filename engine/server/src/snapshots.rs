//! Where published snapshots live: one cell that readers load without waiting, and a watch for those who wait.
//!
//! Written by the merging helper only. Invariant: the epoch of what can be loaded never decreases.

use crate::history::HistoryDoor;
use crate::lookups::Lookups;
use crate::metrics::MetricsText;
use arc_swap::{ArcSwap, ArcSwapOption};
use highwater_pipeline::Stats;
use highwater_proto::{Epoch, History, HistoryAnswer, Period, Periods, PeriodsAnswer, Snapshot, VideoCounts};
use highwater_sidecar::{LookupError, SnapshotSource, SourceStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A snapshot is stale when no newer one has come for this long.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// What a core publishes beside its lists.
#[derive(Debug, Clone, Default)]
pub struct CoreStatus {
    /// What the pipeline counts.
    pub stats: Stats,
    /// What the QUIC driver counts.
    pub quic: crate::quic::QuicStats,
    /// Connections now.
    pub connections: u64,
    /// Bytes that the connections' windows have beyond the least.
    pub windows_bytes: u64,
    /// Bytes that wait for their peers' windows.
    pub unsent_bytes: u64,
    /// Bytes of frames that are not done with.
    pub held_bytes: u64,
    /// Receive buffer of the socket.
    pub receive_buffer_bytes: u64,
    /// Longest turn of the core's loop since the last status, in microseconds.
    pub loop_turn_us_max: u64,
    /// Rests that the runtime's watchdog ended, with work there that nothing had told of.
    pub silences: u64,
    /// Share of the last interval that the loop did not sleep, in thousandths.
    pub busy_permille: u64,
}

/// The latest snapshot and what the cores say of themselves.
pub struct Snapshots {
    latest: ArcSwapOption<Snapshot>,
    published_at: ArcSwap<Instant>,
    /// By core.
    statuses: ArcSwap<Vec<CoreStatus>>,
    epoch: watch::Sender<Epoch>,
    metrics: MetricsText,
    lookups: Lookups,
    history: HistoryDoor,
}

impl Snapshots {
    /// Nothing published yet.
    pub fn new(metrics: MetricsText, lookups: Lookups, history: HistoryDoor) -> Self {
        Self {
            latest: ArcSwapOption::empty(),
            published_at: ArcSwap::from_pointee(Instant::now()),
            statuses: ArcSwap::default(),
            epoch: watch::Sender::new(Epoch(0)),
            metrics,
            lookups,
            history,
        }
    }

    /// Makes a snapshot the latest.
    ///
    /// # Panics
    /// When its epoch is not newer than the last one's.
    pub fn publish(&self, snapshot: Arc<Snapshot>, statuses: Vec<CoreStatus>) {
        let epoch = snapshot.epoch;
        assert!(epoch > *self.epoch.borrow(), "epoch {} was published after {}", epoch.0, self.epoch.borrow().0);
        self.latest.store(Some(snapshot));
        self.published_at.store(Arc::new(Instant::now()));
        self.statuses.store(Arc::new(statuses));
        self.epoch.send_replace(epoch);
    }
}

impl SnapshotSource for Snapshots {
    fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.load_full()
    }

    async fn wait_for(&self, epoch: Epoch, timeout: Duration) -> bool {
        let mut published = self.epoch.subscribe();
        tokio::time::timeout(timeout, published.wait_for(|one| *one >= epoch)).await.is_ok_and(|found| found.is_ok())
    }

    async fn lookup(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        self.lookups.ask(video_id).await
    }

    async fn closed_list(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, LookupError> {
        self.history.list(History { period, start_ms }).await
    }

    async fn closed_periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, LookupError> {
        self.history.periods(Periods { period, limit, before_ms: before_ms.unwrap_or(u64::MAX) }).await
    }

    fn status(&self) -> SourceStatus {
        let age = self.published_at.load().elapsed();
        match self.latest.load().as_ref() {
            None => SourceStatus::not_ready("no snapshot has been published yet"),
            Some(_) if age > STALE_AFTER => {
                SourceStatus::not_ready(format!("the latest snapshot is {} s old", age.as_secs()))
            }
            Some(_) => SourceStatus::ready(),
        }
    }

    fn metrics(&self) -> String {
        let age = self.published_at.load().elapsed();
        self.metrics.render(&self.statuses.load(), self.latest.load().as_deref(), age)
    }
}
