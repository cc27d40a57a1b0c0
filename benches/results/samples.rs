//! Samples of a process by `perf`: what ran, on which thread, and in the kernel on whose behalf.
//!
//! Source: Linux manual pages perf-record(1), perf-script(1).

use anyhow::{Context, Result, bail};
use highwater_loadgen::process::cpu;
use std::path::Path;
use std::process::{Command, Stdio};

/// Samples each second: no divisor of what timers of the engine and the kernel tick at.
const PER_SECOND: &str = "499";
/// The kernel's addresses begin here, on every machine with 64 bits that it runs on.
const KERNEL_BEGINS: u64 = 0xffff_0000_0000_0000;

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) thread: String,
    /// Cycles or nanoseconds since the sample before.
    pub(crate) weight: u64,
    /// The innermost symbol.
    pub(crate) symbol: String,
    /// The kernel's symbols, the innermost first; empty outside of the kernel.
    pub(crate) kernel: Vec<String>,
}

/// Samples a process for a while, from another CPU than it runs on.
///
/// # Errors
/// When `perf` fails, with what it says.
pub(crate) fn record(pid: u32, seconds: u64, cpu: usize, folder: &Path) -> Result<()> {
    let mut command = Command::new("perf");
    command
        .args(["record", "--quiet", "-F", PER_SECOND, "-g", "--pid", &pid.to_string(), "--output"])
        .arg(folder.join("perf.data"))
        .args(["--", "sleep", &seconds.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = cpu::spawn_on(&[cpu], &mut command)?.wait_with_output().context("perf cannot be waited for")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`perf record` ended with {}: {said}; kernel.perf_event_paranoid may forbid it", output.status);
    }
    Ok(())
}

/// What was recorded in a folder.
///
/// # Errors
/// When `perf` fails, or there is no sample.
pub(crate) fn read(folder: &Path) -> Result<Vec<Sample>> {
    let mut command = Command::new("perf");
    // Inlined functions are looked up one by one, for hours.
    command.args(["script", "--no-inline", "-F", "comm,tid,period,event,ip,sym", "--input"]);
    let output = command.arg(folder.join("perf.data")).stdin(Stdio::null()).output().context("perf cannot be run")?;
    if !output.status.success() {
        bail!("`perf script` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let samples: Vec<Sample> = String::from_utf8_lossy(&output.stdout).split("\n\n").filter_map(parse).collect();
    if samples.is_empty() {
        bail!("`perf` took no sample");
    }
    Ok(samples)
}

/// A line `thread tid period event:`, then a line `address symbol` for each frame, the innermost first.
fn parse(text: &str) -> Option<Sample> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let head: Vec<&str> = lines.next()?.split_whitespace().collect();
    // A thread's name may have spaces.
    let [thread @ .., _tid, weight, _event] = head.as_slice() else { return None };
    let weight = weight.parse().ok()?;
    let frames = lines.filter_map(|line| {
        let (address, symbol) = line.trim().split_once(' ')?;
        Some((u64::from_str_radix(address, 16).ok()?, symbol.trim()))
    });
    let frames: Vec<(u64, &str)> = frames.collect();
    // Behind the kernel's frames come the caller's, and what of these is no address may look like the kernel's.
    let kernel = frames.iter().take_while(|(address, _)| *address >= KERNEL_BEGINS);
    Some(Sample {
        thread: thread.join(" "),
        weight,
        symbol: frames.first()?.1.to_owned(),
        kernel: kernel.map(|(_, symbol)| (*symbol).to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "store 18022    2004008 cpu-clock:ppp: \n\
        \tffffffff81b6dded copy_folio_from_iter_atomic\n\
        \tffffffff816b946f vfs_write\n\
        \t           f64c7 __libc_pwrite\n\
        \n\
        core-0 18028    2004008 cpu-clock:ppp: \n\
        \t          e18420 ring_core_0_17_14__gcm_ghash_vpclmulqdq_avx2_1\n\
        \tffffb84c86d93fb0 [unknown]\n\
        \n\
        two words 7  5 cycles:P: \n\
        \t  12 <a as b>::c\n\
        \n\
        broken line\n";

    #[test]
    fn threads_weights_and_symbols_are_read() {
        let samples: Vec<Sample> = SCRIPT.split("\n\n").filter_map(parse).collect();
        assert_eq!(samples.len(), 3);
        assert_eq!((samples[0].thread.as_str(), samples[0].weight), ("store", 2_004_008));
        assert_eq!(samples[0].kernel, ["copy_folio_from_iter_atomic", "vfs_write"]);
        assert_eq!(samples[1].symbol, "ring_core_0_17_14__gcm_ghash_vpclmulqdq_avx2_1");
        assert!(samples[1].kernel.is_empty(), "what comes behind a user's frame is not the kernel's");
        assert_eq!((samples[2].thread.as_str(), samples[2].symbol.as_str()), ("two words", "<a as b>::c"));
    }
}
