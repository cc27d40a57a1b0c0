//! The lanes between all pairs of cores, and what goes back against their direction: credit, and word to hold.
//!
//! Credit is what makes a full table refuse new ids instead of overflowing: a core lets each core have so many rows in
//! flight to it that all of them could be new ids. Rows are numbered from the start in the order in which they are
//! admitted, which is the order of the lane.
//!
//! Invariants. A row that may be a new id was admitted with a number up to `granted − returned` of its lane. The owner
//! of the tables keeps `Σ (granted − returned − applied)` over its lanes at or below what its fullest shard has free:
//! whatever is on its way fits. Only known ids are admitted beyond the limit. The same holds for bytes of long ids.

use crate::limits::{CONTROL_CELLS_RESERVED, lane_cells};
use crate::notes::{Amount, Message};
use highwater_lanes::{GaugeReader, GaugeWriter, Receiver, Sender, gauge, lane};
use highwater_ranking::Cell;

/// One core's ends of all lanes from and to it, its lane to itself included.
pub struct CoreLanes {
    /// By receiving core.
    pub(crate) out: Vec<LaneOut>,
    /// By sending core.
    pub(crate) ends: Vec<LaneEnd>,
    /// Tells the others that this core wants nothing more before its next cut: 1 while it does.
    pub(crate) hold: GaugeWriter,
}

/// The sending end of a lane.
pub(crate) struct LaneOut {
    pub(crate) sender: Sender<Cell>,
    /// Cells that appended batches have reserved.
    pub(crate) reserved: usize,
    pub(crate) rows: Credit,
    pub(crate) long_id_bytes: Credit,
    /// Not 0 while the receiver wants nothing more before its next cut.
    pub(crate) hold: GaugeReader,
    /// Whether something was pushed since the shell was last told to wake the receiver.
    pub(crate) to_wake: bool,
}

/// The receiving end of a lane.
pub(crate) struct LaneEnd {
    pub(crate) receiver: Receiver<Cell>,
    pub(crate) rows: Grant,
    pub(crate) long_id_bytes: Grant,
}

/// What the sender may have in flight.
pub(crate) struct Credit {
    granted: GaugeReader,
    returned: u64,
    /// Admitted since the start.
    used: u64,
}

/// What the receiver lets the sender have in flight.
pub(crate) struct Grant {
    granted: GaugeWriter,
    returned: u64,
    /// Applied since the start.
    pub(crate) applied: u64,
}

fn credit() -> (Credit, Grant) {
    let (writer, reader) = gauge(0);
    (Credit { granted: reader, returned: 0, used: 0 }, Grant { granted: writer, returned: 0, applied: 0 })
}

impl Credit {
    pub(crate) fn left(&self) -> u64 {
        (self.granted.read() - self.returned).saturating_sub(self.used)
    }

    pub(crate) fn take(&mut self, amount: u64) {
        self.used += amount;
    }

    /// Gives back what is left; returns all that was given back since the start.
    pub(crate) fn give_back(&mut self) -> u64 {
        self.returned += self.left();
        self.returned
    }
}

impl Grant {
    /// What the sender may still have in flight or send.
    pub(crate) fn outstanding(&self) -> u64 {
        (self.granted.value() - self.returned).saturating_sub(self.applied)
    }

    /// Lets the sender have `more` in flight.
    pub(crate) fn raise(&mut self, more: u64) {
        if more > 0 {
            let limit = (self.granted.value() - self.returned).max(self.applied);
            self.granted.set(self.returned + limit + more);
        }
    }

    pub(crate) fn handle_returned(&mut self, total: u64) {
        self.returned = total;
    }
}

impl LaneOut {
    /// Cells that a batch may still reserve.
    pub(crate) fn room(&mut self) -> usize {
        self.sender.free().saturating_sub(self.reserved + CONTROL_CELLS_RESERVED)
    }

    pub(crate) fn is_empty(&mut self) -> bool {
        self.sender.free() == self.sender.capacity()
    }

    /// Gives back the credit that is left; returns all that was given back since the start.
    pub(crate) fn give_back(&mut self) -> Amount {
        Amount { rows: self.rows.give_back(), long_id_bytes: self.long_id_bytes.give_back() }
    }

    pub(crate) fn credit_left(&self) -> Amount {
        Amount { rows: self.rows.left(), long_id_bytes: self.long_id_bytes.left() }
    }

    /// Pushes cells for which room was reserved.
    pub(crate) fn push(&mut self, cells: &[Cell]) {
        self.sender.push(cells).expect("room in the lanes is reserved ahead of every push");
        self.to_wake = true;
    }

    pub(crate) fn tell(&mut self, message: &Message) {
        self.push(&[message.encode()]);
    }
}

/// What a core says in its `hold`: rows may come.
pub(crate) const HOLD_NOT: u64 = 0;
/// It has no room for late rows: the next cut makes some.
pub(crate) const HOLD_LATE: u64 = 1;
/// It has a count that is nearly full: time makes room, when views leave the window.
pub(crate) const HOLD_COUNTS: u64 = 2;

/// Makes the lanes between `cores` cores; the ends of each core by its number.
///
/// # Panics
/// When `cores` is 0.
pub fn lane_mesh(cores: usize) -> Vec<CoreLanes> {
    assert!(cores > 0, "an engine has at least one core");
    let cells = lane_cells(cores);
    let (holds, held): (Vec<_>, Vec<_>) = (0..cores).map(|_| gauge(0)).unzip();
    let mut mesh: Vec<CoreLanes> =
        holds.into_iter().map(|hold| CoreLanes { out: Vec::new(), ends: Vec::new(), hold }).collect();
    for from in 0..cores {
        for (to, hold) in held.iter().enumerate() {
            let (sender, receiver) = lane(cells);
            let (rows, rows_grant) = credit();
            let (long_id_bytes, bytes_grant) = credit();
            let hold = hold.clone();
            mesh[from].out.push(LaneOut { sender, reserved: 0, rows, long_id_bytes, hold, to_wake: false });
            mesh[to].ends.push(LaneEnd { receiver, rows: rows_grant, long_id_bytes: bytes_grant });
        }
    }
    mesh
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_no_longer_outstanding_and_can_be_granted_again() {
        let (mut credit, mut grant) = credit();
        assert_eq!((credit.left(), grant.outstanding()), (0, 0));
        grant.raise(100);
        credit.take(30);
        assert_eq!((credit.left(), grant.outstanding()), (70, 100));
        grant.applied += 10;
        assert_eq!(grant.outstanding(), 90);
        let returned = credit.give_back();
        assert_eq!((returned, credit.left()), (70, 0));
        grant.handle_returned(returned);
        assert_eq!(grant.outstanding(), 20, "20 rows are on their way");
        grant.raise(5);
        assert_eq!((credit.left(), grant.outstanding()), (5, 25));
    }

    #[test]
    fn known_ids_beyond_the_limit_are_not_owed_anything() {
        let (mut credit, mut grant) = credit();
        grant.raise(10);
        credit.take(50);
        assert_eq!((credit.left(), credit.give_back()), (0, 0));
        grant.applied += 50;
        assert_eq!(grant.outstanding(), 0);
        grant.raise(3);
        assert_eq!((credit.left(), grant.outstanding()), (3, 3));
    }

    #[test]
    fn every_pair_of_cores_has_a_lane() {
        let mut mesh = lane_mesh(3);
        mesh[1].out[2].push(&[Cell([7, 0, 0, 0])]);
        let mut cells = Vec::new();
        assert_eq!(mesh[2].ends[1].receiver.pop_into(&mut cells, 9), 1);
        assert_eq!(cells[0].0[0], 7);
        mesh[0].hold.set(1);
        assert!(mesh.iter().all(|core| core.out[0].hold.read() == 1 && core.out[1].hold.read() == 0));
    }
}
