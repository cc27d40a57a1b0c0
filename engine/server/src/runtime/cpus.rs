//! Which CPUs a thread runs on.
//!
//! Source: Linux manual page sched_setaffinity(2).

use std::io;

use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// What went wrong with a thread's affinity.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The CPU is none that this process may use.
    #[error("cannot pin a core to CPU {cpu}: this process may use the CPUs {allowed}; choose from them by --cores")]
    NotAllowed {
        /// The CPU asked for.
        cpu: usize,
        /// The CPUs that the process may use, as ranges.
        allowed: String,
    },
    /// The system refused.
    #[error("cannot pin a core to CPU {cpu}: {source}")]
    System {
        /// The CPU asked for.
        cpu: usize,
        /// The system's error.
        source: io::Error,
    },
}

/// Checks that the process may use a CPU.
///
/// # Errors
/// [`PinError`] when it may not.
pub fn check_cpu(cpu: usize) -> Result<(), PinError> {
    let allowed = sched_getaffinity(None).map_err(|error| PinError::System { cpu, source: error.into() })?;
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        return Err(PinError::NotAllowed { cpu, allowed: ranges(&allowed) });
    }
    Ok(())
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// [`PinError`] when the process may not use that CPU.
pub fn pin_current_thread(cpu: usize) -> Result<(), PinError> {
    let system = |error: Errno| PinError::System { cpu, source: error.into() };
    check_cpu(cpu)?;
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(system)
}

/// Lets the calling thread run on any of some CPUs.
///
/// # Errors
/// The system's error.
pub fn allow_current_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU).for_each(|&cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPUs that the calling thread may use, ascending.
///
/// # Errors
/// The system's error.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// A CPU set as `0-3,8`.
fn ranges(set: &CpuSet) -> String {
    let mut parts = Vec::new();
    let mut cpu = 0;
    while cpu < CpuSet::MAX_CPU {
        if !set.is_set(cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu < CpuSet::MAX_CPU && set.is_set(cpu) {
            cpu += 1;
        }
        parts.push(if cpu - first == 1 { first.to_string() } else { format!("{first}-{}", cpu - 1) });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn pinning_to_a_cpu_that_is_not_there_names_those_that_are() {
        thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
            let text = pin_current_thread(CpuSet::MAX_CPU).unwrap_err().to_string();
            assert!(text.contains(&ranges(&allowed)), "{text}");
            pin_current_thread(cpu).unwrap();
            assert_eq!(ranges(&sched_getaffinity(None).unwrap()), cpu.to_string());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn ranges_read_well() {
        let mut set = CpuSet::new();
        for cpu in [0, 1, 2, 5, 7, 8] {
            set.set(cpu);
        }
        assert_eq!(ranges(&set), "0-2,5,7-8");
    }
}
