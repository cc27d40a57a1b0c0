//! QUIC for one core: a thin driver between a UDP socket, `quinn_proto` and an [`Application`].
//!
//! It moves bytes and reports what happened to streams. It knows nothing of frames, sessions or views, starts no
//! thread, takes no lock, and never blocks: the core's loop calls [`QuicDriver::turn`] and parks elsewhere.
//!
//! Invariants: one call of `turn` does a bounded amount of work; every buffer has a limit ([`QuicLimits`]); a key of a
//! connection or stream that is gone is ignored, never taken for its successor; the application hears
//! `connection_opened` and `connection_lost` exactly once each, and nothing about a connection outside of the two.
//!
//! Sources: RFC 9000 (transport), RFC 9001 (TLS), the documentation of `quinn_proto::Connection`.

mod census;
mod config;
mod driver;
mod drops;
mod link;
mod room;
mod socket;
mod stats;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use quinn_proto::{ConnectionError, StreamId};
use rustls_pki_types::CertificateDer;

pub use config::QuicLimits;
pub use driver::QuicDriver;
pub use drops::KernelDrops;
pub use link::StreamReader;
pub use stats::{QuicStats, Turn, WriteOutcome};

/// Names one connection of one driver; never used again for another, so a stale key is harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey {
    index: u32,
    generation: u32,
}

impl fmt::Display for ConnectionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "connection {}.{}", self.index, self.generation)
    }
}

/// Names one bidirectional stream of one connection; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    connection: ConnectionKey,
    stream: StreamId,
}

impl StreamKey {
    /// The connection that the stream belongs to.
    #[must_use]
    pub fn connection(self) -> ConnectionKey {
        self.connection
    }

    /// The least key of a connection's streams.
    #[must_use]
    pub fn first_of(connection: ConnectionKey) -> Self {
        let stream = StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, 0);
        Self { connection, stream }
    }

    /// A key of no driver, for tests of what only hands keys on.
    #[cfg(test)]
    pub(crate) fn made_up(index: u32) -> Self {
        let stream = StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Bi, index.into());
        Self { connection: ConnectionKey { index, generation: 0 }, stream }
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} stream {}", self.connection, self.stream.index())
    }
}

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LossReason {
    /// The peer's application closed it with this code and text (the text is the peer's: do not trust it).
    ClosedByPeer {
        /// The application's close code.
        code: u64,
        /// The peer's reason phrase, made valid UTF-8.
        reason: String,
    },
    /// [`QuicDriver::close`] or [`QuicDriver::close_all`] was called, or a limit of the driver was passed.
    ClosedHere,
    /// Nothing was heard of the peer for the idle timeout.
    TimedOut,
    /// The peer no longer knows the connection, mostly because it restarted.
    Reset,
    /// The client's certificate is lacking, or not one that this engine takes.
    Distrusted(String),
    /// A breach of the transport's rules by either side, or another failed handshake.
    Protocol(String),
}

impl LossReason {
    /// A short constant name, for a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::ClosedByPeer { .. } => "closed_by_peer",
            Self::ClosedHere => "closed_here",
            Self::TimedOut => "timed_out",
            Self::Reset => "reset",
            Self::Distrusted(_) => "distrusted",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedByPeer { code, reason } => {
                write!(out, "closed by the peer with code {code}: {reason:?}")
            }
            Self::ClosedHere => out.write_str("closed by this engine"),
            Self::TimedOut => out.write_str("nothing was heard of the peer for the idle timeout"),
            Self::Reset => out.write_str("the peer no longer knows the connection"),
            Self::Distrusted(text) => write!(out, "the client's certificate: {text}"),
            Self::Protocol(text) => write!(out, "transport error: {text}"),
        }
    }
}

impl From<ConnectionError> for LossReason {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ClosedByPeer {
                code: close.error_code.into_inner(),
                reason: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::ClosedHere,
            ConnectionError::TransportError(error) if is_about_client(error.code.into()) => {
                Self::Distrusted(error.to_string())
            }
            ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::ConnectionClosed(_)
            | ConnectionError::CidsExhausted => Self::Protocol(error.to_string()),
        }
    }
}

/// The alerts that this side sends about a client's certificate (RFC 8446, section 6.2), as transport errors: bad,
/// unsupported, revoked, expired or unknown, of an unknown authority, badly signed, lacking.
fn is_about_client(code: u64) -> bool {
    matches!(code, 0x12a..=0x12e | 0x130 | 0x133 | 0x174)
}

/// What the driver tells to. All calls come from within [`QuicDriver::turn`], which holds the driver: note what is to
/// be written or closed, and do it after the turn.
pub trait Application {
    /// A handshake was completed. `certificate` is the client's own, verified, where one was asked for.
    fn connection_opened(
        &mut self,
        connection: ConnectionKey,
        peer: SocketAddr,
        certificate: Option<&CertificateDer<'static>>,
    ) {
        let _ = (connection, peer, certificate);
    }

    /// The peer opened a bidirectional stream. Its bytes follow by [`Application::stream_readable`].
    fn stream_opened(&mut self, stream: StreamKey);

    /// Bytes may be there. Read until [`StreamReader::chunk`] gives `None`; to stop earlier is backpressure: the
    /// stream's receive window fills, the peer stops sending, and nothing more is told of the stream until
    /// [`QuicDriver::resume`].
    fn stream_readable(&mut self, stream: StreamKey, reader: &mut StreamReader<'_>);

    /// The peer has finished its half of the stream and every byte of it has been read.
    fn stream_finished(&mut self, stream: StreamKey);

    /// The peer has abandoned its half of the stream; bytes not yet read are lost.
    fn stream_reset(&mut self, stream: StreamKey, code: u64) {
        let _ = code;
        self.stream_finished(stream);
    }

    /// The peer reads no more of what is written to the stream; later writes are ignored.
    fn stream_stopped(&mut self, stream: StreamKey, code: u64) {
        let _ = (stream, code);
    }

    /// A connection that had been opened is gone, with all its streams. Told for [`QuicDriver::close`] too, a turn
    /// later.
    fn connection_lost(&mut self, connection: ConnectionKey, reason: &LossReason);
}

/// What an operator can do when an address cannot be listened on.
pub fn bind_remedy(error: &std::io::Error, flag: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::AddrNotAvailable => {
            format!("name an address of this machine by {flag}, or 0.0.0.0 for all that it has")
        }
        std::io::ErrorKind::PermissionDenied => {
            format!("choose a port from 1024 on by {flag}, or give the engine CAP_NET_BIND_SERVICE")
        }
        _ => format!("choose a free port by {flag}, or port 0 for any"),
    }
}

/// What went wrong while setting up a driver.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The address could not be bound.
    #[error("cannot listen on udp {address}: {source}; {}", bind_remedy(source, "--listen"))]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The socket refused an option that the driver cannot do without.
    #[error("cannot set up the udp socket {address}: {source}")]
    Socket {
        /// The address of the socket.
        address: SocketAddr,
        /// The system's error.
        source: std::io::Error,
    },
    /// The TLS configuration has no cipher suite that QUIC can start with.
    #[error("the TLS configuration lacks TLS13_AES_128_GCM_SHA256, which QUIC needs for its first packets: {0}")]
    Tls(#[from] quinn_proto::crypto::rustls::NoInitialCipherSuite),
    /// A limit is outside of what QUIC can carry.
    #[error("the QUIC limit {name} is {value}, allowed is {allowed}")]
    Limit {
        /// The name of the limit.
        name: &'static str,
        /// Its value.
        value: u64,
        /// What would be allowed.
        allowed: &'static str,
    },
}
