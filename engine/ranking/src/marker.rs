//! What a marker does on a core: close a cut, move the edges, let minutes fall, freeze the lists.
//!
//! A state machine in slices, so that no call runs long; it reads no files: the runs that leave
//! are asked for and handed in. Invariants: see the crate. While a marker is at work no rows are
//! applied, so the lists of all boards, frozen in several slices, are of one state; the engine
//! minute moves only here, after the close has taken the old minute's counts and before runs leave and enter the
//! windows.
//!
//! ```text
//! Idle ─ begin_marker ─┬─ same minute, no cut ───────────────────────────┐
//!                      └─▶ Closing ─ Closed ─┬─ same minute ─────────────┤
//!                                            └─▶ Asking ─ NeedRuns ─▶ Moving ─ runs_done ─▶ Freezing ─ Top ─▶ Idle
//! ```

use highwater_memory::prefetch_at;
use highwater_proto::Epoch;

use crate::board::{Board, Member};
use crate::cell::Marker;
use crate::core::CoreRanking;
use crate::cut::{CoreCut, RunChange, RunRequest, ShardCut, SlotCount};
use crate::shard::{Edges, FIRST_WINDOW, SLIDING, Shard, WINDOWS};
use crate::time::Minute;
use crate::top::{CoreBoard, CoreTop};

/// Entries ahead of which subtraction fetches lines.
const PREFETCH_AHEAD: usize = 16;

/// What [`CoreRanking::step`] came to.
#[derive(Debug)]
pub enum MarkerStep {
    /// A slice is done, call again.
    Working,
    /// The cut is closed: for a helper, which must include it when it gathers leaving runs.
    Closed(CoreCut),
    /// The minute has advanced: answer with [`CoreRanking::subtract`], [`CoreRanking::add`] and
    /// [`CoreRanking::runs_done`]. The list may be empty.
    NeedRuns(Vec<RunRequest>),
    /// [`CoreRanking::runs_done`] has not been called yet; nothing was done.
    Waiting,
    /// The marker is done: the core's lists of its epoch.
    Top(CoreTop),
}

/// Where the marker at work is.
#[derive(Debug)]
pub(crate) enum Phase {
    /// None is at work.
    Idle,
    /// The cut is being closed.
    Closing(Closing),
    /// The runs that leave or enter are to be asked for; the edges were `from` before.
    Asking { from: Edges },
    /// The runs that leave are being subtracted, those that enter added.
    Moving,
    /// Lists are being frozen: these are done, and the next one waits for its scan or not.
    Freezing { done: Vec<CoreBoard>, scanning: bool },
}

/// A close under way: the shards before `shards.len()` are done, but for the last.
#[derive(Debug)]
pub(crate) struct Closing {
    marker: Marker,
    shards: Vec<ShardCut>,
    /// Where the last shard's dirty bits go on.
    word: usize,
}

impl CoreRanking {
    /// Begins a marker; [`Self::step`] does its work.
    ///
    /// # Panics
    /// While another is at work, before [`Self::finish_restore`], or when epoch or time go back:
    /// bugs of the caller.
    pub fn begin_marker(&mut self, marker: &Marker) {
        assert!(!self.restoring, "bug: a marker came before the restore was finished");
        assert!(matches!(self.phase, Phase::Idle), "bug: two markers at work at once");
        if let Some((epoch, time_ms)) = self.last {
            assert!(marker.epoch > epoch, "bug: epoch {:?} came after {epoch:?}", marker.epoch);
            assert!(marker.time_ms >= time_ms, "bug: engine time {} came after {time_ms}", marker.time_ms);
        }
        let minute = Minute::of_ms(marker.time_ms);
        assert!(minute >= self.edges.minute, "bug: minute {minute:?} came after {:?}", self.edges.minute);
        self.last = Some((marker.epoch, marker.time_ms));
        self.phase = if marker.cut || minute > self.edges.minute {
            Phase::Closing(Closing { marker: *marker, shards: Vec::new(), word: 0 })
        } else {
            freezing()
        };
    }

    /// Does the next slice of the marker at work, about `budget` entries of it.
    ///
    /// # Panics
    /// When no marker is at work.
    pub fn step(&mut self, budget: usize) -> MarkerStep {
        let budget = budget.max(1);
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => panic!("bug: a step was asked for without a marker"),
            Phase::Closing(mut closing) => {
                if !self.close_slice(&mut closing, budget) {
                    self.phase = Phase::Closing(closing);
                    return MarkerStep::Working;
                }
                let Closing { marker, shards, .. } = closing;
                let from = self.edges;
                self.edges = Edges::at(Minute::of_ms(marker.time_ms), &self.config.windows);
                self.phase = if self.edges.minute > from.minute { Phase::Asking { from } } else { freezing() };
                MarkerStep::Closed(core_cut(&marker, from.minute, shards))
            }
            Phase::Asking { from } => {
                self.phase = Phase::Moving;
                MarkerStep::NeedRuns(self.open_windows(&from))
            }
            Phase::Moving => {
                self.phase = Phase::Moving;
                MarkerStep::Waiting
            }
            Phase::Freezing { done, scanning } => self.freeze_slice(done, scanning, budget),
        }
    }

    /// Closes a cut at once, outside markers: at a start, when all that was logged is applied and nothing that is to
    /// come arrives before `time_ms`. The engine minute stays.
    ///
    /// # Panics
    /// While a marker is at work.
    #[must_use]
    pub fn cut_now(&mut self, epoch: Epoch, time_ms: u64) -> CoreCut {
        assert!(matches!(self.phase, Phase::Idle), "bug: a cut was asked for while a marker is at work");
        let marker =
            Marker { epoch, time_ms, cut: true, log_generation: 0, log_position: 0, oldest_arrival_ms: time_ms };
        let mut closing = Closing { marker, shards: Vec::new(), word: 0 };
        while !self.close_slice(&mut closing, usize::MAX) {}
        core_cut(&marker, self.edges.minute, closing.shards)
    }

    /// Subtracts a piece of a run that leaves a window, in any order and number of pieces, up to `runs_done`.
    ///
    /// # Panics
    /// Unless runs were asked for; when a count would fall below zero or a slot is unknown: then
    /// the runs are not those that were counted, and going on would publish wrong counts.
    pub fn subtract(&mut self, window: usize, shard: u16, entries: &[SlotCount]) {
        self.change(window, shard, entries, |slot, before, count| {
            before.checked_sub(count).unwrap_or_else(|| {
                panic!("bug: window {window} of slot {slot} of shard {shard} holds {before} views, and {count} are to leave")
            })
        });
    }

    /// Adds a piece of a run that enters a window, in any order and number of pieces, up to `runs_done`.
    ///
    /// # Panics
    /// As [`Self::subtract`].
    pub fn add(&mut self, window: usize, shard: u16, entries: &[SlotCount]) {
        self.change(window, shard, entries, |_, before, count| before + count);
    }

    fn change(&mut self, window: usize, shard: u16, entries: &[SlotCount], change: impl Fn(u32, u64, u64) -> u64) {
        assert!(matches!(self.phase, Phase::Moving), "bug: runs came that no marker asked for");
        assert!(window < WINDOWS, "bug: window {window} does not exist");
        let place = self.place_of(shard);
        let board = FIRST_WINDOW + window;
        let mut total = self.ledger.totals[board];
        for (index, &SlotCount { slot, count }) in entries.iter().enumerate() {
            let state = &mut self.shards[usize::from(place)];
            if let Some(ahead) = entries.get(index + PREFETCH_AHEAD) {
                prefetch_at(&state.videos.lines, ahead.slot as usize);
            }
            assert!(slot < state.videos.len(), "bug: a run of shard {shard} holds slot {slot}, beyond its last");
            let line = &mut state.videos.lines[slot as usize];
            line.refresh(&self.edges);
            let before = line.fresh_count(board);
            let after = change(slot, before, u64::from(count));
            line.set_count(board, after);
            // Both are at most the views ever accepted, so the difference of the two is exact modulo 2^64.
            total = total.wrapping_add(after).wrapping_sub(before);
            let video = Member { shard: place, slot };
            if after > before {
                self.boards[board].increased(&mut self.shards, video, before);
            } else if line.is_member(board) {
                self.boards[board].decremented(&self.shards, video, before);
            }
        }
        self.ledger.totals[board] = total;
    }

    /// Says that all runs asked for have been subtracted.
    ///
    /// # Panics
    /// Unless runs were asked for.
    pub fn runs_done(&mut self) {
        assert!(matches!(self.phase, Phase::Moving), "bug: runs are done that no marker asked for");
        for board in &mut self.boards {
            board.settle(&mut self.shards);
        }
        self.refresh_thetas();
        self.phase = freezing();
    }

    /// Goes on with pending scans, about `budget` slots; for idle times. Returns whether any are
    /// left.
    pub fn scan_step(&mut self, budget: usize) -> bool {
        let mut left = budget.max(1);
        for board in &mut self.boards {
            left = left.saturating_sub(board.scan_slice(&mut self.shards, left));
        }
        if !self.restoring {
            self.refresh_thetas();
        }
        self.scans_pending() > 0
    }

    /// Empties the boards of tumbling windows that open, and says which runs leave the sliding windows and which enter
    /// the tumbling ones: of what was counted before, a view of the new period counted in none of that kind so far.
    fn open_windows(&mut self, from: &Edges) -> Vec<RunRequest> {
        let mut requests = Vec::new();
        for window in 0..WINDOWS {
            let (start_before, start) = (from.starts[window], self.edges.starts[window]);
            if start == start_before {
                continue;
            }
            let (change, minutes) = if window < SLIDING {
                (RunChange::Leave, start_before..start)
            } else {
                let board = FIRST_WINDOW + window;
                self.boards[board].empty(&mut self.shards);
                self.ledger.totals[board] = 0;
                (RunChange::Enter, start..self.edges.ends[window])
            };
            requests.push(RunRequest { window, change, minutes, class_max: Edges::class_max(window) });
        }
        self.refresh_thetas();
        requests
    }

    /// Takes the next slice of the cut; returns whether it is whole.
    fn close_slice(&mut self, closing: &mut Closing, budget: usize) -> bool {
        let mut left = budget;
        loop {
            let begun = closing.shards.len();
            if let Some(piece) = closing.shards.last_mut() {
                let shard = &mut self.shards[begun - 1];
                if !take_ids(shard, piece, &mut left) || !take_dirty(shard, piece, &mut closing.word, &mut left) {
                    return false;
                }
                piece.late = std::mem::take(&mut shard.late);
            }
            let Some(next) = self.shards.get(begun) else { return true };
            closing.word = 0;
            closing.shards.push(ShardCut {
                shard: next.number,
                minute: self.edges.minute,
                first_slot: next.slots_cut,
                id_lens: Vec::with_capacity((next.videos.len() - next.slots_cut) as usize),
                id_bytes: Vec::new(),
                current: Vec::with_capacity(next.dirty_count),
                late: Vec::new(),
            });
        }
    }

    /// Freezes the next list; or, where it is blocked, goes on with its scan. Within a marker
    /// only the end of the scan can unblock it, so that is asked once.
    fn freeze_slice(&mut self, mut done: Vec<CoreBoard>, scanning: bool, budget: usize) -> MarkerStep {
        let board: &mut Board = &mut self.boards[done.len()];
        let blocked = if scanning { board.scan.is_some() } else { board.blocked(&self.shards) };
        if blocked {
            board.scan_slice(&mut self.shards, budget);
            self.refresh_thetas();
            self.phase = Phase::Freezing { done, scanning: true };
            return MarkerStep::Working;
        }
        done.push(board.freeze(&self.shards, self.ledger.totals[done.len()]));
        if done.len() < self.boards.len() {
            self.phase = Phase::Freezing { done, scanning: false };
            return MarkerStep::Working;
        }
        let (epoch, time_ms) = self.last.expect("a marker at work has an epoch");
        MarkerStep::Top(CoreTop { epoch, time_ms, minute_max: self.minute_max, boards: done })
    }
}

/// The cut that a marker closed; `minute` was in force until then.
fn core_cut(marker: &Marker, minute: Minute, shards: Vec<ShardCut>) -> CoreCut {
    let Marker { epoch, time_ms, oldest_arrival_ms, .. } = *marker;
    CoreCut { epoch, time_ms, minute, arrivals_from_ms: oldest_arrival_ms, shards }
}

/// The phase that ends every marker, at its first board.
fn freezing() -> Phase {
    Phase::Freezing { done: Vec::new(), scanning: false }
}

/// Takes ids that are in no cut yet; returns whether all are taken.
fn take_ids(shard: &mut Shard, piece: &mut ShardCut, left: &mut usize) -> bool {
    while *left > 0 && shard.slots_cut < shard.videos.len() {
        let id = shard.videos.id(shard.slots_cut);
        piece.id_lens.push(id.len() as u8); // at most 255, see `push_row`
        piece.id_bytes.extend_from_slice(id);
        shard.slots_cut += 1;
        *left -= 1;
    }
    shard.slots_cut == shard.videos.len()
}

/// Takes the minute's counts in slot order from `word` of the dirty bits on; returns whether all
/// are taken.
fn take_dirty(shard: &mut Shard, piece: &mut ShardCut, word: &mut usize, left: &mut usize) -> bool {
    let words = shard.videos.len().div_ceil(64) as usize;
    while *left > 0 && *word < words {
        let mut bits = std::mem::take(&mut shard.dirty[*word]);
        shard.dirty_count -= bits.count_ones() as usize;
        *left = left.saturating_sub(1 + bits.count_ones() as usize);
        while bits != 0 {
            let slot = *word as u32 * 64 + bits.trailing_zeros();
            bits &= bits - 1;
            let count = shard.videos.lines[slot as usize].take_minute_count();
            piece.current.push(SlotCount { slot, count });
        }
        *word += 1;
    }
    *word == words
}
