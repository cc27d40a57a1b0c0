//! `highwater_lanes`: a batch's rows through a lane, pushed and popped by one thread.
//!
//! Not the transfer between two cores' caches: one core's lane to itself.

use highwater_lanes::{Receiver, Sender, lane};
use highwater_ranking::Cell;

use crate::Scale;

const LANE_CELLS: usize = 1 << 16;

/// Pushes and pops one batch of cells.
#[derive(Debug)]
pub struct PushPop {
    sender: Sender<Cell>,
    receiver: Receiver<Cell>,
    pushed: Vec<Cell>,
    popped: Vec<Cell>,
}

impl PushPop {
    /// An empty lane.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let (sender, receiver) = lane(LANE_CELLS);
        let cells = scale.batch_views as usize;
        let pushed = (0..cells as u64).map(|index| Cell([index, 0, 0, 0])).collect();
        Self { sender, receiver, pushed, popped: Vec::with_capacity(cells) }
    }

    /// Moves the cells through the lane; returns how many came out.
    pub fn run(&mut self) -> usize {
        self.popped.clear();
        self.sender.push(&self.pushed).expect("the lane is empty");
        self.receiver.pop_into(&mut self.popped, self.pushed.len())
    }
}
