//! Which CPU a thread or a child runs on, and how much CPU time a process took.
//!
//! Invariant: a child is confined before its first instruction, because it inherits the CPUs of the thread that starts
//! it. Source: Linux manual pages sched_setaffinity(2) and proc_pid_stat(5).

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Checks that this process may use a CPU that was given by `flag`.
///
/// # Errors
/// When it may not, with the CPUs that it may use.
pub fn check(flag: &str, cpu: usize) -> Result<()> {
    let set = sched_getaffinity(None).context("the system does not say which CPUs this process may use")?;
    if cpu < CpuSet::MAX_CPU && set.is_set(cpu) {
        return Ok(());
    }
    let allowed: Vec<String> = (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).map(|cpu| cpu.to_string()).collect();
    bail!("{flag}={cpu}: this process may use the CPUs {}; choose from them", allowed.join(","))
}

/// Keeps the calling thread, and all that it starts, on these CPUs.
///
/// # Errors
/// The system's error.
pub fn confine_current_thread(cpus: &[usize]) -> Result<()> {
    let mut only = CpuSet::new();
    cpus.iter().for_each(|cpu| only.set(*cpu));
    sched_setaffinity(None, &only).with_context(|| format!("a thread cannot be confined to the CPUs {cpus:?}"))
}

/// Starts a child that stays on these CPUs with all its threads.
///
/// # Errors
/// When it cannot be started, or confined.
pub fn spawn_on(cpus: &[usize], command: &mut Command) -> Result<Child> {
    let start = || {
        confine_current_thread(cpus)?;
        command.spawn().with_context(|| format!("{} cannot be started", command.get_program().display()))
    };
    std::thread::scope(|scope| scope.spawn(start).join()).map_err(|_| anyhow!("the starting thread panicked"))?
}

/// The shortest CPU time that [`Meter`] tells from none.
#[must_use]
pub fn tick() -> Duration {
    Duration::from_secs(1) / u32::try_from(ticks_per_s()).unwrap_or(u32::MAX)
}

fn ticks_per_s() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// Measures the CPU time of a process from here on.
#[derive(Debug)]
pub struct Meter {
    pid: u32,
    ticks: u64,
    began: Instant,
}

impl Meter {
    /// Begins for a process.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, ticks: ticks(pid)?, began: Instant::now() })
    }

    /// User and system time of all threads since the start, ended ones too, in whole ticks.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        let spent = ticks(self.pid)?.saturating_sub(self.ticks);
        Ok(Duration::from_secs_f64(spent as f64 / ticks_per_s() as f64))
    }

    /// The CPU time as a share of the time that has passed, in percent of one CPU.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn percent(&self) -> Result<f64> {
        let wall = self.began.elapsed();
        Ok(100.0 * self.cpu_time()?.as_secs_f64() / wall.as_secs_f64())
    }
}

fn ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let line = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
    parse_ticks(&line).with_context(|| format!("{path} has no CPU times: {line:?}"))
}

/// `utime` + `stime`, fields 14 and 15. The name of the process, field 2, may hold spaces and parentheses.
fn parse_ticks(line: &str) -> Option<u64> {
    let (_, from_third) = line.rsplit_once(')')?;
    let mut fields = from_third.split_whitespace().skip(14 - 3);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_times_are_found_behind_any_name() {
        let line = "12 (a) b (c) S 1 12 12 0 -1 4194304 1 2 3 4 700 80 5 6 20 0 1 0";
        assert_eq!(parse_ticks(line), Some(780));
        assert_eq!(parse_ticks("12 (a) S 1 2"), None);
        assert_eq!(parse_ticks(""), None);
    }

    #[test]
    fn work_is_measured() {
        let meter = Meter::start(std::process::id()).unwrap();
        // Ends by itself: only used CPU time can satisfy it, and the loop uses nothing else.
        while meter.cpu_time().unwrap() < tick() {}
        assert!(meter.percent().unwrap() > 0.0);
    }

    #[test]
    fn a_child_stays_where_it_was_started() {
        let set = sched_getaffinity(None).unwrap();
        let cpu = (0..CpuSet::MAX_CPU).rfind(|cpu| set.is_set(*cpu)).unwrap();
        let mut command = Command::new("cat");
        command.arg("/proc/self/status").stdout(std::process::Stdio::piped());
        let output = spawn_on(&[cpu], &mut command).unwrap().wait_with_output().unwrap();
        let status = String::from_utf8(output.stdout).unwrap();
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some(cpu.to_string().as_str()));
        assert_eq!(sched_getaffinity(None).unwrap(), set, "the caller keeps its CPUs");
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named_with_its_flag() {
        let text = check("--load-cpu", CpuSet::MAX_CPU).unwrap_err().to_string();
        assert!(text.contains("--load-cpu=") && text.contains("choose"), "{text}");
    }
}
