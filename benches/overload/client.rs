//! The well-behaved client: `loadgen run` at a steady rate, and a reader that asks for a list now and then.
//!
//! Invariant: both begin before the attack and end after it; where the attackers' views are not counted, all lists are
//! verified in the end.

use crate::attack::Attack;
use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use highwater_loadgen::process::engine::Engine;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the client goes on before and after the attack, together.
const MARGIN: Duration = Duration::from_secs(3);
/// A client that has not ended so long after its load has hung.
const PATIENCE: Duration = Duration::from_secs(60);
const READ_EVERY: Duration = Duration::from_millis(50);
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How the client fared.
#[derive(Debug, Clone)]
pub(crate) struct Fared {
    pub(crate) views_sent: u64,
    pub(crate) views_acked: u64,
    pub(crate) verified: Option<bool>,
    pub(crate) failure: Option<String>,
    pub(crate) ack_us: [u64; 3],
    pub(crate) reads: u64,
    pub(crate) reads_failed: u64,
    pub(crate) read_us: [u64; 2],
}

pub(crate) struct Client {
    child: Child,
    report: PathBuf,
    began: Instant,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<(Histogram<u64>, u64)>,
    rate: u64,
}

impl Client {
    pub(crate) fn start(
        engine: &Engine,
        loadgen: &Path,
        attack: &Attack,
        duration: Duration,
        rate: u64,
    ) -> Result<Self> {
        let report = engine.folder().join("report.json");
        let mut command = Command::new(loadgen);
        command
            .args(["run", "--videos=1000", "--zipf=1.0", "--producers=1", "--batch=512"])
            .arg(format!("--engine={}", engine.client()?.engine))
            .arg(format!("--ca={}", engine.ca()?))
            .arg(format!("--rate={rate}"))
            .arg(format!("--duration={}s", (duration + MARGIN).as_secs()))
            .arg(format!("--report={}", report.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !attack.counts {
            command.arg(format!("--verify=http://{}", engine.http()?));
        }
        let child = command.spawn().with_context(|| format!("{} cannot be started", loadgen.display()))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (url, stopped) = (format!("http://{}/v1/videos/top?period=hour&k=100", engine.http()?), stop.clone());
        let reader = std::thread::spawn(move || read(&url, &stopped));
        Ok(Self { child, report, began: Instant::now(), stop, reader, rate })
    }

    /// Waits until the engine has counted a second's worth of views, and so knows the client's videos.
    pub(crate) fn wait_until_known(&self, engine: &Engine) -> Result<()> {
        while engine.metric("highwater_views_counted_total")? < self.rate as f64 {
            if self.began.elapsed() > PATIENCE {
                bail!("the engine counted too little in {PATIENCE:?}\n{}", engine.log_tail());
            }
            std::thread::sleep(READ_EVERY);
        }
        Ok(())
    }

    /// Waits for the end of the load.
    pub(crate) fn wait(mut self, engine: &Engine, duration: Duration) -> Result<Fared> {
        let end = self.began + duration + MARGIN + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("loadgen cannot be waited for")? {
                break status;
            }
            if Instant::now() > end {
                // It is given up; both calls fail only when it has ended.
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!("loadgen did not end\n{}", engine.log_tail());
            }
            std::thread::sleep(READ_EVERY);
        };
        self.stop.store(true, Ordering::Relaxed);
        let (read_us, reads_failed) = self.reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        let text = std::fs::read_to_string(&self.report)
            .with_context(|| format!("loadgen ended with {status} and wrote no report\n{}", engine.log_tail()))?;
        let report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
        let figure = |key: &str| report[key].as_u64().with_context(|| format!("the report misses {key}"));
        let latency = |key: &str| report["ack_latency_us"][key].as_u64().unwrap_or(0);
        Ok(Fared {
            views_sent: figure("views_sent")?,
            views_acked: figure("views_acked")?,
            verified: report["verified"].as_bool(),
            failure: report["failure"].as_str().map(str::to_owned),
            ack_us: [latency("p50"), latency("p99"), latency("max")],
            reads: read_us.len(),
            reads_failed,
            read_us: [read_us.value_at_quantile(0.99), read_us.max()],
        })
    }
}

/// Asks for a list, each time over a new connection; returns how long answers took in microseconds, and the failures.
fn read(url: &str, stop: &AtomicBool) -> (Histogram<u64>, u64) {
    let longest_us = 2 * READ_TIMEOUT.as_micros() as u64;
    let mut took = Histogram::new_with_max(longest_us, 3).expect("a largest value and 3 digits are allowed");
    let mut failed = 0;
    while !stop.load(Ordering::Relaxed) {
        let config = ureq::Agent::config_builder().timeout_global(Some(READ_TIMEOUT)).proxy(None).build();
        let began = Instant::now();
        let answer = ureq::Agent::from(config).get(url).call();
        match answer.and_then(|mut answer| answer.body_mut().read_to_string()) {
            Ok(_) => took.saturating_record(began.elapsed().as_micros() as u64),
            Err(_) => failed += 1,
        }
        std::thread::sleep(READ_EVERY);
    }
    (took, failed)
}
