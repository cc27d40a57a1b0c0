//! `runtimes`: the engine under each of its runtimes, with the same load, side by side.
//!
//! It starts `highwater serve` anew for each round and runtime, one after the other, and prints a table. Not a test of
//! the engine's promises, and it judges nothing. Invariant: engine and load stay on the CPU given to each, and a round
//! that was not held to its end is an error and no row.

mod round;
mod table;

use anyhow::{Context, Result};
use clap::Parser;
use highwater_benches::flags::EngineFlags;
use highwater_loadgen::machine::{Machine, kernel};
use highwater_loadgen::pace::RATE_PER_S_MAX;
use highwater_loadgen::process::cpu;
use highwater_loadgen::zipf::VIDEOS_MAX;
use std::process::ExitCode;
use std::time::Duration;

/// As `highwater serve --runtime` calls them, in the order of a round.
const RUNTIMES: [&str; 2] = ["glommio", "thread"];

/// A shorter idle time is below what the system's CPU clock can tell.
const IDLE_MIN: Duration = Duration::from_millis(100);
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// Runs the engine under each of its runtimes and compares what a view and what waiting costs.
///
/// Exit codes: 0 every round was held, 1 not, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "runtimes", version, about, max_term_width = 100)]
struct Arguments {
    /// Rounds; in each, every runtime has its turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each load lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Views to send, each second.
    #[arg(long, value_name = "VIEWS", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=RATE_PER_S_MAX))]
    rate: u64,
    /// Distinct videos.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(VIDEOS_MAX)))]
    videos: u32,
    /// How long the idle engine is watched, from 100ms to 1h: once without a connection, once with a subscriber.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = idle)]
    idle: Duration,
    /// The engine and the CPUs.
    #[command(flatten)]
    engine: EngineFlags,
    /// Memory that the engine may use, with its unit; enough for --videos.
    #[arg(long, value_name = "BYTES", default_value = "1GiB")]
    memory: String,
}

fn idle(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = IDLE_MIN..=IDLE_MAX;
    if allowed.contains(&duration) { Ok(duration) } else { Err("100ms to 1h are allowed".to_owned()) }
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("runtimes: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let setup = arguments.engine.setup(&arguments.memory)?;
    warn(&arguments.engine);
    cpu::confine_current_thread(&[arguments.engine.load_cpu])?;
    let load = round::Load {
        rate_per_s: arguments.rate,
        duration: Duration::from_secs(arguments.seconds),
        videos: arguments.videos,
    };
    let mut rows = RUNTIMES.map(|runtime| (runtime, Vec::new()));
    for number in 1..=arguments.rounds {
        for (runtime, held) in &mut rows {
            let figures = round::run(&setup, runtime, load, arguments.idle);
            let figures = figures.with_context(|| format!("round {number} of {}, {runtime}", arguments.rounds))?;
            let (views, cpu_s) = (figures.views_per_s, figures.cpu_s_per_million_views);
            eprintln!(
                "round {number} of {}, {runtime}: {views:.0} views/s, {cpu_s:.3} CPU s per million",
                arguments.rounds
            );
            held.push(figures);
        }
    }
    println!("{}\n\n{}", heading(arguments), table::table(&rows));
    Ok(())
}

/// What would make the figures say less than they seem to.
fn warn(flags: &EngineFlags) {
    if cfg!(debug_assertions) {
        eprintln!("runtimes: built without --release; the figures say little");
    }
    if flags.engine_cpu == flags.load_cpu {
        eprintln!("runtimes: engine and load share CPU {}; neither has it to itself", flags.engine_cpu);
    }
}

/// What the figures were made with.
fn heading(arguments: &Arguments) -> String {
    format!(
        "{}, Linux {}; engine on CPU {}, load on CPU {}; {} views/s for {} s over {} videos, idle for {}, {} rounds",
        Machine::this().cpu,
        kernel(),
        arguments.engine.engine_cpu,
        arguments.engine.load_cpu,
        arguments.rate,
        arguments.seconds,
        arguments.videos,
        humantime::format_duration(arguments.idle),
        arguments.rounds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for bad in ["--rounds=0", "--seconds=0", "--rate=0", "--videos=0", "--idle=99ms", "--idle=5", "--load-cpu=-1"] {
            let error = Arguments::try_parse_from(["runtimes", bad]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }
}
