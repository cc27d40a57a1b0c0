//! The flag of a parked core: senders pay for waking it only while it sleeps.
//!
//! It does not sleep and wakes nobody: the sleeper waits on a descriptor of its own, and a caller that is told to wake
//! it writes to that descriptor. The flag only decides who has to.
//!
//! | field  | written by | read by | ordering |
//! |--------|------------|---------|----------|
//! | `flag` | sleeper: `AWAKE` to `SLEEPS`, anything to `AWAKE`; callers: anything to `CALLED` | both | each access is one read-modify-write, `AcqRel`; a failed `begin` is followed by a swap |
//!
//! Why no wake-up is lost. The accesses to one location have one order that all threads agree on, and each
//! read-modify-write reads the value right before its own. So a call lies on one side of each step of the sleeper:
//!
//! - After the `begin` that set `SLEEPS`: the first such call reads `SLEEPS` and wakes the sleeper; the others read
//!   `CALLED` and leave it to the first.
//! - Before a `begin`, with no step of the sleeper between: `begin` meets `CALLED`, swaps it for `AWAKE` and says that
//!   the sleeper must not sleep.
//! - Before a swap to `AWAKE` (of that `begin`, or of `end`): the swap reads the call's `CALLED`, or that of a later
//!   call, whose read-modify-write continues the release sequence of the earlier one. The swap's `Acquire` pairs with
//!   the calls' `Release`: what each caller had pushed is seen in the turn that follows.
//!
//! What the sleeper saw in its lanes before `begin` does not enter into it, so the store of a push and the load of the
//! flag need no order between them and `SeqCst` none of its costs. For the same reason a caller must not look first and
//! spare itself the swap where `CALLED` stands already: a load is on no side of a step, and could read what the sleeper
//! is just taking away. The other direction, the sleeper's `Release` with the callers' `Acquire`, gives a caller sight
//! of all that the sleeper did before: a sender finds room that was freed before the flag said `SLEEPS`.
//! Invariant: of the calls between two steps of the sleeper at most one is told to wake it.

use super::sync::{Arc, AtomicU8, Ordering};
use crossbeam_utils::CachePadded;

/// The owner works; nobody called since it last looked.
const AWAKE: u8 = 0;
/// Somebody called: the owner owes a turn.
const CALLED: u8 = 1;
/// The owner sleeps or is about to.
const SLEEPS: u8 = 2;

/// The owner's end of the flag; there is exactly one.
pub struct Sleeper {
    flag: Arc<CachePadded<AtomicU8>>,
}

/// A sender's end of the flag. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct Caller {
    flag: Arc<CachePadded<AtomicU8>>,
}

/// Makes a flag whose owner is awake.
#[must_use]
pub fn parking_flag() -> (Sleeper, Caller) {
    let flag = Arc::new(CachePadded::new(AtomicU8::new(AWAKE)));
    (Sleeper { flag: Arc::clone(&flag) }, Caller { flag })
}

impl Sleeper {
    /// Asks to sleep. True: wait on the descriptor, which one caller will write to if any calls; then [`Sleeper::end`].
    /// False: somebody called since the last `begin` or `end`; do another turn, all that was pushed before is there.
    ///
    /// A second `begin` without an `end` is taken for that `end`, and answers false.
    #[must_use = "a core that was called must do another turn"]
    pub fn begin(&mut self) -> bool {
        // The failure's ordering carries nothing: the swap acquires whatever stands there, a later call included.
        let begun = self.flag.compare_exchange(AWAKE, SLEEPS, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !begun {
            self.flag.swap(AWAKE, Ordering::AcqRel);
        }
        begun
    }

    /// Ends the sleep, whatever ended it; a turn must follow, and sees all that was pushed before the calls until now.
    ///
    /// A caller that was told to wake may write to the descriptor only later: a next sleep that ends at once is one
    /// turn in vain and no error.
    pub fn end(&mut self) {
        self.flag.swap(AWAKE, Ordering::AcqRel);
    }
}

impl Caller {
    /// Says that something was pushed. True: the sleeper sleeps or is about to, and this caller (only) must wake it by
    /// its descriptor. False: it will look by itself. Costs one atomic exchange, no system call.
    #[must_use = "without a wake-up by its descriptor a core that sleeps goes on sleeping"]
    pub fn call(&self) -> bool {
        self.flag.swap(CALLED, Ordering::AcqRel) == SLEEPS
    }
}

impl std::fmt::Debug for Sleeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sleeper").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").finish_non_exhaustive()
    }
}
