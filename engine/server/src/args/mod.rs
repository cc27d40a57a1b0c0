//! The definition of the command line, and so of all settings: each with its type, unit, limits, default and help.
//!
//! Variables, the keys of a file, help, man pages and completions are made from it; nothing else lists settings.
//! Checks of one setting against another are in `checks.rs`; those that need the machine or the data directory are made
//! where they are used.

mod directories;
mod readers;
mod serve;

use crate::units::duration;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

pub use directories::{AuditArguments, CheckArguments, ExportArguments};
pub use readers::{CredentialArguments, SidecarArguments, StatusArguments, TopArguments};
pub use serve::ServeArguments;

/// How settings are found and processes end, below the full help of each command that has settings.
const SETTINGS_HELP: &str = "\
Settings:
  Each can be given by its flag, by its variable or in the file of --config.
  The flag wins over the variable, the variable over the file, the file over
  the default. Sizes and durations need their unit: 4GiB, 60s.
  A switch by variable is true, false, 1, 0, yes or no; by flag,
  --SWITCH=false turns off what the file turns on.
  An empty variable counts as not set. Unknown flags, keys and variables that
  begin with HIGHWATER_ are refused.
  HIGHWATER_LOG filters what is logged to stderr: debug, info,highwater=debug.

File:
  TOML: a table for each command ([serve], [sidecar], [top]) with the flags'
  names as keys. `highwater config example` prints one, `highwater config
  check FILE` checks one.

Exit codes:
  0 done, 1 failed, 2 wrong usage: nothing was begun.";

/// Below the full help of the whole.
const WHOLE_HELP: &str = "\
Settings of serve, sidecar and top: flag, else HIGHWATER_<FLAG>, else the file of --config, else the default. See
`highwater serve --help`.

Exit codes: 0 done, 1 failed, 2 wrong usage.";

/// The tables, below the full help of `highwater export`.
const EXPORT_HELP: &str = "\
Tables:
  minute  video_id, date, hour, minute, view_count, start_time
  hour    video_id, date, hour, view_count, start_time
  day     video_id, date, view_count, start_time
          Every accepted view by its event time, however late it came.
          Shard by shard, in order of time.
  top     period, start_time, end_time, video_id, view_count, rank, total_views
          The final top 1000 of each closed hour, day and month that lies
          within the range.
  views   video_id, view_timestamp, user_id, region, device, arrival_time
          The accepted views that the archive holds. The range is of arrival
          times.

  All times are UTC. The bounds of minute, hour and day are whole minutes,
  hours and days, those of top whole hours.

  What is counted is what the newest cut file holds: the summary, one line of
  JSON on stdout (on stderr with --out=-), says as of when.

Exit codes:
  0 done, 1 failed, 2 wrong usage: nothing was begun.";

/// Below the full help of `highwater status`.
const STATUS_HELP: &str = "\
Exit codes:
  0 ready, and nothing is wrong
  1 not ready, or no engine answers
  2 wrong usage: nothing was asked
  3 ready, but something is wrong: see the problems at the end of the page";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Exact top videos of the last hour, day, month and of all time, over QUIC in and HTTP out.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, about, max_term_width = 100, after_long_help = WHOLE_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the engine on a data directory, with its HTTP sidecar in the same process.
    #[command(after_long_help = SETTINGS_HELP)]
    Serve(Box<ServeArguments>),
    /// Serve an engine's rankings over HTTP from a process of its own; run as many as there are readers for.
    #[command(after_long_help = SETTINGS_HELP)]
    Sidecar(SidecarArguments),
    /// Run engine, sidecar and load in one go in a temporary directory, with a live top 10.
    Demo(DemoArguments),
    /// Show the moving top list of a running engine in the terminal, until Ctrl-C.
    #[command(after_long_help = SETTINGS_HELP)]
    Top(TopArguments),
    /// Write a table out of a data directory as Parquet or CSV, while the engine runs or not.
    #[command(after_long_help = EXPORT_HELP)]
    Export(ExportArguments),
    /// Hold what a data directory stores, and what its engine serves, against the accepted views and against itself.
    ///
    /// It changes nothing and may run beside the engine. Exit code 0 when all agrees, 1 when anything differs.
    Audit(AuditArguments),
    /// Read everything in the data directory of an engine that is stopped, and say what is damaged.
    ///
    /// It changes nothing; no engine can start on the directory meanwhile. Where one runs, use audit. Exit code 0 when
    /// all is sound, 1 when anything is damaged or the directory is none.
    Check(CheckArguments),
    /// Say how a running engine is, in one page, with what is wrong and what to do.
    #[command(after_long_help = STATUS_HELP)]
    Status(StatusArguments),
    /// Check a configuration file, or print an example of one.
    Config(ConfigArguments),
    /// Print the man page, or write one for each command.
    Man(ManArguments),
    /// Print a shell's completions.
    Completions(CompletionsArguments),
}

/// Where settings are read from.
#[derive(Debug, Clone, Args)]
pub struct FileArgument {
    /// TOML file with settings; flags and variables win over it.
    #[arg(long, env = "HIGHWATER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags of `highwater demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// How long to run, 1s to 365d; without it, until Ctrl-C.
    #[arg(long, value_name = "DURATION", value_parser = |text: &str| duration(text, Duration::from_secs(1)..=YEAR))]
    pub duration: Option<Duration>,
    /// Views to send, each second, up to 1000000.
    #[arg(long, default_value_t = 50_000, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Distinct videos, up to 10000000.
    #[arg(long, default_value_t = 100_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub videos: u64,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A line for each thing.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What `highwater config` is asked for.
#[derive(Debug, Clone, Args)]
pub struct ConfigArguments {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What `highwater config` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Check a configuration file without starting anything: exit 0 when it is sound, 1 with all that is wrong.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a file with every setting, what it means and its default.
    Example,
}

/// Flags of `highwater man`.
#[derive(Debug, Clone, Args)]
pub struct ManArguments {
    /// Directory to write one page for each command to, made when it does not exist; by default the main page is
    /// printed.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Flags of `highwater completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsArguments {
    /// The shell.
    pub shell: clap_complete::Shell,
}

/// The definition, with nothing in its help of what this process's variables say.
pub fn definition() -> clap::Command {
    Arguments::command().mut_subcommands(|command| command.mut_args(|argument| argument.hide_env_values(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }
}
