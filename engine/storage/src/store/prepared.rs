//! A cut on its way to its file: sorted once, then read by those who need its runs and written.
//!
//! Not the freezing of the shards. Invariant: what is read of a prepared cut is what its file will hold.

use highwater_ranking::{Minute, Run, RunRequest, ShardIds, SlotCount};

use super::CorePart;
use crate::position::{LogNumber, LogPosition};
use crate::producers::ProducerImage;
use highwater_proto::Epoch;

/// Entries of one slice of runs: what a core moves between two polls of its socket.
pub(crate) const SLICE_ENTRIES: usize = 8192;

/// The parts of all cores, which were frozen by one marker, with their late views sorted into runs.
#[derive(Debug)]
pub struct PreparedCut {
    pub(super) epoch: Epoch,
    pub(super) time_ms: u64,
    pub(super) minute: Minute,
    pub(super) arrivals_from_ms: u64,
    /// Of each core's log, up to where it is held by the cut files up to this one.
    pub(super) positions: Vec<(LogNumber, LogPosition)>,
    pub(super) producers: Vec<ProducerImage>,
    /// New ids and runs of each shard.
    pub(super) shards: Vec<(ShardIds, Vec<Run>)>,
}

impl PreparedCut {
    /// Sorts the late views of all parts: takes its time.
    ///
    /// # Panics
    /// When there is no part or they are of different epochs.
    #[must_use]
    pub fn new(parts: Vec<CorePart>) -> Self {
        let first = &parts.first().expect("a cut has a part for each core").cut;
        let (epoch, time_ms, minute) = (first.epoch, first.time_ms, first.minute);
        assert!(parts.iter().all(|part| part.cut.epoch == epoch), "one marker froze all parts");
        let arrivals_from_ms = parts.iter().map(|part| part.cut.arrivals_from_ms).min().unwrap_or_default();
        let mut prepared = Self {
            epoch,
            time_ms,
            minute,
            arrivals_from_ms,
            positions: Vec::new(),
            producers: Vec::new(),
            shards: Vec::new(),
        };
        for part in parts {
            prepared.positions.push((part.log, part.position));
            prepared.producers.extend(part.producers.producers);
            prepared.shards.extend(part.cut.shards.into_iter().map(highwater_ranking::ShardCut::into_runs));
        }
        prepared
    }

    /// Every view that arrived before this time (ms UTC) is in this cut or an earlier one.
    #[must_use]
    pub fn arrivals_from_ms(&self) -> u64 {
        self.arrivals_from_ms
    }

    /// Hands out the runs asked for, in slices of one shard.
    pub(super) fn runs(&self, request: &RunRequest, mut visit: impl FnMut(u16, Vec<SlotCount>)) {
        let is_meant = |run: &&Run| request.minutes.contains(&run.minute) && run.class <= request.class_max;
        for (ids, runs) in &self.shards {
            for run in runs.iter().filter(is_meant) {
                run.entries.chunks(SLICE_ENTRIES).for_each(|slice| visit(ids.shard, slice.to_vec()));
            }
        }
    }
}
