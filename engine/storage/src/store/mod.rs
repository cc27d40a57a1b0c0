//! The data directory as a whole, for a helper thread: blocking calls, one owner.
//!
//! Not the pinned core's path, which is [`LogWriter`](crate::LogWriter) and [`LogDevice`](crate::LogDevice).
//! Invariants: what must be durable before use (epochs, minutes, generations, names of files) is durable when the call
//! returns; nothing of the logs is given up before a durable cut file covers it.
//!
//! The order of calls at a start: [`Store::open`], [`Store::replay_cuts`], [`Store::replay_logs`],
//! [`Store::open_generations`]; then the others in any order.

mod archiving;
mod catalog;
mod making;
mod opening;
mod prepared;
mod recovery;
mod rollups;
mod segments;
mod slots;

use std::collections::BTreeMap;

use highwater_proto::Epoch;
use highwater_ranking::{Calendar, CoreCut, FinalityClass, Minute, RunRequest, SlotCount};

pub use archiving::{ArchiveFigures, ArchivePlan};
pub use making::SegmentMaker;
pub use opening::stranger;
use opening::{CLOSED_DIRS, open_directory, open_state, remove_temporary_files, sync_names};
pub(crate) use opening::{TOP_NAMES, exists, is_log_directory, list, log_directories, refuse_older_state};
pub use prepared::PreparedCut;
use prepared::SLICE_ENTRIES;
pub use recovery::CutsReplayed;
pub use rollups::{FileFigures, StoreFigures};
pub(crate) use slots::Slots;

use crate::archive::{ArchiveCatalog, ArchiveRetention};
use crate::chains::{Chains, Keep, Question, Scope};
use crate::container::{Block, CutHeader, remove_if_there, temporary_path};
use crate::cut::{CUTS_DIR, create_cut, cut_path, open_cut};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{LogIdentity, LogNumber, LogPosition};
use crate::producers::ProducerTableImage;
use crate::rollup::{Retention, RollupRule};
use crate::state::{ClosedGeneration, StoreState};
use catalog::{HeldBase, sweep};

/// Bytes that segments leave free for cut files, unless another reserve is asked for.
pub const CUT_RESERVE_BYTES: u64 = 256 << 20;

/// How a data directory is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// What a new directory is created with; an existing one keeps its own.
    pub create: Directory,
    /// The number of shards that was asked for; another one in the directory is an error.
    pub require_shards: Option<u16>,
    /// The lateness that was asked for, in ms; another one in the directory is an error.
    pub require_lateness_max_ms: Option<u64>,
    /// Bytes that segments leave free for cut files.
    pub cut_reserve_bytes: u64,
    /// How minutes fall into hours and days.
    pub calendar: Calendar,
    /// How long roll-ups are kept.
    pub retention: Retention,
    /// When roll-ups are due.
    pub rollup: RollupRule,
    /// How much is kept in the archive; without it segments are used again without waiting for one.
    pub archive: Option<ArchiveRetention>,
}

impl OpenOptions {
    /// Defaults: nothing required, 256 MiB reserved, the calendar of UTC, no archive.
    #[must_use]
    pub fn new(create: Directory) -> Self {
        Self {
            create,
            require_shards: None,
            require_lateness_max_ms: None,
            cut_reserve_bytes: CUT_RESERVE_BYTES,
            calendar: Calendar::default(),
            retention: Retention::default(),
            rollup: RollupRule::default(),
            archive: None,
        }
    }
}

/// What one core adds to a cut file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePart {
    /// The core's log.
    pub log: LogNumber,
    /// Up to where the log is contained in the cut files up to this one; it is durable.
    pub position: LogPosition,
    /// The frozen shards.
    pub cut: CoreCut,
    /// The producers that have this core as their home, as of `position`.
    pub producers: ProducerTableImage,
}

/// A data directory, opened.
pub struct Store<D: Disk> {
    disk: D,
    options: OpenOptions,
    directory: Directory,
    state: StoreState,
    chains: Chains,
    stage: Stage,
    /// Index of the next segment of each open log.
    /// Numbers of the next segments, by open log; none once they are made beside the store.
    segments_next: Vec<u64>,
    spare_next: u64,
    /// None when segments need not wait for it.
    archive: Option<ArchiveCatalog>,
    /// Ends of the generations that were found open or uncovered at this start.
    ends: BTreeMap<(LogNumber, u32), u64>,
}

/// How far the start has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Opened,
    /// Logs are read; these are the ends of the generations that were open.
    Replayed(Vec<ClosedGeneration>),
    Open,
}

impl<D: Disk> Store<D> {
    /// Opens the data directory, or creates it where there is nothing.
    ///
    /// # Errors
    /// When files are missing, damaged, foreign or newer, a required setting differs, or the disk refuses.
    pub fn open(disk: D, options: OpenOptions) -> Result<Self, StorageError> {
        let directory = open_directory(&disk, &options)?;
        for dir in CLOSED_DIRS {
            disk.create_dir(dir).map_err(|error| StorageError::io("create directory", dir, error))?;
        }
        sync_names(&disk)?;
        let state = open_state(&disk, &directory)?;
        remove_temporary_files(&disk)?;
        let chains = Chains::open(&disk, directory.id, options.calendar, Keep::Closed, state.cuts_known)?;
        refuse_older_state(&disk, &state, chains.positions())?;
        sweep(&disk, &chains, HeldBase::find(&disk, &chains)?.as_ref())?;
        let archive =
            options.archive.map(|retention| ArchiveCatalog::open(&disk, directory.id, retention)).transpose()?;
        Ok(Self {
            disk,
            options,
            directory,
            state,
            chains,
            stage: Stage::Opened,
            segments_next: Vec::new(),
            spare_next: 0,
            archive,
            ends: BTreeMap::new(),
        })
    }

    /// What is fixed for this directory.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What was last made durable.
    #[must_use]
    pub const fn state(&self) -> &StoreState {
        &self.state
    }

    /// The disk.
    #[must_use]
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    /// The newest cut, if there is one.
    #[must_use]
    pub const fn last_cut(&self) -> Option<&CutHeader> {
        self.chains.last()
    }

    /// Makes `count` more epochs usable; returns the last of them. The first unused one at a start is one above
    /// [`StoreState::epoch_lease_end`] as it was when the store was opened.
    ///
    /// # Errors
    /// When the disk refuses; no epoch may be used then. With [`StorageError::is_no_space`] nothing has changed: call
    /// again later.
    pub fn lease_epochs(&mut self, count: u64) -> Result<Epoch, StorageError> {
        let epoch_lease_end = Epoch(self.state.epoch_lease_end.0 + count);
        self.change_state(StoreState { epoch_lease_end, ..self.state.clone() })?;
        Ok(epoch_lease_end)
    }

    /// Makes the engine minute durable before its first marker. A minute that is not later changes nothing.
    ///
    /// # Errors
    /// When the disk refuses; the marker may not be sent then. With [`StorageError::is_no_space`] nothing has changed:
    /// call again later.
    pub fn record_minute(&mut self, minute: Minute) -> Result<(), StorageError> {
        if minute <= self.state.time_minute {
            return Ok(());
        }
        self.change_state(StoreState { time_minute: minute, ..self.state.clone() })
    }

    /// Durably records where the old generations end and opens the next for logs 0 to `logs` (exclusive). Returns its
    /// number; each log starts at [`LogPosition::start_of`] it.
    ///
    /// # Errors
    /// When the disk refuses; nothing may be written to a log then.
    ///
    /// # Panics
    /// When the logs have not been replayed by this store, or it was done before.
    pub fn open_generations(&mut self, logs: u32) -> Result<u32, StorageError> {
        let Stage::Replayed(ends) = std::mem::replace(&mut self.stage, Stage::Open) else {
            panic!("generations are opened once, after the logs were replayed");
        };
        for log in 0..logs {
            let dir = crate::position::log_directory(LogNumber(log));
            self.disk.create_dir(&dir).map_err(|error| StorageError::io("create directory", &dir, error))?;
        }
        self.disk.sync_dir("").map_err(|error| StorageError::io("sync directory", ".", error))?;
        let mut state = self.state.clone();
        state.closed.extend(ends);
        self.ends =
            state.closed.iter().map(|closed| ((closed.log, closed.end.generation), closed.end.position)).collect();
        self.forget_covered(&mut state);
        state.generation += 1;
        state.logs_open = logs;
        self.change_state(state)?;
        self.segments_next = vec![0; logs as usize];
        Ok(self.state.generation)
    }

    /// Identity of an open log, for its [`LogWriter`](crate::LogWriter).
    #[must_use]
    pub const fn log_identity(&self, log: LogNumber) -> LogIdentity {
        LogIdentity { directory: self.directory.id, log, generation: self.state.generation }
    }

    /// Writes the next cut file.
    ///
    /// # Errors
    /// With [`StorageError::is_no_space`] nothing has changed: call again later. On any other error the process must
    /// end.
    ///
    /// # Panics
    /// When generations are not open, a log has no part or two, or a position is behind what is covered already.
    pub fn write_cut(&mut self, cut: &PreparedCut) -> Result<CutHeader, StorageError> {
        let header = CutHeader {
            directory: self.directory.id,
            number: self.last_number() + 1,
            epoch: cut.epoch,
            time_ms: cut.time_ms,
            minute: cut.minute,
            arrivals_from_ms: cut.arrivals_from_ms,
        };
        let positions = self.cut_positions(&cut.positions);
        let written = self.write_parts(&header, &positions, cut);
        if written.as_ref().is_err_and(StorageError::is_no_space) {
            // What was written so far would only keep others from the room that is left.
            remove_if_there(&self.disk, &temporary_path(&cut_path(header.number)))?;
        }
        let blocks = written?;
        let file = open_cut(&self.disk, self.directory.id, header.number)?;
        self.chains.add_cut(file, positions, blocks);
        Ok(header)
    }

    fn write_parts(
        &self,
        header: &CutHeader,
        positions: &[(LogNumber, LogPosition)],
        cut: &PreparedCut,
    ) -> Result<Vec<Block>, StorageError> {
        let mut writer = create_cut(&self.disk, header)?;
        writer.positions(positions)?;
        writer.producers(cut.producers.iter())?;
        for (ids, runs) in &cut.shards {
            writer.ids(ids)?;
            writer.runs(ids.shard, runs)?;
        }
        let sealed = writer.seal()?;
        sealed.name(&self.disk)?;
        self.disk.sync_dir(CUTS_DIR).map_err(|error| StorageError::io("sync directory", CUTS_DIR, error))?;
        Ok(sealed.blocks)
    }

    /// Whether a cut does not go beyond what the cut files hold already, so that a file of it would say nothing.
    #[must_use]
    pub fn is_covered(&self, cut: &PreparedCut) -> bool {
        let start = LogPosition::start_of(self.state.generation);
        cut.positions.iter().all(|(log, position)| *position <= self.covered(*log).max(start))
    }

    /// Hands out all runs of the minutes and classes asked for from all closed files, and from a cut that is not
    /// written yet, in slices of one shard. A slice may name a slot more than once.
    ///
    /// # Errors
    /// When a file cannot be read or does not verify.
    ///
    /// # Panics
    /// When the minutes begin or end within a period of which retention has left only the whole.
    pub fn runs(
        &self,
        request: &RunRequest,
        unwritten: Option<&PreparedCut>,
        mut visit: impl FnMut(u16, Vec<SlotCount>),
    ) -> Result<(), StorageError> {
        if let Some(cut) = unwritten {
            cut.runs(request, &mut visit);
        }
        self.runs_in(Scope::All, request, visit)
    }

    /// Hands out those of the runs that are in cuts which [`replay_cuts`](Self::replay_cuts) does not hand out one by
    /// one, since a base holds them.
    ///
    /// # Errors
    /// When a file cannot be read or does not verify.
    ///
    /// # Panics
    /// As [`runs`](Self::runs).
    pub fn runs_of_base(
        &self,
        request: &RunRequest,
        visit: impl FnMut(u16, Vec<SlotCount>),
    ) -> Result<(), StorageError> {
        self.runs_in(Scope::Base, request, visit)
    }

    fn runs_in(
        &self,
        scope: Scope,
        request: &RunRequest,
        mut visit: impl FnMut(u16, Vec<SlotCount>),
    ) -> Result<(), StorageError> {
        let classes = FinalityClass(0)..=request.class_max;
        let question = Question { minutes: request.minutes.clone(), classes, shard: None, scope };
        let mut slices: Vec<Vec<SlotCount>> = vec![Vec::new(); usize::from(self.directory.shards)];
        self.chains.visit(&self.disk, &question, |shard, entries| {
            let Some(slice) = slices.get_mut(usize::from(shard)) else { return };
            slice.extend_from_slice(entries);
            while slice.len() >= SLICE_ENTRIES {
                let rest = slice.split_off(SLICE_ENTRIES);
                visit(shard, std::mem::replace(slice, rest));
            }
        })?;
        for (shard, slice) in (0..).zip(slices).filter(|(_, slice)| !slice.is_empty()) {
            visit(shard, slice);
        }
        Ok(())
    }

    /// Number of the newest cut, 0 without one.
    fn last_number(&self) -> u64 {
        self.chains.last().map_or(0, |header| header.number)
    }

    /// Up to where the cuts hold a log; the start of generation 0 where they hold nothing of it.
    fn covered(&self, log: LogNumber) -> LogPosition {
        let covered = self.chains.positions().iter().find(|(of, _)| *of == log);
        covered.map_or(LogPosition::start_of(0), |(_, position)| *position)
    }

    /// Position that the cut files cover in every log that has to be told: open ones by their parts, older ones by
    /// their recorded ends, since all they hold was replayed.
    fn cut_positions(&self, parts: &[(LogNumber, LogPosition)]) -> Vec<(LogNumber, LogPosition)> {
        assert_eq!(self.stage, Stage::Open, "cuts are written when generations are open");
        let mut logs: Vec<u32> = parts.iter().map(|(log, _)| log.0).collect();
        logs.sort_unstable();
        assert!(logs.iter().copied().eq(0..self.state.logs_open), "each open log has one part: {logs:?}");
        let mut positions = parts.to_vec();
        for (log, position) in parts {
            assert_eq!(position.generation, self.state.generation, "a part covers its open generation");
            assert!(*position >= self.covered(*log), "what is covered only grows");
        }
        for closed in self.state.closed.iter().filter(|closed| closed.log.0 >= self.state.logs_open) {
            match positions.iter_mut().find(|(log, _)| *log == closed.log) {
                Some((_, position)) => *position = (*position).max(closed.end),
                None => positions.push((closed.log, closed.end)),
            }
        }
        positions
    }

    /// Drops the ends of generations that the newest cut file covers.
    fn forget_covered(&self, state: &mut StoreState) {
        state.closed.retain(|closed| closed.end.position > 0 && closed.end > self.covered(closed.log));
    }

    /// Makes a state durable, and only then goes by it.
    fn change_state(&mut self, state: StoreState) -> Result<(), StorageError> {
        let state = StoreState { cuts_known: self.last_number(), ..state };
        state.write(&self.disk, self.directory.id)?;
        self.state = state;
        Ok(())
    }
}
