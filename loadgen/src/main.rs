//! The `loadgen` command: parses, runs, prints the report of a load as JSON, or the table of a measurement, on stdout
//! and everything else on stderr.
//!
//! All work is in the library. Invariant: exit code 0 only if everything was acknowledged and, where asked for,
//! verified; 1 otherwise; 2 for wrong usage.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use highwater_loadgen::args::{Cli, Command};
use highwater_loadgen::measure::{compare, growth, sweep};
use highwater_loadgen::progress::ProgressView;
use highwater_loadgen::{LoadError, Outcome, Progress, replay, run};
use tracing_subscriber::EnvFilter;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let concluded = match &cli.command {
        Command::Run(args) => {
            args.options().and_then(|options| load(args.target.report.as_deref(), |to| run(&options, to)))
        }
        Command::Replay(args) => {
            args.options().and_then(|options| load(args.target.report.as_deref(), |to| replay(&options, to)))
        }
        Command::Sweep(args) => sweep(args).map(|()| ExitCode::SUCCESS),
        Command::Growth(args) => growth(args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare(args).map(|()| ExitCode::SUCCESS),
    };
    concluded.unwrap_or_else(|error| refuse(&error))
}

/// Carries out a load beside its progress bar, and tells what came of it.
fn load(
    report: Option<&Path>,
    carry_out: impl FnOnce(&Arc<Progress>) -> Result<Outcome, LoadError>,
) -> Result<ExitCode, LoadError> {
    let progress = Progress::new();
    let view = ProgressView::start(progress.clone());
    let outcome = carry_out(&progress);
    drop(view);
    conclude(&outcome?, report)
}

fn conclude(outcome: &Outcome, report: Option<&Path>) -> Result<ExitCode, LoadError> {
    println!("{}", outcome.report.to_json()?);
    if let Some(path) = report {
        outcome.report.write(path)?;
    }
    for difference in &outcome.differences {
        eprintln!("loadgen: differs: {difference}");
    }
    if let Some(complaint) = outcome.report.generator.complaint() {
        eprintln!("loadgen: {complaint}");
    }
    if let Some(error) = &outcome.failure {
        return Ok(refuse(error));
    }
    Ok(if outcome.succeeded() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn refuse(error: &LoadError) -> ExitCode {
    eprintln!("loadgen: {error}");
    ExitCode::from(if error.is_usage() { USAGE } else { FAILED })
}
