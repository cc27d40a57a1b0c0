//! The helper that does a core's blocking work on the data directory: segments, leases, cut files, leaving runs.
//!
//! It owns the store and answers errands in the order they come. Invariant: after a failed write or sync the process
//! ends here, before anything that rested on it is acknowledged; only a full disk is an answer.

use crate::fatal::fatal;
use crate::park::Waker;
use crossbeam_channel::{Receiver, Sender};
use highwater_pipeline::{CutErrand, LeavingSlice, StoreAnswer, StoreRequest};
use highwater_ranking::RunRequest;
use highwater_storage::{CorePart, Disk, LogNumber, PreparedSegment, StorageError, Store};

/// What the helper brings back to the core.
#[derive(Debug)]
pub enum Brought {
    /// A segment, which the core attaches to its log device.
    Segment(PreparedSegment),
    /// Anything else.
    Answer(StoreAnswer),
}

/// The helper's state.
pub struct Storekeeper<D: Disk> {
    /// The data directory.
    pub store: Store<D>,
    /// Bytes of covered log that are kept.
    pub log_retention_bytes: u64,
    /// Errands from the core.
    pub requests: Receiver<StoreRequest>,
    /// Answers to it.
    pub brought: Sender<Brought>,
    /// Wakes the core for an answer.
    pub waker: Waker,
}

impl<D: Disk> Storekeeper<D> {
    /// Does errands until the core hangs up.
    pub fn run(mut self) {
        while let Ok(request) = self.requests.recv() {
            let done = match request {
                StoreRequest::PrepareSegment => self.prepare_segment(),
                StoreRequest::LeaseEpochs { count } => self.store.lease_epochs(count).map(|end| {
                    self.bring(Brought::Answer(StoreAnswer::EpochsLeased(end)));
                }),
                StoreRequest::RecordMinute(minute) => self.store.record_minute(minute).map(|()| {
                    self.bring(Brought::Answer(StoreAnswer::MinuteRecorded(minute)));
                }),
                StoreRequest::WriteCut(errand) => self.write_cut(*errand),
                StoreRequest::LeavingRuns(requests) => self.leaving_runs(&requests),
            };
            if let Err(error) = done {
                fatal("the data directory could not be written or read", &error);
            }
        }
    }

    fn prepare_segment(&mut self) -> Result<(), StorageError> {
        match self.store.prepare_segment(LogNumber(0)) {
            Ok(segment) => self.bring(Brought::Segment(segment)),
            Err(error) if error.is_no_space() => {
                self.bring(Brought::Answer(StoreAnswer::NoSpace(error.to_string())));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write_cut(&mut self, errand: CutErrand) -> Result<(), StorageError> {
        let CutErrand { cut, position, producers } = errand;
        let header = self.store.write_cut(vec![CorePart { log: LogNumber(0), position, cut, producers }])?;
        let recycled = self.store.recycle(self.log_retention_bytes)?;
        tracing::debug!(number = header.number, epoch = header.epoch.0, recycled, "cut file written");
        self.bring(Brought::Answer(StoreAnswer::CutWritten));
        Ok(())
    }

    fn leaving_runs(&mut self, requests: &[RunRequest]) -> Result<(), StorageError> {
        for request in requests {
            let window = request.window;
            self.store.leaving_runs(request, |shard, entries| {
                self.bring(Brought::Answer(StoreAnswer::Leaving(LeavingSlice { window, shard, entries })));
            })?;
        }
        self.bring(Brought::Answer(StoreAnswer::LeavingDone));
        Ok(())
    }

    /// Hands something to the core; a core that is gone needs nothing.
    fn bring(&self, brought: Brought) {
        if self.brought.send(brought).is_ok() {
            self.waker.wake();
        }
    }
}
