//! A QUIC connection without manners, and where it goes.

use anyhow::{Context, Result};
use highwater_loadgen::process::engine::Engine;
use highwater_proto::{FrameHeader, FrameKind, Hello, HelloMode, PROTOCOL_VERSION, ProducerId};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, TransportConfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whom an attack is made on.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) quic: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) ca: String,
    pub(crate) folder: std::path::PathBuf,
}

impl Target {
    pub(crate) fn of(engine: &Engine) -> Result<Self> {
        let quic = engine.client()?.engine.parse().context("the engine's address")?;
        let http = engine.http()?.parse().context("the engine's HTTP address")?;
        Ok(Self { quic, http, ca: engine.ca()?.to_owned(), folder: engine.folder().to_owned() })
    }

    /// TLS that trusts the engine.
    pub(crate) fn crypto(&self) -> Result<QuicClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).context("the engine's authority")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![highwater_proto::ALPN.to_vec()];
        Ok(QuicClientConfig::try_from(tls)?)
    }

    /// A client's configuration; `receive_window_bytes` is what the engine may send ahead of what is read.
    pub(crate) fn config(&self, receive_window_bytes: u32) -> Result<ClientConfig> {
        let mut transport = TransportConfig::default();
        transport
            .stream_receive_window(receive_window_bytes.into())
            .receive_window(receive_window_bytes.into())
            .keep_alive_interval(Some(Duration::from_secs(5)));
        let mut config = ClientConfig::new(Arc::new(self.crypto()?));
        config.transport_config(Arc::new(transport));
        Ok(config)
    }

    pub(crate) async fn connect(&self, endpoint: &Endpoint, config: &ClientConfig) -> Result<Connection> {
        Ok(endpoint.connect_with(config.clone(), self.quic, "localhost")?.await?)
    }
}

/// A socket for many connections.
pub(crate) fn endpoint() -> Result<Endpoint> {
    Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).context("no UDP socket")
}

/// Says hello as a new producer, and hears the welcome.
pub(crate) async fn greet(connection: &Connection, id: u128) -> Result<(SendStream, RecvStream)> {
    let (mut send, mut receive) = connection.open_bi().await?;
    let hello = Hello { version: PROTOCOL_VERSION, mode: HelloMode::New, producer: ProducerId(id), token: Vec::new() };
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    send.write_all(&frame).await?;
    let mut header = [0; highwater_proto::FRAME_HEADER_BYTES];
    receive.read_exact(&mut header).await?;
    let header = FrameHeader::decode(&header)?;
    anyhow::ensure!(header.kind == FrameKind::Welcome, "the hello was answered by {}", header.kind);
    let mut welcome = vec![0; header.payload_bytes as usize];
    receive.read_exact(&mut welcome).await?;
    Ok((send, receive))
}
