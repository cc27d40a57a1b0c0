//! From the lanes to the counters: rows are applied in order, and a marker freezes the shards.
//!
//! After marker e has been read from a lane, nothing more of that lane is applied until the shards have frozen e; the
//! freeze begins when every lane has reached the same marker. Each turn does a bounded piece of work, so that the
//! socket is polled between two turns whatever an edge or a scan costs.

use crate::limits::{TURN_CELLS, TURN_ENTRIES};
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
