//! Where cores take what the helpers of the data directory bring.
//!
//! Invariant: a core is woken for everything that is brought.

use crate::runtime::Waker;
use crossbeam_channel::Sender;
use highwater_pipeline::StoreAnswer;
use highwater_storage::PreparedSegment;

/// What a helper brings back to a core.
#[derive(Debug)]
pub enum Brought {
    /// A segment, which the core attaches to its log device.
    Segment(PreparedSegment),
    /// Anything else.
    Answer(StoreAnswer),
}

/// Where a core takes its answers.
#[derive(Clone, Debug)]
pub struct CoreDesk {
    /// Answers to it.
    pub brought: Sender<Brought>,
    /// Wakes it for an answer.
    pub waker: Waker,
}

impl CoreDesk {
    /// Hands something to the core; one that is gone needs nothing.
    pub fn bring(&self, brought: Brought) {
        if self.brought.send(brought).is_ok() {
            self.waker.wake();
        }
    }
}
