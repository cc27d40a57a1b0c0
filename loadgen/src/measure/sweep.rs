//! `loadgen sweep`: one engine at rising rates, up to the knee: the highest rate that it holds.
//!
//! Invariant: a rate is held only if its batches were acknowledged in time and the generator kept to its own plan.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::session::{LoadArgs, Session, Stage};
use super::{page, table};
use crate::args::duration;
use crate::error::LoadError;
use crate::machine::{self, Machine};
use crate::pace::Rate;
use crate::process::engine::find_binary;

/// Rates tried first, in percent of what the engine takes as fast as it answers.
const FIRST_PERCENTS: [u64; 6] = [10, 25, 50, 75, 90, 100];
/// Rates between the highest that was held and the lowest that was not.
const HALVINGS: u32 = 3;

/// `loadgen sweep`.
#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The engine and the load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The engine; by default the `highwater` beside this program.
    #[arg(long, value_name = "PATH")]
    pub highwater: Option<PathBuf>,
    /// Longest acknowledgement of 99 in 100 batches at a rate that counts as held.
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    pub p99_max: Duration,
    /// Write everything there as JSON.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write a page with plots there, HTML.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
}

/// All that a sweep found.
#[derive(Debug, Serialize)]
pub(super) struct Sweep {
    /// The highest rate that was held; null if none was.
    pub(super) knee_per_s: Option<u64>,
    /// Longest acknowledgement of 99 in 100 batches at a rate that counts as held, microseconds.
    pub(super) p99_max_us: u64,
    /// Every view made ahead once, in an engine that knows no video before.
    pub(super) filling: Stage,
    /// As fast as the engine answers.
    pub(super) full: Stage,
    /// At a rate each, the rate ascending.
    pub(super) stages: Vec<Stage>,
    /// Distinct videos among the views sent.
    pub(super) distinct_videos: u64,
    /// Whether the engine's lists were those of exact counts.
    pub(super) verified: bool,
    pub(super) machine: Machine,
    pub(super) kernel: String,
    pub(super) commit: &'static str,
    pub(super) command_line: Vec<String>,
}

/// Measures, prints a table, and writes what was asked for.
///
/// # Errors
/// [`LoadError::Option`] for wrong usage; an engine that does not start, fails, refuses views or serves wrong lists; a
/// file that cannot be written.
pub fn sweep(arguments: &SweepArgs) -> Result<(), LoadError> {
    let binary = find_binary(arguments.highwater.clone(), "highwater")?;
    arguments.load.confine()?;
    let prepared = arguments.load.prepare()?;
    let (mut session, filling) = Session::start(&arguments.load, binary, &prepared)?;
    say("filling", &filling);
    let full = session.measure(Rate::Max)?;
    say("full", &full);
    let stages = climb(&mut session, full.rate_per_s, arguments.p99_max)?;
    let outcome = session.finish()?;
    let held = stages.iter().filter(|stage| stage.held(arguments.p99_max));
    let found = Sweep {
        knee_per_s: held.filter_map(|stage| stage.planned_per_s).max(),
        p99_max_us: arguments.p99_max.as_micros() as u64,
        filling,
        full,
        stages,
        distinct_videos: outcome.report.distinct_videos,
        verified: outcome.report.verified == Some(true),
        machine: Machine::this(),
        kernel: machine::kernel(),
        commit: machine::commit(),
        command_line: std::env::args().collect(),
    };
    println!("{}", found.table());
    if let Some(path) = &arguments.report {
        let json = serde_json::to_string_pretty(&found).map_err(|error| LoadError::Runtime(error.to_string()))? + "\n";
        write(path, &json)?;
    }
    if let Some(path) = &arguments.page {
        write(path, &page::html(&found))?;
    }
    Ok(())
}

fn say(what: &str, stage: &Stage) {
    let (rate, p99) = (stage.rate_per_s, stage.ack_latency_us.p99);
    eprintln!("{what}: {rate:.0} views/s, p99 {p99} us, engine {:.0} % of a CPU", stage.engine_cpu_percent);
}

fn write(path: &std::path::Path, text: &str) -> Result<(), LoadError> {
    std::fs::write(path, text).map_err(|source| LoadError::Write { path: path.to_owned(), source })
}

/// Measures at shares of the full rate, then between the highest that was held and the lowest that was not.
fn climb(session: &mut Session, full_per_s: f64, p99_max: Duration) -> Result<Vec<Stage>, LoadError> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut bounds = Bounds::default();
    let first = FIRST_PERCENTS.iter().map(|percent| (full_per_s as u64 * percent / 100).max(1));
    let mut measure = |rate: u64, bounds: &mut Bounds| {
        let stage = session.measure(Rate::PerSecond(rate))?;
        say(&format!("{rate} views/s planned"), &stage);
        bounds.learn(rate, stage.held(p99_max));
        stages.push(stage);
        Ok::<(), LoadError>(())
    };
    for rate in first {
        measure(rate, &mut bounds)?;
    }
    for _ in 0..HALVINGS {
        if let Some(rate) = bounds.between() {
            measure(rate, &mut bounds)?;
        }
    }
    stages.sort_by_key(|stage| stage.planned_per_s);
    Ok(stages)
}

/// Where the knee is.
#[derive(Debug, Default)]
struct Bounds {
    held: u64,
    missed: Option<u64>,
}

impl Bounds {
    fn learn(&mut self, rate: u64, held: bool) {
        if held {
            self.held = self.held.max(rate);
        } else {
            self.missed = Some(self.missed.map_or(rate, |missed| missed.min(rate)));
        }
    }

    /// A rate half-way, if the two are more than a fiftieth apart; none beyond what was held.
    fn between(&self) -> Option<u64> {
        let missed = self.missed.filter(|&missed| missed > self.held + self.held / 50)?;
        let middle = self.held.midpoint(missed);
        (middle > self.held).then_some(middle)
    }
}

impl Sweep {
    fn table(&self) -> String {
        let p99_max = Duration::from_micros(self.p99_max_us);
        let row = |name: String, stage: &Stage| {
            let ms = |us: u64| format!("{:.1}", us as f64 / 1000.0);
            let latency = &stage.ack_latency_us;
            let held = match (stage.planned_per_s, stage.generator.valid, stage.held(p99_max)) {
                (None, ..) => "-",
                (Some(_), false, _) => "invalid",
                (Some(_), true, true) => "yes",
                (Some(_), true, false) => "no",
            };
            vec![
                name,
                format!("{:.0}", stage.rate_per_s),
                held.to_owned(),
                ms(latency.p50),
                ms(latency.p99),
                ms(latency.p999),
                ms(latency.p9999),
                ms(latency.max),
                ms(stage.generator.late_us_p99),
                format!("{:.0}", stage.generator.cpu_percent),
                format!("{:.3}", stage.engine_cpu_s_per_million_views),
                format!("{:.0}", stage.engine_cpu_percent),
                (stage.engine_resident_bytes >> 20).to_string(),
                stage.udp_drops.to_string(),
                format!("{:.1}", stage.softirq_percent),
            ]
        };
        let mut rows = vec![row("filling".to_owned(), &self.filling), row("full".to_owned(), &self.full)];
        rows.extend(self.stages.iter().map(|stage| row(stage.planned_per_s.unwrap_or(0).to_string(), stage)));
        let headings = [
            "planned/s",
            "views/s",
            "held",
            "ack p50 ms",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "late p99 ms",
            "load CPU %",
            "engine CPU s/M",
            "CPU %",
            "MiB",
            "UDP drops",
            "softirq %",
        ];
        let knee = self.knee_per_s.map_or("no rate was held".to_owned(), |knee| format!("knee {knee} views/s"));
        format!(
            "{knee} (p99 at most {p99_max:?}); {:.1} bytes/view, {} distinct videos, lists verified; {}, Linux {}, {}\n\n{}",
            self.full.bytes_per_view,
            self.distinct_videos,
            self.machine.cpu,
            self.kernel,
            self.commit,
            table(&headings, &rows)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_knee_is_closed_in_on_from_both_sides() {
        let mut bounds = Bounds::default();
        assert_eq!(bounds.between(), None, "nothing was missed");
        for (rate, held) in [(100, true), (500, true), (1000, false), (900, false)] {
            bounds.learn(rate, held);
        }
        assert_eq!(bounds.between(), Some(700));
        bounds.learn(700, true);
        assert_eq!(bounds.between(), Some(800));
        bounds.learn(712, false);
        assert_eq!(bounds.between(), None, "near enough");
        let mut none = Bounds::default();
        none.learn(10, false);
        assert_eq!(none.between(), Some(5));
    }
}
