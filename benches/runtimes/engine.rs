//! An engine as a child process, in a temporary directory, on one CPU.
//!
//! Invariant: the process never outlives its handle, and the directory goes after it.

use crate::cpu;
use anyhow::{Context, Result, bail};
use highwater_client::ClientConfig;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
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
pub(crate) struct Setup {
    pub(crate) binary: PathBuf,
    pub(crate) cpu: usize,
    pub(crate) memory: String,
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    ready: Value,
    folder: TempDir,
}

impl Engine {
    /// Starts an engine under `runtime` and waits until it has published a snapshot.
    pub(crate) fn start(setup: &Setup, runtime: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("highwater-runtimes-").tempdir();
        let folder = folder.context("no temporary directory; TMPDIR says where")?;
        let log = File::create(folder.path().join("log")).context("the engine's log cannot be written")?;
        let mut command = Command::new(&setup.binary);
        // What the caller's environment says to other engines must not reach this one.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
            command.env_remove(name);
        }
        command
            .args(["serve", "--listen=127.0.0.1:0", "--http=127.0.0.1:0"])
            .arg(format!("--runtime={runtime}"))
            .arg(format!("--cores={}", setup.cpu))
            .arg(format!("--memory={}", setup.memory))
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let child = cpu::spawn_on(setup.cpu, &mut command)?;
        let mut engine = Self { child, ready: Value::Null, folder };
        let stdout = engine.child.stdout.take().context("the engine's stdout was not piped")?;
        let ready = engine.ready_line(stdout).and_then(|line| engine.begin(&line));
        ready.with_context(|| format!("{command:?}\n{}", engine.log_tail()))?;
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

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// For producers and subscribers.
    pub(crate) fn client(&self) -> Result<ClientConfig> {
        let address = self.said(&self.ready["listen"][0])?;
        Ok(ClientConfig::with_ca_file(address, self.said(&self.ready["ca"])?)?)
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64> {
        metric(&self.ask("/metrics")?, name).with_context(|| format!("the engine has no metric {name}"))
    }

    fn said<'a>(&self, value: &'a Value) -> Result<&'a str> {
        value.as_str().with_context(|| format!("the ready line misses an address: {}", self.ready))
    }

    fn ask(&self, path: &str) -> Result<String> {
        let url = format!("http://{}{path}", self.said(&self.ready["http"])?);
        let config = ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).proxy(None).build();
        let mut answer = ureq::Agent::from(config).get(&url).call().with_context(|| url.clone())?;
        answer.body_mut().read_to_string().context(url)
    }

    /// Asks it to end, by SIGTERM, and waits until it has, with exit code 0.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("the engine cannot be asked to end")?;
        let status = self.wait()?;
        if !status.success() {
            bail!("the engine ended with {status}\n{}", self.log_tail());
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
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the end of its log:\n{}", lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of a metric over its labels in a page of metrics; `None` when it is not there.
fn metric(page: &str, name: &str) -> Option<f64> {
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
