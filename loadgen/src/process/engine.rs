//! An engine as a child process, in a temporary directory, on CPUs of its own.
//!
//! Invariant: the process never outlives its handle, and the directory goes after the last handle on it.

use super::cpu;
use anyhow::{Context, Result, bail};
use highwater_client::ClientConfig;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest wait for the engine to start, to have a snapshot, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(10);
/// Lines of the engine's log that a failure shows.
const LOG_LINES: usize = 15;

/// What every start has in common.
#[derive(Debug)]
pub struct Setup {
    /// `highwater`.
    pub binary: PathBuf,
    /// The CPUs that it runs on, each with a core.
    pub cpus: Vec<usize>,
    /// What `--memory` is given.
    pub memory: String,
}

/// The memory of a process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The most that was resident.
    pub peak_bytes: u64,
    /// What is resident now.
    pub resident_bytes: u64,
    /// What `--memory` allows.
    pub limit_bytes: u64,
}

/// How long a start took, from the call that makes the process.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Until the line that it is ready: producers are let in.
    pub ready: Duration,
    /// Until it has published a snapshot: readers are answered.
    pub snapshot: Duration,
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    ready: Value,
    start: Start,
    folder: Arc<TempDir>,
}

impl Engine {
    /// Starts an engine under `runtime` in a directory of its own and waits until it has published a snapshot.
    ///
    /// # Errors
    /// When it does not get that far, with the end of its log.
    pub fn start(setup: &Setup, runtime: &str) -> Result<Self> {
        Self::start_in(&new_folder()?, setup, runtime)
    }

    /// Like [`start`](Self::start), in a directory where another engine may have been.
    ///
    /// # Errors
    /// When it does not get that far, with the end of its log.
    pub fn start_in(folder: &Arc<TempDir>, setup: &Setup, runtime: &str) -> Result<Self> {
        Self::start_with(folder, setup, runtime, &[])
    }

    /// Like [`start_in`](Self::start_in), with further flags of `serve`.
    ///
    /// # Errors
    /// When it does not get that far, with the end of its log.
    pub fn start_with(folder: &Arc<TempDir>, setup: &Setup, runtime: &str, flags: &[&str]) -> Result<Self> {
        let log = File::create(folder.path().join("log")).context("the engine's log cannot be written")?;
        let cores: Vec<String> = setup.cpus.iter().map(usize::to_string).collect();
        let mut command = Command::new(&setup.binary);
        // What the caller's environment says to other engines must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
            command.env_remove(name);
        }
        command
            .args(["serve", "--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
            .arg(format!("--runtime={runtime}"))
            .arg(format!("--cores={}", cores.join(",")))
            .arg(format!("--memory={}", setup.memory))
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let began = Instant::now();
        let child = cpu::spawn_on(&setup.cpus, &mut command)?;
        let start = Start { ready: Duration::ZERO, snapshot: Duration::ZERO };
        let mut engine = Self { child, ready: Value::Null, start, folder: folder.clone() };
        let stdout = engine.child.stdout.take().context("the engine's stdout was not piped")?;
        let begun = engine.ready_line(stdout).and_then(|line| {
            let ready = began.elapsed();
            engine.begin(&line)?;
            Ok(Start { ready, snapshot: began.elapsed() })
        });
        engine.start = begun.with_context(|| format!("{command:?}\n{}", engine.log_tail()))?;
        Ok(engine)
    }

    /// The first line on stdout.
    fn ready_line(&mut self, stdout: ChildStdout) -> Result<String> {
        let (sender, line) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(stdout);
            let mut line = String::new();
            // Whoever waits for it may have given up; an empty line is the end.
            if out.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = sender.send(line);
            }
        });
        match line.recv_timeout(PATIENCE) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => bail!("the engine said nothing in {PATIENCE:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the engine ended before it was ready, with {}", self.wait()?)
            }
        }
    }

    /// Learns the addresses, and waits for the first snapshot.
    fn begin(&mut self, line: &str) -> Result<()> {
        self.ready = serde_json::from_str(line).with_context(|| format!("the ready line is no JSON: {line:?}"))?;
        let end = Instant::now() + PATIENCE;
        loop {
            match self.ask("/readyz") {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    return Err(error.context(format!("no snapshot in {PATIENCE:?}")));
                }
                Err(_) => std::thread::sleep(POLL_EVERY),
            }
        }
    }

    /// How long the start took.
    #[must_use]
    pub fn started(&self) -> Start {
        self.start
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// For producers and subscribers.
    ///
    /// # Errors
    /// When the ready line misses something, or the authority's file cannot be read.
    pub fn client(&self) -> Result<ClientConfig> {
        let address = self.said(&self.ready["listen"][0])?;
        Ok(ClientConfig::with_ca_file(address, self.said(&self.ready["ca"])?)?)
    }

    /// The UDP port of each core.
    ///
    /// # Errors
    /// When the ready line misses one.
    pub fn ports(&self) -> Result<Vec<u16>> {
        let listen = self.ready["listen"].as_array().context("the ready line misses its addresses")?;
        let port = |address| {
            let text: &str = self.said(address)?;
            let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
            port.with_context(|| format!("the engine's address {text} has no port"))
        };
        listen.iter().map(port).collect()
    }

    /// The address for HTTP.
    ///
    /// # Errors
    /// When the ready line misses it.
    pub fn http(&self) -> Result<&str> {
        self.said(&self.ready["http"])
    }

    /// The file of the authority that its certificate is of.
    ///
    /// # Errors
    /// When the ready line misses it.
    pub fn ca(&self) -> Result<&str> {
        self.said(&self.ready["ca"])
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The page of all metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        self.ask("/metrics")
    }

    /// The sum of a metric over its labels.
    ///
    /// # Errors
    /// When the engine does not answer or has none of that name.
    pub fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.metrics()?, name).with_context(|| format!("the engine has no metric {name}"))
    }

    fn said<'a>(&self, value: &'a Value) -> Result<&'a str> {
        value.as_str().with_context(|| format!("the ready line misses an address: {}", self.ready))
    }

    /// What it answers to a GET over HTTP.
    ///
    /// # Errors
    /// When it does not answer, or not with success.
    pub fn ask(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.http()?);
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
        let mut answer = ureq::Agent::from(config).get(&url).call().with_context(|| url.clone())?;
        answer.body_mut().read_to_string().context(url)
    }

    /// What it used of the machine's memory at most, uses now, and may use.
    ///
    /// # Errors
    /// When the process is gone, or says no limit.
    pub fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(&path).with_context(|| format!("{path} cannot be read"))?;
        let bytes = |key: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB"));
            let kib: Option<u64> = value.and_then(|text| text.parse().ok());
            Ok(kib.with_context(|| format!("{path} has no {key}"))? << 10)
        };
        let limit_bytes = self.metric("highwater_memory_limit_bytes")? as u64;
        Ok(Memory { peak_bytes: bytes("VmHWM:")?, resident_bytes: bytes("VmRSS:")?, limit_bytes })
    }

    /// Asks it to end, by SIGTERM, and waits until it has, with exit code 0.
    ///
    /// # Errors
    /// When it does not end in time, or with another code.
    pub fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("the engine cannot be asked to end")?;
        let status = self.wait()?;
        if !status.success() {
            bail!("the engine ended with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// When it had ended before, with the end of its log.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("the engine cannot be killed")?;
        let status = self.wait()?;
        if status.signal() != Some(Signal::KILL.as_raw()) {
            bail!("the engine had ended before, with {status}\n{}", self.log_tail());
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().context("the engine cannot be waited for")? {
                return Ok(status);
            }
            std::thread::sleep(POLL_EVERY);
        }
        bail!("the engine did not end in {PATIENCE:?}\n{}", self.log_tail())
    }

    /// The end of what it wrote to stderr.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the end of its log:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

/// A directory for engines, below `TMPDIR`.
///
/// # Errors
/// When none can be made there.
pub fn new_folder() -> Result<Arc<TempDir>> {
    let folder = tempfile::Builder::new().prefix("highwater-").tempdir();
    Ok(Arc::new(folder.context("no temporary directory; TMPDIR says where")?))
}

/// The engine's binary: the one given, or that beside this program, looked for before anything is started.
///
/// # Errors
/// When it is not there, with the remedy.
pub fn find_binary(given: Option<PathBuf>, name: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path,
        None => std::env::current_exe().context("this program's own path is unknown")?.with_file_name(name),
    };
    if !path.is_file() {
        bail!(
            "no {name} at {}: build it by `cargo build --release --workspace`, or give --{name}=PATH",
            path.display()
        );
    }
    Ok(path)
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over its labels in a page of metrics; `None` when it is not there.
#[must_use]
pub fn metric(page: &str, name: &str) -> Option<f64> {
    let samples = page.lines().filter_map(|line| line.rsplit_once(' '));
    let values = samples.filter(|(key, _)| key.split('{').next() == Some(name)).map(|(_, value)| value.parse().ok());
    values.reduce(|sum: Option<f64>, value| Some(sum? + value?))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let page = "# TYPE a counter\na{core=\"0\"} 2\na{core=\"1\"} 3\nab 7\n";
        assert_eq!(metric(page, "a"), Some(5.0));
        assert_eq!(metric(page, "ab"), Some(7.0));
        assert_eq!(metric(page, "b"), None);
    }
}
