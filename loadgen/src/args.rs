//! The command line of `loadgen`, and its way into options.
//!
//! It reads only the CA, token and certificate files it is told of. Invariant: what parses is within the limits of each
//! value by itself; limits that depend on the engine are checked when connected.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use highwater_client::{ClientCertificate, ClientConfig, ClientError, read_token_file};
use highwater_proto::{BATCH_VIEWS_MAX, IN_FLIGHT_BATCHES_MAX};

use crate::error::LoadError;
use crate::measure::{CompareArgs, GrowthArgs, SweepArgs};
use crate::pace::{RATE_PER_S_MAX, Rate};
use crate::recurring::PREPARED_MAX;
use crate::replay::{ReplayOptions, Shift, Speed};
use crate::run::RunOptions;
use crate::send::{Encoding, PRODUCERS_MAX, Target};
use crate::zipf::VIDEOS_MAX;

/// How long a generator believes in a silent connection: shorter than the client's default, so that an engine that was
/// killed and started again is found soon.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Generates or replays views against a running Highwater, or measures engines that it starts itself, and verifies what
/// they then serve.
///
/// Exit codes: 0 everything acknowledged and, where asked, verified; 1 not; 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Loads, and measurements that make several of them.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Send generated views at a set rate, open loop.
    Run(RunArgs),
    /// Send the views of a CSV file (header video_id,ts_ms,user_id,region,device; .gz by extension).
    Replay(ReplayArgs),
    /// Start an engine and find the highest rate that it holds.
    Sweep(SweepArgs),
    /// Start an engine for each of several loads, and tell what a view costs in each.
    Growth(GrowthArgs),
    /// Start two engines in turn, under the same load, and compare them.
    Compare(CompareArgs),
}

/// What both loads need.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Address of any core of the engine.
    #[arg(long, value_name = "HOST:PORT")]
    pub engine: String,
    /// The engine's certificate authority, DIR/tls/ca.pem.
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// Name that the engine's certificate bears, if not the host of --engine.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// File with the token sent to the engine; of several lines, the first that is not blank and does not begin with #.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) for an engine that asks its clients for one; needs --client-key.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of --client-cert.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Connections, each a producer of its own. Batches go to whichever is free, so a core that stalls gets fewer.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(PRODUCERS_MAX)))]
    pub producers: u16,
    /// Views per batch.
    #[arg(long, value_name = "VIEWS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_VIEWS_MAX)))]
    pub batch: u32,
    /// Batches of one producer that may be unanswered.
    #[arg(long, value_name = "BATCHES", default_value_t = IN_FLIGHT_BATCHES_MAX, value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_BATCHES_MAX)))]
    pub in_flight: u16,
    /// Columns of batches.
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Encoding::Compact)]
    pub encoding: Encoding,
    /// How long a lost engine is waited for.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub reconnect_timeout: Duration,
    /// HTTP address of the engine: compare what it serves with exact counts. It must hold no view before.
    ///
    /// An https address is held to --ca, and shown the token and the certificate as well.
    #[arg(long, value_name = "URL")]
    pub verify: Option<String>,
    /// Write the report there as JSON; it goes to stdout in any case.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

/// `loadgen run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Views per second over all producers, or max: as fast as the engine answers.
    #[arg(long, value_name = "VIEWS|max", default_value = "100000", value_parser = rate)]
    pub rate: Rate,
    /// For how long views are made.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub duration: Duration,
    /// Leave what is planned in the beginning out of latencies and rate; shorter than --duration.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = age)]
    pub warm_up: Duration,
    /// Make at least so many views ahead, up to 46 bytes each and more with longer user ids, and send their batches
    /// over and over, each time under a fresh sequence and time; 0 makes each as it is sent.
    #[arg(long, value_name = "VIEWS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=PREPARED_MAX))]
    pub prepared: u64,
    /// Distinct videos to draw from.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(VIDEOS_MAX)))]
    pub videos: u32,
    /// Zipf exponent of the videos' popularity; 0 is uniform.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0, value_parser = exponent)]
    pub zipf: f64,
    /// Bytes of user ids, 0 to 255; 12 unless given. A view in plain columns has 42 bytes then; with --encoding=plain
    /// --user-bytes=70 it has 100.
    #[arg(long, value_name = "N")]
    pub user_bytes: Option<u8>,
    /// How old views are when they are sent, one age for each in turn: 0s,1h,25h makes two of three late.
    #[arg(long, value_name = "AGE,…", default_value = "0s", value_delimiter = ',', value_parser = age)]
    pub age: Vec<Duration>,
    /// Seed: the same seed gives the same views.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// `loadgen replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The views, CSV or CSV.gz.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Where to.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Milliseconds added to every time of the file.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub shift_ms: i64,
    /// Shift the times so that the newest view of the file happens now.
    #[arg(long, conflicts_with = "shift_ms")]
    pub shift_to_now: bool,
    /// max: as fast as the engine answers; 1x: as it happened; 10x: ten times as fast.
    #[arg(long, value_name = "max|1x", default_value = "max", value_parser = speed)]
    pub speed: Speed,
}

impl TargetArgs {
    fn target(&self) -> Result<Target, LoadError> {
        let mut client = ClientConfig::with_ca_file(&self.engine, &self.ca)?;
        client.server_name = self.server_name.clone();
        client.in_flight_max = self.in_flight;
        client.encodings = self.encoding.encodings();
        client.reconnect_timeout = self.reconnect_timeout;
        client.idle_timeout = IDLE_TIMEOUT;
        if let Some(path) = &self.token_file {
            let unusable = |error: ClientError| LoadError::Option {
                option: "token-file",
                value: path.display().to_string(),
                reason: error.to_string(),
            };
            client.token = read_token_file(path).map_err(unusable)?;
        }
        if let (Some(chain), Some(key)) = (&self.client_cert, &self.client_key) {
            client.client_certificate = Some(ClientCertificate::read(chain, key)?);
        }
        Ok(Target { client, producers: self.producers, batch_views: self.batch, verify: self.verify.clone() })
    }
}

impl RunArgs {
    /// The options meant, with the CA and token files read.
    ///
    /// # Errors
    /// [`LoadError`] for files that cannot be read.
    pub fn options(&self) -> Result<RunOptions, LoadError> {
        Ok(RunOptions {
            target: self.target.target()?,
            rate: self.rate,
            duration: self.duration,
            warm_up: self.warm_up,
            prepared: self.prepared,
            videos: self.videos,
            zipf: self.zipf,
            user_bytes: self.user_bytes,
            ages: self.age.clone(),
            seed: self.seed,
        })
    }
}

impl ReplayArgs {
    /// The options meant, with the CA and token files read.
    ///
    /// # Errors
    /// [`LoadError`] for files that cannot be read.
    pub fn options(&self) -> Result<ReplayOptions, LoadError> {
        let shift = if self.shift_to_now { Shift::ToNow } else { Shift::ByMs(self.shift_ms) };
        Ok(ReplayOptions { target: self.target.target()?, file: self.file.clone(), shift, speed: self.speed })
    }
}

pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    if text == "max" {
        return Ok(Rate::Max);
    }
    let number = text.parse::<u64>().ok().filter(|rate| (1..=RATE_PER_S_MAX).contains(rate));
    number.map(Rate::PerSecond).ok_or_else(|| format!("1 to {RATE_PER_S_MAX} views per second, or max"))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    let parsed = parsed.filter(|parsed| !parsed.is_zero());
    parsed.ok_or_else(|| "a time above 0 with its unit, such as 500ms, 10s, 2m or 1h".to_owned())
}

pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u16>().ok());
    let days = days.map(|days| Duration::from_hours(24 * u64::from(days)));
    let parsed = || text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| Duration::try_from(parsed).ok());
    days.or_else(parsed).ok_or_else(|| "a time with its unit, such as 0s, 90m, 25h or 40d".to_owned())
}

pub(crate) fn exponent(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "a number from 0 upward, such as 1.0".to_owned())
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let times = text.strip_suffix('x').and_then(|number| number.parse::<f64>().ok());
    let times = times.filter(|times| times.is_finite() && *times > 0.0);
    times.map(Speed::Times).ok_or_else(|| "max, or a multiple of real time such as 1x".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_promised_command_lines_parse() {
        let line = "loadgen run --engine=127.0.0.1:4433 --ca=ca.pem --rate=1000000 --duration=10s --videos=1000000 --zipf=1.0 \
                    --producers=2 --batch=4096 --seed=1 --encoding=plain --user-bytes=70 --age=0s,90m,40d --verify=http://127.0.0.1:8080 --report=r.json";
        let Command::Run(run) = parse(line).unwrap().command else {
            panic!("not a run");
        };
        assert_eq!((run.rate, run.duration), (Rate::PerSecond(1_000_000), Duration::from_secs(10)));
        assert_eq!(run.age, [0, 5400, 40 * 86_400].map(Duration::from_secs));
        assert_eq!((run.target.producers, run.target.batch, run.seed), (2, 4096, 1));
        assert_eq!((run.target.encoding, run.user_bytes), (Encoding::Plain, Some(70)));
        for (shift, expected) in [("--shift-ms=-5000", (-5000, false)), ("--shift-to-now", (0, true)), ("", (0, false))]
        {
            let line = format!(
                "loadgen replay f.csv.gz --engine=h:1 --ca=c {shift} --speed=1x --verify=http://h:2 --report=r"
            );
            let Command::Replay(replay) = parse(&line).unwrap().command else {
                panic!("not a replay");
            };
            assert_eq!((replay.shift_ms, replay.shift_to_now), expected);
            assert_eq!((replay.speed, replay.target.encoding), (Speed::Times(1.0), Encoding::Compact));
        }
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for bad in [
            "run --ca=c",
            "run --engine=h:1",
            "run --engine=h:1 --ca=c --rate=0",
            "run --engine=h:1 --ca=c --rate=fast",
            "run --engine=h:1 --ca=c --duration=10",
            "run --engine=h:1 --ca=c --duration=0s",
            "run --engine=h:1 --ca=c --zipf=-1",
            "run --engine=h:1 --ca=c --age=1h,old",
            "run --engine=h:1 --ca=c --batch=8193",
            "run --engine=h:1 --ca=c --videos=0",
            "run --engine=h:1 --ca=c --producers=0",
            "run --engine=h:1 --ca=c --prepared=-1",
            "run --engine=h:1 --ca=c --warm-up=2",
            "run --engine=h:1 --ca=c --encoding=zstd",
            "run --engine=h:1 --ca=c --user-bytes=256",
            "replay f --engine=h:1 --ca=c --user-bytes=70",
            "sweep --p99-max=10",
            "sweep --prepared=0",
            "compare a",
            "compare a b --rounds=0",
            "replay --engine=h:1 --ca=c",
            "replay f --engine=h:1 --ca=c --speed=2",
            "replay f --engine=h:1 --ca=c --shift-ms=1 --shift-to-now",
            "replay f --engine=h:1 --ca=c --unknown=1",
        ] {
            let error = parse(&format!("loadgen {bad}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad}");
        }
    }
}
