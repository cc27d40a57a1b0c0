//! Model tests: random operations against an oracle that keeps every view.
//!
//! `oracle` is the naive truth, `invariants` checks a board's definitions by brute force, `harness`
//! drives cores, cuts and restarts the way the engine does, `model` runs seeds, `directed` holds
//! the cases that have a story, `populate` commits memory from another thread meanwhile. A failure
//! prints its seed and the line that reruns it.

mod directed;
mod harness;
mod invariants;
mod model;
mod oracle;
mod populate;
