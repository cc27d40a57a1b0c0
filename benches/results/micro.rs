//! The part `micro`: the bodies of the benches, each run for a while, and what a view costs in each.
//!
//! Not criterion's statistics: median, least and most of rounds. Invariant: making the input is not measured, and each
//! body runs alone on the engine's CPU.

use crate::Bench;
use crate::report::Report;
use anyhow::{Context, Result, anyhow};
use highwater_benches::{Scale, batch, history, lanes, log, ranking};
use highwater_loadgen::measure::median;
use highwater_loadgen::process::cpu;
use highwater_loadgen::table::{aligned, cells};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long each body runs.
const BODY: Duration = Duration::from_secs(2);
const ROUNDS: u32 = 20;
/// A body that takes longer than a round has at least so many.
const ROUNDS_MIN: usize = 3;

/// Nanoseconds of one view, or of what is said instead, round by round, ascending.
struct Row {
    name: &'static str,
    of: &'static str,
    ns: Vec<f64>,
}

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    let (full, body) = (bench.or_tiny(Scale::FULL, Scale::TINY), bench.or_tiny(BODY, BODY / 100));
    let many = Scale { videos: bench.or_tiny(10_000_000, 200), ..full };
    let cpu = bench.engine.engine_cpu;
    let run = move || {
        cpu::confine_current_thread(&[cpu])?;
        Ok::<_, anyhow::Error>(rows(full, many, body))
    };
    let rows = std::thread::Builder::new().spawn(run).context("no thread")?;
    let rows = rows.join().map_err(|_| anyhow!("a body panicked"))??;
    let mut lines = vec![cells(&["piece", "of one", "ns, median", "least", "most", "rounds"])];
    lines.extend(rows.iter().map(row));
    let mut report = Report::default();
    report.say(format!(
        "The bodies of `cargo bench -p highwater-benches`, each alone on the engine's CPU for about {body:?}, with \
         batches of {} views; {} videos where none are named. No disk, no network, no other core.",
        full.batch_views, full.videos
    ));
    report.say(aligned(&lines, 2));
    Ok(report)
}

fn rows(full: Scale, many: Scale, body: Duration) -> Vec<Row> {
    let views = f64::from(full.batch_views);
    let mut rows = Vec::new();
    let mut add = |name, of, each: f64, run: &mut dyn FnMut()| {
        eprintln!("results: micro: {name}");
        rows.push(Row { name, of, ns: rounds(body, each, run) });
    };
    {
        let mut apply = ranking::Apply::new(full);
        add("ranking: apply", "view", views, &mut || _ = black_box(apply.run()));
    }
    {
        let mut apply = ranking::Apply::new(many);
        add("ranking: apply, 10 M videos", "view", views, &mut || _ = black_box(apply.run()));
    }
    let mut build = batch::Build::new(full);
    add("batch: build", "view", views, &mut || _ = black_box(build.run()));
    let check = batch::Check::new(full);
    add("batch: verify and decode", "view", views, &mut || _ = black_box(check.run()));
    let mut append = log::Append::new(full);
    add("log: append, in memory", "view", views, &mut || _ = black_box(append.run()));
    let mut lane = lanes::PushPop::new(full);
    add("lanes: push and pop", "cell", views, &mut || _ = black_box(lane.run()));
    let mut close = history::Close::new(full);
    add("history: close an hour", "video", f64::from(full.videos), &mut || _ = black_box(close.run()));
    rows
}

/// Runs a piece over and over for about `body`; returns the nanoseconds of each of the `each` things in it, ascending.
fn rounds(body: Duration, each: f64, run: &mut dyn FnMut()) -> Vec<f64> {
    run();
    let began = Instant::now();
    let mut found = Vec::new();
    while began.elapsed() < body || found.len() < ROUNDS_MIN {
        let (round, mut pieces) = (Instant::now(), 0.0);
        while pieces < 1.0 || round.elapsed() < body / ROUNDS {
            run();
            pieces += 1.0;
        }
        found.push(round.elapsed().as_nanos() as f64 / (pieces * each));
    }
    found.sort_by(f64::total_cmp);
    found
}

fn row(row: &Row) -> Vec<String> {
    let figures = [median(&row.ns), row.ns[0], row.ns[row.ns.len() - 1]];
    let [median, least, most] = figures.map(|ns| format!("{ns:.2}"));
    vec![row.name.to_owned(), row.of.to_owned(), median, least, most, row.ns.len().to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_has_its_rounds() {
        let rows = rows(Scale::TINY, Scale::TINY, Duration::from_millis(2));
        assert_eq!(rows.len(), 7);
        for row in &rows {
            assert!(row.ns.len() >= ROUNDS_MIN && row.ns[0] > 0.0 && row.ns.is_sorted(), "{}: {:?}", row.name, row.ns);
        }
        assert_eq!(row(&rows[0]).len(), 6);
    }
}
