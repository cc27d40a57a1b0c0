//! Load for a running Highwater: generated Zipf views or the replay of a real file, sent open-loop over QUIC,
//! and an exact check of what the engine then serves.
//!
//! The crate is a library so that the engine's demo can drive it; the `loadgen` binary is its command line.
//! In `measure` it also starts engines of its own, by `process`, and tells what they hold. It is not a benchmark of
//! HTTP and holds no state between invocations.
//!
//! Invariant: a view enters the oracle exactly when its batch's acknowledgement says that it is counted, whatever
//! number of times the batch was sent, so the oracle and the engine must agree to the last view.

#![forbid(unsafe_code)]

pub mod args;
mod campaign;
pub mod csv;
pub mod error;
pub mod figures;
pub mod http;
pub mod machine;
pub mod measure;
pub mod oracle;
pub mod pace;
pub mod process;
pub mod progress;
mod records;
pub mod recurring;
pub mod replay;
pub mod report;
pub mod run;
pub mod seconds;
pub mod send;
pub mod series;
pub mod table;
pub mod tally;
pub mod verify;
pub mod zipf;

pub use error::LoadError;
pub use pace::Rate;
pub use progress::Progress;
pub use replay::{ReplayOptions, Shift, Speed, replay};
pub use report::{AckLatency, Outcome, Report};
pub use run::{RunOptions, run};
pub use send::Target;
