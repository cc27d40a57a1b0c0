//! The settings of the commands that reach an engine from outside: `highwater sidecar`, `top` and `status`, and of what
//! all such commands show it.

use super::{FileArgument, ReportFormat};
use crate::units::{self, duration};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args};
use highwater_client::{ClientCertificate, ClientConfig, ClientError, read_token_file};
use highwater_proto::Period;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

/// What a client shows an engine that asks who it is.
#[derive(Debug, Clone, Args)]
pub struct CredentialArguments {
    /// File with the token sent to the engine; of several lines, the first that is not blank and does not begin with #.
    #[arg(long, env = "HIGHWATER_TOKEN_FILE", value_name = "FILE", help_heading = "Engine")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) for an engine that asks its clients for one; needs --client-key.
    #[arg(long, env = "HIGHWATER_CLIENT_CERT", value_name = "FILE", help_heading = "Engine")]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of --client-cert.
    #[arg(long, env = "HIGHWATER_CLIENT_KEY", value_name = "FILE", help_heading = "Engine")]
    pub client_key: Option<PathBuf>,
}

impl CredentialArguments {
    /// Reads the files into a client's configuration.
    ///
    /// # Errors
    /// When one cannot be read, or a certificate comes without its key or the other way round.
    pub fn apply(&self, config: ClientConfig) -> Result<ClientConfig, ClientError> {
        let lonely = |given: &'static str, lacking: &str, path: &Path| ClientError::Config {
            what: given,
            value: path.display().to_string(),
            reason: format!("it is given without {lacking}: a certificate and its key go together; give both"),
        };
        let client_certificate = match (&self.client_cert, &self.client_key) {
            (Some(chain), Some(key)) => Some(ClientCertificate::read(chain, key)?),
            (Some(chain), None) => return Err(lonely("--client-cert", "--client-key", chain)),
            (None, Some(key)) => return Err(lonely("--client-key", "--client-cert", key)),
            (None, None) => None,
        };
        let token = self.token_file.as_ref().map(read_token_file).transpose()?.unwrap_or_default();
        Ok(ClientConfig { token, client_certificate, ..config })
    }
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
    /// What is shown to the engine.
    #[command(flatten)]
    pub credentials: CredentialArguments,
    /// TCP address for HTTP. Port 0 takes a free port.
    #[arg(long, env = "HIGHWATER_HTTP", default_value = "127.0.0.1:8081", value_name = "HOST:PORT",
        value_parser = units::address, help_heading = "Readers")]
    pub http: SocketAddr,
    /// HTTP requests of one address in a second, 1 to 10000000.
    ///
    /// Further ones get 429; as many at once are taken after a quiet second. Of IPv6, a /64 network counts as one.
    #[arg(long, env = "HIGHWATER_HTTP_RATE_MAX", default_value_t = 20_000, value_name = "COUNT", help_heading = "Readers",
        value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub http_rate_max: u32,
    /// Certificate chain (PEM) to serve HTTP over TLS with; needs --tls-key. Read again on SIGHUP.
    #[arg(long, env = "HIGHWATER_TLS_CERT", value_name = "FILE", help_heading = "Readers")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert.
    #[arg(long, env = "HIGHWATER_TLS_KEY", value_name = "FILE", help_heading = "Readers")]
    pub tls_key: Option<PathBuf>,
    /// File with the tokens of which readers must send one as `Authorization: Bearer TOKEN`, written as for serve.
    ///
    /// Without it anyone may read. Read again on SIGHUP. Needs --tls-cert unless --http is on the loopback interface
    #[arg(long, env = "HIGHWATER_READER_TOKEN_FILE", value_name = "FILE", help_heading = "Readers")]
    pub reader_token_file: Option<PathBuf>,
    /// Age of the newest snapshot, 1s to 1h, above which /readyz turns red.
    ///
    /// It is served all the same.
    // Snapshots come about each second, so less than one would never be ready.
    #[arg(long, env = "HIGHWATER_STALE_AFTER", default_value = "10s", value_name = "DURATION", help_heading = "Readers",
        value_parser = |text: &str| duration(text, Duration::from_secs(1)..=HOUR))]
    pub stale_after: Duration,
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
    /// What is shown to the engine.
    #[command(flatten)]
    pub credentials: CredentialArguments,
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

/// Flags of `highwater status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArguments {
    /// Where the engine answers HTTP, such as http://127.0.0.1:8080, or https://HOST:PORT with --ca.
    #[arg(long, value_name = "URL", value_parser = units::http_url)]
    pub engine: String,
    /// Authority (PEM) that the certificate of an https address is checked against.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// File with a token that may read, for an engine that asks for one.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) for an engine that asks its clients for one; needs --client-key.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of --client-cert.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// How long it is watched for what grows, 1s to 60s.
    #[arg(long, default_value = "2s", value_name = "DURATION",
        value_parser = |text: &str| duration(text, Duration::from_secs(1)..=Duration::from_secs(60)))]
    pub over: Duration,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
}
