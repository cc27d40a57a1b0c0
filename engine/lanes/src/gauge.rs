//! A gauge: one number with one writer and any number of readers; what a core tells others beside its lanes.
//!
//! It is not a queue: a reader sees the newest value or one shortly before it, and values in between may never be seen.
//!
//! | field   | written by | read by     | ordering |
//! |---------|------------|-------------|----------|
//! | `value` | the writer | all readers | `Release` in `set`, pairs with the readers' `Acquire` in `read` |
//!
//! Why these: a gauge says how far the writer has come, so whoever reads n must also see what was done up to n. The
//! `Release` puts everything that the writer did before `set` ahead of the value, the `Acquire` puts everything that
//! the reader does after `read` behind it. Nothing weaker carries that, and nothing stronger is needed: no decision
//! rests on the order of two gauges. One location is read coherently, so no reader sees values go back.
//! The writer keeps a copy of its own: nobody else writes, so it need not load what it stored.
//! Invariant: every value read was given to [`gauge`] or `set`, in that order.

use super::sync::{Arc, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

/// The writing end of a gauge; there is exactly one.
pub struct GaugeWriter {
    shared: Arc<CachePadded<AtomicU64>>,
    value: u64,
}

/// A reading end of a gauge. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct GaugeReader {
    shared: Arc<CachePadded<AtomicU64>>,
}

/// Makes a gauge that stands at `value`.
#[must_use]
pub fn gauge(value: u64) -> (GaugeWriter, GaugeReader) {
    let shared = Arc::new(CachePadded::new(AtomicU64::new(value)));
    (GaugeWriter { shared: Arc::clone(&shared), value }, GaugeReader { shared })
}

impl GaugeWriter {
    /// Sets the value; whoever reads it also sees all that this thread did before. Costs a plain store.
    pub fn set(&mut self, value: u64) {
        self.value = value;
        self.shared.store(value, Ordering::Release);
    }

    /// The value that was set last.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.value
    }
}

impl GaugeReader {
    /// The newest value that has reached this thread, never older than one read before.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.shared.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for GaugeWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GaugeWriter").field("value", &self.value).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for GaugeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GaugeReader").finish_non_exhaustive()
    }
}
