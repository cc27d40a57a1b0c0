//! A QUIC connection without manners: for clients that break off, stall or send what they should not.
//!
//! What it is not: the client. Invariant: nothing is sent but what a test writes.

use super::engine::Engine;
use highwater_proto::{CloseReason, FRAME_HEADER_BYTES, FrameHeader, FrameKind};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use std::time::Duration;

/// Connects; `receive_window_bytes` is what the engine may send ahead of what is read.
pub(crate) async fn connect(engine: &Engine, receive_window_bytes: u32) -> (Endpoint, Connection) {
    let alpn = [highwater_proto::ALPN.to_vec()];
    let (endpoint, connection) = try_connect(engine.address(), engine.ca(), &alpn, receive_window_bytes).await;
    (endpoint, connection.unwrap())
}

/// Tries to connect, by these names of a protocol.
pub(crate) async fn try_connect(
    address: &str,
    ca: &str,
    alpn: &[Vec<u8>],
    receive_window_bytes: u32,
) -> (Endpoint, Result<Connection, ConnectionError>) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = alpn.to_vec();
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(receive_window_bytes.into())
        .receive_window(receive_window_bytes.into())
        .keep_alive_interval(Some(Duration::from_secs(1)));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, address.parse().unwrap(), "localhost").unwrap();
    let connection = connecting.await;
    (endpoint, connection)
}

/// A connection with one stream on it.
pub(crate) struct Line {
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

/// Why the engine closed a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) reason: CloseReason,
    pub(crate) text: String,
}

impl Line {
    /// A line to the engine's first core.
    pub(crate) async fn open(engine: &Engine) -> Self {
        Self::open_at(engine, 0).await
    }

    /// A line to the engine's core of this number.
    pub(crate) async fn open_at(engine: &Engine, core: usize) -> Self {
        let address = engine.ready["listen"][core].as_str().unwrap();
        let alpn = [highwater_proto::ALPN.to_vec()];
        let (_endpoint, connection) = try_connect(address, engine.ca(), &alpn, 1 << 20).await;
        let connection = connection.unwrap();
        let (send, receive) = connection.open_bi().await.unwrap();
        Self { _endpoint, connection, send, receive }
    }

    /// Sends bytes as they are.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.unwrap();
    }

    /// Sends bytes and reads the frame that answers them.
    pub(crate) async fn ask(&mut self, bytes: &[u8]) -> (FrameKind, Vec<u8>) {
        self.send(bytes).await;
        self.frame().await
    }

    /// Reads one frame.
    pub(crate) async fn frame(&mut self) -> (FrameKind, Vec<u8>) {
        read_frame(&mut self.receive).await
    }

    /// Waits for the engine to close the connection.
    pub(crate) async fn closed(&self) -> Closed {
        match self.connection.closed().await {
            ConnectionError::ApplicationClosed(close) => Closed {
                reason: CloseReason::from_code(close.error_code.into_inner()).unwrap(),
                text: String::from_utf8(close.reason.to_vec()).unwrap(),
            },
            other => panic!("not closed for a reason, but by {other}"),
        }
    }
}

/// Reads one frame.
pub(crate) async fn read_frame(receive: &mut RecvStream) -> (FrameKind, Vec<u8>) {
    let mut header = [0; FRAME_HEADER_BYTES];
    receive.read_exact(&mut header).await.unwrap();
    let header = FrameHeader::decode(&header).unwrap();
    let mut payload = vec![0; header.payload_bytes as usize];
    receive.read_exact(&mut payload).await.unwrap();
    (header.kind, payload)
}
