//! From the lanes to the counters: rows are applied in order, and a marker freezes the shards.
//!
//! After marker e has been read from a lane, nothing more of that lane is applied until the shards have frozen e; the
//! freeze begins when every lane has reached the same marker. Each turn does a bounded piece of work, so that the
//! socket is polled between two turns whatever an edge or a scan costs.

use crate::limits::{LEAVING_SLICES_MAX, TURN_CELLS, TURN_ENTRIES};
use crate::messages::LeavingSlice;
use highwater_lanes::Receiver;
use highwater_ranking::{
    Cell, CoreCut, CoreRanking, CoreTop, INLINE_ID_BYTES_MAX, MARKER_CELLS, Marker, MarkerStep, RunRequest, row_cells,
    tag,
};
use std::collections::VecDeque;

/// Totals of views that were accepted, or that were applied; the difference is what is in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Views.
    pub(crate) views: u64,
    /// Bytes of their ids that are too long to lie inline.
    pub(crate) long_id_bytes: u64,
}

impl Admitted {
    /// The sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { views: self.views + other.views, long_id_bytes: self.long_id_bytes + other.long_id_bytes }
    }

    /// What is left of this when `part` of it is done.
    pub(crate) fn minus(self, part: Self) -> Self {
        Self { views: self.views - part.views, long_id_bytes: self.long_id_bytes - part.long_id_bytes }
    }

    /// Adds one view with an id of this length.
    pub(crate) fn add(&mut self, id_len: usize) {
        self.views += 1;
        self.long_id_bytes += if id_len > INLINE_ID_BYTES_MAX { id_len as u64 } else { 0 };
    }
}

/// One lane into this core.
struct LaneIn {
    receiver: Receiver<Cell>,
    /// Cells taken from the lane; those before `next` are applied.
    cells: Vec<Cell>,
    next: usize,
    /// The marker that this lane has reached.
    marker: Option<Marker>,
}

/// What a turn brought to an end.
pub(crate) enum Counted {
    /// Nothing waits.
    Idle,
    /// A slice of work was done.
    Worked,
    /// The shards are closed for a cut.
    Closed(CoreCut),
    /// These runs leave the windows and must be brought.
    NeedRuns(Vec<RunRequest>),
    /// The lists of the marker's epoch are frozen.
    Top(CoreTop),
}

enum State {
    /// Rows are applied.
    Rows,
    /// A marker is being worked on.
    Marker,
    /// A marker waits for the runs that leave.
    Leaving { all_sent: bool },
}

/// The shards of one core behind the lanes that lead to them.
pub(crate) struct Counting {
    pub(crate) ranking: CoreRanking,
    lanes: Vec<LaneIn>,
    leaving: VecDeque<LeavingSlice>,
    state: State,
    /// What was applied since the start.
    pub(crate) applied: Admitted,
}

impl Counting {
    pub(crate) fn new(ranking: CoreRanking, receivers: Vec<Receiver<Cell>>) -> Self {
        let lanes = receivers
            .into_iter()
            .map(|receiver| LaneIn { receiver, cells: Vec::with_capacity(TURN_CELLS), next: 0, marker: None })
            .collect();
        Self { ranking, lanes, leaving: VecDeque::new(), state: State::Rows, applied: Admitted::default() }
    }

    pub(crate) fn handle_leaving(&mut self, slice: LeavingSlice) {
        self.leaving.push_back(slice);
    }

    pub(crate) fn handle_leaving_done(&mut self) {
        match &mut self.state {
            State::Leaving { all_sent } => *all_sent = true,
            State::Rows | State::Marker => panic!("runs were brought that no marker asked for"),
        }
    }

    /// Whether enough slices of leaving runs wait to be subtracted.
    pub(crate) fn leaving_full(&self) -> bool {
        self.leaving.len() >= LEAVING_SLICES_MAX
    }

    /// Cells that wait in the lanes.
    pub(crate) fn cells_waiting(&mut self) -> usize {
        self.lanes.iter_mut().map(|lane| lane.receiver.waiting() + lane.cells.len() - lane.next).sum()
    }

    /// Does one slice of work.
    pub(crate) fn turn(&mut self) -> Counted {
        match self.state {
            State::Rows => self.apply_rows(),
            State::Marker => self.step_marker(),
            State::Leaving { all_sent } => self.subtract(all_sent),
        }
    }

    fn apply_rows(&mut self) -> Counted {
        if self.lanes.iter().all(|lane| lane.marker.is_some()) {
            return self.begin_marker();
        }
        let mut worked = false;
        for lane in &mut self.lanes {
            let before = self.applied.views;
            lane.advance(&mut self.ranking, &mut self.applied);
            worked |= self.applied.views > before || lane.marker.is_some();
        }
        if !worked {
            worked = self.ranking.scan_step(TURN_ENTRIES);
        }
        if worked { Counted::Worked } else { Counted::Idle }
    }

    fn begin_marker(&mut self) -> Counted {
        let mut markers = self.lanes.iter_mut().filter_map(|lane| lane.marker.take());
        let Some(first) = markers.next() else { return Counted::Idle };
        for other in markers {
            assert_eq!((other.epoch, other.time_ms), (first.epoch, first.time_ms), "lanes reached different markers");
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
                self.state = State::Leaving { all_sent: false };
                Counted::NeedRuns(requests)
            }
            MarkerStep::Top(top) => {
                self.state = State::Rows;
                Counted::Top(top)
            }
        }
    }

    fn subtract(&mut self, all_sent: bool) -> Counted {
        if let Some(slice) = self.leaving.pop_front() {
            self.ranking.subtract(slice.window, slice.shard, &slice.entries);
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

impl LaneIn {
    /// Applies up to a turn's worth of rows, stopping at a marker.
    fn advance(&mut self, ranking: &mut CoreRanking, applied: &mut Admitted) {
        if self.marker.is_some() {
            return;
        }
        if self.cells.len() - self.next < TURN_CELLS / 2 {
            self.cells.drain(..self.next);
            self.next = 0;
            let room = TURN_CELLS - self.cells.len();
            self.receiver.pop_into(&mut self.cells, room);
        }
        let end = self.rows_end(applied);
        ranking.apply(&self.cells[self.next..end]);
        self.next = end;
        let rest = &self.cells[self.next..];
        if rest.len() >= MARKER_CELLS && rest[0].tag() == tag::MARKER {
            self.marker = Some(Marker::decode(rest));
            self.next += MARKER_CELLS;
        }
    }

    /// Where the whole rows end that wait before the next marker; adds them to `applied`.
    fn rows_end(&self, applied: &mut Admitted) -> usize {
        let mut end = self.next;
        while let Some(cell) = self.cells.get(end)
            && cell.tag() == tag::ROW
            && end + row_cells(cell) <= self.cells.len()
        {
            end += row_cells(cell);
            applied.add(cell.id_len());
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_lanes::{Sender, lane};
    use highwater_proto::Epoch;
    use highwater_ranking::{FinalityClass, IdHash, Minute, RankingConfig, SlotCount, WindowLengths, push_row};

    const MINUTE_MS: u64 = 60_000;

    fn counting(lanes: usize) -> (Counting, Vec<Sender<Cell>>) {
        let config = RankingConfig {
            shards_total: 1,
            owned: vec![0],
            hash_seed: 3,
            videos_per_shard_max: 10_000,
            id_arena_bytes_per_shard: 1 << 20,
            late_views_max: 1000,
            top_k: 4,
            windows: WindowLengths { hour: 1, day: 2, month: 3 },
        };
        let mut ranking = CoreRanking::new(config, Minute(100)).unwrap();
        ranking.finish_restore();
        let (senders, receivers) = (0..lanes).map(|_| lane(1 << 14)).unzip();
        (Counting::new(ranking, receivers), senders)
    }

    fn push(sender: &mut Sender<Cell>, id: &str) {
        let mut cells = Vec::new();
        push_row(&mut cells, IdHash::new(3).hash(id), Minute(100), FinalityClass::IN_HOUR, id);
        sender.push(&cells).unwrap();
    }

    fn mark(sender: &mut Sender<Cell>, epoch: u64, time_ms: u64, cut: bool) {
        let epoch = Epoch(epoch);
        let marker = Marker { epoch, time_ms, cut, log_generation: 1, log_position: 0, oldest_arrival_ms: 0 };
        sender.push(&marker.encode()).unwrap();
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
        assert_eq!(counting.applied.views, 2);
        mark(&mut lanes[1], 1, 100 * MINUTE_MS, false);
        assert_eq!(top(&mut counting), [("a".to_owned(), 2)]);
        assert!(matches!(run(&mut counting), Counted::Idle));
        assert_eq!((counting.applied.views, counting.cells_waiting()), (3, 0));
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
        assert_eq!(counting.applied, Admitted { views: 2000, long_id_bytes: 200_000 });
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
        counting.handle_leaving(LeavingSlice { window: 0, shard: 0, entries: vec![SlotCount { slot: 0, count: 1 }] });
        assert!(matches!(run(&mut counting), Counted::Idle), "more may come");
        counting.handle_leaving_done();
        assert_eq!(top(&mut counting), [("a".to_owned(), 1)]);
        assert_eq!(counting.ranking.lookup("a").unwrap().iter().map(|one| one.view_count).min(), Some(0));
    }

    #[test]
    #[should_panic(expected = "no marker asked for")]
    fn runs_that_nobody_asked_for_are_a_bug() {
        counting(1).0.handle_leaving_done();
    }
}
