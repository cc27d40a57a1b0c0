//! By which TLS configuration clients are accepted, and what is said of those whose certificate is not.
//!
//! Invariant: another configuration changes nothing for connections that stand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use quinn_proto::ServerConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;

use super::QuicDriver;
use crate::access::Refusals;
use crate::quic::{QuicError, QuicStats};

impl QuicDriver {
    /// Accepts new connections by another TLS configuration; those that stand go on.
    ///
    /// # Errors
    /// [`QuicError::Tls`]: then the one before stays in force.
    pub fn set_tls(&mut self, tls: Arc<rustls::ServerConfig>) -> Result<(), QuicError> {
        // The rest stays, so that an address which was proved before is still taken for proved.
        let mut server = ServerConfig::clone(&self.server);
        server.crypto = Arc::new(QuicServerConfig::try_from(tls)?);
        self.server = Arc::new(server);
        self.endpoint.set_server_config(Some(self.server.clone()));
        Ok(())
    }
}

/// A client was refused in its handshake, for its certificate or the lack of one.
pub(super) fn distrusted(stats: &mut QuicStats, refusals: &mut Refusals, now: Instant, peer: SocketAddr, why: &str) {
    stats.handshakes_distrusted += 1;
    if let Some(unsaid) = refusals.say(now) {
        tracing::warn!(%peer, unsaid, "refused a client in its handshake, for its certificate: {why}");
    }
}
