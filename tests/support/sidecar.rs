//! A sidecar apart as a child process: `highwater sidecar` beside an engine.
//!
//! Invariant: the handle kills and reaps its process when dropped, and shows the log when a test fails.

use super::binaries::command;
use super::engine::{Ended, Engine};
use super::http::{self, Answer};
use super::process::{Child, Said};
use serde_json::Value;

/// A running sidecar.
pub(crate) struct Sidecar {
    child: Child,
    /// The line that it printed when it listened.
    pub(crate) ready: Value,
}

impl Sidecar {
    /// A sidecar of `engine` on a free port.
    pub(crate) fn start(engine: &Engine, more: &[&str]) -> Self {
        Self::beside(engine.address(), engine.ca(), more)
    }

    /// As [`Sidecar::start`], for an engine that may not be there.
    pub(crate) fn beside(engine: &str, ca: &str, more: &[&str]) -> Self {
        let (engine, ca) = (format!("--engine={engine}"), format!("--ca={ca}"));
        let arguments: Vec<&str> =
            [&*engine, &*ca, "--http=127.0.0.1:0"].into_iter().chain(more.iter().copied()).collect();
        Self::try_start(&arguments).unwrap_or_else(|ended| panic!("the sidecar ended: {ended:?}"))
    }

    /// A sidecar that is expected to refuse its arguments.
    pub(crate) fn refused(arguments: &[&str]) -> Ended {
        Self::try_start(arguments).err().expect("the sidecar refuses")
    }

    fn try_start(arguments: &[&str]) -> Result<Self, Ended> {
        match Child::start(command("highwater").arg("sidecar").args(arguments)) {
            Said::Ready(child, ready) => Ok(Self { child, ready }),
            Said::Ended(ended) => Err(ended),
        }
    }

    /// One answer over HTTP.
    pub(crate) fn ask(&self, path: &str) -> Answer {
        http::get(&format!("{}{path}", self.url()))
    }

    /// `http://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.ready["http"].as_str().unwrap())
    }

    /// The sum of a metric over its labels, by its name without the prefix `highwater_`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        http::metric(&self.ask("/metrics").body, name)
    }

    /// The first line of its log with these words, once it is there.
    pub(crate) fn log_line(&self, words: &str) -> String {
        self.child.log_line(words)
    }

    /// Asks it to end, by this signal, and waits until it has.
    pub(crate) fn end_by(self, signal: rustix::process::Signal) -> Ended {
        self.child.end_by(signal)
    }
}
