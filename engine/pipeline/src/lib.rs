//! What one core does with a batch, from the frame to the frozen lists, without I/O.
//!
//! ```text
//! handle_hello ─▶ producers ──────────────▶ poll_output (welcome, redirect, close)
//! handle_batch ─▶ sequence ▸ room ▸ copy and check ▸ verdicts ▸ append ──▶ poll_write
//! handle_written ─▶ durable prefix ─▶ rows to the lanes, ack ──▶ poll_output
//! lanes ─▶ shards; marker ─▶ cut, falling edge, lists ──▶ poll_errand, poll_top
//! ```
//!
//! The shell owns sockets, files, clocks and threads; it hands in what happened (`handle_*`), lets a bounded piece of
//! work be done (`turn`) and carries out what comes back (`poll_*`). The same code runs under a simulated shell.
//!
//! Invariants: nothing is acknowledged before the log's contiguous durable prefix covers it; every verdict stands in
//! the record before it takes effect; every queue here is bounded by what is in flight, which the limits bound.

#![forbid(unsafe_code)]

mod clock;
mod counting;
mod intake;
pub mod limits;
mod markers;
mod messages;
mod pipeline;
mod recovery;
mod session;
mod settle;
mod stats;
mod verdicts;

pub use clock::Reading;
pub use intake::{Found, Intake, core_of};
pub use messages::{CutErrand, LeavingSlice, Output, StoreAnswer, StoreRequest};
pub use pipeline::{Pipeline, PipelineConfig, Recovered};
pub use recovery::{RecoveryError, RecoveryPlan, recover};
pub use session::SessionId;
pub use stats::Stats;
