//! What one core does with a batch, from the frame to the frozen lists, without I/O.
//!
//! ```text
//! handle_hello ─▶ producers ──────────────▶ poll_output (welcome, redirect, close)
//! handle_batch ─▶ sequence ▸ room ▸ copy and check ▸ verdicts ▸ append ──▶ poll_write
//! handle_written ─▶ durable prefix ─▶ rows to the lanes of the cores that count them, ack ──▶ poll_output, poll_wake
//! lanes ─▶ shards; markers of all cores ─▶ cut, falling edge, lists ──▶ poll_errand, poll_top
//! ```
//!
//! The cores of an engine share nothing but their lanes ([`lane_mesh`]) and the published snapshot.
//!
//! The shell owns sockets, files, clocks and threads; it hands in what happened (`handle_*`), lets a bounded piece of
//! work be done (`turn`) and carries out what comes back (`poll_*`). The same code runs under a simulated shell.
//!
//! Invariants: nothing is acknowledged before the log's contiguous durable prefix covers it; every verdict stands in
//! the record before it takes effect; every queue here is bounded by what is in flight, which the limits bound.

#![forbid(unsafe_code)]

mod admission;
mod asking;
mod clock;
mod counting;
mod gather;
mod intake;
mod lane_in;
pub mod limits;
mod markers;
mod marking;
mod mesh;
mod messages;
mod notes;
mod ownership;
mod pipeline;
mod recovery;
mod rows;
mod session;
mod settle;
mod stats;
mod stop;
mod verdicts;

pub use clock::Reading;
pub use gather::Gather;
pub use intake::Intake;
pub use mesh::{CoreLanes, lane_mesh};
pub use messages::{CutErrand, Output, RunSlice, StoreAnswer, StoreRequest};
pub use ownership::{Targets, home_core, owned_shards, shard_owner};
pub use pipeline::{Pipeline, PipelineConfig, Recovered};
pub use recovery::{RecoveryError, RecoveryPlan, recover};
pub use session::{Claim, SessionId};
pub use stats::Stats;
