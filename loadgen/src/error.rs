//! What can go wrong between reading the input and writing the report.
//!
//! Not the engine's refusals of single views (those are results and go into the report). Each text says what
//! happened, the value, what is allowed and what to do.

use std::path::PathBuf;

use highwater_client::ClientError;
use highwater_proto::CloseReason;
use thiserror::Error;

/// A load that could not be carried out or judged.
#[derive(Debug, Error)]
pub enum LoadError {
    /// An option whose value only turns out to be wrong beside others or against the engine's limits.
    #[error("--{option}={value} cannot be used: {reason}")]
    Option {
        /// The flag's name without dashes.
        option: &'static str,
        /// The value given.
        value: String,
        /// Why not, and what is allowed.
        reason: String,
    },
    /// A file could not be read.
    #[error("cannot read {}: {source}; {}", path.display(), read_remedy(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; check that its folder exists and is writable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A views file whose content is not as it must be.
    #[error("{}: line {line}, column {column}: {value:?} {reason}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// Line number, the header being line 1.
        line: u64,
        /// Column name of the header.
        column: &'static str,
        /// The offending value, shortened.
        value: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A view's time leaves the range of the wire format after shifting.
    #[error(
        "line {line}: ts_ms {timestamp_ms} shifted by {shift_ms} ms leaves 0..={limit_ms}; choose another --shift-ms"
    )]
    ShiftOutOfRange {
        /// Line number in the file, the header being line 1.
        line: u64,
        /// The file's time.
        timestamp_ms: u64,
        /// The shift asked for.
        shift_ms: i64,
        /// The largest time allowed.
        limit_ms: u64,
    },
    /// The engine counted views before the load began, so nothing exact could be said after it.
    #[error(
        "the engine at {url} already holds views (its all-time list starts with {video_id:?} at {view_count}), so an exact \
         comparison is impossible; start the engine on an empty data directory or leave out --verify"
    )]
    EngineNotEmpty {
        /// The HTTP address asked.
        url: String,
        /// The most viewed video it names.
        video_id: String,
        /// Its count.
        view_count: u64,
    },
    /// The HTTP interface could not be reached or did not answer as it must.
    #[error("{url}: {reason}; check that the engine runs and that --verify names its HTTP address")]
    Http {
        /// The address asked.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The engine asks for a token and was given none, or one that it does not take.
    #[error("{0}: give loadgen a file with it by --token-file")]
    Token(ClientError),
    /// The engine asks for a client certificate and was shown none, or one that it does not take.
    #[error("{0}: give loadgen both by --client-cert and --client-key")]
    Certificate(ClientError),
    /// The connection to the engine failed for good.
    #[error(transparent)]
    Client(ClientError),
    /// An engine that was to be measured could not be started, watched or ended.
    #[error("{0:#}")]
    Engine(#[from] anyhow::Error),
    /// A measurement that would say nothing.
    #[error("nothing was measured: {0}")]
    Measurement(String),
    /// The asynchronous runtime or a task of it failed.
    #[error("the generator's own runtime failed: {0}")]
    Runtime(String),
    /// The engine acknowledged something it cannot have been asked.
    #[error("the engine's acknowledgements contradict what was sent: {0}; this is a bug in the engine or the client")]
    Contradiction(String),
}

/// What to do about a file that cannot be read: bytes that make no sense are not mended by rights.
fn read_remedy(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => "the file is damaged or cut short, or no gzip file; get it again",
        _ => "check that it exists, is a file and is readable",
    }
}

impl From<ClientError> for LoadError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Closed { reason: CloseReason::Unauthorized, .. } => Self::Token(error),
            ClientError::ClientCertificate { .. } => Self::Certificate(error),
            error => Self::Client(error),
        }
    }
}

impl LoadError {
    /// Whether the command line is at fault (exit code 2) and not the run (exit code 1).
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Option { .. })
    }
}
