//! The part `stages`: an engine at full load, sampled by `perf`, and its CPU time by the stages of a view.
//!
//! Invariant: shares are of all samples, so that they add up to the CPU time of a view, which is measured in the same
//! seconds by the process's own clock and count.

use crate::Bench;
use crate::children::find_tool;
use crate::load::{Load, number};
use crate::report::Report;
use crate::rules::{Stage, stage};
use crate::samples::{self, Sample};
use anyhow::{Result, bail};
use highwater_loadgen::process::cpu::{Meter, tick};
use highwater_loadgen::process::engine::Engine;
use highwater_loadgen::table::{aligned, cells};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SYMBOLS: usize = 25;
const POLL_EVERY: Duration = Duration::from_millis(200);
/// An engine that takes fewer views each second than this is sampled while it is filled.
const FILLING_PER_S: u64 = 1_000_000;
/// Longest wait for views to be made ahead and the first of them to be counted.
const PATIENCE: Duration = Duration::from_secs(600);
/// Seconds that the load goes on behind the sampling.
const MARGIN_S: u64 = 5;

/// What the engine did while it was sampled.
struct Run {
    samples: Vec<Sample>,
    cpu_ns_per_view: f64,
    views_per_s: f64,
    /// Each view made ahead had been sent.
    is_filled: bool,
    distinct_videos: f64,
}

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    find_tool("perf", "it comes with the package linux-perf or linux-tools")?;
    let run = sample(bench)?;
    let mut report = Report::default();
    report.say(format!(
        "One engine at full load, {} distinct videos, lists verified in the end, sampled by `perf` for {} s {}: {} \
         samples, {:.0} views/s, **{:.0} ns of CPU time for each view**. A share of the samples is told as that share \
         of these nanoseconds. Copies of datagrams that quinn makes count as the log's, since the copying function \
         does not tell its caller.",
        run.distinct_videos,
        bench.seconds,
        if run.is_filled { "after every view made ahead had been sent once" } else { "while it was being filled" },
        run.samples.len(),
        run.views_per_s,
        run.cpu_ns_per_view,
    ));
    report.say(stages(&run.samples, run.cpu_ns_per_view));
    report.say(format!("The {SYMBOLS} symbols with the most samples:"));
    report.say(symbols(&run.samples, run.cpu_ns_per_view));
    Ok(report)
}

fn sample(bench: &Bench) -> Result<Run> {
    let prepared: u64 = bench.or_tiny(80_000_000, 60_000);
    let filling_s = bench.or_tiny(prepared / FILLING_PER_S, 1);
    let engine = Engine::start(&bench.engine.setup(bench.or_tiny("8GiB", "512MiB"))?, "thread")?;
    let mut load = Load::start(
        bench,
        &engine,
        &[
            format!("--verify=http://{}", engine.http()?),
            format!("--videos={}", bench.or_tiny(10_000_000, 5000)),
            format!("--prepared={prepared}"),
            format!("--duration={}s", filling_s + bench.seconds + MARGIN_S),
            "--rate=max".to_owned(),
        ],
    )?;
    let is_filled = wait_until_filled(&engine, &mut load, prepared, Duration::from_secs(filling_s))?;
    let counted = || engine.metric("highwater_views_counted_total");
    let (meter, began, before) = (Meter::start(engine.pid())?, Instant::now(), counted()?);
    samples::record(engine.pid(), bench.seconds, bench.engine.load_cpu, engine.folder())?;
    let cpu_ns = meter.cpu_time()?.max(tick()).as_nanos() as f64;
    let (views, took) = (counted()? - before, began.elapsed());
    if views < 1.0 || !load.is_running()? {
        bail!("the load had ended before the sampling had: {views} views were counted in {took:?}");
    }
    let samples = samples::read(engine.folder())?;
    let report = load.finish()?;
    engine.stop()?;
    Ok(Run {
        samples,
        cpu_ns_per_view: cpu_ns / views,
        views_per_s: views / took.as_secs_f64(),
        is_filled,
        distinct_videos: number(&report, "distinct_videos")?,
    })
}

/// Waits until each view made ahead was counted, or for as long as that may take from the first one on.
fn wait_until_filled(engine: &Engine, load: &mut Load, prepared: u64, filling: Duration) -> Result<bool> {
    let began = Instant::now();
    let mut first = None;
    loop {
        let counted = engine.metric("highwater_views_counted_total")?;
        if counted > 0.0 {
            first.get_or_insert_with(Instant::now);
        }
        if counted >= prepared as f64 {
            return Ok(true);
        }
        if first.is_some_and(|first| first.elapsed() >= filling) {
            return Ok(false);
        }
        if !load.is_running()? || began.elapsed() > PATIENCE {
            bail!("the engine counted {counted} of {prepared} views\n{}", engine.log_tail());
        }
        std::thread::sleep(POLL_EVERY);
    }
}

fn total(samples: &[Sample]) -> f64 {
    samples.iter().map(|sample| sample.weight as f64).sum::<f64>().max(1.0)
}

/// The stages in the order of a view's way.
fn stages(samples: &[Sample], cpu_ns_per_view: f64) -> String {
    let mut weights: BTreeMap<Stage, f64> = BTreeMap::new();
    for sample in samples {
        *weights.entry(stage(sample)).or_default() += sample.weight as f64;
    }
    let mut lines = vec![cells(&["stage", "% of samples", "ns/view"])];
    lines.extend(weights.into_iter().map(|(stage, weight)| {
        let share = weight / total(samples);
        vec![stage.name(), format!("{:.1}", 100.0 * share), format!("{:.1}", share * cpu_ns_per_view)]
    }));
    lines.push(vec!["all".to_owned(), "100.0".to_owned(), format!("{cpu_ns_per_view:.1}")]);
    aligned(&lines, 1)
}

/// The symbols that are met most, each with its stage; one that several stages use stands once for each.
fn symbols(samples: &[Sample], cpu_ns_per_view: f64) -> String {
    let mut weights: BTreeMap<(&str, Stage), f64> = BTreeMap::new();
    for sample in samples {
        *weights.entry((sample.symbol.as_str(), stage(sample))).or_default() += sample.weight as f64;
    }
    let mut sorted: Vec<_> = weights.into_iter().collect();
    sorted.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut lines = vec![cells(&["symbol", "stage", "% of samples", "ns/view"])];
    lines.extend(sorted.into_iter().take(SYMBOLS).map(|((symbol, stage), weight)| {
        let share = weight / total(samples);
        let (percent, ns) = (format!("{:.1}", 100.0 * share), format!("{:.1}", share * cpu_ns_per_view));
        vec![format!("`{}`", symbol.replace('|', "/")), stage.name(), percent, ns]
    }));
    aligned(&lines, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Sample> {
        let sample = |symbol: &str, weight| Sample {
            thread: "core-0".to_owned(),
            weight,
            symbol: symbol.to_owned(),
            kernel: Vec::new(),
        };
        vec![
            sample("highwater_ranking::core::CoreRanking::apply", 30),
            sample("crc32c::hw_x86_64::crc32c", 10),
            sample("highwater_ranking::core::CoreRanking::apply", 40),
            sample("unheard_of", 20),
        ]
    }

    #[test]
    fn shares_add_up_to_the_time_of_a_view() {
        let table = stages(&samples(), 500.0);
        let rows: Vec<Vec<&str>> =
            table.lines().skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
        assert_eq!(rows.iter().map(|row| row[1]).collect::<Vec<_>>(), ["10.0", "70.0", "20.0", "100.0"]);
        assert_eq!(rows.iter().map(|row| row[2]).collect::<Vec<_>>(), ["50.0", "350.0", "100.0", "500.0"]);
    }

    #[test]
    fn the_symbol_met_most_comes_first() {
        let table = symbols(&samples(), 500.0);
        let first = table.lines().nth(2).unwrap();
        assert!(first.contains("CoreRanking::apply") && first.contains("70.0"), "{table}");
        assert_eq!(table.lines().count(), 5);
    }
}
