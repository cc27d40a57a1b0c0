//! One shard: its ids, a counter line per video, and the views that the next cut will take.
//!
//! It counts; which videos rank is for the boards, which put their membership bits into the
//! lines. Invariants: see the crate's invariants 1 to 3; a slot's dirty bit is set iff its
//! `minute_count` is above zero, and `dirty_count` is the number of set bits; a line's tumbling counts are those of the
//! periods that its stamp lies in, so whoever reads or changes them goes through [`CounterLine::refresh`] or
//! [`CounterLine::count`].

use bytemuck::{Pod, Zeroable};
use highwater_memory::{HUGE_PAGE_BYTES, Slab};

use crate::board::BOARDS;
use crate::calendar::{CALENDAR_PERIODS, CalendarPeriod};
use crate::config::{RankingConfig, RankingError, WindowLengths};
use crate::cut::LateKey;
use crate::ids::IdTable;
use crate::time::{FinalityClass, Minute};

/// The counter of all views.
pub(crate) const ALL_TIME: usize = 0;
/// The counter of window 0; those of the other windows follow.
pub(crate) const FIRST_WINDOW: usize = 1;
/// Sliding windows, numbers 0 to 2: hour, day, month.
pub(crate) const SLIDING: usize = 3;
/// All windows; 3 to 5 are the tumbling hour, day and month.
pub(crate) const WINDOWS: usize = SLIDING + CALENDAR_PERIODS;
/// Counters of a line.
pub(crate) const COUNTERS: usize = FIRST_WINDOW + WINDOWS;

/// Bits of a line's state below its stamp: one for each board.
const MEMBER_BITS: u32 = 7;
/// The largest stamp, some time in the year 5797; from then on tumbling counts would never be reset.
const STAMP_MAX: u32 = u32::MAX >> MEMBER_BITS;

/// One video's counters: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CounterLine {
    /// By counter number: [`ALL_TIME`], then the windows. The tumbling ones may be of periods that are over.
    counts: [u64; COUNTERS],
    /// Bit b: the video is a member of board b. Above them the stamp: the hour in which the line was last refreshed.
    state: u32,
    /// Views of the engine's minute and class 0 since the last close.
    pub(crate) minute_count: u32,
}

const _: () = assert!(size_of::<CounterLine>() == 64);
const _: () = assert!(BOARDS == COUNTERS && BOARDS == MEMBER_BITS as usize);

impl CounterLine {
    /// The count of a board's window, whatever of it is stale.
    #[inline]
    pub(crate) fn count(&self, board: usize, edges: &Edges) -> u64 {
        let is_stale =
            board >= FIRST_WINDOW + SLIDING && self.state >> MEMBER_BITS < edges.stamps[board - FIRST_WINDOW - SLIDING];
        if is_stale { 0 } else { self.counts[board] }
    }

    /// The count of a board's window on a line that was refreshed in the board's period, as that of each member was.
    #[inline]
    pub(crate) fn fresh_count(&self, board: usize) -> u64 {
        self.counts[board]
    }

    /// Sets to zero what is left of periods that are over.
    #[inline]
    pub(crate) fn refresh(&mut self, edges: &Edges) {
        let stamp = self.state >> MEMBER_BITS;
        if stamp == edges.stamps[0] {
            return;
        }
        for (period, first) in edges.stamps.iter().enumerate() {
            if stamp < *first {
                self.counts[FIRST_WINDOW + SLIDING + period] = 0;
            }
        }
        self.state = edges.stamps[0] << MEMBER_BITS | self.state & ((1 << MEMBER_BITS) - 1);
    }

    /// Whether the video is a member of a board.
    #[inline]
    pub(crate) fn is_member(&self, board: usize) -> bool {
        self.state >> board & 1 == 1
    }

    /// Makes the video a member of a board.
    pub(crate) fn join(&mut self, board: usize) {
        self.state |= 1 << board;
    }

    /// Ends the video's membership of a board.
    pub(crate) fn leave(&mut self, board: usize) {
        self.state &= !(1 << board);
    }

    /// The counter of a board on a refreshed line.
    #[inline]
    pub(crate) fn count_mut(&mut self, board: usize) -> &mut u64 {
        &mut self.counts[board]
    }
}

/// What a view's minute is judged by until the next marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edges {
    /// The engine minute m.
    pub(crate) minute: Minute,
    /// The first minute in each window.
    pub(crate) starts: [Minute; WINDOWS],
    /// The first minute behind each tumbling window; a sliding one is open ahead.
    pub(crate) ends: [Minute; WINDOWS],
    /// The hour, by number, in which each tumbling window begins. The hour's own is that of now.
    pub(crate) stamps: [u32; CALENDAR_PERIODS],
}

impl Edges {
    /// The edges of an engine minute.
    pub(crate) fn at(minute: Minute, windows: &WindowLengths) -> Self {
        let calendar = &windows.calendar;
        let hour_start = |minute| calendar.period_at(CalendarPeriod::Hour, minute).start;
        let [hour, day, month] = CalendarPeriod::ALL.map(|kind| calendar.period_at(kind, minute));
        let hour_minutes = calendar.minutes_max(CalendarPeriod::Hour);
        let stamp = |start: Minute| (start.0 / hour_minutes).min(STAMP_MAX);
        let sliding_month = hour_start(minute.minus(windows.month));
        let open = Minute(u32::MAX);
        Self {
            minute,
            starts: [
                minute.minus(windows.hour),
                minute.minus(windows.day),
                sliding_month,
                hour.start,
                day.start,
                month.start,
            ],
            ends: [open, open, open, hour.end, day.end, month.end],
            stamps: [hour.start, day.start, month.start].map(stamp),
        }
    }

    /// Whether a view of that minute and class counts in a window, as 1 or 0.
    #[inline]
    pub(crate) fn counts(&self, window: usize, minute: Minute, class: FinalityClass) -> u64 {
        // The last minute of all is behind every end but belongs to the sliding windows.
        let in_time = window < SLIDING || (minute < self.ends[window] && class <= Self::class_max(window));
        u64::from(minute >= self.starts[window] && in_time)
    }

    /// The latest class that counts in a window.
    pub(crate) const fn class_max(window: usize) -> FinalityClass {
        if window < SLIDING { FinalityClass::MAX } else { FinalityClass((window - SLIDING) as u8) }
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

    /// Counts one view of a slot, also in the totals by board. Returns the boards that may have to act on it, as a bit
    /// set: a board need not, while the new count is below its threshold's, or the video is a member and was above the
    /// threshold's count before.
    #[inline]
    pub(crate) fn count(
        &mut self,
        slot: u32,
        minute: Minute,
        class: FinalityClass,
        edges: &Edges,
        ledger: &mut Ledger,
    ) -> u32 {
        let line = &mut self.lines[slot as usize];
        line.refresh(edges);
        let mut counted = [1u64; BOARDS];
        for window in 0..WINDOWS {
            counted[FIRST_WINDOW + window] = edges.counts(window, minute, class);
        }
        let mut concerned = 0;
        for (board, counted) in counted.into_iter().enumerate() {
            ledger.totals[board] += counted;
            let count = line.counts[board] + counted;
            line.counts[board] = count;
            let theta_count = ledger.theta_counts[board];
            let acts = counted == 1
                && count >= theta_count
                && (!line.is_member(board) || count <= theta_count.saturating_add(1));
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

/// What a core keeps of each board beside the lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    /// The threshold's count; `u64::MAX` leaves the board alone.
    pub(crate) theta_counts: [u64; BOARDS],
    /// Views of all videos in the board's window.
    pub(crate) totals: [u64; BOARDS],
}
