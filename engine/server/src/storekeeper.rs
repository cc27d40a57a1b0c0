//! The helper that does the cores' blocking work on the data directory: leases, cut files, runs, and room for the
//! segments that `segments.rs` makes.
//!
//! It owns the store and answers errands in the order they come; what needs a part of every core is done when the last
//! part has come. Long work from files to files it plans and hands to another helper, and takes over when it is done;
//! only here are files given up. Invariant: after a failed write or sync the process ends here, before anything that
//! rested on it is acknowledged. Only a full disk is no end: an errand, which has changed nothing then, is tried again
//! until there is room, before those that came after it, and meanwhile no segment takes any.

use crate::archivist::ArchiveDesk;
use crate::desks::CoreDesk;
use crate::fatal::fatal;
use crate::helpers::give_way;
use crate::historian::Closing;
use crate::jobs::{JobDesk, JobOutcome};
use crate::rollups::Rollups;
use crate::room::RoomMaker;
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use highwater_pipeline::{CutErrand, Gather, RunSlice, StoreAnswer, StoreRequest, shard_owner};
use highwater_ranking::{Minute, RunRequest};
use highwater_storage::{ArchiveDone, CorePart, Disk, LogNumber, PreparedCut, StorageError, Store};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long after an errand found the disk full it is tried again; doubled with each try that fails, since one may
/// write much before it does.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The longest that an errand waits for its next try.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(8);

/// How much it gives way where it shares a CPU with a core: a cut file of millions of videos is much work.
const NICE: i32 = 10;

/// The helper's state.
pub struct Storekeeper<D: Disk> {
    store: Store<D>,
    log_retention_bytes: u64,
    requests: Receiver<(u16, StoreRequest)>,
    /// By core.
    desks: Vec<CoreDesk<StoreAnswer>>,
    room: RoomMaker,
    parts: Gather<CorePart>,
    runs: Gather<Vec<RunRequest>>,
    /// A cut that is written when the runs are brought that all cores wait for.
    held: Option<PreparedCut>,
    /// What waits for room on the disk.
    stalled: Option<Stalled>,
    /// What came after it, in order.
    behind: VecDeque<(u16, StoreRequest)>,
    chores: Chores,
    stop: Arc<AtomicBool>,
}

/// Long work that another helper does.
pub struct Chores {
    /// Where it is handed out.
    pub desk: JobDesk,
    /// Roll-ups.
    pub rollups: Rollups,
    /// Closing calendar periods.
    pub closing: Closing,
    /// Copying log segments into the archive.
    pub archive: ArchiveDesk,
}

/// An errand that found the disk full.
struct Stalled {
    errand: Errand,
    error: StorageError,
    retry_at: Instant,
    pause: Duration,
}

/// What must be written, and for whom.
enum Errand {
    LeaseEpochs(u16, u64),
    RecordMinute(u16, Minute),
    WriteCut(PreparedCut),
}

impl fmt::Display for Errand {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeaseEpochs(..) => out.write_str("the next epochs"),
            Self::RecordMinute(..) => out.write_str("the engine's minute"),
            Self::WriteCut(_) => out.write_str("the next cut file"),
        }
    }
}

impl<D: Disk> Storekeeper<D> {
    /// A helper for as many cores as there are desks, which keeps so many bytes of covered log. Once `stop` is set, a
    /// full disk is not waited for.
    pub fn new(
        store: Store<D>,
        log_retention_bytes: u64,
        requests: Receiver<(u16, StoreRequest)>,
        desks: Vec<CoreDesk<StoreAnswer>>,
        room: RoomMaker,
        mut chores: Chores,
        stop: Arc<AtomicBool>,
    ) -> Self {
        chores.rollups.show(&store);
        let (parts, runs) = (Gather::new(desks.len()), Gather::new(desks.len()));
        Self {
            store,
            log_retention_bytes,
            requests,
            desks,
            room,
            parts,
            runs,
            held: None,
            stalled: None,
            behind: VecDeque::new(),
            chores,
            stop,
        }
    }

    /// Does errands until the cores hang up, and gives way to them if it is to.
    pub fn run(mut self, gives_way: bool) {
        if gives_way && let Err(error) = give_way(NICE) {
            tracing::warn!(%error, "the store's helper keeps its priority, and may take time from cores on its CPU");
        }
        while let Some((core, request)) = self.next() {
            if let Err(error) = self.serve(core, request) {
                fatal("the data directory could not be written or read", &error);
            }
        }
    }

    fn next(&mut self) -> Option<(u16, StoreRequest)> {
        while let Some(stalled) = self.stalled.take() {
            self.wait_for_room(stalled);
        }
        self.behind.pop_front().or_else(|| self.wait())
    }

    /// The next request; outcomes of jobs are taken as they come.
    fn wait(&mut self) -> Option<(u16, StoreRequest)> {
        loop {
            select! {
                recv(self.requests) -> request => return request.ok(),
                recv(self.chores.desk.outcomes()) -> outcome => match outcome {
                    Ok(outcome) => {
                        if let Err(error) = self.take_over(outcome) {
                            fatal("the data directory could not be written or read", &error);
                        }
                    }
                    // The helper is gone, and with it every job.
                    Err(_) => return self.requests.recv().ok(),
                },
                recv(self.room.wanted) -> wanted => match wanted {
                    Ok(()) => {
                        if let Err(error) = self.recycle() {
                            fatal("the data directory could not be written or read", &error);
                        }
                        self.room.tried();
                    }
                    Err(_) => return self.requests.recv().ok(),
                },
                recv(self.chores.archive.done) -> done => match done {
                    Ok(done) => {
                        if let Err(error) = self.archive_on(Some(done)) {
                            fatal("the data directory could not be written or read", &error);
                        }
                    }
                    Err(_) => return self.requests.recv().ok(),
                },
            }
        }
    }

    fn take_over(&mut self, outcome: JobOutcome) -> Result<(), StorageError> {
        self.chores.desk.put_back();
        match outcome {
            JobOutcome::Rollup(result, took) => self.chores.rollups.take_over(&mut self.store, result, took)?,
            JobOutcome::ClosePeriods(result) => self.chores.closing.take_over(result)?,
        }
        self.plan_rollup()
    }

    /// Begins a roll-up when one is due; not any more when the process stops.
    fn plan_rollup(&mut self) -> Result<(), StorageError> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Chores { desk, rollups, closing, .. } = &mut self.chores;
        rollups.plan(desk, &self.store, &closing.needs()?)
    }

    /// After a cut, or one that would have held nothing: closes the periods that are final now, else rolls up.
    fn plan_chores(&mut self, cut: &PreparedCut) -> Result<(), StorageError> {
        if !self.stop.load(Ordering::Relaxed) {
            self.chores.closing.plan(&mut self.chores.desk, cut.arrivals_from_ms())?;
        }
        self.plan_rollup()
    }

    fn serve(&mut self, core: u16, request: StoreRequest) -> Result<(), StorageError> {
        match request {
            StoreRequest::PrepareSegment => unreachable!("segments are asked of the helper that makes them"),
            StoreRequest::LeaseEpochs { count } => self.try_to(Errand::LeaseEpochs(core, count))?,
            StoreRequest::RecordMinute(minute) => self.try_to(Errand::RecordMinute(core, minute))?,
            StoreRequest::WriteCut(errand) => {
                let CutErrand { cut, position, producers, minute_moves } = *errand;
                let part = CorePart { log: LogNumber(u32::from(core)), position, cut, producers };
                if let Some(parts) = self.parts.put(usize::from(core), part) {
                    let cut = PreparedCut::new(parts);
                    if minute_moves {
                        self.held = Some(cut);
                    } else {
                        self.try_to(Errand::WriteCut(cut))?;
                    }
                }
            }
            StoreRequest::Runs(requests) => {
                if let Some(all) = self.runs.put(usize::from(core), requests) {
                    self.bring_runs(&all)?;
                    if let Some(cut) = self.held.take() {
                        self.try_to(Errand::WriteCut(cut))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Does an errand, or keeps it for later when the disk is full.
    fn try_to(&mut self, errand: Errand) -> Result<(), StorageError> {
        match self.perform(&errand) {
            Err(error) if error.is_no_space() && !self.stop.load(Ordering::Relaxed) => {
                tracing::error!("no room for {errand}, which is tried again until there is: {error}");
                let retry_at = Instant::now() + RETRY_AFTER;
                self.stalled = Some(Stalled { errand, error, retry_at, pause: RETRY_AFTER });
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn perform(&mut self, errand: &Errand) -> Result<(), StorageError> {
        match errand {
            Errand::LeaseEpochs(core, count) => {
                let end = self.store.lease_epochs(*count)?;
                self.answer(*core, StoreAnswer::EpochsLeased(end));
            }
            Errand::RecordMinute(core, minute) => {
                self.store.record_minute(*minute)?;
                self.answer(*core, StoreAnswer::MinuteRecorded(*minute));
            }
            Errand::WriteCut(cut) => self.write_cut(cut)?,
        }
        Ok(())
    }

    /// Waits a moment, in which no segment is made, and tries again.
    fn wait_for_room(&mut self, mut stalled: Stalled) {
        self.room.wait(Some(stalled.error.to_string()));
        let cores_are_gone = loop {
            let soon = Instant::now() + RETRY_AFTER;
            match self.requests.recv_deadline(stalled.retry_at.min(soon)) {
                Ok(request) => self.put_behind(&mut stalled, request),
                Err(RecvTimeoutError::Timeout) => {
                    if Instant::now() >= stalled.retry_at || self.stop.load(Ordering::Relaxed) {
                        break false;
                    }
                }
                // Nobody waits any more; the one thing left is to try.
                Err(RecvTimeoutError::Disconnected) => break true,
            }
        };
        // Segments that were kept when the disk was full before may be what is in the way.
        let outcome = self.recycle().and_then(|_| self.perform(&stalled.errand));
        match outcome {
            Ok(()) => {
                self.room.wait(None);
                tracing::info!("there was room for {}", stalled.errand);
            }
            Err(error) if error.is_no_space() && !cores_are_gone && !self.stop.load(Ordering::Relaxed) => {
                stalled.error = error;
                stalled.pause = (2 * stalled.pause).min(RETRY_AFTER_MAX);
                stalled.retry_at = Instant::now() + stalled.pause;
                self.stalled = Some(stalled);
            }
            Err(error) => fatal("the data directory could not be written or read", &error),
        }
    }

    /// Keeps what came after a stalled errand. A later minute says all that an earlier one would, so however long the
    /// disk is full, there is at most one of each core's errands here, and as many cuts as a core leaves unwritten.
    fn put_behind(&mut self, stalled: &mut Stalled, (core, request): (u16, StoreRequest)) {
        if let StoreRequest::RecordMinute(later) = request {
            if let Errand::RecordMinute(_, minute) = &mut stalled.errand {
                *minute = later;
                return;
            }
            for (_, waiting) in &mut self.behind {
                if let StoreRequest::RecordMinute(minute) = waiting {
                    *minute = later;
                    return;
                }
            }
        }
        self.behind.push_back((core, request));
    }

    /// Gives up segments that cut files cover; on a full disk they stay until it is tried again.
    fn recycle(&mut self) -> Result<usize, StorageError> {
        match self.store.recycle(self.log_retention_bytes) {
            Err(error) if error.is_no_space() => Ok(0),
            outcome => outcome,
        }
    }

    fn write_cut(&mut self, cut: &PreparedCut) -> Result<(), StorageError> {
        if self.store.is_covered(cut) {
            self.answer_all(|| StoreAnswer::CutEmpty);
            return self.plan_chores(cut);
        }
        let header = self.store.write_cut(cut)?;
        let recycled = self.recycle()?;
        tracing::debug!(number = header.number, epoch = header.epoch.0, recycled, "cut file written");
        self.answer_all(|| StoreAnswer::CutWritten);
        self.chores.rollups.show(&self.store);
        self.plan_chores(cut)?;
        self.archive_on(None)
    }

    /// Takes what the archive's helper has done, and gives it what is to be done next.
    fn archive_on(&mut self, done: Option<ArchiveDone>) -> Result<(), StorageError> {
        if let Some(done) = done {
            self.chores.archive.take(&mut self.store, done)?;
            self.recycle()?;
        }
        match self.chores.archive.go_on(&mut self.store, self.log_retention_bytes) {
            // What could not be removed on a full disk is tried again; what was just cut must not be.
            Err(error) if error.is_no_space() => Ok(()),
            outcome => outcome,
        }
    }

    /// Reads the runs once and gives each core those of its shards.
    fn bring_runs(&mut self, all: &[Vec<RunRequest>]) -> Result<(), StorageError> {
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the edges of all cores move alike: {all:?}");
        let cores = self.desks.len() as u16;
        for request in &all[0] {
            let (window, change) = (request.window, request.change);
            self.store.runs(request, self.held.as_ref(), |shard, entries| {
                let slice = RunSlice { window, change, shard, entries };
                self.answer(shard_owner(shard, cores), StoreAnswer::Run(slice));
            })?;
        }
        self.answer_all(|| StoreAnswer::RunsDone);
        Ok(())
    }

    fn answer_all(&self, answer: impl Fn() -> StoreAnswer) {
        for core in 0..self.desks.len() as u16 {
            self.answer(core, answer());
        }
    }

    fn answer(&self, core: u16, answer: StoreAnswer) {
        self.desks[usize::from(core)].bring(answer);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::archivist::archive_desk;
    use crate::historian::{Historian, HistoryRules};
    use crate::jobs::job_helper;
    use crate::rollups::SharedFigures;
    use crate::room::{RoomSeeker, room};
    use crate::runtime::Parking;
    use crossbeam_channel::{Sender, bounded};
    use highwater_proto::InstanceId;
    use highwater_ranking::Calendar;
    use highwater_storage::{Directory, DirectoryId, MemoryDisk, OpenOptions};

    const WAIT_MAX: Duration = Duration::from_secs(60);

    /// A small data directory, for tests of all helpers.
    pub(crate) const DIRECTORY: Directory = Directory {
        id: DirectoryId(1),
        instance: InstanceId(2),
        hash_seed: 3,
        shards: 1,
        lateness_max_ms: 600_000,
        segment_bytes: 1 << 20,
    };

    /// A disk, its helper's ends, and the helper's thread.
    struct Setup {
        disk: MemoryDisk,
        requests: Sender<(u16, StoreRequest)>,
        answers: Receiver<StoreAnswer>,
        room: RoomSeeker,
        thread: std::thread::JoinHandle<()>,
    }

    fn start() -> Setup {
        let disk = MemoryDisk::new();
        let mut store = Store::open(disk.clone(), OpenOptions::new(DIRECTORY)).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        let (requests, received) = bounded(16);
        let (sender, answers) = bounded(16);
        let (room, room_maker) = room();
        let desk = CoreDesk { brought: sender, waker: Parking::new().unwrap().waker() };
        let retention = Duration::from_secs(3600);
        let rules = HistoryRules { directory: DIRECTORY, calendar: Calendar::default(), retention, new_at_ms: None };
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (jobs, helper) = job_helper(shared.clone(), Historian::new(shared.clone(), rules), Arc::default());
        std::thread::spawn(move || helper.run());
        let rollups = Rollups::new(SharedFigures::default());
        let (archive, archivist) = archive_desk(disk.clone(), Arc::default(), Arc::default());
        std::thread::spawn(move || archivist.run());
        let chores = Chores { desk: jobs, rollups, closing: Closing::new(shared, rules), archive };
        let keeper = Storekeeper::new(store, 0, received, vec![desk], room_maker, chores, Arc::default());
        Setup { disk, requests, answers, room, thread: std::thread::spawn(move || keeper.run(false)) }
    }

    /// Leases and minutes wait out a full disk in order, the latest minute for all; meanwhile segments are to take no
    /// room.
    #[test]
    fn errands_wait_for_room_in_order_and_segments_leave_it_to_them() {
        let Setup { disk, requests, answers, room, thread } = start();
        let next = || answers.recv_timeout(WAIT_MAX).unwrap();
        assert!(room.ask(), "it is tried at once");
        disk.fill_after(0);
        let send = |request| requests.send((0, request)).unwrap();
        send(StoreRequest::LeaseEpochs { count: 10 });
        send(StoreRequest::RecordMinute(Minute(5)));
        let missing = loop {
            std::thread::yield_now();
            if let Some(missing) = room.waiting() {
                break missing;
            }
        };
        assert!(missing.contains("space"), "{missing}");
        send(StoreRequest::RecordMinute(Minute(7)));
        assert!(answers.try_recv().is_err(), "nothing is answered on a full disk");
        disk.make_room();
        let StoreAnswer::EpochsLeased(first) = next() else { panic!("no lease") };
        assert!(matches!(next(), StoreAnswer::MinuteRecorded(Minute(7))), "the latest minute, once");
        assert_eq!(room.waiting(), None);
        send(StoreRequest::LeaseEpochs { count: 10 });
        let StoreAnswer::EpochsLeased(second) = next() else { panic!("no lease") };
        assert_eq!(second.0, first.0 + 10, "what found no room leased nothing");
        assert!(room.ask(), "it is tried again");
        drop(requests);
        thread.join().unwrap();
        assert!(answers.try_recv().is_err());
        assert!(!room.ask(), "nobody is there");
    }
}
