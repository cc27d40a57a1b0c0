//! One video in one cache line: its id's key and all its counters.
//!
//! A view waits for two misses, one behind the other: the bucket of the index, then this line. With the key elsewhere
//! it would be three. Invariants: a count is at most [`COUNT_MAX`] of its board, for no more rows are let in while one
//! is near it ([`crate::CoreTop::nearly_full`]); a line's tumbling counts are those of the periods that its stamp lies
//! in, so whoever reads or changes them goes through [`CounterLine::refresh`], [`Counters::refresh`] or
//! [`CounterLine::count`].
//!
//! | word | low bits | high bits |
//! |---|---|---|
//! | 0, 1 | key, see `videos.rs` | |
//! | 2 | all-time, 56 | minute count, its low 8 |
//! | 3 | sliding month, 48 | state, its low 16 |
//! | 4 | tumbling month, 48 | state, its high 16 |
//! | 5 | sliding day, 44 | tumbling hour, its low 20 |
//! | 6 | tumbling day, 44 | tumbling hour, its high 20 |
//! | 7 | sliding hour, 40 | minute count, its high 24 |

use bytemuck::{Pod, Zeroable};

use crate::board::BOARDS;
use crate::calendar::CALENDAR_PERIODS;
use crate::shard::{COUNTERS, Edges, FIRST_WINDOW, SLIDING};

/// Bits of a line's state below its stamp: one for each board.
const MEMBER_BITS: u32 = 7;
/// The largest stamp, some time in the year 5797; from then on tumbling counts would never be reset.
pub(crate) const STAMP_MAX: u32 = u32::MAX >> MEMBER_BITS;

/// Bits of a count, by board: all-time, sliding hour, day, month, tumbling hour, day, month.
const COUNT_BITS: [u32; BOARDS] = [56, 40, 44, 48, 40, 44, 48];
/// The most that a video can have, by board. At 100 million views of one video in a second, an hour has 3.6 × 10¹¹ of
/// 1.0 × 10¹², a day 8.6 × 10¹² of 1.7 × 10¹³, a month 2.7 × 10¹⁴ of 2.8 × 10¹⁴, and all-time lasts 22 years.
pub(crate) const COUNT_MAX: [u64; BOARDS] = {
    let mut most = [0; BOARDS];
    let mut board = 0;
    while board < BOARDS {
        most[board] = u64::MAX >> (64 - COUNT_BITS[board]);
        board += 1;
    }
    most
};
/// The board whose count lies in two pieces.
const TUMBLING_HOUR: usize = FIRST_WINDOW + SLIDING;
/// The packed word whose low bits hold a board's count; [`TUMBLING_HOUR`]'s does not.
const WORD: [usize; BOARDS] = [0, 5, 3, 1, usize::MAX, 4, 2];

const _: () = assert!(BOARDS == COUNTERS && BOARDS == MEMBER_BITS as usize);
const _: () = assert!(COUNT_BITS[TUMBLING_HOUR] == 2 * (64 - 44) && WORD[TUMBLING_HOUR] == usize::MAX);

/// The form in which ids of at most 15 bytes are compared and longer ones are found; see `videos.rs`.
pub(crate) type Key = [u64; 2];

/// One video: one cache line.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct CounterLine {
    pub(crate) key: Key,
    packed: [u64; 6],
}

const _: () = assert!(size_of::<CounterLine>() == 64);

/// What a line counts, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counters {
    /// By counter number: all-time, then the windows. The tumbling ones may be of periods that are over.
    pub(crate) counts: [u64; COUNTERS],
    /// Bit b: the video is a member of board b. Above them the stamp: the hour in which the line was last refreshed.
    state: u32,
    /// Views of the engine's minute and class 0 since the last close.
    pub(crate) minute_count: u32,
}

impl Counters {
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
        self.state = edges.stamps[0] << MEMBER_BITS | self.members();
    }

    /// The boards that the video is a member of, as a bit set.
    #[inline]
    pub(crate) fn members(&self) -> u32 {
        self.state & ((1 << MEMBER_BITS) - 1)
    }
}

impl CounterLine {
    /// All that the line counts.
    #[inline]
    pub(crate) fn counters(&self) -> Counters {
        let p = &self.packed;
        let low = |word: usize, board: usize| p[word] & COUNT_MAX[board];
        Counters {
            counts: [low(0, 0), low(5, 1), low(3, 2), low(1, 3), p[3] >> 44 | p[4] >> 44 << 20, low(4, 5), low(2, 6)],
            state: (p[1] >> 48 | p[2] >> 48 << 16) as u32,
            minute_count: (p[0] >> 56 | p[5] >> 40 << 8) as u32,
        }
    }

    /// Replaces all that the line counts.
    ///
    /// # Panics
    /// When a count is above its [`COUNT_MAX`].
    #[inline]
    pub(crate) fn set_counters(&mut self, counters: &Counters) {
        let Counters { counts, state, minute_count } = counters;
        let excess = counts.iter().zip(COUNT_BITS).fold(0, |excess, (count, bits)| excess | count >> bits);
        assert!(excess == 0, "bug: rows were let in though a count is beyond what a video can have: {counts:?}");
        let (state, minute_count) = (u64::from(*state), u64::from(*minute_count));
        self.packed = [
            counts[0] | minute_count << 56,
            counts[3] | state << 48,
            counts[6] | state >> 16 << 48,
            counts[2] | counts[4] << 44,
            counts[5] | counts[4] >> 20 << 44,
            counts[1] | minute_count >> 8 << 40,
        ];
    }

    /// The count of a board's window, whatever of it is stale.
    #[inline]
    pub(crate) fn count(&self, board: usize, edges: &Edges) -> u64 {
        let calendar = board.checked_sub(FIRST_WINDOW + SLIDING);
        let is_stale = calendar.is_some_and(|period| self.counters().state >> MEMBER_BITS < edges.stamps[period]);
        if is_stale { 0 } else { self.fresh_count(board) }
    }

    /// The count of a board's window on a line that was refreshed in the board's period, as that of each member was.
    #[inline]
    pub(crate) fn fresh_count(&self, board: usize) -> u64 {
        if board == TUMBLING_HOUR { self.counters().counts[board] } else { self.packed[WORD[board]] & COUNT_MAX[board] }
    }

    /// Sets to zero what is left of periods that are over.
    pub(crate) fn refresh(&mut self, edges: &Edges) {
        self.change(|counters| counters.refresh(edges));
    }

    /// Whether the video is a member of a board.
    #[inline]
    pub(crate) fn is_member(&self, board: usize) -> bool {
        self.counters().members() >> board & 1 == 1
    }

    /// Makes the video a member of a board.
    pub(crate) fn join(&mut self, board: usize) {
        self.change(|counters| counters.state |= 1 << board);
    }

    /// Ends the video's membership of a board.
    pub(crate) fn leave(&mut self, board: usize) {
        self.change(|counters| counters.state &= !(1 << board));
    }

    /// Sets the count of a board on a refreshed line.
    ///
    /// # Panics
    /// When it is above its [`COUNT_MAX`].
    #[inline]
    pub(crate) fn set_count(&mut self, board: usize, count: u64) {
        self.change(|counters| counters.counts[board] = count);
    }

    /// Takes the count of the engine's minute.
    pub(crate) fn take_minute_count(&mut self) -> u32 {
        let mut taken = 0;
        self.change(|counters| taken = std::mem::take(&mut counters.minute_count));
        taken
    }

    #[cfg(test)]
    pub(crate) fn set_minute_count(&mut self, minute_count: u32) {
        self.change(|counters| counters.minute_count = minute_count);
    }

    #[inline]
    fn change(&mut self, change: impl FnOnce(&mut Counters)) {
        let mut counters = self.counters();
        change(&mut counters);
        self.set_counters(&counters);
    }
}

const _: () = assert!(CALENDAR_PERIODS == 3);

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: Counters = Counters { counts: [0; COUNTERS], state: 0, minute_count: 0 };

    fn line() -> CounterLine {
        CounterLine { key: [u64::MAX; 2], ..CounterLine::zeroed() }
    }

    #[test]
    fn every_field_holds_its_most_beside_any_other() {
        let full = Counters { counts: COUNT_MAX, state: u32::MAX, minute_count: u32::MAX };
        for background in [EMPTY, full] {
            let one_count = |(board, most)| {
                let mut counters = background;
                counters.counts[board] = 0x5A_A5A5_5A5A_A5A5 & most;
                counters
            };
            let others =
                [Counters { state: 0xA5A5_5A5A, ..background }, Counters { minute_count: 0x5AA5_A55A, ..background }];
            for counters in COUNT_MAX.into_iter().enumerate().map(one_count).chain(others) {
                let mut line = line();
                line.set_counters(&counters);
                assert_eq!((line.counters(), line.key), (counters, [u64::MAX; 2]));
                let counts = std::array::from_fn(|board| line.fresh_count(board));
                assert_eq!(counts, counters.counts);
            }
        }
    }

    #[test]
    fn one_field_changes_alone() {
        let full = Counters { counts: COUNT_MAX, state: u32::MAX, minute_count: u32::MAX };
        for board in 0..BOARDS {
            let mut line = line();
            line.set_counters(&full);
            line.set_count(board, 7);
            line.leave(board);
            assert_eq!((line.take_minute_count(), line.take_minute_count()), (u32::MAX, 0));
            let mut expected = full;
            expected.counts[board] = 7;
            expected.state &= !(1 << board);
            expected.minute_count = 0;
            assert_eq!(line.counters(), expected);
            assert!(!line.is_member(board));
            line.join(board);
            assert!(line.is_member(board));
        }
    }

    #[test]
    fn a_count_beyond_its_most_is_a_bug() {
        for (board, most) in COUNT_MAX.into_iter().enumerate() {
            let caught = std::panic::catch_unwind(|| line().set_count(board, most + 1));
            assert!(caught.is_err(), "board {board}");
            line().set_count(board, most);
        }
    }
}
