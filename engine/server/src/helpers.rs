//! Helpers: threads for everything that may block, kept off the CPUs of the pinned cores.
//!
//! Invariant: a helper runs on the CPUs that `--helper-cores` names; without it, on those that the process may use and
//! no core is pinned to, or where there are none, on all of them.

use crate::runtime::{allow_current_thread, allowed_cpus};
use anyhow::{Context, Result, bail};
use crossbeam_channel::bounded;
use rustix::process::{getpriority_process, setpriority_process};
use std::io;
use std::thread::JoinHandle;

/// Steps of nice(1) down to the lowest priority.
pub const NICE_MAX: i32 = 19;

/// Where helpers run.
#[derive(Debug, Clone)]
pub struct Helpers {
    cpus: Vec<usize>,
    share_cores: bool,
}

impl Helpers {
    /// Helpers on the CPUs `named`, or else on those that no core is `pinned` to.
    ///
    /// # Errors
    /// When a CPU that is named is none that the process may use.
    pub fn new(named: &[usize], pinned: &[usize]) -> Result<Self> {
        let allowed = allowed_cpus().context("the system does not say which CPUs this process may use")?;
        if let Some(cpu) = named.iter().find(|cpu| !allowed.contains(cpu)) {
            bail!("--helper-cores names CPU {cpu}, this process may use the CPUs {allowed:?}: choose from them");
        }
        let free: Vec<usize> = allowed.iter().copied().filter(|cpu| !pinned.contains(cpu)).collect();
        let cpus = match (named, free.as_slice()) {
            ([], []) => allowed,
            ([], _) => free,
            (named, _) => named.to_vec(),
        };
        let share_cores = cpus.iter().any(|cpu| pinned.contains(cpu));
        Ok(Self { cpus, share_cores })
    }

    /// Whether a helper may run on the CPU of a core.
    #[must_use]
    pub const fn share_cores(&self) -> bool {
        self.share_cores
    }

    /// Starts a helper.
    ///
    /// # Errors
    /// When the system has no thread left, or does not let it run there.
    pub fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
        let (placed, is_placed) = bounded(1);
        let cpus = self.cpus.clone();
        let thread = spawn(name, move || {
            let outcome = allow_current_thread(&cpus);
            let failed = outcome.is_err();
            // The receiver waits for exactly this message.
            let _ = placed.send(outcome);
            if !failed {
                work();
            }
        })?;
        is_placed.recv().context("a helper's thread ended before it had its CPUs")??;
        Ok(thread)
    }
}

/// Lowers the priority of the calling thread by so many steps of nice(1), as far as there are.
///
/// # Errors
/// The system's error.
pub fn give_way(steps: i32) -> io::Result<()> {
    // Of the thread that asks, on Linux.
    let own = getpriority_process(None)?;
    Ok(setpriority_process(None, (own + steps).min(NICE_MAX))?)
}

/// Starts a thread where the process may run.
///
/// # Errors
/// When the system has none left.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the thread {name:?}; look at the limits on threads and memory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helpers_keep_off_the_cores_where_they_can() {
        let allowed = allowed_cpus().unwrap();
        let all_but_first = Helpers::new(&[], &allowed[..1]).unwrap().cpus;
        assert_eq!(all_but_first, if allowed.len() > 1 { allowed[1..].to_vec() } else { allowed.clone() });
        assert_eq!(Helpers::new(&[], &allowed[..1]).unwrap().share_cores(), allowed.len() == 1);
        assert!(Helpers::new(&[], &allowed).unwrap().share_cores());
        assert_eq!(Helpers::new(&[], &allowed).unwrap().cpus, allowed);
        assert_eq!(Helpers::new(&allowed[..1], &allowed[..1]).unwrap().cpus, allowed[..1]);
        let error = Helpers::new(&[99_999], &[]).unwrap_err().to_string();
        assert!(error.contains("99999") && error.contains("--helper-cores"), "{error}");
    }

    #[test]
    fn a_helper_runs_where_it_is_told_to() {
        let allowed = allowed_cpus().unwrap();
        let last = *allowed.last().unwrap();
        let (sender, receiver) = bounded(1);
        let helpers = Helpers::new(&[last], &[]).unwrap();
        helpers.spawn("test", move || sender.send(allowed_cpus().unwrap()).unwrap()).unwrap().join().unwrap();
        assert_eq!(receiver.recv().unwrap(), [last]);
    }
}
