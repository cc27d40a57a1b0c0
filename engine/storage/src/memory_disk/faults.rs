//! Which calls of a memory disk fail, how, and how often each kind of fault has met somebody.
//!
//! Not damage at rest, which [`MemoryDisk::flip_bit`](super::MemoryDisk::flip_bit) and
//! [`MemoryDisk::go_stale`](super::MemoryDisk::go_stale) do. Invariant: a fault is counted when it happens, not when it
//! is asked for.

use std::io;

use super::random::Random;

/// How often each kind of fault has happened, on a disk and those that it came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// Crashes.
    pub power_cuts: u64,
    /// Calls that failed because the power had.
    pub calls_without_power: u64,
    /// Sectors that were not synced and did not survive a crash.
    pub sectors_lost: u64,
    /// Sectors that were not synced and survived a crash.
    pub sectors_kept: u64,
    /// Files of which some sectors that were not synced survived a crash, and some did not.
    pub writes_torn: u64,
    /// Name changes that were not synced and did not survive a crash.
    pub names_lost: u64,
    /// Writes to a log that completed before an earlier one.
    pub writes_reordered: u64,
    /// Calls that found no room.
    pub no_room: u64,
    /// Writes that failed with an input/output error.
    pub failed_writes: u64,
    /// Syncs, of files and names, that failed with an input/output error.
    pub failed_syncs: u64,
    /// Reads that failed with an input/output error.
    pub failed_reads: u64,
    /// Reads that came back with fewer bytes than were asked for.
    pub short_reads: u64,
}

/// One call that fails by itself: the calls of its kind until then.
#[derive(Clone, Debug, Default)]
pub(super) struct Countdown(pub(super) Option<u64>);

impl Countdown {
    /// Counts a call; whether it is the one.
    pub(super) fn strikes(&mut self) -> bool {
        match &mut self.0 {
            None => false,
            Some(0) => self.0.take().is_some(),
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }
}

/// What is to fail.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultPlan {
    /// Changing calls until the power fails.
    pub(super) calls_left: Option<u64>,
    /// Changing calls until nothing can be allocated any more.
    pub(super) room_left: Option<u64>,
    pub(super) write: Countdown,
    pub(super) sync: Countdown,
    pub(super) read: Countdown,
    /// Whose choice is how short reads are; without it all are whole.
    pub(super) short_reads: Option<Random>,
}

impl FaultPlan {
    /// A plan for the disk as it comes back: only the habit of short reads stays.
    pub(super) fn after_crash(&self) -> Self {
        Self { short_reads: self.short_reads.clone(), ..Self::default() }
    }

    /// How many bytes a read of `len` bytes gives.
    pub(super) fn read_len(&mut self, len: usize) -> usize {
        let Some(random) = &mut self.short_reads else { return len };
        let is_short = len > 1 && random.below(8) == 0;
        if is_short { 1 + random.below(len as u64 - 1) as usize } else { len }
    }
}

/// What a disk says that can neither read nor write a place.
pub(super) fn input_output_error() -> io::Error {
    // EIO; `io::ErrorKind` has no name for it.
    io::Error::from_raw_os_error(5)
}
