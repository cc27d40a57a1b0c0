//! One round: a fresh engine, idle, then with an idle subscriber, then under load.
//!
//! Invariant: the engine's start and end are in no figure, and all figures are of an engine that took every view and
//! ended cleanly.

use anyhow::{Context, Result, bail};
use highwater_client::{ClientError, Subscriber};
use highwater_loadgen::process::cpu::{Meter, tick};
use highwater_loadgen::process::engine::{Engine, Setup};
use highwater_loadgen::{Progress, Rate, Report, RunOptions, Target, run as run_load};
use std::convert::Infallible;
use std::time::Duration;

/// The load of every round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) rate_per_s: u64,
    pub(crate) duration: Duration,
    pub(crate) videos: u32,
}

/// Views in a batch, as by default in `loadgen run`.
const BATCH_VIEWS: u32 = 4096;

/// Between the first snapshot and the first measurement, for what a start leaves to be done behind it.
const SETTLING: Duration = Duration::from_secs(1);

/// What one round gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Views acknowledged each second.
    pub(crate) views_per_s: f64,
    /// CPU seconds of the whole engine for a million views.
    pub(crate) cpu_s_per_million_views: f64,
    /// Views for one CPU second of the whole engine.
    pub(crate) views_per_cpu_s: f64,
    /// Median microseconds to a batch's acknowledgement.
    pub(crate) ack_us_p50: f64,
    /// 99 of 100 batches took at most this, microseconds.
    pub(crate) ack_us_p99: f64,
    /// The generator was late itself, so that the two above are not the engine's alone.
    pub(crate) is_late: bool,
    /// Percent of one CPU without a connection.
    pub(crate) idle_percent: f64,
    /// Percent of one CPU with one subscriber, to which a snapshot goes each second.
    pub(crate) subscribed_percent: f64,
    /// Sleeps that only a watchdog ended.
    pub(crate) silences: f64,
}

/// Runs an engine through idleness and load, and ends it.
pub(crate) fn run(setup: &Setup, runtime: &str, load: Load, idle: Duration) -> Result<Figures> {
    let engine = Engine::start(setup, runtime)?;
    let figures = measure(&engine, load, idle).with_context(|| engine.log_tail())?;
    engine.stop()?;
    Ok(figures)
}

fn measure(engine: &Engine, load: Load, idle: Duration) -> Result<Figures> {
    std::thread::sleep(SETTLING);
    let idle_percent = idle_percent(engine, idle)?;
    let subscribed_percent = subscribed_percent(engine, idle).context("with a subscriber")?;
    let meter = Meter::start(engine.pid())?;
    let report = loaded(engine, load).context("under load")?;
    // Less than a tick cannot be told from none, and something was done.
    let cpu_s = meter.cpu_time()?.max(tick()).as_secs_f64();
    let views = report.views_acked as f64;
    Ok(Figures {
        views_per_s: report.rate_per_s,
        cpu_s_per_million_views: cpu_s / views * 1e6,
        views_per_cpu_s: views / cpu_s,
        ack_us_p50: report.ack_latency_us.p50 as f64,
        ack_us_p99: report.ack_latency_us.p99 as f64,
        is_late: report.generator.valid != Some(true),
        idle_percent,
        subscribed_percent,
        silences: engine.metric("highwater_silences_total")?,
    })
}

fn idle_percent(engine: &Engine, idle: Duration) -> Result<f64> {
    let meter = Meter::start(engine.pid())?;
    std::thread::sleep(idle);
    meter.percent()
}

fn subscribed_percent(engine: &Engine, idle: Duration) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let config = engine.client()?;
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(config).await?;
        // The handshake is over when the first snapshot is here.
        subscriber.next().await?;
        let meter = Meter::start(engine.pid())?;
        if let Ok(Err(error)) = tokio::time::timeout(idle, follow(&mut subscriber)).await {
            return Err(error.into());
        }
        let percent = meter.percent()?;
        subscriber.close().await;
        Ok(percent)
    })
}

/// Reads snapshots until something goes wrong.
async fn follow(subscriber: &mut Subscriber) -> Result<Infallible, ClientError> {
    loop {
        subscriber.next().await?;
    }
}

/// Sends the load and waits for every answer.
fn loaded(engine: &Engine, load: Load) -> Result<Report> {
    let target = Target { client: engine.client()?, producers: 1, batch_views: BATCH_VIEWS, verify: None };
    let rate = Rate::PerSecond(load.rate_per_s);
    let options = RunOptions {
        target,
        rate,
        duration: load.duration,
        videos: load.videos,
        zipf: 1.0,
        user_bytes: None,
        ages: Vec::new(),
        seed: 1,
        warm_up: Duration::ZERO,
        prepared: 0,
    };
    let outcome = run_load(&options, &Progress::new())?;
    if let Some(error) = outcome.failure {
        return Err(error.into());
    }
    let report = outcome.report;
    if report.views_acked != report.views_sent {
        bail!("{} of {} views were acknowledged", report.views_acked, report.views_sent);
    }
    if report.refused > 0 {
        let why = &report.refused_by_reason;
        bail!("{} views were refused: {why:?}; for table_full raise --memory or lower --videos", report.refused);
    }
    Ok(report)
}
