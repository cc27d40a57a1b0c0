//! From the lanes to the counters: rows are applied in order, and a marker freezes the shards.
//!
//! After marker e has been read from a lane, nothing more of that lane is applied until the shards have frozen e; the
//! freeze begins when every lane has reached the same marker. Each turn does a bounded piece of work, so that the
//! socket is polled between two turns whatever an edge or a scan costs. What else cores say to each other is taken out
//! of the lanes here, and left to the pipeline to act on.

use crate::lane_in::LaneIn;
use crate::limits::{RUN_SLICES_MAX, TURN_ENTRIES, turn_cells};
use crate::mesh::LaneEnd;
use crate::messages::RunSlice;
use crate::notes::{Amount, Answer, Note, Question};
use highwater_ranking::{CoreCut, CoreRanking, CoreTop, Marker, MarkerStep, RunChange, RunRequest};
use std::collections::VecDeque;

/// What a turn brought to an end.
pub(crate) enum Counted {
    /// Nothing waits.
    Idle,
    /// A slice of work was done.
    Worked,
    /// The shards are closed for a cut.
    Closed(CoreCut),
    /// These runs leave or enter the windows and must be brought.
    NeedRuns(Vec<RunRequest>),
    /// The lists of the marker's epoch are frozen.
    Top(CoreTop),
}

/// What came out of a lane and is not for the shards.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A lane has reached a marker.
    Marker(Marker),
    /// A question, and a bit for each of its ids: set where it is known.
    Question(Question, Vec<[u64; 2]>),
    Answer(Answer),
    Note(Note),
}

enum State {
    /// Rows are applied.
    Rows,
    /// A marker is being worked on.
    Marker,
    /// A marker waits for the runs that leave and enter the windows.
    Moving { all_sent: bool },
}

/// The shards of one core behind the lanes that lead to them.
pub(crate) struct Counting {
    pub(crate) ranking: CoreRanking,
    /// By sending core.
    pub(crate) lanes: Vec<LaneIn>,
    runs: VecDeque<RunSlice>,
    /// By sending core, oldest first.
    heard: VecDeque<(usize, Heard)>,
    state: State,
}

impl Counting {
    pub(crate) fn new(ranking: CoreRanking, ends: Vec<LaneEnd>) -> Self {
        let turn_cells = turn_cells(ends.len());
        let lanes = ends.into_iter().map(|end| LaneIn::new(end, turn_cells)).collect();
        let mut counting = Self { ranking, lanes, runs: VecDeque::new(), heard: VecDeque::new(), state: State::Rows };
        for lane in 0..counting.lanes.len() {
            counting.top_up(lane);
        }
        counting
    }

    pub(crate) fn handle_run(&mut self, slice: RunSlice) {
        self.runs.push_back(slice);
    }

    pub(crate) fn handle_runs_done(&mut self) {
        match &mut self.state {
            State::Moving { all_sent } => *all_sent = true,
            State::Rows | State::Marker => panic!("runs were brought that no marker asked for"),
        }
    }

    /// Whether enough slices of runs wait to be applied.
    pub(crate) fn runs_full(&self) -> bool {
        self.runs.len() >= RUN_SLICES_MAX
    }

    /// Cells that wait in the lanes.
    pub(crate) fn cells_waiting(&mut self) -> usize {
        self.lanes.iter_mut().map(LaneIn::cells_waiting).sum()
    }

    /// The next thing that a core has said, and the core.
    pub(crate) fn poll_heard(&mut self) -> Option<(usize, Heard)> {
        self.heard.pop_front()
    }

    /// Does one slice of work.
    pub(crate) fn turn(&mut self) -> Counted {
        match self.state {
            State::Rows => self.apply_rows(),
            State::Marker => self.step_marker(),
            State::Moving { all_sent } => self.move_runs(all_sent),
        }
    }

    /// Whether counts are those of one engine minute: between markers, and not before the first of this start.
    pub(crate) fn is_consistent(&self) -> bool {
        matches!(self.state, State::Rows) && self.ranking.last_marker().is_some()
    }

    /// What the fullest shard has free.
    pub(crate) fn free(&self) -> Amount {
        let shards = self.ranking.owned().iter();
        // A core without shards is sent nothing, and may grant what it likes.
        Amount {
            rows: shards.clone().map(|shard| u64::from(self.ranking.slots_free(*shard))).min().unwrap_or(u64::MAX),
            long_id_bytes: shards.map(|shard| self.ranking.id_arena_free(*shard) as u64).min().unwrap_or(u64::MAX),
        }
    }

    /// What is free and not granted to any lane.
    pub(crate) fn room(&self) -> Amount {
        let free = self.free();
        let granted = self.lanes.iter().map(LaneIn::outstanding).fold(Amount::default(), |sum, one| Amount {
            rows: sum.rows + one.rows,
            long_id_bytes: sum.long_id_bytes + one.long_id_bytes,
        });
        debug_assert!(granted.rows <= free.rows && granted.long_id_bytes <= free.long_id_bytes, "{granted:?} {free:?}");
        Amount {
            rows: free.rows.saturating_sub(granted.rows),
            long_id_bytes: free.long_id_bytes.saturating_sub(granted.long_id_bytes),
        }
    }

    /// Grants a lane its even share of what is free, as far as there is room for it.
    pub(crate) fn top_up(&mut self, lane: usize) {
        let (free, room, lanes) = (self.free(), self.room(), self.lanes.len() as u64);
        self.lanes[lane].top_up(Amount { rows: free.rows / lanes, long_id_bytes: free.long_id_bytes / lanes }, room);
    }

    /// Grants every lane that was read from since the last call.
    pub(crate) fn top_up_all(&mut self) {
        for lane in 0..self.lanes.len() {
            if self.lanes[lane].take_was_read() {
                self.top_up(lane);
            }
        }
    }

    fn apply_rows(&mut self) -> Counted {
        if self.lanes.iter().all(LaneIn::is_at_marker) {
            return self.begin_marker();
        }
        let mut worked = false;
        for (from, lane) in self.lanes.iter_mut().enumerate() {
            worked |= lane.advance(&mut self.ranking, |heard| self.heard.push_back((from, heard)));
        }
        if !worked {
            worked = self.ranking.scan_step(TURN_ENTRIES);
        }
        if worked { Counted::Worked } else { Counted::Idle }
    }

    fn begin_marker(&mut self) -> Counted {
        let mut markers = self.lanes.iter_mut().filter_map(LaneIn::take_marker);
        let Some(mut first) = markers.next() else { return Counted::Idle };
        for other in markers {
            assert_eq!(
                (other.epoch, other.time_ms, other.cut),
                (first.epoch, first.time_ms, first.cut),
                "lanes reached different markers"
            );
            first.oldest_arrival_ms = first.oldest_arrival_ms.min(other.oldest_arrival_ms);
        }
        self.ranking.begin_marker(&first);
        self.state = State::Marker;
        Counted::Worked
    }

    fn step_marker(&mut self) -> Counted {
        match self.ranking.step(TURN_ENTRIES) {
            MarkerStep::Working => Counted::Worked,
            MarkerStep::Waiting => Counted::Idle,
            MarkerStep::Closed(cut) => Counted::Closed(cut),
            MarkerStep::NeedRuns(requests) => {
                self.state = State::Moving { all_sent: false };
                Counted::NeedRuns(requests)
            }
            MarkerStep::Top(top) => {
                self.state = State::Rows;
                Counted::Top(top)
            }
        }
    }

    fn move_runs(&mut self, all_sent: bool) -> Counted {
        if let Some(RunSlice { window, change, shard, entries }) = self.runs.pop_front() {
            match change {
                RunChange::Leave => self.ranking.subtract(window, shard, &entries),
                RunChange::Enter => self.ranking.add(window, shard, &entries),
            }
            return Counted::Worked;
        }
        if !all_sent {
            return Counted::Idle;
        }
        self.ranking.runs_done();
        self.state = State::Marker;
        Counted::Worked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{CoreLanes, LaneOut, lane_mesh};
    use highwater_proto::Epoch;
    use highwater_ranking::{
        Calendar, FinalityClass, IdHash, Minute, RankingConfig, Row, SlotCount, WindowLengths, push_row,
    };

    const MINUTE_MS: u64 = 60_000;

    /// Counting on core 0 of `cores`, and the lanes of every core to it.
    fn counting(cores: usize) -> (Counting, Vec<LaneOut>) {
        let config = RankingConfig {
            shards_total: 1,
            owned: vec![0],
            hash_seed: 3,
            videos_per_shard_max: 10_000,
            id_arena_bytes_per_shard: 1 << 20,
            late_rows_max: 1000,
            top_k: 4,
            windows: WindowLengths { hour: 1, day: 2, month: 3, calendar: Calendar::default() },
        };
        let mut ranking = CoreRanking::new(config, Minute(100)).unwrap();
        ranking.finish_restore();
        let mut mesh = lane_mesh(cores);
        let ends = std::mem::take(&mut mesh[0].ends);
        let first = |mut core: CoreLanes| core.out.swap_remove(0);
        (Counting::new(ranking, ends), mesh.into_iter().map(first).collect())
    }

    fn push(lane: &mut LaneOut, id: &str) {
        let mut cells = Vec::new();
        let hash = IdHash::new(3).hash(id);
        push_row(&mut cells, Row { hash, minute: Minute(100), class: FinalityClass::IN_HOUR, views: 1 }, id);
        lane.push(&cells);
    }

    fn mark(lane: &mut LaneOut, epoch: u64, time_ms: u64, cut: bool) {
        let epoch = Epoch(epoch);
        let marker = Marker { epoch, time_ms, cut, log_generation: 1, log_position: 0, oldest_arrival_ms: 0 };
        lane.push(&marker.encode());
    }

    /// Turns until something other than work comes out.
    fn run(counting: &mut Counting) -> Counted {
        (0..1000).map(|_| counting.turn()).find(|one| !matches!(one, Counted::Worked)).expect("an end of the work")
    }

    fn top(counting: &mut Counting) -> Vec<(String, u64)> {
        let Counted::Top(top) = run(counting) else { panic!("no lists") };
        let all_time = top.boards.into_iter().find(|board| board.period == highwater_proto::Period::AllTime).unwrap();
        all_time.rows.into_iter().map(|(id, count)| (id.into(), count)).collect()
    }

    #[test]
    fn nothing_behind_a_marker_is_applied_before_all_lanes_have_reached_it() {
        let (mut counting, mut lanes) = counting(2);
        push(&mut lanes[0], "a");
        mark(&mut lanes[0], 1, 100 * MINUTE_MS, false);
        push(&mut lanes[0], "behind");
        push(&mut lanes[1], "a");
        for _ in 0..10 {
            assert!(!matches!(counting.turn(), Counted::Top(_)));
        }
        assert_eq!(counting.ranking.lookup("a").unwrap()[0].1, 2);
        mark(&mut lanes[1], 1, 100 * MINUTE_MS, false);
        assert_eq!(top(&mut counting), [("a".to_owned(), 2)]);
        assert!(matches!(run(&mut counting), Counted::Idle));
        assert_eq!((counting.ranking.videos(), counting.cells_waiting()), (2, 0));
    }

    #[test]
    fn rows_of_long_ids_are_taken_whole_however_they_lie_in_the_turns() {
        let (mut counting, mut lanes) = counting(1);
        let ids: Vec<String> = (0..1000).map(|index| format!("{index:0>200}")).collect();
        for id in &ids {
            push(&mut lanes[0], id);
            push(&mut lanes[0], "a");
        }
        mark(&mut lanes[0], 1, 100 * MINUTE_MS, false);
        assert_eq!(top(&mut counting)[0], ("a".to_owned(), 1000));
        counting.top_up_all();
        let granted = Amount { rows: 10_000 - 1001, long_id_bytes: (1 << 20) - 200_000 };
        assert_eq!(counting.lanes[0].outstanding(), granted, "as much as is free");
        assert_eq!(counting.ranking.videos(), 1001);
    }

    #[test]
    fn a_new_minute_closes_and_waits_for_the_runs_that_leave() {
        let (mut counting, mut lanes) = counting(1);
        push(&mut lanes[0], "a");
        mark(&mut lanes[0], 1, 102 * MINUTE_MS, true);
        let Counted::Closed(cut) = run(&mut counting) else { panic!("no cut") };
        assert_eq!((cut.epoch, cut.minute), (Epoch(1), Minute(100)));
        let Counted::NeedRuns(requests) = run(&mut counting) else { panic!("no runs are asked for") };
        assert!(requests.iter().any(|one| one.window == 0 && one.minutes.contains(&Minute(100))), "{requests:?}");
        push(&mut lanes[0], "a");
        assert!(matches!(run(&mut counting), Counted::Idle), "it waits");
        let entries = vec![SlotCount { slot: 0, count: 1 }];
        counting.handle_run(RunSlice { window: 0, change: RunChange::Leave, shard: 0, entries });
        assert!(matches!(run(&mut counting), Counted::Idle), "more may come");
        counting.handle_runs_done();
        assert_eq!(top(&mut counting), [("a".to_owned(), 1)]);
        assert_eq!(counting.ranking.lookup("a").unwrap().iter().map(|one| one.1).min(), Some(0));
    }

    #[test]
    #[should_panic(expected = "no marker asked for")]
    fn runs_that_nobody_asked_for_are_a_bug() {
        counting(1).0.handle_runs_done();
    }
}
