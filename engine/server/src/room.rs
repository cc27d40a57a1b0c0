//! What the helpers that take room on the data directory's disk tell each other.
//!
//! The one that makes segments asks the store's helper, the only one that gives up files, to make room. Invariants: it
//! waits for that [`WAIT_MAX`] at most; while something of the store waits for room itself, no segment takes any.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The store's helper may be at a cut file for seconds; a core that is told that there is no room asks again.
const WAIT_MAX: Duration = Duration::from_millis(250);

/// What waits for room, and what is missing.
type Waiting = Arc<Mutex<Option<String>>>;

/// The end of who wants room.
#[derive(Debug)]
pub struct RoomSeeker {
    wanted: Sender<()>,
    tried: Receiver<()>,
    waiting: Waiting,
}

/// The end of who makes it.
#[derive(Debug)]
pub struct RoomMaker {
    /// Something for each time that room is wanted.
    pub wanted: Receiver<()>,
    tried: Sender<()>,
    waiting: Waiting,
}

/// Both ends.
#[must_use]
pub fn room() -> (RoomSeeker, RoomMaker) {
    let ((wanted, wanted_received), (tried, tried_received)) = (bounded(1), bounded(1));
    let waiting = Waiting::default();
    let seeker = RoomSeeker { wanted, tried: tried_received, waiting: Arc::clone(&waiting) };
    (seeker, RoomMaker { wanted: wanted_received, tried, waiting })
}

impl RoomSeeker {
    /// What is missing for what waits for room already.
    #[must_use]
    pub fn waiting(&self) -> Option<String> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for room. Returns whether it was tried to make some, in time.
    #[must_use]
    pub fn ask(&self) -> bool {
        // The answer to a question that was not waited for.
        let _ = self.tried.try_recv();
        // One that stands there already asks for the same.
        let _ = self.wanted.try_send(());
        self.tried.recv_timeout(WAIT_MAX).is_ok()
    }
}

impl RoomMaker {
    /// Room was made, if any could be.
    pub fn tried(&self) {
        // One that stands there already says the same.
        let _ = self.tried.try_send(());
    }

    /// Something waits for room from now on, or nothing any more.
    pub fn wait(&self, missing: Option<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = missing;
    }
}
