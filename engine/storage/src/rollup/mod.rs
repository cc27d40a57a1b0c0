//! Roll-ups: the runs of many cuts merged into few files, by minute, hour and day, and the base that commits them.
//!
//! Not when a job is due and not what is removed after it, which is the store's. Invariants: a job changes nothing but
//! files of its own, which nobody believes before its base has its name; its memory is bounded by one shard; each view
//! of the cuts that it takes is in exactly one run of each grain that it writes.

mod job;
mod merge;
mod names;
mod plan;
mod verify;

pub use job::{RollupStop, run_rollup};
pub use plan::{Retention, RollupDone, RollupPlan, RollupRule};

pub(crate) use names::{ROLLUPS_DIR, RunName};
