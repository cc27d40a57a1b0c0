//! `oha`, a public load tool for HTTP: questions over kept connections, from the load's CPU.
//!
//! Source: <https://github.com/hatoo/oha>. Invariant: a figure is only of answers that all were 200.

use crate::load::number;
use anyhow::{Context, Result, bail};
use highwater_loadgen::process::cpu;
use serde_json::Value;
use std::process::{Command, Stdio};

/// Connections at a time.
pub(crate) const CONNECTIONS: u32 = 16;
pub(crate) const REMEDY: &str = "install it by `cargo install oha --locked`";

/// What is asked for, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking {
    pub(crate) cpu: usize,
    pub(crate) seconds: u64,
    /// Questions each second, evenly; without it, as many as are answered.
    pub(crate) per_s: Option<u32>,
    /// Whether answers may be compressed.
    pub(crate) gzip: bool,
}

/// What it found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Answers {
    pub(crate) per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

/// Asks for as long as is said; the last answers are waited for.
///
/// # Errors
/// When it fails, or an answer was not 200.
pub(crate) fn ask(url: &str, asking: &Asking) -> Result<Answers> {
    let mut command = Command::new("oha");
    command
        .args(["--no-tui", "--output-format", "json", "-w", "-c", &CONNECTIONS.to_string()])
        .args(["-z", &format!("{}s", asking.seconds), "--disable-compression"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(per_s) = asking.per_s {
        // Latency from when a question was due, not from when there was a connection for it.
        command.args(["-q", &per_s.to_string(), "--latency-correction"]);
    }
    if asking.gzip {
        command.args(["-H", "accept-encoding: gzip"]);
    }
    let child = cpu::spawn_on(&[asking.cpu], command.arg(url))?;
    let output = child.wait_with_output().context("oha cannot be waited for")?;
    if !output.status.success() {
        bail!("oha ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    parse(&String::from_utf8_lossy(&output.stdout))
}

fn parse(text: &str) -> Result<Answers> {
    let found: Value = serde_json::from_str(text).context("oha's report is no JSON")?;
    let codes = found["statusCodeDistribution"].as_object().context("oha's report misses statusCodeDistribution")?;
    let failed = found["errorDistribution"].as_object().is_some_and(|errors| !errors.is_empty());
    if failed || codes.keys().ne(["200"]) {
        bail!("not all answers were 200: {}, {}", found["statusCodeDistribution"], found["errorDistribution"]);
    }
    let us = |path: &str| Ok::<_, anyhow::Error>(1e6 * number(&found, path)?);
    Ok(Answers {
        per_s: number(&found, "summary.requestsPerSec")?,
        p50_us: us("latencyPercentiles.p50")?,
        p99_us: us("latencyPercentiles.p99")?,
        max_us: us("summary.slowest")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(codes: &str, errors: &str) -> String {
        format!(
            "{{\"summary\": {{\"successRate\": 1.0, \"slowest\": 0.008, \"requestsPerSec\": 49.5}}, \
             \"latencyPercentiles\": {{\"p50\": 0.0015, \"p99\": 0.004, \"p99.9\": 0.008}}, \
             \"statusCodeDistribution\": {codes}, \"errorDistribution\": {errors}}}"
        )
    }

    #[test]
    fn seconds_become_microseconds() {
        let answers = parse(&report("{\"200\": 50}", "{}")).unwrap();
        assert_eq!(answers, Answers { per_s: 49.5, p50_us: 1500.0, p99_us: 4000.0, max_us: 8000.0 });
    }

    #[test]
    fn anything_but_answers_is_no_figure() {
        for (codes, errors) in [("{\"200\": 5, \"429\": 1}", "{}"), ("{}", "{}"), ("{\"200\": 5}", "{\"refused\": 1}")]
        {
            let error = parse(&report(codes, errors)).unwrap_err().to_string();
            assert!(error.contains("not all answers were 200"), "{error}");
        }
        assert!(parse("none").is_err());
    }
}
