//! `loadgen sweep`: one engine at rising rates, up to the knee: the highest rate that it holds.
//!
//! Invariant: a rate is held only if its batches were acknowledged in time and the generator kept to its own plan.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::knee::{Verdict, climb};
use super::page;
use super::session::{LoadArgs, Session, Stage};
use crate::args::duration;
use crate::error::LoadError;
use crate::machine::{self, Machine};
use crate::pace::Rate;
use crate::process::engine::find_binary;
use crate::table::{aligned, cells};

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
    /// At a rate each, the rate ascending; where one was tried again, the earlier attempt first.
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
    let stages = attempts(&mut session, full.rate_per_s, arguments.p99_max)?;
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

/// Measures at one rate after the other.
fn attempts(session: &mut Session, full_per_s: f64, p99_max: Duration) -> Result<Vec<Stage>, LoadError> {
    let mut stages: Vec<Stage> = Vec::new();
    climb(full_per_s as u64, |rate| {
        let stage = session.measure(Rate::PerSecond(rate))?;
        say(&format!("{rate} views/s planned"), &stage);
        if let Some(complaint) = stage.generator.complaint() {
            eprintln!("{rate} views/s planned: {complaint}");
        }
        let verdict = verdict(&stage, p99_max);
        stages.push(stage);
        Ok::<Verdict, LoadError>(verdict)
    })?;
    stages.sort_by_key(|stage| stage.planned_per_s);
    Ok(stages)
}

fn verdict(stage: &Stage, p99_max: Duration) -> Verdict {
    match (stage.generator.valid, stage.held(p99_max)) {
        (Some(true), true) => Verdict::Held,
        (Some(true), false) => Verdict::Missed,
        (Some(false) | None, _) => Verdict::Nothing,
    }
}

impl Sweep {
    fn table(&self) -> String {
        let p99_max = Duration::from_micros(self.p99_max_us);
        let mut lines = vec![cells(&HEADINGS)];
        lines.push(line("filling".to_owned(), &self.filling, p99_max));
        lines.push(line("full".to_owned(), &self.full, p99_max));
        let name = |stage: &Stage| stage.planned_per_s.unwrap_or(0).to_string();
        lines.extend(self.stages.iter().map(|stage| line(name(stage), stage, p99_max)));
        let knee = self.knee_per_s.map_or("no rate was held".to_owned(), |knee| format!("knee {knee} views/s"));
        format!(
            "{knee} (p99 at most {p99_max:?}); {:.1} bytes/view, {} distinct videos, lists verified; {}, Linux {}, {}\n\n{}",
            self.full.bytes_per_view,
            self.distinct_videos,
            self.machine.cpu,
            self.kernel,
            self.commit,
            aligned(&lines, 1)
        )
    }
}

const HEADINGS: [&str; 17] = [
    "planned/s",
    "views/s",
    "held",
    "batches",
    "ack p50 ms",
    "p99",
    "p99.9",
    "p99.99",
    "max",
    "late p99 ms",
    "p99.9",
    "load CPU %",
    "engine CPU s/M",
    "CPU %",
    "MiB",
    "UDP drops",
    "softirq %",
];

fn line(name: String, stage: &Stage, p99_max: Duration) -> Vec<String> {
    let ms = |us: u64| format!("{:.1}", us as f64 / 1000.0);
    let late_ms = |us: Option<u64>| us.map_or("-".to_owned(), ms);
    let latency = &stage.ack_latency_us;
    let held = match (stage.planned_per_s, verdict(stage, p99_max)) {
        (None, _) => "-",
        (Some(_), Verdict::Held) => "yes",
        (Some(_), Verdict::Missed) => "no",
        (Some(_), Verdict::Nothing) => "invalid",
    };
    vec![
        name,
        format!("{:.0}", stage.rate_per_s),
        held.to_owned(),
        stage.batches.to_string(),
        ms(latency.p50),
        ms(latency.p99),
        ms(latency.p999),
        ms(latency.p9999),
        ms(latency.max),
        late_ms(stage.generator.late_us_p99),
        late_ms(stage.generator.late_us_p999),
        format!("{:.0}", stage.generator.cpu_percent),
        format!("{:.3}", stage.engine_cpu_s_per_million_views),
        format!("{:.0}", stage.engine_cpu_percent),
        (stage.engine_resident_bytes >> 20).to_string(),
        stage.udp_drops.to_string(),
        format!("{:.1}", stage.softirq_percent),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::session::tests::stage;

    #[test]
    fn a_rate_whose_generator_was_late_is_neither_held_nor_missed() {
        let p99_max = Duration::from_millis(3);
        let cell = |planned, valid, at: usize| line(String::new(), &stage(0.0, planned, valid), p99_max)[at].clone();
        assert_eq!(line(String::new(), &stage(0.0, None, None), p99_max).len(), HEADINGS.len());
        for (planned, valid, held, late) in [
            (Some(1000), Some(true), "yes", "0.1"),
            (Some(1000), Some(false), "invalid", "50.0"),
            (Some(1000), None, "invalid", "-"),
            (None, None, "-", "-"),
        ] {
            assert_eq!((cell(planned, valid, 2).as_str(), cell(planned, valid, 9).as_str()), (held, late));
            assert_eq!((HEADINGS[11], cell(planned, valid, 11).as_str()), ("load CPU %", "61"));
        }
        assert_eq!(verdict(&stage(0.0, Some(1000), Some(true)), Duration::from_millis(2)), Verdict::Missed);
    }
}
