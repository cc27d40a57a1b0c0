//! The helper that does the cores' blocking work on the data directory: segments, leases, cut files, leaving runs.
//!
//! It owns the store and answers errands in the order they come, segments last; what needs a part of every core is
//! done when the last part has come. Invariant: after a failed write or sync the process ends here, before anything
//! that rested on it is acknowledged; only a full disk is an answer.

use crate::fatal::fatal;
use crate::runtime::Waker;
use crossbeam_channel::{Receiver, Sender};
use highwater_pipeline::{CutErrand, Gather, LeavingSlice, StoreAnswer, StoreRequest, shard_owner};
use highwater_ranking::RunRequest;
use highwater_storage::{CorePart, Disk, LogNumber, PreparedSegment, StorageError, Store};
use std::collections::VecDeque;

/// What the helper brings back to a core.
#[derive(Debug)]
pub enum Brought {
    /// A segment, which the core attaches to its log device.
    Segment(PreparedSegment),
    /// Anything else.
    Answer(StoreAnswer),
}

/// Where a core takes its answers.
pub struct CoreDesk {
    /// Answers to it.
    pub brought: Sender<Brought>,
    /// Wakes it for an answer.
    pub waker: Waker,
}

/// The helper's state.
pub struct Storekeeper<D: Disk> {
    store: Store<D>,
    log_retention_bytes: u64,
    requests: Receiver<(u16, StoreRequest)>,
    /// By core.
    desks: Vec<CoreDesk>,
    /// Cores that want a segment; each asks for few at a time.
    segments_wanted: VecDeque<u16>,
    parts: Gather<CorePart>,
    leaving: Gather<Vec<RunRequest>>,
}

impl<D: Disk> Storekeeper<D> {
    /// A helper for as many cores as there are desks, which keeps so many bytes of covered log.
    pub fn new(
        store: Store<D>,
        log_retention_bytes: u64,
        requests: Receiver<(u16, StoreRequest)>,
        desks: Vec<CoreDesk>,
    ) -> Self {
        let (parts, leaving) = (Gather::new(desks.len()), Gather::new(desks.len()));
        Self { store, log_retention_bytes, requests, desks, segments_wanted: VecDeque::new(), parts, leaving }
    }

    /// Does errands until the cores hang up.
    pub fn run(mut self) {
        while let Some((core, request)) = self.next() {
            if let Err(error) = self.serve(core, request) {
                fatal("the data directory could not be written or read", &error);
            }
        }
    }

    /// The next errand: segments only when nothing else waits, since making one takes long, and all cores wait for what
    /// a marker needs.
    fn next(&mut self) -> Option<(u16, StoreRequest)> {
        loop {
            let request = match self.segments_wanted.is_empty() {
                true => self.requests.recv().ok()?,
                false => match self.requests.try_recv() {
                    Ok(request) => request,
                    Err(_) => return self.segments_wanted.pop_front().map(|core| (core, StoreRequest::PrepareSegment)),
                },
            };
            match request {
                (core, StoreRequest::PrepareSegment) => self.segments_wanted.push_back(core),
                other => return Some(other),
            }
        }
    }

    fn serve(&mut self, core: u16, request: StoreRequest) -> Result<(), StorageError> {
        match request {
            StoreRequest::PrepareSegment => self.prepare_segment(core)?,
            StoreRequest::LeaseEpochs { count } => {
                let end = self.store.lease_epochs(count)?;
                self.answer(core, StoreAnswer::EpochsLeased(end));
            }
            StoreRequest::RecordMinute(minute) => {
                self.store.record_minute(minute)?;
                self.answer(core, StoreAnswer::MinuteRecorded(minute));
            }
            StoreRequest::WriteCut(errand) => {
                let CutErrand { cut, position, producers } = *errand;
                let part = CorePart { log: LogNumber(u32::from(core)), position, cut, producers };
                if let Some(parts) = self.parts.put(usize::from(core), part) {
                    self.write_cut(parts)?;
                }
            }
            StoreRequest::LeavingRuns(requests) => {
                if let Some(all) = self.leaving.put(usize::from(core), requests) {
                    self.leaving_runs(&all)?;
                }
            }
        }
        Ok(())
    }

    fn prepare_segment(&mut self, core: u16) -> Result<(), StorageError> {
        match self.store.prepare_segment(LogNumber(u32::from(core))) {
            Ok(segment) => self.bring(core, Brought::Segment(segment)),
            Err(error) if error.is_no_space() => self.answer(core, StoreAnswer::NoSpace(error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write_cut(&mut self, parts: Vec<CorePart>) -> Result<(), StorageError> {
        if self.store.is_covered(&parts) {
            self.answer_all(|| StoreAnswer::CutEmpty);
            return Ok(());
        }
        let header = self.store.write_cut(parts)?;
        let recycled = self.store.recycle(self.log_retention_bytes)?;
        tracing::debug!(number = header.number, epoch = header.epoch.0, recycled, "cut file written");
        self.answer_all(|| StoreAnswer::CutWritten);
        Ok(())
    }

    /// Reads the runs once and gives each core those of its shards.
    fn leaving_runs(&mut self, all: &[Vec<RunRequest>]) -> Result<(), StorageError> {
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "the edges of all cores move alike: {all:?}");
        let cores = self.desks.len() as u16;
        for request in &all[0] {
            let window = request.window;
            self.store.leaving_runs(request, |shard, entries| {
                let slice = LeavingSlice { window, shard, entries };
                self.answer(shard_owner(shard, cores), StoreAnswer::Leaving(slice));
            })?;
        }
        self.answer_all(|| StoreAnswer::LeavingDone);
        Ok(())
    }

    fn answer_all(&self, answer: impl Fn() -> StoreAnswer) {
        for core in 0..self.desks.len() as u16 {
            self.answer(core, answer());
        }
    }

    fn answer(&self, core: u16, answer: StoreAnswer) {
        self.bring(core, Brought::Answer(answer));
    }

    /// Hands something to a core; a core that is gone needs nothing.
    fn bring(&self, core: u16, brought: Brought) {
        let desk = &self.desks[usize::from(core)];
        if desk.brought.send(brought).is_ok() {
            desk.waker.wake();
        }
    }
}
