//! `loadgen run` on an engine, beside whatever else is measured of it.
//!
//! Invariant: the child does not outlive its handle, and a load that was not acknowledged in full is an error; batches
//! are as large as in the sweep.

use crate::Bench;
use anyhow::{Context, Result, bail};
use highwater_loadgen::measure::BATCH_VIEWS;
use highwater_loadgen::process::cpu;
use highwater_loadgen::process::engine::Engine;
use serde_json::Value;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

impl Load {
    /// Starts it on the load's CPU.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(bench: &Bench, engine: &Engine, flags: &[String]) -> Result<Self> {
        let (report, log) = (engine.folder().join("report.json"), engine.folder().join("load.log"));
        let mut command = Command::new(&bench.loadgen);
        command
            .arg("run")
            .arg(format!("--engine={}", engine.client()?.engine))
            .arg(format!("--ca={}", engine.ca()?))
            .arg(format!("--report={}", report.display()))
            .arg(format!("--batch={BATCH_VIEWS}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).context("the load's log cannot be written")?);
        let child = cpu::spawn_on(&[bench.engine.load_cpu], &mut command)?;
        Ok(Self { child, report, log })
    }

    /// Whether it still sends, or waits for answers.
    ///
    /// # Errors
    /// When the system does not say.
    pub(crate) fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("loadgen cannot be waited for")?.is_none())
    }

    /// Waits for its end; returns its report.
    ///
    /// # Errors
    /// When it failed, with the end of its log.
    pub(crate) fn finish(mut self) -> Result<Value> {
        let status = self.child.wait().context("loadgen cannot be waited for")?;
        if !status.success() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            bail!("loadgen ended with {status}: {}", lines[lines.len().saturating_sub(8)..].join("\n"));
        }
        let text = std::fs::read_to_string(&self.report).context("loadgen wrote no report")?;
        serde_json::from_str(&text).context("the report is no JSON")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of a report, by the keys that lead to it.
///
/// # Errors
/// When it is not there.
pub(crate) fn number(report: &Value, path: &str) -> Result<f64> {
    let value = path.split('.').fold(report, |value, key| &value[key]);
    value.as_f64().with_context(|| format!("the report misses {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_is_found_by_its_path_or_named() {
        let report = json!({ "a": { "b": 2 } });
        assert_eq!(number(&report, "a.b").unwrap().to_bits(), 2.0_f64.to_bits());
        assert!(number(&report, "a.c").unwrap_err().to_string().contains("a.c"));
    }
}
