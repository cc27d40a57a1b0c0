//! Closing calendar periods: when it is due, for the one that owns the data directory, and the work, for its helper.
//!
//! Not the lists themselves, which are the storage's. Invariant: whoever works goes by the data directory alone and
//! writes nothing but history; what found the disk full or was stopped is made good by a later job.

use crate::jobs::{Job, JobDesk};
use highwater_ranking::Calendar;
use highwater_storage::{Directory, Disk, History, HistoryClosed, HistoryJob, HistoryNeeds, StorageError, Tables};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Before a new directory's first start nothing can have arrived, but for a clock that is set right meanwhile.
const CLOCK_MARGIN_MS: u64 = 24 * 3600 * 1000;

/// How history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRules {
    /// What is fixed for the data directory.
    pub directory: Directory,
    /// How minutes fall into periods.
    pub calendar: Calendar,
    /// How long after its end a period's list is kept.
    pub retention: Duration,
    /// Wall time in ms UTC, when the data directory is new with this start.
    pub new_at_ms: Option<u64>,
}

impl HistoryRules {
    fn job(&self, horizon_ms: u64) -> HistoryJob {
        let retention_minutes = crate::rollups::minutes(self.retention);
        HistoryJob { retention_minutes, ..HistoryJob::new(horizon_ms, self.directory.lateness_max_ms, self.calendar) }
    }
}

/// When periods are to be closed, and what came of it.
pub struct Closing {
    history: History,
    rules: HistoryRules,
    /// Whether the last job found no room, which is said once.
    lacks_room: bool,
}

impl Closing {
    /// Of a data directory.
    pub fn new(disk: Arc<dyn Disk>, rules: HistoryRules) -> Self {
        Self { history: History::read_only(disk, rules.directory.id), rules, lacks_room: false }
    }

    /// Hands out a job when a period is final and not closed, now that every view which arrived before `horizon_ms` (ms
    /// UTC) is in the closed files, and no other job is being done.
    ///
    /// # Errors
    /// When what is closed cannot be read.
    pub fn plan(&self, desk: &mut JobDesk, horizon_ms: u64) -> Result<(), StorageError> {
        if !desk.is_busy() && self.rules.job(horizon_ms).is_due(&self.history)? {
            desk.hand_out(Job::ClosePeriods(horizon_ms));
        }
        Ok(())
    }

    /// What roll-ups have to keep.
    ///
    /// # Errors
    /// When what is closed cannot be read.
    pub fn needs(&self) -> Result<HistoryNeeds, StorageError> {
        self.history.needs()
    }

    /// Says what came of a job.
    ///
    /// # Errors
    /// When the job failed; the process must end then.
    pub fn take_over(&mut self, result: Result<HistoryClosed, StorageError>) -> Result<(), StorageError> {
        let closed = match result {
            Ok(closed) => closed,
            Err(error) if error.is_no_space() => {
                if !std::mem::replace(&mut self.lacks_room, true) {
                    tracing::error!("no room for lists of closed periods, tried again with the next cut: {error}");
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.lacks_room = false;
        for list in &closed.lists {
            let (kind, start, videos) = (list.kind, list.start.0, list.videos);
            tracing::debug!(?kind, start_minute = start, views = list.total_views, videos, "period closed");
        }
        if closed.removed > 0 {
            tracing::debug!(removed = closed.removed, "old lists of closed periods removed");
        }
        Ok(())
    }
}

/// Who does the work.
pub struct Historian {
    disk: Arc<dyn Disk>,
    rules: HistoryRules,
    /// Opened at the first job, or later when there was no room for it.
    history: Option<History>,
}

impl Historian {
    /// Of a data directory.
    pub fn new(disk: Arc<dyn Disk>, rules: HistoryRules) -> Self {
        Self { disk, rules, history: None }
    }

    /// Closes what is due; leaves what it is at once `stop` is set.
    ///
    /// # Errors
    /// When the disk refuses, or a file does not verify.
    pub fn close(&mut self, horizon_ms: u64, stop: &AtomicBool) -> Result<HistoryClosed, StorageError> {
        let job = self.rules.job(horizon_ms);
        let history = match &self.history {
            Some(history) => history,
            None => {
                let history = History::open(self.disk.clone(), self.rules.directory.id)?;
                if let Some(new_at_ms) = self.rules.new_at_ms {
                    self.rules.job(new_at_ms.saturating_sub(CLOCK_MARGIN_MS)).begin(&history)?;
                }
                self.history.insert(history)
            }
        };
        let mut all = HistoryClosed::default();
        while job.is_due(history)? && !stop.load(Ordering::Relaxed) {
            let tables = Tables::open(self.disk.clone(), self.rules.calendar)?;
            let closed = job.run(history, &tables, || stop.load(Ordering::Relaxed))?;
            all.lists.extend(closed.lists);
            all.removed += closed.removed;
            all.is_more_due = closed.is_more_due;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{JobOutcome, job_helper};
    use highwater_proto::{Epoch, InstanceId};
    use highwater_ranking::{CalendarPeriod, CoreCut, Minute, ShardCut, SlotCount};
    use highwater_storage::{
        CorePart, DirectoryId, LogNumber, LogPosition, MemoryDisk, OpenOptions, PreparedCut, ProducerTableImage, Store,
    };

    const MINUTE_MS: u64 = 60_000;
    const HOUR: CalendarPeriod = CalendarPeriod::Hour;

    fn directory() -> Directory {
        Directory {
            id: DirectoryId(1),
            instance: InstanceId(2),
            hash_seed: 3,
            shards: 1,
            lateness_max_ms: 2 * MINUTE_MS,
            segment_bytes: 1 << 20,
        }
    }

    /// A directory in which video `a` was viewed `count` times in a minute.
    fn viewed(disk: &MemoryDisk, minute: Minute, count: u32) {
        let mut store = Store::open(disk.clone(), OpenOptions::new(directory())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        let current = vec![SlotCount { slot: 0, count }];
        let shard = ShardCut {
            shard: 0,
            minute,
            first_slot: 0,
            id_lens: vec![1],
            id_bytes: b"a".to_vec(),
            current,
            late: vec![],
        };
        let (epoch, time_ms) = (Epoch(1), minute.end_ms());
        let cut = CoreCut { epoch, time_ms, minute, arrivals_from_ms: time_ms, shards: vec![shard] };
        let position = LogPosition { generation: 1, position: 1 };
        let part = CorePart { log: LogNumber(0), position, cut, producers: ProducerTableImage::default() };
        store.write_cut(&PreparedCut::new(vec![part])).unwrap();
    }

    fn rules(new_at_ms: Option<u64>) -> HistoryRules {
        let calendar = Calendar::scaled(10, 2, 2);
        HistoryRules { directory: directory(), calendar, retention: Duration::from_secs(3600), new_at_ms }
    }

    fn historian(disk: &MemoryDisk, new_at_ms: Option<u64>) -> Historian {
        Historian::new(Arc::new(disk.clone()), rules(new_at_ms))
    }

    fn close(historian: &mut Historian, horizon_ms: u64) -> Result<HistoryClosed, StorageError> {
        historian.close(horizon_ms, &AtomicBool::new(false))
    }

    #[test]
    fn periods_are_closed_when_the_horizon_passes_their_finality() {
        let disk = MemoryDisk::new();
        let minute = Minute(30_000_003);
        viewed(&disk, minute, 7);
        let mut historian = historian(&disk, None);
        let final_ms = Minute(30_000_010).start_ms() + 2 * MINUTE_MS;
        assert!(close(&mut historian, final_ms - 1).unwrap().lists.is_empty());
        let closed = close(&mut historian, final_ms).unwrap();
        assert_eq!(closed.lists.len(), 1, "the hour only");
        let history = History::read_only(Arc::new(disk.clone()), DirectoryId(1));
        let list = history.list(HOUR, Minute(30_000_000)).unwrap().unwrap();
        assert_eq!((list.total_views, list.rows), (7, vec![("a".into(), 7)]));
        assert!(close(&mut historian, final_ms).unwrap().lists.is_empty(), "once");
        let closed = close(&mut historian, final_ms + 30 * MINUTE_MS).unwrap();
        assert_eq!(closed.lists.iter().map(|list| list.kind).collect::<Vec<_>>(), CalendarPeriod::ALL[1..]);
        // Two hours on, an hour's retention is over.
        assert_eq!(close(&mut historian, final_ms + 120 * MINUTE_MS).unwrap().removed, 3);
    }

    #[test]
    fn what_found_no_room_or_was_stopped_is_made_good_later() {
        let disk = MemoryDisk::new();
        viewed(&disk, Minute(30_000_003), 7);
        let horizon_ms = Minute(30_000_050).start_ms();
        let mut historian = historian(&disk, None);
        disk.fill_after(0);
        assert!(close(&mut historian, horizon_ms).unwrap_err().is_no_space());
        disk.make_room();
        assert!(historian.close(horizon_ms, &AtomicBool::new(true)).unwrap().lists.is_empty());
        assert_eq!(close(&mut historian, horizon_ms).unwrap().lists.len(), 3);
    }

    #[test]
    fn a_new_directory_looks_for_nothing_before_its_first_day() {
        let disk = MemoryDisk::new();
        let minute = Minute(30_000_003);
        viewed(&disk, minute, 7);
        close(&mut historian(&disk, Some(minute.start_ms())), 0).unwrap();
        let history = History::read_only(Arc::new(disk), DirectoryId(1));
        assert_eq!(history.closed_up_to(HOUR).unwrap(), Some(Minute(30_000_000 - 24 * 60)), "a day before its start");
    }

    #[test]
    fn a_job_is_handed_out_when_a_cut_makes_a_period_final_and_only_then() {
        let disk = MemoryDisk::new();
        viewed(&disk, Minute(30_000_003), 7);
        let shared: Arc<dyn Disk> = Arc::new(disk);
        let mut closing = Closing::new(shared.clone(), rules(None));
        let (mut desk, helper) = job_helper(shared.clone(), Historian::new(shared, rules(None)), Arc::default());
        let helper = std::thread::spawn(move || helper.run());
        let final_ms = Minute(30_000_010).start_ms() + 2 * MINUTE_MS;
        for (horizon_ms, lists) in [(final_ms - 1, 0), (final_ms, 1)] {
            closing.plan(&mut desk, horizon_ms).unwrap();
            assert!(desk.is_busy());
            closing.plan(&mut desk, horizon_ms).unwrap();
            let JobOutcome::ClosePeriods(result) = desk.outcomes().recv().unwrap() else { panic!("another job") };
            desk.put_back();
            assert_eq!(result.as_ref().unwrap().lists.len(), lists);
            closing.take_over(result).unwrap();
            closing.plan(&mut desk, horizon_ms).unwrap();
            assert!(!desk.is_busy(), "nothing is due");
        }
        assert_eq!(closing.needs().unwrap().hours_from, Minute(30_000_010));
        drop(desk);
        helper.join().unwrap();
    }
}
