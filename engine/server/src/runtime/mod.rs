//! What runs a core: a plain thread, or a glommio executor.
//!
//! Thin on purpose: a runtime pins, waits and yields; everything else is in the core's own
//! [`turn`](crate::core::CoreLoop::turn). Invariant: whatever ends a wait, a turn follows, so nothing that came before
//! the end of the wait is missed.

mod cpus;
mod glommio;
mod park;
mod thread;

use crate::core::{Core, CoreLoop};
use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use std::thread::JoinHandle;
use std::time::Instant;

pub use cpus::{PinError, allow_current_thread, allowed_cpus, check_cpu, pin_current_thread};
pub use park::{Parking, Waker, wait_for_socket};

/// What runs the cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// One glommio executor for each core.
    Glommio,
    /// One plain thread for each core, which sleeps in ppoll.
    #[default]
    Thread,
}

/// Checks that the system has what the runtime needs for so many cores.
///
/// # Errors
/// What is missing, and the remedy.
pub fn check(runtime: Runtime, cores: usize) -> Result<()> {
    match runtime {
        Runtime::Thread => Ok(()),
        Runtime::Glommio => glommio::check_memlock(cores as u64),
    }
}

/// Starts a core on a CPU; it is pinned when this returns.
///
/// # Errors
/// When the process may not use the CPU, or the system has not what the runtime needs.
pub fn spawn(runtime: Runtime, cpu: usize, core: Core, parking: Parking, origin: Instant) -> Result<JoinHandle<()>> {
    let name = format!("core-{}", core.number);
    let make = move || CoreLoop::new(core, origin);
    match runtime {
        Runtime::Thread => thread::spawn(&name, cpu, parking, make),
        Runtime::Glommio => glommio::spawn(&name, cpu, parking, make),
    }
}
