//! A source that answers as a test has told it to.
//!
//! Invariant: its closed lists stand the oldest first.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater_proto::{
    ClosedList, ClosedPeriod, ClosedPeriods, Epoch, HistoryAnswer, HistoryBounds, InstanceId, Period, PeriodCount,
    PeriodsAnswer, Snapshot, Unreadable, VideoCounts,
};
use tokio::sync::watch;

use crate::{LookupError, SnapshotSource, SourceStatus};

pub(super) struct Source {
    pub(super) latest: watch::Sender<Option<Arc<Snapshot>>>,
    pub(super) status: Mutex<SourceStatus>,
    /// What look-ups are answered with; without one, that the engine is busy.
    pub(super) counts: Mutex<Vec<PeriodCount>>,
    pub(super) history: Mutex<Closed>,
}

/// What is closed, as the source knows it.
#[derive(Default)]
pub(super) struct Closed {
    /// The oldest first.
    pub(super) lists: Vec<ClosedList>,
    pub(super) closed_until_ms: u64,
    /// As many questions as may wait do.
    pub(super) busy: bool,
    pub(super) unreadable: bool,
    /// Questions for lists.
    pub(super) lists_asked: u32,
}

impl Closed {
    fn bounds(&self, period: Period) -> HistoryBounds {
        let oldest_start_ms = self.lists.iter().find(|list| list.period == period).map(|list| list.start_ms);
        HistoryBounds { closed_until_ms: self.closed_until_ms, oldest_start_ms, lateness_max_ms: 600_000 }
    }
}

impl SnapshotSource for Source {
    fn latest(&self) -> Option<Arc<Snapshot>> {
        self.latest.borrow().clone()
    }

    async fn wait_for(&self, epoch: Epoch, timeout: Duration) -> bool {
        let mut latest = self.latest.subscribe();
        let reached = latest.wait_for(|one| one.as_ref().is_some_and(|one| one.epoch >= epoch));
        tokio::time::timeout(timeout, reached).await.is_ok_and(|reached| reached.is_ok())
    }

    async fn lookup(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        let counts = self.counts.lock().unwrap().clone();
        if video_id == "busy" {
            return Err(LookupError::Busy);
        }
        let (instance, epoch) = (InstanceId(1), Epoch(7));
        Ok(VideoCounts { instance, video_id: video_id.into(), epoch, as_of_ms: super::NOON_MS + 7, counts })
    }

    async fn closed_list(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, LookupError> {
        let mut closed = self.history.lock().unwrap();
        closed.lists_asked += 1;
        if closed.busy {
            return Err(LookupError::Busy);
        }
        let list = closed.lists.iter().find(|list| (list.period, list.start_ms) == (period, start_ms));
        let list = if closed.unreadable { Err(Unreadable) } else { Ok(list.cloned()) };
        Ok(HistoryAnswer { instance: InstanceId(1), period, start_ms, bounds: closed.bounds(period), list })
    }

    async fn closed_periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, LookupError> {
        let closed = self.history.lock().unwrap();
        if closed.busy {
            return Err(LookupError::Busy);
        }
        let before_ms = before_ms.unwrap_or(u64::MAX);
        let older = closed.lists.iter().rev().filter(|list| list.period == period && list.start_ms < before_ms);
        let of_list = |list: &ClosedList| {
            let &ClosedList { start_ms, end_ms, total_views, .. } = list;
            ClosedPeriod { start_ms, end_ms, total_views }
        };
        let mut periods: Vec<ClosedPeriod> = older.map(of_list).collect();
        let more = periods.len() > usize::from(limit);
        periods.truncate(limit.into());
        let periods = if closed.unreadable { Err(Unreadable) } else { Ok(ClosedPeriods { periods, more }) };
        Ok(PeriodsAnswer { instance: InstanceId(1), period, bounds: closed.bounds(period), periods })
    }

    fn status(&self) -> SourceStatus {
        self.status.lock().unwrap().clone()
    }

    fn metrics(&self) -> String {
        "highwater_epoch 7\n".into()
    }
}
