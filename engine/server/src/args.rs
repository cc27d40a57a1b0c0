//! The definition of the command line, and so of all settings: each with its type, unit, limits, default and help.
//!
//! Variables, the keys of a file, help, man pages and completions are made from it; nothing else lists settings.
//! Checks of one setting against another are in `checks.rs`; those that need the machine or the data directory are made
//! where they are used.

use crate::export::{Format, Table};
use crate::runtime::Runtime;
use crate::units::{self, Kept, duration, size};
use bytesize::ByteSize;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use highwater_proto::Period;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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

const SIZE_BYTES_MAX: u64 = 1 << 50;
const MEMORY_BYTES_MAX: u64 = 64 << 40;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
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

/// Flags of `highwater serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Where further settings are read from.
    #[command(flatten)]
    pub file: FileArgument,
    /// Directory that holds everything the engine keeps; made when it does not exist.
    #[arg(long, env = "HIGHWATER_DATA_DIR", value_name = "DIR", help_heading = "Storage")]
    pub data_dir: PathBuf,
    /// Log kept behind the last cut, 0B to 1024TiB.
    ///
    /// Older segments are recycled.
    #[arg(long, env = "HIGHWATER_LOG_RETENTION", default_value = "8GiB", value_name = "SIZE", help_heading = "Storage",
        value_parser = |text: &str| size(text, 0..=SIZE_BYTES_MAX))]
    pub log_retention: ByteSize,
    /// Archive kept behind the log, by age and size, such as 24h,10GiB: whichever is less.
    ///
    /// It holds the accepted views of recycled segments with all fields; the oldest files go first. At least 1m and
    /// 128MiB.
    #[arg(long, env = "HIGHWATER_ARCHIVE_RETENTION", default_value = "24h,10GiB", value_name = "DURATION,SIZE",
        help_heading = "Storage", value_parser = units::kept)]
    pub archive_retention: Kept,
    /// How long counts by minute are kept, 26h to 3650d.
    #[arg(long, env = "HIGHWATER_MINUTE_RETENTION", default_value = "48h", value_name = "DURATION",
        help_heading = "Storage", value_parser = |text: &str| duration(text, 26 * HOUR..=10 * YEAR))]
    pub minute_retention: Duration,
    /// How long counts by hour are kept, 32d to 3650d.
    #[arg(long, env = "HIGHWATER_HOUR_RETENTION", default_value = "35d", value_name = "DURATION",
        help_heading = "Storage", value_parser = |text: &str| duration(text, 32 * DAY..=10 * YEAR))]
    pub hour_retention: Duration,
    /// How long counts by day are kept, 32d to 3650d.
    ///
    /// What is older counts in all-time only.
    #[arg(long, env = "HIGHWATER_DAY_RETENTION", default_value = "400d", value_name = "DURATION",
        help_heading = "Storage", value_parser = |text: &str| duration(text, 32 * DAY..=10 * YEAR))]
    pub day_retention: Duration,
    /// How long the final top lists of closed hours, days and months are kept, 1d to 36500d.
    #[arg(long, env = "HIGHWATER_HISTORY_RETENTION", default_value = "3650d", value_name = "DURATION",
        help_heading = "Storage", value_parser = |text: &str| duration(text, DAY..=100 * YEAR))]
    pub history_retention: Duration,
    /// How long after its end a calendar hour, day or month is final, 0s to 3650d; fixed once the data directory
    /// exists.
    ///
    /// A view that comes later counts in the other windows only. A new data directory has 10m unless it is given.
    #[arg(long, env = "HIGHWATER_LATENESS_MAX", value_name = "DURATION", help_heading = "Storage",
        value_parser = |text: &str| duration(text, Duration::ZERO..=10 * YEAR))]
    pub lateness_max: Option<Duration>,
    /// Shards, 1 to 256; fixed once the data directory exists.
    ///
    /// A new data directory has 16 unless they are given.
    #[arg(long, env = "HIGHWATER_SHARDS", value_name = "COUNT", help_heading = "Storage",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Start although the wall clock is far from the engine time in the data directory.
    #[arg(long, env = "HIGHWATER_ACCEPT_CLOCK", value_name = "true|false", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, value_parser = units::switch, default_value = "false", default_missing_value = "true",
        hide_default_value = true, help_heading = "Storage")]
    pub accept_clock: bool,
    /// UDP address for producers.
    ///
    /// Core i listens on this port plus i. Port 0 takes free ports.
    #[arg(long, env = "HIGHWATER_LISTEN", default_value = "127.0.0.1:4433", value_name = "HOST:PORT",
        value_parser = units::address, help_heading = "Network")]
    pub listen: SocketAddr,
    /// TCP address for HTTP. Port 0 takes a free port.
    #[arg(long, env = "HIGHWATER_HTTP", default_value = "127.0.0.1:8080", value_name = "HOST:PORT",
        value_parser = units::address, help_heading = "Network")]
    pub http: SocketAddr,
    /// Host that clients are told to reach the cores' ports on.
    ///
    /// By default the one they dialled.
    #[arg(long, env = "HIGHWATER_ADVERTISE", value_name = "HOST", value_parser = units::host, help_heading = "Network")]
    pub advertise: Option<String>,
    /// CPUs to pin engine cores to, 1 to 64, with commas between.
    ///
    /// Each runs one core. A later start may have more or fewer.
    #[arg(long, env = "HIGHWATER_CORES", default_value = "0", value_delimiter = ',', value_name = "CPU,…",
        value_parser = units::cpu, help_heading = "Resources")]
    pub cores: Vec<usize>,
    /// CPUs for the helpers, with commas between.
    ///
    /// Helpers do disk housekeeping, merging and HTTP. By default they run where no core is pinned.
    #[arg(long, env = "HIGHWATER_HELPER_CORES", value_delimiter = ',', value_name = "CPU,…",
        value_parser = units::cpu, help_heading = "Resources")]
    pub helper_cores: Vec<usize>,
    /// Memory that the engine may use, 512MiB to 64TiB.
    ///
    /// Several cores need more.
    #[arg(long, env = "HIGHWATER_MEMORY", default_value = "4GiB", value_name = "SIZE", help_heading = "Resources",
        value_parser = |text: &str| size(text, 0..=MEMORY_BYTES_MAX))]
    pub memory: ByteSize,
    /// What runs the cores.
    #[arg(long, env = "HIGHWATER_RUNTIME", value_enum, default_value_t, help_heading = "Resources")]
    pub runtime: Runtime,
    /// How far in the future a view's time may lie, 0s to 1h.
    #[arg(long, env = "HIGHWATER_SKEW_MAX", default_value = "60s", value_name = "DURATION", help_heading = "Views",
        value_parser = |text: &str| duration(text, Duration::ZERO..=HOUR))]
    pub skew_max: Duration,
    /// Further names for the engine's own certificate, with commas between.
    ///
    /// Names or addresses; the flag may be repeated. localhost, 127.0.0.1 and ::1 are in it.
    #[arg(long, env = "HIGHWATER_TLS_NAME", value_delimiter = ',', value_name = "NAME,…", help_heading = "Security",
        value_parser = units::certificate_name)]
    pub tls_name: Vec<String>,
    /// Certificate chain (PEM) to use in place of the engine's own; needs --tls-key.
    #[arg(long, env = "HIGHWATER_TLS_CERT", value_name = "FILE", help_heading = "Security")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert.
    #[arg(long, env = "HIGHWATER_TLS_KEY", value_name = "FILE", help_heading = "Security")]
    pub tls_key: Option<PathBuf>,
    /// File with the tokens that producers may send, one a line.
    ///
    /// Without it any producer may send. It is read at the start.
    #[arg(long, env = "HIGHWATER_TOKEN_FILE", value_name = "FILE", help_heading = "Security")]
    pub token_file: Option<PathBuf>,
}

/// Flags of `highwater sidecar`.
#[derive(Debug, Clone, Args)]
pub struct SidecarArguments {
    /// Where further settings are read from.
    #[command(flatten)]
    pub file: FileArgument,
    /// UDP address of any core of the engine.
    ///
    /// Without the engine the sidecar starts all the same, and waits for it.
    #[arg(long, env = "HIGHWATER_ENGINE", value_name = "HOST:PORT", help_heading = "Engine",
        value_parser = units::remote)]
    pub engine: String,
    /// Authority (PEM) that the engine's certificate is checked against.
    ///
    /// It is DIR/tls/ca.pem of the engine, unless that has a certificate of another authority.
    #[arg(long, env = "HIGHWATER_CA", value_name = "FILE", help_heading = "Engine")]
    pub ca: PathBuf,
    /// Name that the engine's certificate must bear.
    ///
    /// By default the host of --engine.
    #[arg(long, env = "HIGHWATER_SERVER_NAME", value_name = "NAME", value_parser = units::host, help_heading = "Engine")]
    pub server_name: Option<String>,
    /// TCP address for HTTP. Port 0 takes a free port.
    #[arg(long, env = "HIGHWATER_HTTP", default_value = "127.0.0.1:8081", value_name = "HOST:PORT",
        value_parser = units::address, help_heading = "Readers")]
    pub http: SocketAddr,
    /// Age of the newest snapshot, 1s to 1h, above which /readyz turns red.
    ///
    /// It is served all the same.
    // Snapshots come about each second, so less than one would never be ready.
    #[arg(long, env = "HIGHWATER_STALE_AFTER", default_value = "10s", value_name = "DURATION", help_heading = "Readers",
        value_parser = |text: &str| duration(text, Duration::from_secs(1)..=HOUR))]
    pub stale_after: Duration,
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

/// Flags of `highwater top`.
#[derive(Debug, Clone, Args)]
pub struct TopArguments {
    /// Where further settings are read from.
    #[command(flatten)]
    pub file: FileArgument,
    /// UDP address of the engine, of any of its cores.
    #[arg(long, env = "HIGHWATER_ENGINE", value_name = "HOST:PORT", help_heading = "Engine",
        value_parser = units::remote)]
    pub engine: String,
    /// Certificate authority (PEM) that the engine is trusted by: DIR/tls/ca.pem of the engine.
    #[arg(long, env = "HIGHWATER_CA", value_name = "FILE", help_heading = "Engine")]
    pub ca: PathBuf,
    /// Whose list.
    #[arg(long, env = "HIGHWATER_PERIOD", default_value = "hour", value_name = "PERIOD", help_heading = "Picture",
        value_parser = PossibleValuesParser::new(Period::ALL.map(Period::as_str))
            .try_map(|text| text.parse::<Period>()))]
    pub period: Period,
    /// Rows shown, 1 to 1000.
    #[arg(long, env = "HIGHWATER_ROWS", default_value_t = 10, value_name = "COUNT", help_heading = "Picture",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
    /// Show one picture and end.
    #[arg(long, env = "HIGHWATER_ONCE", value_name = "true|false", num_args = 0..=1, require_equals = true,
        action = ArgAction::Set, value_parser = units::switch, default_value = "false", default_missing_value = "true",
        hide_default_value = true, help_heading = "Picture")]
    pub once: bool,
}

/// Flags of `highwater export`.
#[derive(Debug, Clone, Args)]
pub struct ExportArguments {
    /// The engine's data directory; it is read, and nothing in it is changed or locked.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The table.
    #[arg(long, value_enum, value_name = "TABLE")]
    pub table: Table,
    /// Where the range begins, inclusive: an RFC 3339 time, or a date for its first moment in UTC.
    ///
    /// By default where the table begins to be whole.
    #[arg(long, value_name = "TIME", value_parser = units::time_ms)]
    pub from: Option<u64>,
    /// Where the range ends, exclusive.
    ///
    /// By default behind the newest row.
    #[arg(long, value_name = "TIME", value_parser = units::time_ms)]
    pub to: Option<u64>,
    /// The format; by default what the name of --out ends in, and CSV for stdout.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// The file to write, or - for stdout.
    ///
    /// It is there only once it is whole.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Replace the file of --out if there is one.
    #[arg(long)]
    pub force: bool,
}

/// Flags of `highwater audit`.
#[derive(Debug, Clone, Args)]
pub struct AuditArguments {
    /// The engine's data directory; it is read, and nothing in it is changed or locked.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// UDP address of any core of its engine, to compare what is served as well; needs --ca.
    #[arg(long, value_name = "HOST:PORT", value_parser = units::remote, requires = "ca")]
    pub engine: Option<String>,
    /// Authority (PEM) that the engine's certificate is checked against: DIR/tls/ca.pem.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub ca: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
}

/// Flags of `highwater check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// The data directory; it is read, and nothing in it is changed.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
}

/// Flags of `highwater status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArguments {
    /// Where the engine answers HTTP, such as http://127.0.0.1:8080.
    #[arg(long, value_name = "URL", value_parser = units::http_url)]
    pub engine: String,
    /// How long it is watched for what grows, 1s to 60s.
    #[arg(long, default_value = "2s", value_name = "DURATION",
        value_parser = |text: &str| duration(text, Duration::from_secs(1)..=Duration::from_secs(60)))]
    pub over: Duration,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
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

impl ServeArguments {
    /// The arguments that these flags give, and defaults: no variable or file is looked at.
    ///
    /// # Errors
    /// When a flag is unknown, lacking or has a value that is not allowed.
    pub fn from_flags(flags: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let command = Self::augment_args(clap::Command::new("serve").no_binary_name(true));
        let matches = command.mut_args(|argument| argument.env(None::<&'static str>)).try_get_matches_from(flags)?;
        Self::from_arg_matches(&matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn units_are_read() {
        let serve = ServeArguments::from_flags(["--data-dir=d", "--memory=1GiB", "--skew-max=90s"]).unwrap();
        assert_eq!(serve.memory.as_u64(), 1 << 30);
        assert_eq!(serve.skew_max, Duration::from_secs(90));
        assert_eq!((serve.cores, serve.accept_clock), (vec![0], false));
    }

    #[test]
    fn a_switch_is_turned_on_by_its_name_and_off_by_false() {
        for (flag, on) in [("--accept-clock", true), ("--accept-clock=true", true), ("--accept-clock=false", false)] {
            assert_eq!(ServeArguments::from_flags(["--data-dir=d", flag]).unwrap().accept_clock, on, "{flag}");
        }
    }
}
