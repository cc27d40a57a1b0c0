//! `loadgen compare`: two engines under the same load, a round of the one after a round of the other.
//!
//! On a noisy machine only what was measured side by side can be compared. Invariant: both take turns in being first,
//! every round has a fresh engine and the same views, and medians and ratios are told, not single rounds.

use std::path::PathBuf;

use clap::Args;

use super::median;
use super::session::{LoadArgs, Session, Stage};
use crate::args::rate;
use crate::error::LoadError;
use crate::pace::Rate;
use crate::process::engine::find_binary;
use crate::table::{aligned, cells};

/// `loadgen compare`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// One engine.
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// The other.
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// The engine and the load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Rounds of each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Views per second, or max: as fast as the engine answers.
    #[arg(long, value_name = "VIEWS|max", default_value = "max", value_parser = rate)]
    pub rate: Rate,
}

/// A figure: its heading and where it is.
type Figure = (&'static str, fn(&Stage) -> f64);

const FIGURES: [Figure; 8] = [
    ("views/s", |stage| stage.rate_per_s),
    ("engine CPU s/M views", |stage| stage.engine_cpu_s_per_million_views),
    ("ack p50 us", |stage| stage.ack_latency_us.p50 as f64),
    ("ack p99 us", |stage| stage.ack_latency_us.p99 as f64),
    ("ack p99.9 us", |stage| stage.ack_latency_us.p999 as f64),
    ("ack max us", |stage| stage.ack_latency_us.max as f64),
    ("load CPU %", |stage| stage.generator.cpu_percent),
    ("resident MiB", |stage| (stage.engine_resident_bytes >> 20) as f64),
];

/// Measures and prints a table.
///
/// # Errors
/// [`LoadError::Option`] for wrong usage; an engine that does not start, fails, refuses views or serves wrong lists; a
/// round in which the generator fell behind its plan.
pub fn compare(arguments: &CompareArgs) -> Result<(), LoadError> {
    let binaries = [&arguments.a, &arguments.b];
    let [a, b] = binaries.map(|path| find_binary(Some(path.clone()), "highwater"));
    let binaries = [a?, b?];
    arguments.load.confine()?;
    let prepared = arguments.load.prepare()?;
    let mut rounds = [Vec::new(), Vec::new()];
    for number in 0..arguments.rounds as usize {
        for side in [number % 2, 1 - number % 2] {
            let (mut session, _) = Session::start(&arguments.load, binaries[side].clone(), &prepared)?;
            let stage = session.measure(arguments.rate)?;
            session.finish()?;
            let name = ["A", "B"][side];
            if let Some(complaint) = stage.generator.complaint() {
                let round = number + 1;
                return Err(LoadError::Measurement(format!("in round {round} of {name} {complaint}")));
            }
            eprintln!(
                "round {} of {}, {name}: {:.0} views/s, {:.3} CPU s per million, p99 {} us",
                number + 1,
                arguments.rounds,
                stage.rate_per_s,
                stage.engine_cpu_s_per_million_views,
                stage.ack_latency_us.p99
            );
            rounds[side].push(stage);
        }
    }
    println!("{}", report(&rounds));
    Ok(())
}

/// For each figure the medians, their ratio, and how far the rounds of each lie apart.
fn report([a, b]: &[Vec<Stage>; 2]) -> String {
    let row = |&(heading, figure): &Figure| {
        let sorted = |rounds: &[Stage]| {
            let mut values: Vec<f64> = rounds.iter().map(figure).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (a, b) = (sorted(a), sorted(b));
        let spread = |values: &[f64]| format!("{} to {}", short(values[0]), short(values[values.len() - 1]));
        vec![
            heading.to_owned(),
            short(median(&a)),
            short(median(&b)),
            format!("{:.3}", median(&b) / median(&a)),
            spread(&a),
            spread(&b),
        ]
    };
    let headings = ["median of rounds", "A", "B", "B/A", "A from least to most", "B from least to most"];
    let mut lines = vec![cells(&headings)];
    lines.extend(FIGURES.iter().map(row));
    aligned(&lines, 1)
}

fn short(value: f64) -> String {
    if value < 100.0 { format!("{value:.3}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::session::tests::stage;

    #[test]
    fn each_figure_has_its_medians_and_their_ratio() {
        let rounds = |p50: [u64; 3]| {
            p50.map(|p50| {
                let mut stage = stage(0.0, None, None);
                stage.ack_latency_us.p50 = p50;
                stage
            })
            .to_vec()
        };
        let table = report(&[rounds([300, 100, 200]), rounds([100, 900, 400])]);
        assert_eq!(table.lines().count(), 2 + FIGURES.len());
        let row = |name: &str| -> Vec<String> {
            let row = table.lines().find(|line| line.starts_with(&format!("| {name} "))).unwrap();
            row.split('|').skip(2).map(|cell| cell.trim().to_owned()).collect()
        };
        assert_eq!(row("ack p50 us")[..5], ["200", "400", "2.000", "100 to 300", "100 to 900"]);
        assert_eq!(row("load CPU %")[..3], ["61.000", "61.000", "1.000"]);
    }
}
