//! The settings of the commands that read a data directory: `highwater export`, `audit` and `check`.

use super::{CredentialArguments, ReportFormat};
use crate::export::{Format, Table};
use crate::units;
use clap::Args;
use std::path::PathBuf;

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
    /// File with the token sent to the engine, one that may read.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub token_file: Option<PathBuf>,
    /// Certificate chain (PEM) for an engine that asks its clients for one; needs --client-key.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of --client-cert.
    #[arg(long, value_name = "FILE", requires = "engine")]
    pub client_key: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: ReportFormat,
}

impl AuditArguments {
    /// What is shown to the engine.
    pub fn credentials(&self) -> CredentialArguments {
        CredentialArguments {
            token_file: self.token_file.clone(),
            client_cert: self.client_cert.clone(),
            client_key: self.client_key.clone(),
        }
    }
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
