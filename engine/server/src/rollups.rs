//! When roll-ups are handed out, and what is said of them: for the one that owns the data directory.
//!
//! Not the work, which is another helper's, and not the files, which are the store's. Invariant: at most one roll-up is
//! on its way, and none is begun once the process stops.

use crate::jobs::{Job, JobDesk};
use arc_swap::ArcSwap;
use highwater_storage::{Disk, HistoryNeeds, RollupDone, RollupStop, StorageError, Store, StoreFigures};
use std::sync::Arc;
use std::time::Duration;

/// What is known of the closed files, for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageFigures {
    /// Number and length of the files, by kind.
    pub files: StoreFigures,
    /// What the data directory's file system has left, in bytes.
    pub free_bytes: u64,
    /// Roll-ups committed since the start.
    pub rollups: u64,
    /// Roll-ups given up for want of room since the start.
    pub rollups_without_room: u64,
    /// Milliseconds that the committed ones took together.
    pub rollup_ms: u64,
    /// Views in the cuts that they took.
    pub rollup_views: u64,
    /// Bytes that they wrote.
    pub rollup_bytes: u64,
}

/// What the owner of the figures and its readers share.
pub type SharedFigures = Arc<ArcSwap<StorageFigures>>;

/// Roll-ups, as the owner of the data directory sees them.
pub struct Rollups {
    figures: StorageFigures,
    shared: SharedFigures,
    /// Whether the last one found no room, which is said once.
    lacks_room: bool,
}

impl Rollups {
    /// None yet.
    pub fn new(shared: SharedFigures) -> Self {
        Self { figures: StorageFigures::default(), shared, lacks_room: false }
    }

    /// Hands out the next roll-up when it is due and no job is being done. What history `needs` is kept.
    ///
    /// # Errors
    /// When the disk refuses to say how much is free.
    pub fn plan<D: Disk>(
        &mut self,
        desk: &mut JobDesk,
        store: &Store<D>,
        needs: &HistoryNeeds,
    ) -> Result<(), StorageError> {
        if desk.is_busy() {
            return Ok(());
        }
        match store.plan_rollup(needs) {
            Ok(Some(plan)) => {
                let (first, last) = plan.cuts();
                tracing::debug!(first, last, "roll-up begun");
                desk.hand_out(Job::Rollup(Box::new(plan)));
            }
            Ok(None) => {}
            Err(error) if error.is_no_space() => self.no_room(&error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes over what came of a job.
    ///
    /// # Errors
    /// When the job failed or its files cannot be read; the process must end then.
    pub fn take_over<D: Disk>(
        &mut self,
        store: &mut Store<D>,
        result: Result<RollupDone, RollupStop>,
        took: Duration,
    ) -> Result<(), StorageError> {
        let done = match result {
            Ok(done) => done,
            Err(RollupStop::Stopped) => return Ok(()),
            Err(RollupStop::NoSpace(error)) => {
                self.figures.rollups_without_room += 1;
                self.no_room(&error);
                self.show(store);
                return Ok(());
            }
            Err(RollupStop::Failed(error)) => return Err(error),
        };
        match store.finish_rollup(&done) {
            // What is left is removed with the next one.
            Err(error) if error.is_no_space() => self.no_room(&error),
            outcome => {
                outcome?;
                self.lacks_room = false;
            }
        }
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.figures.rollups += 1;
        self.figures.rollup_ms += took_ms;
        self.figures.rollup_views += done.views;
        self.figures.rollup_bytes += done.bytes;
        self.show(store);
        tracing::info!(
            base = done.base,
            cuts = done.cuts,
            views = done.views,
            bytes = done.bytes,
            took_ms,
            "rolled up"
        );
        Ok(())
    }

    /// Shows readers how the files are now.
    pub fn show<D: Disk>(&mut self, store: &Store<D>) {
        self.figures.files = store.figures();
        // Should it not say so now, it was right a minute ago.
        self.figures.free_bytes = store.disk().free_bytes().unwrap_or(self.figures.free_bytes);
        self.shared.store(Arc::new(self.figures));
    }

    fn no_room(&mut self, error: &StorageError) {
        if !std::mem::replace(&mut self.lacks_room, true) {
            tracing::error!("no room for a roll-up, which is tried again with the next cut file: {error}");
        }
    }
}

/// So many minutes, as far as they fit.
#[must_use]
pub fn minutes(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs() / 60).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::historian::{Historian, HistoryRules};
    use crate::jobs::{JobOutcome, job_helper};
    use crate::storekeeper::tests::DIRECTORY;
    use highwater_proto::Epoch;
    use highwater_ranking::{Calendar, CoreCut, Minute};
    use highwater_storage::{
        CorePart, LogNumber, LogPosition, MemoryDisk, OpenOptions, PreparedCut, ProducerTableImage, RollupRule,
    };
    use std::sync::atomic::AtomicBool;

    fn store(disk: &MemoryDisk) -> Store<MemoryDisk> {
        let rollup = RollupRule { cuts_min: 1, ..RollupRule::default() };
        let mut store = Store::open(disk.clone(), OpenOptions { rollup, ..OpenOptions::new(DIRECTORY) }).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        let position = LogPosition::start_of(store.open_generations(1).unwrap());
        let cut =
            CoreCut { epoch: Epoch(1), time_ms: 60_000, minute: Minute(1), arrivals_from_ms: 0, shards: Vec::new() };
        let part = CorePart { log: LogNumber(0), position, cut, producers: ProducerTableImage::default() };
        store.write_cut(&PreparedCut::new(vec![part])).unwrap();
        store
    }

    /// Hands out one roll-up and takes over what came of it; says what is shown then.
    fn one_rollup(disk: &MemoryDisk, stop: bool) -> StorageFigures {
        let mut store = store(disk);
        let (directory, retention) = (*store.directory(), Duration::from_secs(3600));
        let rules = HistoryRules { directory, calendar: Calendar::default(), retention, new_at_ms: None };
        let shared_disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let historian = Historian::new(shared_disk.clone(), rules);
        let (mut desk, helper) = job_helper(shared_disk, historian, Arc::new(AtomicBool::new(stop)));
        let thread = std::thread::spawn(move || helper.run());
        let shared = SharedFigures::default();
        let mut rollups = Rollups::new(shared.clone());
        for _ in 0..2 {
            rollups.plan(&mut desk, &store, &HistoryNeeds::NOTHING).unwrap();
        }
        let outcome = desk.outcomes().recv_timeout(Duration::from_secs(60)).unwrap();
        let JobOutcome::Rollup(result, took) = outcome else { panic!("another job") };
        rollups.take_over(&mut store, result, took).unwrap();
        rollups.show(&store);
        drop(desk);
        thread.join().unwrap();
        **shared.load()
    }

    #[test]
    fn one_rollup_is_handed_out_at_a_time_and_shown_when_it_is_done() {
        let disk = MemoryDisk::new();
        let figures = one_rollup(&disk, false);
        assert_eq!((figures.rollups, figures.files.base_number, figures.files.cuts.files), (1, 1, 0));
        assert!(disk.paths().iter().any(|path| path.starts_with("bases/")), "{:?}", disk.paths());
    }

    #[test]
    fn a_rollup_that_is_stopped_leaves_nothing() {
        let disk = MemoryDisk::new();
        let figures = one_rollup(&disk, true);
        assert_eq!((figures.rollups, figures.files.base_number, figures.files.cuts.files), (0, 0, 1));
        assert!(disk.paths().iter().all(|path| !path.contains("base") && !path.contains("roll")), "{:?}", disk.paths());
    }
}
