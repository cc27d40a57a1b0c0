//! Lanes: the only things that pinned cores share besides published snapshots.
//!
//! A lane is a bounded single-producer single-consumer ring. There is one for each ordered pair of cores, a core's
//! lane to itself included, so that one core takes the same path as many. Beside the lanes a core has a flag that tells
//! senders whether it sleeps, and gauges: numbers that one core sets and others read. This crate knows nothing of views
//! or markers: it moves `Copy` values in order, whole slices at a time, and refuses what does not fit.
//!
//! All three are model-checked: their sources are compiled a second time inside the tests, with loom's primitives in
//! place of the standard ones (`sync` is the facade), because the `--cfg loom` switch for the whole graph would break
//! tokio.

mod gauge;
mod parking;
mod ring;
mod sync;

pub use gauge::{GaugeReader, GaugeWriter, gauge};
pub use parking::{Caller, Sleeper, parking_flag};
pub use ring::{LaneFull, Receiver, Sender, lane};

#[cfg(test)]
#[allow(clippy::duplicate_mod, reason = "the sources are compiled a second time on purpose, with loom's primitives")]
mod model;
#[cfg(test)]
mod stress;
