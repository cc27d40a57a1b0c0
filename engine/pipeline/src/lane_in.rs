//! One lane into a core: cells in order, whole rows at a time, up to a marker.
//!
//! Invariant: behind a marker nothing is read until the marker was taken.

use crate::counting::Heard;
use crate::limits::CREDIT_MAX;
use crate::mesh::LaneEnd;
use crate::notes::{Amount, IDS_PER_ANSWER, Message, Question};
use highwater_ranking::{Cell, CoreRanking, MARKER_CELLS, Marker, row_cells, tag};

/// A question whose ids are being read.
struct Asked {
    question: Question,
    ids_read: usize,
    bits: Vec<[u64; 2]>,
}

/// The receiving side of one lane.
pub(crate) struct LaneIn {
    end: LaneEnd,
    turn_cells: usize,
    /// Cells taken from the lane; those before `next` are done with.
    cells: Vec<Cell>,
    next: usize,
    /// The marker that this lane has reached.
    marker: Option<Marker>,
    asked: Option<Asked>,
    was_read: bool,
}

impl LaneIn {
    pub(crate) fn new(end: LaneEnd, turn_cells: usize) -> Self {
        Self {
            end,
            turn_cells,
            cells: Vec::with_capacity(turn_cells),
            next: 0,
            marker: None,
            asked: None,
            was_read: false,
        }
    }

    pub(crate) fn is_at_marker(&self) -> bool {
        self.marker.is_some()
    }

    pub(crate) fn take_marker(&mut self) -> Option<Marker> {
        self.marker.take()
    }

    pub(crate) fn cells_waiting(&mut self) -> usize {
        self.end.receiver.waiting() + self.cells.len() - self.next
    }

    /// What the sender may have in flight, or has.
    pub(crate) fn outstanding(&self) -> Amount {
        Amount { rows: self.end.rows.outstanding(), long_id_bytes: self.end.long_id_bytes.outstanding() }
    }

    /// Lets the sender have up to `share` in flight, as far as `room` goes.
    pub(crate) fn top_up(&mut self, share: Amount, room: Amount) {
        let has = self.outstanding();
        let more = |share: u64, has: u64, room: u64| share.min(CREDIT_MAX).saturating_sub(has).min(room);
        self.end.rows.raise(more(share.rows, has.rows, room.rows));
        self.end.long_id_bytes.raise(more(share.long_id_bytes, has.long_id_bytes, room.long_id_bytes));
    }

    /// Whether rows were applied since the last call.
    pub(crate) fn take_was_read(&mut self) -> bool {
        std::mem::take(&mut self.was_read)
    }

    /// The sender has given back so much since the start.
    pub(crate) fn handle_returned(&mut self, total: Amount) {
        self.end.rows.handle_returned(total.rows);
        self.end.long_id_bytes.handle_returned(total.long_id_bytes);
    }

    /// Takes up to a turn's worth of cells, stopping at a marker; returns whether there were any.
    pub(crate) fn advance(&mut self, ranking: &mut CoreRanking, mut hear: impl FnMut(Heard)) -> bool {
        if self.marker.is_some() {
            return false;
        }
        if self.cells.len() - self.next < self.turn_cells / 2 {
            self.cells.drain(..self.next);
            self.next = 0;
            let room = self.turn_cells - self.cells.len();
            self.end.receiver.pop_into(&mut self.cells, room);
        }
        let begin = self.next;
        while let Some(first) = self.cells.get(self.next) {
            let before = self.next;
            match first.tag() {
                tag::ROW if self.asked.is_some() => self.read_ids(ranking, &mut hear),
                tag::ROW => {
                    let end = self.rows_end();
                    ranking.apply(&self.cells[self.next..end]);
                    self.next = end;
                }
                tag::MARKER => {
                    if self.cells.len() - self.next >= MARKER_CELLS {
                        let marker = Marker::decode(&self.cells[self.next..]);
                        self.next += MARKER_CELLS;
                        self.marker = Some(marker);
                        hear(Heard::Marker(marker));
                        return true;
                    }
                }
                _ => {
                    let message = Message::decode(first);
                    self.next += 1;
                    match message {
                        Message::Question(question) => {
                            let bits = Vec::with_capacity((question.ids as usize).div_ceil(IDS_PER_ANSWER));
                            self.asked = Some(Asked { question, ids_read: 0, bits });
                        }
                        Message::Answer(answer) => hear(Heard::Answer(answer)),
                        Message::Note(note) => hear(Heard::Note(note)),
                    }
                }
            }
            if self.next == before {
                break;
            }
        }
        self.next > begin
    }

    /// Where the whole rows end that wait before something else; counts them as applied.
    fn rows_end(&mut self) -> usize {
        let (mut end, mut applied) = (self.next, Amount::default());
        while let Some(cell) = self.cells.get(end)
            && cell.tag() == tag::ROW
            && end + row_cells(cell) <= self.cells.len()
        {
            end += row_cells(cell);
            applied.add(cell.id_len());
        }
        self.was_read |= applied.rows > 0;
        self.end.rows.applied += applied.rows;
        self.end.long_id_bytes.applied += applied.long_id_bytes;
        end
    }

    /// Looks up the whole ids that wait of the question at hand.
    fn read_ids(&mut self, ranking: &CoreRanking, hear: &mut impl FnMut(Heard)) {
        let Some(asked) = &mut self.asked else { return };
        while asked.ids_read < asked.question.ids as usize
            && let Some(cell) = self.cells.get(self.next)
            && self.next + row_cells(cell) <= self.cells.len()
        {
            let row = &self.cells[self.next..self.next + row_cells(cell)];
            let (word, bit) = (asked.ids_read / 64, asked.ids_read % 64);
            if word / 2 == asked.bits.len() {
                asked.bits.push([0; 2]);
            }
            asked.bits[word / 2][word % 2] |= u64::from(ranking.contains_row(row)) << bit;
            asked.ids_read += 1;
            self.next += row.len();
        }
        if asked.ids_read == asked.question.ids as usize
            && let Some(asked) = self.asked.take()
        {
            hear(Heard::Question(asked.question, asked.bits));
        }
    }
}
