//! The limits of a driver, and the `quinn_proto` configuration that follows from them.
//!
//! Not a place for addresses or keys. Invariant: what all connections can make the engine hold is bounded by
//! `connections_max` times [`QuicLimits::CONNECTION_BYTES_MIN`], and what is shared among them: larger windows, bytes
//! that wait for a peer's window, batches that are not whole.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, InvalidCid, ServerConfig, TransportConfig, VarInt,
};
use rand::Rng;

use super::QuicError;

/// Length of the connection ids that this engine gives out.
const CONNECTION_ID_BYTES: usize = 8;
/// Where the core's number stands in a connection id, so that a steering program can find it there.
const CONNECTION_ID_CORE_INDEX: usize = 1;
/// Largest datagram that is accepted: jumbo frames. The receive buffers would hold any, but bytes that are kept keep
/// the memory of their datagram.
const UDP_PAYLOAD_BYTES_MAX: u16 = 9000;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a driver holds and does at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuicLimits {
    /// Connections at a time; more are refused (`CONNECTION_REFUSED`).
    pub connections_max: usize,
    /// Bidirectional streams at a time on one connection; the peer waits for room.
    pub streams_per_connection_max: u32,
    /// Bytes of one stream that the peer may send ahead of what was read.
    pub stream_receive_window_bytes: u64,
    /// The same for all streams of a connection when it begins; doubled as it is used up, while there is room.
    pub receive_window_bytes_min: u64,
    /// Up to this; larger than one stream's, so that one paused stream then stops no other.
    pub receive_window_bytes_max: u64,
    /// Bytes written but not yet acknowledged by the peer, per connection, when it begins.
    pub send_window_bytes_min: u64,
    /// The same once more was written than fits, while there is room.
    pub send_window_bytes_max: u64,
    /// What all windows together may have beyond the least.
    pub windows_bytes: u64,
    /// Bytes written to one stream that do not fit the send window yet; beyond it the connection is closed as
    /// overloaded.
    pub unsent_bytes_max: usize,
    /// The same of all streams together; beyond it the connection is closed that has not read for the longest.
    pub unsent_bytes_total_max: usize,
    /// Bytes of frames that are not whole, or wait for the pipeline, of all streams together; beyond it streams are not
    /// read on, but for the one that began its frame first.
    pub held_bytes_max: usize,
    /// Bytes handed to the application in one turn, so that no turn is long and no stream holds up the others.
    pub read_bytes_per_turn: usize,
    /// A connection is lost when nothing was heard of the peer for so long.
    pub idle_timeout: Duration,
    /// What is asked of the kernel for each of the socket's two buffers; it may give less.
    pub socket_buffer_bytes: usize,
}

impl Default for QuicLimits {
    fn default() -> Self {
        Self {
            connections_max: 256,
            streams_per_connection_max: 4,
            stream_receive_window_bytes: MIB,
            receive_window_bytes_min: 16 * KIB,
            receive_window_bytes_max: MIB + 512 * KIB,
            send_window_bytes_min: 16 * KIB,
            send_window_bytes_max: 256 * KIB,
            windows_bytes: 64 * MIB,
            unsent_bytes_max: 2 * MIB as usize,
            unsent_bytes_total_max: 64 * MIB as usize,
            held_bytes_max: 128 * MIB as usize,
            read_bytes_per_turn: 256 * KIB as usize,
            idle_timeout: Duration::from_secs(30),
            socket_buffer_bytes: 8 * MIB as usize,
        }
    }
}

impl QuicLimits {
    /// What a connection takes at least: its transport's own state, its windows, and a little that is unsent.
    pub const CONNECTION_BYTES_MIN: u64 = 48 * KIB;

    /// The default limits with what `memory_bytes` carry in the worst case: half of it goes to the least of as many
    /// connections as fit (4 to 65536), a quarter to frames that are not whole, an eighth each to larger windows and to
    /// bytes that are unsent.
    #[must_use]
    pub fn within(memory_bytes: u64) -> Self {
        let connections = memory_bytes / 2 / Self::CONNECTION_BYTES_MIN;
        Self {
            connections_max: connections.clamp(4, 1 << 16) as usize,
            windows_bytes: memory_bytes / 8,
            unsent_bytes_total_max: (memory_bytes / 8) as usize,
            held_bytes_max: (memory_bytes / 4) as usize,
            ..Self::default()
        }
    }

    fn check(&self) -> Result<(), QuicError> {
        let refuse = |name, value, allowed| Err(QuicError::Limit { name, value, allowed });
        if self.connections_max == 0 || self.connections_max > 1 << 20 {
            return refuse("connections_max", self.connections_max as u64, "1 to 1048576");
        }
        if !(1..=1024).contains(&self.streams_per_connection_max) {
            return refuse("streams_per_connection_max", self.streams_per_connection_max.into(), "1 to 1024");
        }
        if !(16 * KIB..=1 << 32).contains(&self.stream_receive_window_bytes) {
            return refuse("stream_receive_window_bytes", self.stream_receive_window_bytes, "16 KiB to 4 GiB");
        }
        if !(self.stream_receive_window_bytes..=1 << 32).contains(&self.receive_window_bytes_max) {
            return refuse("receive_window_bytes_max", self.receive_window_bytes_max, "one stream's window to 4 GiB");
        }
        if !(16 * KIB..=self.receive_window_bytes_max).contains(&self.receive_window_bytes_min) {
            return refuse("receive_window_bytes_min", self.receive_window_bytes_min, "16 KiB to the most");
        }
        if !(16 * KIB..=self.send_window_bytes_max).contains(&self.send_window_bytes_min) {
            return refuse("send_window_bytes_min", self.send_window_bytes_min, "16 KiB to the most");
        }
        if self.read_bytes_per_turn < 4 * KIB as usize {
            return refuse("read_bytes_per_turn", self.read_bytes_per_turn as u64, "at least 4 KiB");
        }
        Ok(())
    }
}

/// Connection ids of `CONNECTION_ID_BYTES` random bytes but for the core's number at `CONNECTION_ID_CORE_INDEX`.
struct CoreConnectionIds {
    core: u8,
}

impl ConnectionIdGenerator for CoreConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        bytes[CONNECTION_ID_CORE_INDEX] = self.core;
        ConnectionId::new(&bytes)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if id.len() == CONNECTION_ID_BYTES && id[CONNECTION_ID_CORE_INDEX] == self.core {
            Ok(())
        } else {
            Err(InvalidCid)
        }
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The endpoint's configuration. The same `reset_key` over restarts lets a new process tell the old one's peers at once
/// that their connections are gone, instead of leaving them to their idle timeout.
pub(super) fn endpoint_config(core: u8, reset_key: &[u8; 32]) -> Result<EndpointConfig, QuicError> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.cid_generator(move || Box::new(CoreConnectionIds { core }));
    config.max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX).map_err(|_| QuicError::Limit {
        name: "udp_payload_bytes_max",
        value: UDP_PAYLOAD_BYTES_MAX.into(),
        allowed: "1200 to 65527",
    })?;
    Ok(config)
}

/// The configuration of each accepted connection: bidirectional streams only, no datagrams, no early data.
pub(super) fn server_config(
    tls: Arc<rustls::ServerConfig>,
    limits: &QuicLimits,
) -> Result<Arc<ServerConfig>, QuicError> {
    limits.check()?;
    let window = |name, value: u64| {
        VarInt::from_u64(value).map_err(|_| QuicError::Limit { name, value, allowed: "less than 2^62" })
    };
    let idle_timeout = IdleTimeout::try_from(limits.idle_timeout).map_err(|_| QuicError::Limit {
        name: "idle_timeout",
        value: limits.idle_timeout.as_secs(),
        allowed: "less than 2^62 ms",
    })?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_per_connection_max))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window("stream_receive_window_bytes", limits.stream_receive_window_bytes)?)
        .receive_window(window("receive_window_bytes_min", limits.receive_window_bytes_min)?)
        .send_window(limits.send_window_bytes_min)
        .max_idle_timeout(Some(idle_timeout));
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport));
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_carry_the_core_and_differ() {
        let mut ids = CoreConnectionIds { core: 5 };
        let (first, second) = (ids.generate_cid(), ids.generate_cid());
        assert_ne!(first, second);
        assert_eq!(first[CONNECTION_ID_CORE_INDEX], 5);
        assert!(ids.validate(&first).is_ok());
        assert!(CoreConnectionIds { core: 6 }.validate(&first).is_err());
    }
}
