//! The flags that all programs which measure whole engines have: the two CPUs, and where the binaries are.
//!
//! Invariant: what these give was looked at before anything is started: a CPU that this process may use, a file that is
//! there.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use highwater_loadgen::process::cpu;
use highwater_loadgen::process::engine::{Setup, find_binary};

/// An engine, and the CPU of each side.
#[derive(Debug, Clone, Args)]
pub struct EngineFlags {
    /// CPU that the whole engine runs on.
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub engine_cpu: usize,
    /// CPU that everything else runs on: load, clients, subscribers, attackers.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub load_cpu: usize,
    /// The engine; by default the `highwater` beside this program.
    #[arg(long, value_name = "PATH")]
    pub highwater: Option<PathBuf>,
}

/// An engine, and the generator that loads it.
#[derive(Debug, Clone, Args)]
pub struct LoadFlags {
    /// The engine.
    #[command(flatten)]
    pub engine: EngineFlags,
    /// The generator; by default the `loadgen` beside this program.
    #[arg(long, value_name = "PATH")]
    pub loadgen: Option<PathBuf>,
}

impl EngineFlags {
    /// What engines are started with, after both CPUs were checked.
    ///
    /// # Errors
    /// When the binary is not there, or this process may not use one of the CPUs.
    pub fn setup(&self, memory: &str) -> Result<Setup> {
        let binary = find_binary(self.highwater.clone(), "highwater")?;
        cpu::check("--engine-cpu", self.engine_cpu)?;
        cpu::check("--load-cpu", self.load_cpu)?;
        Ok(Setup { binary, cpus: vec![self.engine_cpu], memory: memory.to_owned() })
    }
}

impl LoadFlags {
    /// The generator.
    ///
    /// # Errors
    /// When it is not there.
    pub fn loadgen(&self) -> Result<PathBuf> {
        find_binary(self.loadgen.clone(), "loadgen")
    }
}
