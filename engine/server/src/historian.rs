//! The helper that closes calendar periods: files in, final lists out.
//!
//! It is told how far arrivals are complete, and goes by the data directory alone. Invariant: it writes nothing but
//! history, and a run that finds the disk full or is stopped is made good by a later one.

use crate::fatal::fatal;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use highwater_ranking::Calendar;
use highwater_storage::{Directory, Disk, History, HistoryClosed, HistoryJob, StorageError, Tables};
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

/// Where the storekeeper tells how far arrivals are complete.
#[derive(Clone)]
pub struct Horizons {
    sender: Sender<u64>,
}

impl Horizons {
    /// A way to tell, and where it arrives.
    pub fn new() -> (Self, Receiver<u64>) {
        let (sender, receiver) = bounded(1);
        (Self { sender }, receiver)
    }

    /// Tells that every view which arrived before `horizon_ms` (ms UTC) is in the closed files. When the helper is
    /// behind, this is dropped: the next one says more.
    pub fn send(&self, horizon_ms: u64) {
        match self.sender.try_send(horizon_ms) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The helper's state.
pub struct Historian {
    disk: Arc<dyn Disk>,
    rules: HistoryRules,
    horizons: Receiver<u64>,
    /// Opened at the first horizon, or later when there was no room for it.
    history: Option<History>,
    stop: Arc<AtomicBool>,
}

impl Historian {
    /// A helper on a data directory, and where it is told to begin. Once `stop` is set it leaves what it is at.
    pub fn new(disk: Arc<dyn Disk>, rules: HistoryRules, stop: Arc<AtomicBool>) -> (Self, Horizons) {
        let (teller, horizons) = Horizons::new();
        (Self { disk, rules, horizons, history: None, stop }, teller)
    }

    /// Closes periods until the storekeeper hangs up.
    pub fn run(mut self) {
        while let Ok(horizon_ms) = self.horizons.recv() {
            match self.close(horizon_ms) {
                Ok(closed) => {
                    for list in &closed.lists {
                        let (kind, start, videos) = (list.kind, list.start.0, list.videos);
                        tracing::debug!(?kind, start_minute = start, views = list.total_views, videos, "period closed");
                    }
                    if closed.removed > 0 {
                        tracing::debug!(removed = closed.removed, "old lists of closed periods removed");
                    }
                }
                Err(error) if error.is_no_space() => {
                    tracing::error!("no room for the lists of closed periods, tried again within minutes: {error}");
                }
                Err(error) => fatal("closed periods could not be listed", &error),
            }
        }
    }

    /// Closes what is due.
    ///
    /// # Errors
    /// When the disk refuses, or a file does not verify.
    pub fn close(&mut self, horizon_ms: u64) -> Result<HistoryClosed, StorageError> {
        let job = self.job(horizon_ms);
        let history = match &self.history {
            Some(history) => history,
            None => {
                let history = History::open(self.disk.clone(), self.rules.directory.id)?;
                if let Some(new_at_ms) = self.rules.new_at_ms {
                    self.job(new_at_ms.saturating_sub(CLOCK_MARGIN_MS)).begin(&history)?;
                }
                self.history.insert(history)
            }
        };
        let mut all = HistoryClosed::default();
        while job.is_due(history)? && !self.stop.load(Ordering::Relaxed) {
            let tables = Tables::open(self.disk.clone(), self.rules.calendar)?;
            let closed = job.run(history, &tables, || self.stop.load(Ordering::Relaxed))?;
            all.lists.extend(closed.lists);
            all.removed += closed.removed;
            all.is_more_due = closed.is_more_due;
        }
        Ok(all)
    }

    fn job(&self, horizon_ms: u64) -> HistoryJob {
        let HistoryRules { directory, calendar, retention, .. } = self.rules;
        let retention_minutes = u32::try_from(retention.as_secs() / 60).unwrap_or(u32::MAX);
        HistoryJob { retention_minutes, ..HistoryJob::new(horizon_ms, directory.lateness_max_ms, calendar) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_proto::{Epoch, InstanceId};
    use highwater_ranking::{CalendarPeriod, CoreCut, Minute, ShardCut, SlotCount};
    use highwater_storage::{
        CorePart, DirectoryId, LogNumber, LogPosition, MemoryDisk, OpenOptions, ProducerTableImage, Store,
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
        store.write_cut(&[part]).unwrap();
    }

    fn helper(disk: &MemoryDisk, new_at_ms: Option<u64>) -> (Historian, Horizons, Arc<AtomicBool>) {
        let calendar = Calendar::scaled(10, 2, 2);
        let rules = HistoryRules { directory: directory(), calendar, retention: Duration::from_secs(3600), new_at_ms };
        let stop = Arc::new(AtomicBool::new(false));
        let (historian, horizons) = Historian::new(Arc::new(disk.clone()), rules, stop.clone());
        (historian, horizons, stop)
    }

    #[test]
    fn periods_are_closed_when_the_horizon_passes_their_finality() {
        let disk = MemoryDisk::new();
        let minute = Minute(30_000_003);
        viewed(&disk, minute, 7);
        let (mut historian, ..) = helper(&disk, None);
        let final_ms = Minute(30_000_010).start_ms() + 2 * MINUTE_MS;
        assert!(historian.close(final_ms - 1).unwrap().lists.is_empty());
        let closed = historian.close(final_ms).unwrap();
        assert_eq!(closed.lists.len(), 1, "the hour only");
        let history = History::read_only(Arc::new(disk.clone()), DirectoryId(1));
        let list = history.list(HOUR, Minute(30_000_000)).unwrap().unwrap();
        assert_eq!((list.total_views, list.rows), (7, vec![("a".into(), 7)]));
        assert!(historian.close(final_ms).unwrap().lists.is_empty(), "once");
        let closed = historian.close(final_ms + 30 * MINUTE_MS).unwrap();
        assert_eq!(closed.lists.iter().map(|list| list.kind).collect::<Vec<_>>(), CalendarPeriod::ALL[1..]);
        // Two hours on, an hour's retention is over.
        assert_eq!(historian.close(final_ms + 120 * MINUTE_MS).unwrap().removed, 3);
    }

    #[test]
    fn the_thread_waits_out_a_full_disk_and_leaves_when_it_is_told_to() {
        let disk = MemoryDisk::new();
        let minute = Minute(30_000_003);
        viewed(&disk, minute, 7);
        let horizon_ms = Minute(30_000_050).start_ms();
        let (mut historian, horizons, stop) = helper(&disk, None);
        disk.fill_after(0);
        assert!(historian.close(horizon_ms).unwrap_err().is_no_space());
        disk.make_room();
        stop.store(true, Ordering::Relaxed);
        assert!(historian.close(horizon_ms).unwrap().lists.is_empty());
        stop.store(false, Ordering::Relaxed);
        let thread = std::thread::spawn(move || historian.run());
        horizons.send(horizon_ms);
        drop(horizons);
        thread.join().unwrap();
        let history = History::read_only(Arc::new(disk), DirectoryId(1));
        assert!(history.list(HOUR, Minute(30_000_000)).unwrap().is_some());
    }

    #[test]
    fn a_new_directory_looks_for_nothing_before_its_first_day() {
        let disk = MemoryDisk::new();
        let minute = Minute(30_000_003);
        viewed(&disk, minute, 7);
        let (mut historian, ..) = helper(&disk, Some(minute.start_ms()));
        historian.close(0).unwrap();
        let history = History::read_only(Arc::new(disk.clone()), DirectoryId(1));
        let closed = history.closed_up_to(HOUR).unwrap().unwrap();
        assert_eq!(closed, Minute(30_000_000 - 24 * 60), "a day before its start");
    }
}
