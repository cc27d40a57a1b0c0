//! The settings of `highwater serve`.

use super::FileArgument;
use crate::runtime::Runtime;
use crate::units::{self, Kept, duration, size};
use bytesize::ByteSize;
use clap::{ArgAction, Args, FromArgMatches};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const SIZE_BYTES_MAX: u64 = 1 << 50;
const MEMORY_BYTES_MAX: u64 = 64 << 40;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

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
    /// HTTP requests of one address in a second, 1 to 10000000.
    ///
    /// Further ones get 429; as many at once are taken after a quiet second. Of IPv6, a /64 network counts as one.
    #[arg(long, env = "HIGHWATER_HTTP_RATE_MAX", default_value_t = 20_000, value_name = "COUNT", help_heading = "Network",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub http_rate_max: u32,
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
    /// Authorities (PEM) of the clients' certificates: every client over QUIC must show one of theirs.
    ///
    /// Without it none is asked for. With a certificate a client may produce and read, unless --token-file says less.
    /// It is read again on SIGHUP and when it changes, as are --tls-cert, --tls-key and --token-file.
    #[arg(long, env = "HIGHWATER_CLIENT_CA", value_name = "FILE", help_heading = "Security")]
    pub client_ca: Option<PathBuf>,
    /// File with the tokens that clients over QUIC must send, one a line.
    ///
    /// A line is TOKEN, or name=NAME scopes=produce,read TOKEN. Without the file none is asked for. The scopes say what
    /// a token is good for, by default for both; the name is who bears it, and owns the producers made with it. It is
    /// read again on SIGHUP and when it changes; connections whose token is gone are closed.
    #[arg(long, env = "HIGHWATER_TOKEN_FILE", value_name = "FILE", help_heading = "Security")]
    pub token_file: Option<PathBuf>,
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
