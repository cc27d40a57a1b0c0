//! What the driver answers and counts: plain values, no behaviour.
//!
//! Invariant: counts only grow.

use super::socket::Sent;

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Something was received, sent or told, or is left to do at once: turn again before parking.
    pub worked: bool,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The bytes are on their way, or wait for the peer's window.
    Taken,
    /// The stream is gone, finished or stopped by the peer: the bytes are dropped.
    Closed,
    /// The peer does not read: the connection has been closed as overloaded.
    Overloaded,
}

/// Counts since the driver was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuicStats {
    /// Datagrams received (after GRO was taken apart).
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Failed receive calls; each is tried again in the next turn.
    pub receive_errors: u64,
    /// Transmits given to the kernel, each of one or more datagrams.
    pub transmits_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Transmits that the kernel refused for good; the transport sends their content again.
    pub transmits_dropped: u64,
    /// Times the socket's send buffer was full.
    pub sends_blocked: u64,
    /// Connections whose handshake was completed.
    pub connections_opened: u64,
    /// Connections of these that are gone.
    pub connections_lost: u64,
    /// Handshakes that were begun and not completed: other protocols, distrust of the certificate, silence.
    pub handshakes_failed: u64,
    /// Of these, those whose client showed no certificate, or one that is not taken.
    pub handshakes_distrusted: u64,
    /// Attempts refused because of the connection limit or a shutdown.
    pub connections_refused: u64,
    /// Newcomers asked to prove their address first.
    pub retries_sent: u64,
    /// Connections closed because the peer did not read what was written.
    pub connections_overloaded: u64,
}

impl QuicStats {
    pub(super) fn count_sent(&mut self, sent: Sent, bytes: usize) {
        match sent {
            Sent::Taken => {
                self.transmits_sent += 1;
                self.bytes_sent += bytes as u64;
            }
            Sent::Dropped => self.transmits_dropped += 1,
            Sent::Blocked => self.sends_blocked += 1,
        }
    }
}
