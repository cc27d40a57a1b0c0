//! One engine with one load: filled once with every view made ahead, then measured stretch by stretch, then verified.
//!
//! Invariant: the thread that sends is confined to the load's CPU before the engine is started, and the engine to its
//! own before its first instruction.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use highwater_proto::BATCH_VIEWS_MAX;
use serde::Serialize;

use crate::args::{age, duration, exponent};
use crate::campaign::Campaign;
use crate::error::LoadError;
use crate::pace::{Plan, Rate};
use crate::process::cpu::{self, Meter, tick};
use crate::process::engine::{Engine, Setup};
use crate::process::probe::{CpuTicks, udp_drops};
use crate::progress::Progress;
use crate::recurring::{PREPARED_MAX, Recurring};
use crate::report::{AckLatency, Outcome, Punctuality};
use crate::run::Recurred;
use crate::send::{Encoding, PRODUCERS_MAX, Target};
use crate::series::Second;
use crate::zipf::{VIDEOS_MAX, ViewGenerator};

/// Views in a batch of every measurement, unless told otherwise: as many as may be.
pub const BATCH_VIEWS: u32 = BATCH_VIEWS_MAX;
/// Batches that a stretch at a set rate should have, so that 99 of 100 are told by more than the slowest one.
const BATCHES_MIN: u64 = 300;
/// Most times its duration that it goes on for them.
const LENGTHENED_MAX: u32 = 3;

/// The engine and the load of a measurement.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// CPU that the whole engine runs on; with several, and commas between, the engine has a core on each.
    #[arg(long = "engine-cpu", value_name = "CPU", default_value = "0", value_delimiter = ',')]
    pub engine_cpus: Vec<usize>,
    /// CPU that the load runs on.
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub load_cpu: usize,
    /// What the engine's --memory is given.
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    pub memory: String,
    /// What the engine's --runtime is given.
    #[arg(long, value_name = "NAME", default_value = "thread")]
    pub runtime: String,
    /// Connections, each a producer of its own. Batches go to whichever is free, so a core that stalls gets fewer.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(PRODUCERS_MAX)))]
    pub producers: u16,
    /// Views per batch.
    #[arg(long, value_name = "VIEWS", default_value_t = BATCH_VIEWS, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_VIEWS_MAX)))]
    pub batch: u32,
    /// Distinct videos.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(VIDEOS_MAX)))]
    pub videos: u32,
    /// Zipf exponent of the videos' popularity; 0 is uniform.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0, value_parser = exponent)]
    pub zipf: f64,
    /// Columns of batches.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Encoding::Compact)]
    pub encoding: Encoding,
    /// Bytes of user ids, 0 to 255; 12 unless given. A view in plain columns has 42 bytes then; with --encoding=plain
    /// --user-bytes=70 it has 100.
    #[arg(long, value_name = "N")]
    pub user_bytes: Option<u8>,
    /// At least so many views are made ahead, up to 46 bytes each and more with longer user ids; all are sent once
    /// before anything is measured.
    #[arg(long, value_name = "VIEWS", default_value_t = 80_000_000, value_parser = clap::value_parser!(u64).range(1..=PREPARED_MAX))]
    pub prepared: u64,
    /// How long each stretch of load is measured; at set rates so low that it has less than 300 batches, up to three
    /// times as long.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// What is planned at the beginning of each stretch and left out of latencies and rate.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = age)]
    pub warm_up: Duration,
    /// Seed: the same seed gives the same views.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// What is sent, made once for all engines of a measurement.
#[derive(Debug)]
pub(super) struct Prepared {
    generator: ViewGenerator,
    recurring: Arc<Recurring>,
}

impl LoadArgs {
    /// Checks both CPUs, and confines this thread, which will send, to the load's.
    pub(super) fn confine(&self) -> Result<(), LoadError> {
        let engine = self.engine_cpus.iter().map(|cpu| ("engine-cpu", *cpu));
        for (option, value) in engine.chain([("load-cpu", self.load_cpu)]) {
            cpu::check(&format!("--{option}"), value).map_err(|error| LoadError::Option {
                option,
                value: value.to_string(),
                reason: format!("{error:#}"),
            })?;
        }
        Ok(cpu::confine_current_thread(&[self.load_cpu])?)
    }

    /// Makes all views ahead.
    pub(super) fn prepare(&self) -> Result<Prepared, LoadError> {
        let generator = ViewGenerator::with_user_bytes(self.videos, self.zipf, self.seed, self.user_bytes)?;
        let recurring = Recurring::make(&generator, self.prepared, self.batch, self.encoding.encodings())?;
        Ok(Prepared { generator, recurring })
    }

    /// How long a stretch at a rate is measured.
    fn length(&self, rate: Rate) -> Duration {
        let Rate::PerSecond(rate_per_s) = rate else { return self.duration };
        let views = BATCHES_MIN * u64::from(self.batch);
        let enough = Duration::from_secs_f64(views as f64 / rate_per_s as f64);
        self.duration.max(enough.min(self.duration.saturating_mul(LENGTHENED_MAX)))
    }

    pub(super) fn setup(&self, binary: PathBuf) -> Setup {
        Setup { binary, cpus: self.engine_cpus.clone(), memory: self.memory.clone() }
    }
}

/// What one stretch of load gave.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Seconds from the beginning of the filling to that of this stretch.
    pub began_s: f64,
    /// Views planned each second; null for as fast as the engine answers.
    pub planned_per_s: Option<u64>,
    /// Views acknowledged each second after the warm-up.
    pub rate_per_s: f64,
    /// Views acknowledged, warm-up included.
    pub views: u64,
    /// Bytes of batch payloads per view.
    pub bytes_per_view: f64,
    /// Batches that latency is of.
    pub batches: u64,
    /// From a batch's planned time to its acknowledgement.
    pub ack_latency_us: AckLatency,
    /// The generator itself.
    pub generator: Punctuality,
    /// CPU seconds of the whole engine for a million views, warm-up included.
    pub engine_cpu_s_per_million_views: f64,
    /// CPU time of the engine, in percent of one CPU.
    pub engine_cpu_percent: f64,
    /// What the engine has of the machine's memory.
    pub engine_resident_bytes: u64,
    /// Datagrams dropped before the engine's sockets.
    pub udp_drops: u64,
    /// Time of the engine's CPU in softirqs, percent.
    pub softirq_percent: f64,
    /// Second by second.
    pub seconds: Vec<Second>,
}

impl Stage {
    /// Whether the rate was held: all was acknowledged in time, and the generator kept to its plan.
    #[must_use]
    pub fn held(&self, p99_max: Duration) -> bool {
        let planned = self.planned_per_s.map_or(0.0, |planned| planned as f64);
        let p99_max = u64::try_from(p99_max.as_micros()).unwrap_or(u64::MAX);
        self.generator.valid == Some(true) && self.rate_per_s >= 0.99 * planned && self.ack_latency_us.p99 <= p99_max
    }
}

/// A running engine and the producers connected to it.
pub(super) struct Session {
    engine: Engine,
    campaign: Campaign<Recurred>,
    arguments: LoadArgs,
    began: Instant,
}

impl Session {
    /// Starts an engine and sends it every view made ahead, once, as fast as it answers.
    pub(super) fn start(
        arguments: &LoadArgs,
        binary: PathBuf,
        prepared: &Prepared,
    ) -> Result<(Self, Stage), LoadError> {
        let engine = Engine::start(&arguments.setup(binary), &arguments.runtime)?;
        let target = Target {
            client: engine.client()?,
            producers: arguments.producers,
            batch_views: arguments.batch,
            verify: Some(format!("http://{}", engine.http()?)),
        };
        let through = Plan::through(arguments.prepared, arguments.batch);
        let workload = Recurred::new(&prepared.generator, prepared.recurring.clone(), through);
        let campaign = Campaign::open(&target, workload, &Progress::new())?;
        let mut session = Self { engine, campaign, arguments: arguments.clone(), began: Instant::now() };
        let stage = session.stretch(None, Duration::ZERO)?;
        Ok((session, stage))
    }

    /// Sends at a rate and measures.
    pub(super) fn measure(&mut self, rate: Rate) -> Result<Stage, LoadError> {
        let LoadArgs { warm_up, batch, .. } = self.arguments;
        let duration = warm_up.saturating_add(self.arguments.length(rate));
        self.campaign.workload().follow(Plan::new(rate, duration, batch)?);
        let planned = match rate {
            Rate::PerSecond(rate) => Some(rate),
            Rate::Max => None,
        };
        self.stretch(planned, warm_up)
    }

    fn stretch(&mut self, planned_per_s: Option<u64>, warm_up: Duration) -> Result<Stage, LoadError> {
        let (drops, ticks) = (self.drops()?, CpuTicks::now(&self.arguments.engine_cpus)?);
        let (began_s, meter) = (self.began.elapsed().as_secs_f64(), Meter::start(self.engine.pid())?);
        self.campaign.stretch(warm_up)?;
        let engine_cpu_percent = meter.percent()?;
        // Less than a tick cannot be told from none, and something was done.
        let engine_cpu_s = meter.cpu_time()?.max(tick()).as_secs_f64();
        let softirq_percent = CpuTicks::now(&self.arguments.engine_cpus)?.softirq_percent_since(&ticks);
        if let Some(failure) = self.campaign.failed() {
            return Err(LoadError::Measurement(format!("{failure}\n{}", self.engine.log_tail())));
        }
        let (cpu_percent, tally) = (self.campaign.cpu_percent(), self.campaign.tally());
        let figures = &tally.figures;
        let (views, refused) = (figures.views_acked(), figures.views_refused.iter().sum::<u64>());
        if !figures.all_acked() || refused > 0 {
            return Err(LoadError::Measurement(format!(
                "of {} views {views} were acknowledged and {refused} of them refused; for full tables raise --memory or \
                 lower --videos\n{}",
                figures.views_sent,
                self.engine.log_tail()
            )));
        }
        Ok(Stage {
            began_s,
            planned_per_s,
            rate_per_s: figures.rate_per_s(),
            views,
            bytes_per_view: figures.payload_bytes as f64 / views.max(1) as f64,
            batches: figures.latency_us.len(),
            ack_latency_us: AckLatency::of(figures),
            generator: Punctuality::of(figures, cpu_percent),
            engine_cpu_s_per_million_views: engine_cpu_s / views.max(1) as f64 * 1e6,
            engine_cpu_percent,
            engine_resident_bytes: self.engine.memory()?.resident_bytes,
            udp_drops: self.drops()?.saturating_sub(drops),
            softirq_percent,
            seconds: figures.series.seconds(),
        })
    }

    /// Datagrams dropped so far before the sockets of all its cores.
    fn drops(&self) -> Result<u64, LoadError> {
        let ports = self.engine.ports()?;
        Ok(ports.into_iter().map(udp_drops).sum::<anyhow::Result<u64>>()?)
    }

    /// Compares all lists with exact counts, and ends the engine.
    pub(super) fn finish(self) -> Result<Outcome, LoadError> {
        let outcome = self.campaign.conclude(0);
        if let Some(failure) = outcome.failure {
            return Err(failure);
        }
        if outcome.report.verified != Some(true) {
            let differences = outcome.differences.join("\n");
            return Err(LoadError::Measurement(format!("the engine's lists are wrong:\n{differences}")));
        }
        self.engine.stop()?;
        Ok(outcome)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        load: LoadArgs,
    }

    /// What a stretch might have given that had a second of load, with a punctual generator or not.
    pub(in crate::measure) fn stage(began_s: f64, planned_per_s: Option<u64>, valid: Option<bool>) -> Stage {
        let late_us = valid.map(|valid| if valid { 100 } else { 50_000 });
        Stage {
            began_s,
            planned_per_s,
            rate_per_s: planned_per_s.map_or(1e6, |planned| planned as f64),
            views: 1000,
            bytes_per_view: 27.0,
            batches: 500,
            ack_latency_us: AckLatency { p50: 1000, p90: 2000, p99: 3000, p999: 4000, p9999: 5000, max: 6000 },
            generator: Punctuality {
                late_us_p99: late_us,
                late_us_p999: late_us,
                late_us_max: late_us,
                cpu_percent: 61.0,
                valid,
            },
            engine_cpu_s_per_million_views: 0.5,
            engine_cpu_percent: 50.0,
            engine_resident_bytes: 1 << 30,
            udp_drops: 0,
            softirq_percent: 1.0,
            seconds: vec![Second { second: 0, views: 1000, p50_us: 1000, p99_us: 3000, max_us: 6000 }],
        }
    }

    #[test]
    fn a_rate_is_held_only_by_a_punctual_generator() {
        let held = |valid| stage(0.0, Some(1000), valid).held(Duration::from_millis(3));
        assert_eq!([Some(true), Some(false), None].map(held), [true, false, false]);
        assert!(!stage(0.0, Some(1000), Some(true)).held(Duration::from_micros(2999)));
    }

    #[test]
    fn low_rates_are_measured_for_longer() {
        let line = Line::parse_from(["measure", "--duration=10s", "--batch=1000"]).load;
        assert_eq!(Line::parse_from(["measure"]).load.batch, BATCH_VIEWS);
        for (rate, seconds) in [(1_000_000, 10), (30_000, 10), (20_000, 15), (10_000, 30), (1, 30)] {
            assert_eq!(line.length(Rate::PerSecond(rate)), Duration::from_secs(seconds), "{rate}");
        }
        assert_eq!(line.length(Rate::Max), Duration::from_secs(10));
    }
}
