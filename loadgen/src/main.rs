//! The `loadgen` command: parses, runs, prints the report as JSON on stdout and everything else on stderr.
//!
//! All work is in the library. Invariant: exit code 0 only if everything was acknowledged and, where asked for,
//! verified; 1 otherwise; 2 for wrong usage.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use highwater_loadgen::args::{Cli, Command};
use highwater_loadgen::progress::ProgressView;
use highwater_loadgen::{LoadError, Outcome, Progress, replay, run};
use tracing_subscriber::EnvFilter;

const FAILED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match execute(&cli) {
        Ok((outcome, report)) => conclude(&outcome, report),
        Err(error) => refuse(&error),
    }
}

fn execute(cli: &Cli) -> Result<(Outcome, Option<PathBuf>), LoadError> {
    let progress = Progress::new();
    let view = |progress| ProgressView::start(progress);
    match &cli.command {
        Command::Run(args) => {
            let options = args.options()?;
            let _view = view(progress.clone());
            Ok((run(&options, &progress)?, args.target.report.clone()))
        }
        Command::Replay(args) => {
            let options = args.options()?;
            let _view = view(progress.clone());
            Ok((replay(&options, &progress)?, args.target.report.clone()))
        }
    }
}

fn conclude(outcome: &Outcome, report: Option<PathBuf>) -> ExitCode {
    match outcome.report.to_json() {
        Ok(json) => println!("{json}"),
        Err(error) => return refuse(&error),
    }
    if let Some(path) = report
        && let Err(error) = outcome.report.write(&path)
    {
        return refuse(&error);
    }
    for difference in &outcome.differences {
        eprintln!("loadgen: differs: {difference}");
    }
    if let Some(error) = &outcome.failure {
        return refuse(error);
    }
    if outcome.succeeded() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn refuse(error: &LoadError) -> ExitCode {
    eprintln!("loadgen: {error}");
    ExitCode::from(if error.is_usage() { USAGE } else { FAILED })
}
