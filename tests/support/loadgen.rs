//! A generator as a child process: `loadgen` against a running engine.
//!
//! Invariant: the handle kills and reaps its process when dropped.

use super::binaries::command;
use super::engine::Engine;
use super::wait_within;
use serde_json::Value;
use std::io::Read;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest time for a whole load.
const LOAD_TIME_MAX: Duration = Duration::from_secs(1200);

/// A running generator.
pub(crate) struct Load {
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// A generator that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    /// The report on stdout; null when there was none.
    pub(crate) report: Value,
    pub(crate) stderr: String,
}

impl Load {
    /// Starts `loadgen` with `arguments`, against `engine`; with verification over its HTTP address.
    pub(crate) fn verified(engine: &Engine, arguments: &[&str]) -> Self {
        Self::start(engine, arguments, &[format!("--verify={}", engine.url())])
    }

    /// As [`Load::verified`], without verification.
    pub(crate) fn unverified(engine: &Engine, arguments: &[&str]) -> Self {
        Self::start(engine, arguments, &[])
    }

    /// As [`Load::verified`], over the address that the arguments give instead of the engine's own.
    pub(crate) fn through(engine: &Engine, arguments: &[&str]) -> Self {
        Self::begin(engine, arguments, &[format!("--verify={}", engine.url())])
    }

    fn start(engine: &Engine, arguments: &[&str], more: &[String]) -> Self {
        let address = format!("--engine={}", engine.address());
        Self::begin(engine, &[arguments, &[&*address]].concat(), more)
    }

    fn begin(engine: &Engine, arguments: &[&str], more: &[String]) -> Self {
        let mut child = command("loadgen")
            .args(arguments)
            .arg(format!("--ca={}", engine.ca()))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().map(read_whole);
        let stderr = child.stderr.take().map(read_whole);
        Self { child, stdout, stderr }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Done {
        let status: ExitStatus = wait_within("the generator's end", LOAD_TIME_MAX, || self.child.try_wait().unwrap());
        let text = |reader: &mut Option<JoinHandle<String>>| reader.take().unwrap().join().unwrap();
        let stdout = text(&mut self.stdout);
        let report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        Done { code: status.code(), report, stderr: text(&mut self.stderr) }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Done {
    /// A figure of the report.
    pub(crate) fn figure(&self, key: &str) -> u64 {
        self.report[key].as_u64().unwrap_or_else(|| panic!("{key} is no number: {self:?}"))
    }

    /// Checks that everything was acknowledged and verified, each view once.
    pub(crate) fn assert_verified(&self) {
        assert_eq!(self.code, Some(0), "{self:#?}");
        assert_eq!(self.report["verified"], true, "{self:#?}");
        assert_eq!(self.figure("views_acked"), self.figure("views_sent"), "{self:#?}");
    }
}

fn read_whole(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}
