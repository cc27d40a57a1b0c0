//! The lock-free parts under loom, which runs each model once for every order in which its threads can interleave and
//! for every value that a load may return under the C11 memory model.
//!
//! Not a measure of speed, and no proof beyond the sizes modelled: rings of two and four slots, two or three threads.
//! Invariant: every model prints how many interleavings it went through and fails if there was only one.

mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
}

#[path = "../gauge.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate's own source once more, a part of it used here")]
mod gauge;
#[path = "../parking.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate's own source once more, a part of it used here")]
mod parking;
#[path = "../ring.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate's own source once more, a part of it used here")]
mod ring;

mod gauges;
mod rings;
mod wake_ups;

/// Runs `model` for all its interleavings, says how many there were, and expects more than one.
///
/// The count is kept outside of loom's sight, so it neither adds states nor orders anything.
fn explore(name: &str, model: impl Fn() + Sync + Send + 'static) {
    explore_bounded(name, None, model);
}

/// As [`explore`], with at most `preemptions_max` switches away from a thread that could go on, where given; switches
/// at waits and yields are free.
fn explore_bounded(name: &str, preemptions_max: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    use std::sync::atomic::{AtomicU64 as PlainU64, Ordering::Relaxed};
    let count = std::sync::Arc::new(PlainU64::new(0));
    let counted = std::sync::Arc::clone(&count);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions_max;
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    let count = count.load(Relaxed);
    println!("loom: {name}: {count} interleavings");
    assert!(count > 1, "{name}: a model with one interleaving checks nothing");
}
