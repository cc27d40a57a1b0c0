//! The command line: typed arguments, each with its unit and its limit.
//!
//! Every flag can also be given as `HIGHWATER_<FLAG>`; the flag wins. Checks that need the machine or the data
//! directory are made where they are used.

use crate::runtime::Runtime;
use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use highwater_proto::Period;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Exact top videos of the last hour, day, month and of all time, over QUIC in and HTTP out.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, about, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the engine on a data directory, with its HTTP sidecar in the same process.
    Serve(Box<ServeArguments>),
    /// Serve an engine's rankings over HTTP from a process of its own; run as many as there are readers for.
    Sidecar(SidecarArguments),
    /// Run engine, sidecar and load in one go in a temporary directory, with a live top 10.
    Demo(DemoArguments),
    /// Show the moving top list of a running engine in the terminal, until Ctrl-C.
    Top(TopArguments),
}

/// Flags of `highwater serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArguments {
    /// Directory that holds everything the engine keeps; made when it does not exist.
    #[arg(long, env = "HIGHWATER_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// UDP address for producers; core i listens on this port plus i. Port 0 takes free ports.
    #[arg(long, env = "HIGHWATER_LISTEN", default_value = "127.0.0.1:4433", value_name = "HOST:PORT")]
    pub listen: SocketAddr,
    /// TCP address for HTTP. Port 0 takes a free port.
    #[arg(long, env = "HIGHWATER_HTTP", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub http: SocketAddr,
    /// CPUs to pin engine cores to, one core each, 1 to 64. A later start may have more or fewer.
    #[arg(long, env = "HIGHWATER_CORES", default_value = "0", value_delimiter = ',', value_name = "CPU,…")]
    pub cores: Vec<usize>,
    /// CPUs for the helpers: disk housekeeping, merging, HTTP. By default all that no core is pinned to.
    #[arg(long, env = "HIGHWATER_HELPER_CORES", value_delimiter = ',', value_name = "CPU,…")]
    pub helper_cores: Vec<usize>,
    /// What runs the cores.
    #[arg(long, env = "HIGHWATER_RUNTIME", value_enum, default_value_t)]
    pub runtime: Runtime,
    /// Shards, 1 to 256: 16 for a new data directory unless given; fixed once the directory exists.
    #[arg(long, env = "HIGHWATER_SHARDS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub shards: Option<u16>,
    /// Memory that the engine may use, with its unit.
    #[arg(long, env = "HIGHWATER_MEMORY", default_value = "4GiB", value_name = "BYTES")]
    pub memory: ByteSize,
    /// How far in the future a view's time may lie.
    #[arg(long, env = "HIGHWATER_SKEW_MAX", default_value = "60s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub skew_max: Duration,
    /// Log kept behind the last cut; older segments are recycled.
    #[arg(long, env = "HIGHWATER_LOG_RETENTION", default_value = "8GiB", value_name = "BYTES")]
    pub log_retention: ByteSize,
    /// Further name or address for the certificate that the engine makes itself; may be repeated.
    #[arg(long, env = "HIGHWATER_TLS_NAME", value_delimiter = ',', value_name = "NAME")]
    pub tls_name: Vec<String>,
    /// Certificate chain (PEM) to use in place of one's own making; needs --tls-key.
    #[arg(long, env = "HIGHWATER_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert.
    #[arg(long, env = "HIGHWATER_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with the tokens that producers may send, one a line; without it any producer may send.
    #[arg(long, env = "HIGHWATER_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Host name or address that clients are told to reach the cores' ports on; by default the one they dialled.
    #[arg(long, env = "HIGHWATER_ADVERTISE", default_value = "", value_name = "HOST")]
    pub advertise: String,
    /// Start although the wall clock is far from the engine time in the data directory.
    #[arg(long, env = "HIGHWATER_ACCEPT_CLOCK")]
    pub accept_clock: bool,
}

/// Flags of `highwater sidecar`.
#[derive(Debug, Clone, Args)]
pub struct SidecarArguments {
    /// UDP address of any core of the engine. Without the engine the sidecar starts all the same, and waits for it.
    #[arg(long, env = "HIGHWATER_ENGINE", value_name = "HOST:PORT")]
    pub engine: String,
    /// PEM file of the authority that the engine's certificate is checked against, such as DIR/tls/ca.pem.
    #[arg(long, env = "HIGHWATER_CA", value_name = "FILE")]
    pub ca: PathBuf,
    /// TCP address for HTTP. Port 0 takes a free port.
    #[arg(long, env = "HIGHWATER_HTTP", default_value = "127.0.0.1:8081", value_name = "HOST:PORT")]
    pub http: SocketAddr,
    /// Name that the engine's certificate must bear; by default the host of --engine.
    #[arg(long, env = "HIGHWATER_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// Age of the newest snapshot, from 1s to 1h, above which /readyz turns red; it is served all the same.
    #[arg(long, env = "HIGHWATER_STALE_AFTER", default_value = "10s", value_parser = stale_after, value_name = "DURATION")]
    pub stale_after: Duration,
}

/// Snapshots come about each second, so less than one would never be ready.
fn stale_after(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(3600);
    if allowed.contains(&duration) { Ok(duration) } else { Err("1s to 1h are allowed".to_owned()) }
}

/// Flags of `highwater demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArguments {
    /// How long to run; without it, until Ctrl-C.
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub duration: Option<Duration>,
    /// Views to send, each second.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub rate: u64,
    /// Distinct videos.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub videos: u64,
}

/// Flags of `highwater top`.
#[derive(Debug, Clone, Args)]
pub struct TopArguments {
    /// UDP address of the engine, of any of its cores.
    #[arg(long, env = "HIGHWATER_ENGINE", value_name = "HOST:PORT")]
    pub engine: String,
    /// Certificate authority (PEM) that the engine is trusted by: DIR/tls/ca.pem of the engine.
    #[arg(long, env = "HIGHWATER_CA", value_name = "FILE")]
    pub ca: PathBuf,
    /// Whose list: hour, day, month or all-time.
    #[arg(long, env = "HIGHWATER_PERIOD", default_value = "hour", value_name = "PERIOD")]
    pub period: Period,
    /// Rows shown, 1 to 1000.
    #[arg(long, env = "HIGHWATER_ROWS", default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
    /// Show one picture and end.
    #[arg(long, env = "HIGHWATER_ONCE")]
    pub once: bool,
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
    fn units_are_read() {
        let line = ["highwater", "serve", "--data-dir=d", "--memory=1GiB", "--skew-max=90s"];
        let Command::Serve(serve) = Arguments::try_parse_from(line).unwrap().command else { panic!() };
        assert_eq!(serve.memory.as_u64(), 1 << 30);
        assert_eq!(serve.skew_max, Duration::from_secs(90));
        assert_eq!(serve.cores, [0]);
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(Arguments::try_parse_from(["highwater", "serve", "--data-dir=d", "--tls-cert=c"]).is_err());
    }
}
