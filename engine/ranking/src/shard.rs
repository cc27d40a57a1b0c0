//! One shard: its videos, and the views that the next cut will take.
//!
//! It counts; which videos rank is for the boards, which put their membership bits into the
//! lines. Invariants: see the crate's invariants 1 to 3; a slot's dirty bit is set iff its
//! `minute_count` is above zero, and `dirty_count` is the number of set bits.

use highwater_memory::Slab;

use crate::board::BOARDS;
use crate::calendar::{CALENDAR_PERIODS, CalendarPeriod};
use crate::config::{RankingConfig, RankingError, WindowLengths};
use crate::cut::LateViews;
use crate::line::{Counters, STAMP_MAX};
use crate::time::{FinalityClass, Minute};
use crate::videos::VideoTable;

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

    /// The counters of a view of that minute and class, as a bit set.
    #[inline]
    pub(crate) fn counted(&self, minute: Minute, class: FinalityClass) -> u32 {
        let bit = |window| (self.counts(window, minute, class) as u32) << (FIRST_WINDOW + window);
        (0..WINDOWS).fold(1 << ALL_TIME, |bits, window| bits | bit(window))
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
    /// Its videos.
    pub(crate) videos: VideoTable,
    /// A bit per slot.
    pub(crate) dirty: Slab<u64>,
    /// Bits set in `dirty`.
    pub(crate) dirty_count: usize,
    /// Views that `minute_count` does not hold, an entry for each row.
    pub(crate) late: Vec<LateViews>,
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
            videos: VideoTable::reserve(videos_max, config.id_arena_bytes_per_shard).map_err(memory)?,
            dirty: Slab::reserve(videos_max.div_ceil(64) as usize).map_err(memory)?,
            dirty_count: 0,
            late: Vec::new(),
            slots_cut: 0,
        })
    }

    /// See [`crate::CoreRanking::prefault`].
    pub(crate) fn prefault(&mut self) {
        self.videos.prefault();
        self.dirty.populate(usize::MAX);
    }

    /// Counts views of a slot that are of one minute and class, also in the totals by board. Returns the boards that
    /// may have to act on them, as a bit set: a board need not, while the new count is below its threshold's, or the
    /// video is a member and was above the threshold's count before.
    #[inline]
    pub(crate) fn count(&mut self, slot: u32, views: Views, edges: &Edges, ledger: &mut Ledger) -> u32 {
        let line = &mut self.videos.lines[slot as usize];
        let mut counters = line.counters();
        counters.refresh(edges);
        let count = u64::from(views.views);
        let is_now = views.minute == edges.minute && views.class == FinalityClass::IN_HOUR;
        let counted = if is_now { u32::MAX } else { edges.counted(views.minute, views.class) };
        if is_now {
            // It is in every window.
            ledger.views_now += count;
            counters.counts.iter_mut().for_each(|one| *one += count);
        } else {
            for (board, one) in counters.counts.iter_mut().enumerate() {
                let count = count * u64::from(counted >> board & 1);
                *one += count;
                ledger.totals[board] += count;
            }
        }
        match counters.minute_count.checked_add(views.views) {
            Some(minute_count) if is_now => {
                if counters.minute_count == 0 {
                    self.dirty[slot as usize / 64] |= 1 << (slot % 64);
                    self.dirty_count += 1;
                }
                counters.minute_count = minute_count;
            }
            _ => self.late.push(LateViews::new(views.minute, views.class, slot, views.views)),
        }
        line.set_counters(&counters);
        ledger.concerned(&counters, count) & counted
    }
}

/// Views of one video that are counted together; at least one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Views {
    pub(crate) minute: Minute,
    pub(crate) class: FinalityClass,
    pub(crate) views: u32,
}

/// What a core keeps of each board beside the lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger {
    /// The threshold's count; [`Self::LEFT_ALONE`] leaves the board alone.
    pub(crate) theta_counts: [u64; BOARDS],
    /// Views of all videos in the board's window, but for `views_now`.
    pub(crate) totals: [u64; BOARDS],
    /// Views that are to be added to every total.
    pub(crate) views_now: u64,
}

impl Ledger {
    /// A threshold above every count.
    pub(crate) const LEFT_ALONE: u64 = i64::MAX as u64;

    /// Adds what is to be added to every total.
    pub(crate) fn settle(&mut self) {
        let views = std::mem::take(&mut self.views_now);
        self.totals.iter_mut().for_each(|total| *total += views);
    }

    /// The boards to whose members a video may come, or among whose members at or above the threshold, by its last
    /// `views` in that board.
    #[inline]
    fn concerned(&self, counters: &Counters, views: u64) -> u32 {
        let (mut reached, mut passed) = (0, 0);
        for (board, (count, theta_count)) in counters.counts.iter().zip(self.theta_counts).enumerate() {
            // Negative, and so large, below the threshold.
            let above = count.wrapping_sub(theta_count);
            reached |= u32::from(above >> 63 == 0) << board;
            passed |= u32::from(above <= views) << board;
        }
        passed | reached & !counters.members()
    }
}
