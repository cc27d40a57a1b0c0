//! One shard: its ids, a counter line per video, and the views that the next cut will take.
//!
//! It counts; which videos rank is for the boards, which put their membership bits into the
//! lines. Invariant: see the crate's invariants 1 to 3; a slot's dirty bit is set iff its
//! `minute_count` is above zero, and `dirty_count` is the number of set bits.

use bytemuck::{Pod, Zeroable};
use highwater_memory::{HUGE_PAGE_BYTES, Slab};

use crate::board::BOARDS;
use crate::config::{RankingConfig, RankingError};
use crate::cut::LateKey;
use crate::ids::IdTable;
use crate::time::{FinalityClass, Minute};

/// Counters of a line: all-time, then sliding hour, day and month, then calendar ones.
pub(crate) const COUNTERS: usize = 7;
/// The counter of all views.
pub(crate) const ALL_TIME: usize = 0;
/// The counter of window 0; those of windows 1 and 2 follow.
pub(crate) const SLIDING: usize = 1;
/// Sliding windows: hour, day, month.
pub(crate) const WINDOWS: usize = 3;

/// One video's counters: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CounterLine {
    /// By counter number: [`ALL_TIME`], [`SLIDING`] and on; the calendar ones are kept for the
    /// tumbling windows and stay zero.
    pub(crate) counts: [u64; COUNTERS],
    /// Bit b: the video is a member of board b.
    pub(crate) members: u32,
    /// Views of the engine's minute and class 0 since the last close.
    pub(crate) minute_count: u32,
}

const _: () = assert!(size_of::<CounterLine>() == 64);

/// What a view's minute is judged by until the next marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edges {
    /// The engine minute m.
    pub(crate) minute: Minute,
    /// The first minute in each window: m − W.
    pub(crate) starts: [Minute; WINDOWS],
}

impl Edges {
    /// The edges of an engine minute.
    pub(crate) fn at(minute: Minute, window_minutes: [u32; WINDOWS]) -> Self {
        Self { minute, starts: window_minutes.map(|minutes| minute.minus(minutes)) }
    }
}

/// One shard of the core.
pub(crate) struct Shard {
    /// Its number in the data directory.
    pub(crate) number: u16,
    /// Its ids.
    pub(crate) ids: IdTable,
    /// A line per slot.
    pub(crate) lines: Slab<CounterLine>,
    /// A bit per slot.
    pub(crate) dirty: Slab<u64>,
    /// Bits set in `dirty`.
    pub(crate) dirty_count: usize,
    /// Views that `minute_count` does not hold, as late keys.
    pub(crate) late: Vec<u64>,
    /// Slots whose ids are in a cut already.
    pub(crate) slots_cut: u32,
}

impl Shard {
    /// An empty shard.
    pub(crate) fn new(number: u16, config: &RankingConfig) -> Result<Self, RankingError> {
        let memory = |source| RankingError::Memory { shard: number, source };
        let videos_max = config.videos_per_shard_max;
        Ok(Self {
            number,
            ids: IdTable::reserve(videos_max, config.id_arena_bytes_per_shard).map_err(memory)?,
            lines: Slab::reserve(videos_max as usize).map_err(memory)?,
            dirty: Slab::reserve(videos_max.div_ceil(64) as usize).map_err(memory)?,
            dirty_count: 0,
            late: Vec::new(),
            slots_cut: 0,
        })
    }

    /// See [`crate::CoreRanking::prefault`].
    pub(crate) fn prefault(&mut self) {
        self.ids.prefault();
        self.lines.populate(HUGE_PAGE_BYTES / size_of::<CounterLine>());
        self.dirty.populate(usize::MAX);
    }

    /// Counts one view of a slot. Returns the boards that may have to act on it, as a bit set: a
    /// board need not, while the new count is below its threshold's, or the video is a member
    /// and was above the threshold's count before.
    #[inline]
    pub(crate) fn count(
        &mut self,
        slot: u32,
        minute: Minute,
        class: FinalityClass,
        edges: &Edges,
        theta_counts: &[u64; BOARDS],
    ) -> u32 {
        let line = &mut self.lines[slot as usize];
        let mut counted = [0u64; BOARDS];
        counted[ALL_TIME] = 1;
        for window in 0..WINDOWS {
            counted[SLIDING + window] = u64::from(minute >= edges.starts[window]);
        }
        let mut concerned = 0;
        for board in 0..BOARDS {
            let count = line.counts[board] + counted[board];
            line.counts[board] = count;
            let member = line.members >> board & 1 == 1;
            let acts = counted[board] == 1
                && count >= theta_counts[board]
                && (!member || count <= theta_counts[board].saturating_add(1));
            concerned |= u32::from(acts) << board;
        }
        if minute == edges.minute && class == FinalityClass::IN_HOUR && line.minute_count < u32::MAX {
            if line.minute_count == 0 {
                self.dirty[slot as usize / 64] |= 1 << (slot % 64);
                self.dirty_count += 1;
            }
            line.minute_count += 1;
        } else {
            self.late.push(LateKey::of(minute, class, slot));
        }
        concerned
    }
}
