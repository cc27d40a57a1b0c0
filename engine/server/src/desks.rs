//! Where a core takes what a helper of the data directory brings.
//!
//! Invariant: a core is woken for everything that is brought.

use crate::runtime::Waker;
use crossbeam_channel::Sender;
use highwater_storage::PreparedSegment;

/// A segment, which the core attaches to its log device, or what is missing for one, and the remedy.
pub type MadeSegment = Result<PreparedSegment, String>;

/// Where a core takes what one helper brings.
#[derive(Clone, Debug)]
pub struct CoreDesk<T> {
    /// What is brought to it.
    pub brought: Sender<T>,
    /// Wakes it for that.
    pub waker: Waker,
}

impl<T> CoreDesk<T> {
    /// Hands something to the core; one that is gone needs nothing.
    pub fn bring(&self, one: T) {
        if self.brought.send(one).is_ok() {
            self.waker.wake();
        }
    }
}
