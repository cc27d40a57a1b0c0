//! Everything that ends a client's work, with what to do about it.
//!
//! Not lost connections: those are repaired silently until the time limit runs out. Invariant: an error is final; the
//! producer or subscriber that returned it does nothing more.

use std::time::Duration;

use highwater_proto::{CloseReason, DecodeError, InstanceId, InvalidView};
use thiserror::Error;

/// Why a client gave up.
#[derive(Debug, Clone, Error)]
pub enum ClientError {
    /// The configuration cannot be used.
    #[error("{what} {value:?} cannot be used: {reason}")]
    Config {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
        /// Why not, and what is allowed.
        reason: String,
    },
    /// No connection within the time allowed.
    #[error(
        "no connection to {engine} within {waited:.1?}: {last}; check that the engine runs, that the address is right and that \
         UDP passes, or raise the limit"
    )]
    Unreachable {
        /// The address dialled.
        engine: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt said.
        last: String,
    },
    /// The connection stands, but nothing that was sent is answered.
    #[error(
        "the engine has answered nothing for {waited:.1?} although batches are in flight; look at its log and its disk, or raise the \
         limit"
    )]
    Unanswered {
        /// How long.
        waited: Duration,
    },
    /// A look-up had no answer in time.
    #[error("no answer to a look-up from {engine} within {waited:.1?}: {last}; ask again")]
    NoAnswer {
        /// The engine's address.
        engine: String,
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt said.
        last: String,
    },
    /// Another engine stands where the one was that is followed: its epochs and counts mean something else.
    #[error(
        "the engine has another data directory now: it is instance {:032x}, what was read so far is of {:032x}; start anew to \
         follow the new one, or bring the old one back",
        found.0, expected.0
    )]
    OtherInstance {
        /// The instance read so far.
        expected: InstanceId,
        /// The one that is there now.
        found: InstanceId,
    },
    /// TLS failed: the engine's certificate and the given authority do not fit, or the name differs.
    #[error(
        "the TLS handshake with {engine} failed: {reason}; check that the CA file is the engine's (DIR/tls/ca.pem) and that the \
         certificate names this host (--tls-name at the engine)"
    )]
    Handshake {
        /// The address dialled.
        engine: String,
        /// What TLS said.
        reason: String,
    },
    /// The engine asks its clients for a certificate and does not take this one's, or was shown none.
    #[error(
        "the engine does not take this client's certificate, or was shown none: {reason}; give a certificate of an authority that \
         the engine trusts (--client-ca there), with its key"
    )]
    ClientCertificate {
        /// What TLS said.
        reason: String,
    },
    /// The engine closed the connection for a reason that a retry does not mend.
    #[error("the engine closed the connection: {}: {text}; {}", reason.as_str(), reason.remedy())]
    Closed {
        /// The protocol's reason.
        reason: CloseReason,
        /// The engine's own words.
        text: String,
    },
    /// The engine reports a last sequence below what it has acknowledged: acknowledged views are missing there.
    #[error(
        "the engine reports sequence {last} as its last although it had acknowledged {acked}: acknowledged views were lost; it may \
         run on an older copy of its data directory, so stop and look"
    )]
    AcknowledgedLost {
        /// What the engine reported.
        last: u64,
        /// The highest sequence acknowledged before.
        acked: u64,
    },
    /// The engine reports sequences that this producer never sent.
    #[error(
        "the engine reports sequence {last} although this producer sent only {sent}: another process uses the same producer id"
    )]
    ProducerShared {
        /// What the engine reported.
        last: u64,
        /// The highest sequence sent here.
        sent: u64,
    },
    /// The engine sent bytes that are not the protocol.
    #[error("the engine sent what the protocol does not allow: {0}; use a client and an engine of one version")]
    Decode(#[from] DecodeError),
    /// The engine sent a frame that does not fit the state of the session.
    #[error("the engine broke the protocol: {0}; this is a bug, please report it with the engine's version")]
    Protocol(String),
    /// A view or id that the wire cannot carry.
    #[error(transparent)]
    InvalidView(#[from] InvalidView),
    /// An empty batch was given.
    #[error("an empty batch cannot be sent: it must hold at least one view")]
    EmptyBatch,
    /// The operating system refused a socket or the runtime ended a task.
    #[error("the system refused: {0}")]
    System(String),
}
