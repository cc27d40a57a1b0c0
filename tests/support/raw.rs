//! A QUIC connection without manners: for clients that break off, stall or send what they should not.
//!
//! What it is not: the client. Invariant: nothing is sent but what a test writes.

use super::engine::Engine;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;

/// Connects; `receive_window_bytes` is what the engine may send ahead of what is read.
pub(crate) async fn connect(engine: &Engine, receive_window_bytes: u32) -> (Endpoint, Connection) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(engine.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![highwater_proto::ALPN.to_vec()];
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(receive_window_bytes.into())
        .receive_window(receive_window_bytes.into())
        .keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, engine.address().parse().unwrap(), "localhost").unwrap();
    let connection = connecting.await.unwrap();
    (endpoint, connection)
}
