//! How to reach an engine and how patiently.
//!
//! It opens nothing. Invariant: a configuration that [`ClientConfig::quinn`] accepts names a host, a port and at least
//! one certificate authority.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{ALPN, ENCODINGS, IN_FLIGHT_BATCHES_MAX, TOKEN_BYTES_MAX, Token};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{IdleTimeout, TransportConfig};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::credentials::ClientCertificate;
use crate::error::ClientError;

const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// First guess of the round trip: a lost first packet is repeated after three times this.
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(100);

/// Address, trust and limits of a client. Its debug text leaves the token out.
#[derive(Clone)]
pub struct ClientConfig {
    /// `HOST:PORT` of any core of the engine.
    pub engine: String,
    /// PEM certificates of the authorities trusted for the engine; no others are.
    pub ca_pem: Vec<u8>,
    /// The name the engine's certificate must bear; by default the host of `engine`.
    pub server_name: Option<String>,
    /// Token sent in a hello and before each question, at most 1024 bytes; empty for an engine that asks for none.
    pub token: Vec<u8>,
    /// Certificate for an engine that asks its clients for one.
    pub client_certificate: Option<ClientCertificate>,
    /// How long the first connection may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long a lost connection is repaired without any progress before giving up. Default 60 s.
    pub reconnect_timeout: Duration,
    /// How long a look-up may take, with all its attempts. Default 2 s.
    pub lookup_timeout: Duration,
    /// How long a silent connection is believed in. Default 10 s.
    pub idle_timeout: Duration,
    /// Most batches sent and not yet answered; the engine's own limit holds if lower. Default and maximum 64.
    pub in_flight_max: u16,
    /// Encodings that columns of batches may have, by their bits in a welcome; those that the engine takes as well are
    /// used. Default [`ENCODINGS`]; plain is always among them.
    pub encodings: u32,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("engine", &self.engine)
            .field("ca_pem_bytes", &self.ca_pem.len())
            .field("server_name", &self.server_name)
            .field("token_bytes", &self.token.len())
            .field("client_certificate", &self.client_certificate)
            .field("connect_timeout", &self.connect_timeout)
            .field("reconnect_timeout", &self.reconnect_timeout)
            .field("lookup_timeout", &self.lookup_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("in_flight_max", &self.in_flight_max)
            .field("encodings", &self.encodings)
            .finish()
    }
}

impl ClientConfig {
    /// Defaults for an engine and its certificate authority in PEM.
    pub fn new(engine: impl Into<String>, ca_pem: impl Into<Vec<u8>>) -> Self {
        Self {
            engine: engine.into(),
            ca_pem: ca_pem.into(),
            server_name: None,
            token: Vec::new(),
            client_certificate: None,
            connect_timeout: Duration::from_secs(5),
            reconnect_timeout: Duration::from_secs(60),
            lookup_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(10),
            in_flight_max: IN_FLIGHT_BATCHES_MAX,
            encodings: ENCODINGS,
        }
    }

    /// As [`ClientConfig::new`], reading the authority from a file such as `DIR/tls/ca.pem`.
    ///
    /// # Errors
    /// [`ClientError::Config`] if the file cannot be read.
    pub fn with_ca_file(engine: impl Into<String>, path: impl AsRef<Path>) -> Result<Self, ClientError> {
        let path = path.as_ref();
        let ca_pem = std::fs::read(path).map_err(|error| ClientError::Config {
            what: "CA file",
            value: path.display().to_string(),
            reason: format!("{error}; the engine writes it to DIR/tls/ca.pem at its first start"),
        })?;
        Ok(Self::new(engine, ca_pem))
    }

    /// The host part of `engine`, without the brackets of an IPv6 address.
    pub(crate) fn host(&self) -> Result<&str, ClientError> {
        let host = self.engine.rsplit_once(':').and_then(|(host, port)| {
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then_some(host)
        });
        host.ok_or_else(|| ClientError::Config {
            what: "engine address",
            value: self.engine.clone(),
            reason: "HOST:PORT is needed, such as 127.0.0.1:4433 or [::1]:4433".into(),
        })
    }

    /// What stands before the first frame of a stream for questions or snapshots.
    pub(crate) fn token_frame(&self) -> Vec<u8> {
        let mut frame = Vec::new();
        if !self.token.is_empty() {
            Token { token: self.token.clone() }.encode(&mut frame);
        }
        frame
    }

    /// Checks everything and builds what quinn needs.
    pub(crate) fn quinn(&self) -> Result<quinn::ClientConfig, ClientError> {
        self.host()?;
        if self.token.len() > TOKEN_BYTES_MAX {
            return Err(invalid(
                "token",
                format!("{} bytes", self.token.len()),
                &format!("at most {TOKEN_BYTES_MAX} bytes"),
            ));
        }
        if self.in_flight_max == 0 || self.in_flight_max > IN_FLIGHT_BATCHES_MAX {
            let allowed = format!("1 to {IN_FLIGHT_BATCHES_MAX} batches");
            return Err(invalid("in-flight limit", self.in_flight_max.to_string(), &allowed));
        }
        let tls = QuicClientConfig::try_from(self.tls()?)
            .map_err(|error| invalid("TLS configuration", error.to_string(), "TLS 1.3 with AES-128-GCM is needed"))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(self.transport()?));
        Ok(config)
    }

    fn tls(&self) -> Result<rustls::ClientConfig, ClientError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca_pem) {
            let added = certificate
                .map_err(|error| error.to_string())
                .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()));
            added.map_err(|reason| invalid("CA certificate", reason, "PEM with CERTIFICATE blocks"))?;
        }
        if roots.is_empty() {
            return Err(invalid(
                "CA certificate",
                String::new(),
                "it holds no CERTIFICATE block; give the engine's DIR/tls/ca.pem",
            ));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| invalid("TLS configuration", error.to_string(), "TLS 1.3 is needed"))?
            .with_root_certificates(roots);
        let mut tls = match &self.client_certificate {
            None => tls.with_no_client_auth(),
            Some(certificate) => {
                let (chain, key) = certificate.parse()?;
                tls.with_client_auth_cert(chain, key).map_err(|error| {
                    invalid("client certificate", error.to_string(), "its own private key is needed")
                })?
            }
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(tls)
    }

    fn transport(&self) -> Result<TransportConfig, ClientError> {
        let idle = IdleTimeout::try_from(self.idle_timeout)
            .map_err(|error| invalid("idle timeout", format!("{:?}", self.idle_timeout), &error.to_string()))?;
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(KEEP_ALIVE.min(self.idle_timeout / 3)))
            .initial_rtt(ROUND_TRIP_FIRST)
            .max_concurrent_uni_streams(0_u8.into())
            .max_concurrent_bidi_streams(0_u8.into())
            .datagram_receive_buffer_size(None);
        Ok(transport)
    }
}

fn invalid(what: &'static str, value: String, reason: &str) -> ClientError {
    ClientError::Config { what, value, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_host_and_port() {
        let host = |engine: &str| ClientConfig::new(engine, "").host().map(str::to_owned);
        assert_eq!(host("localhost:4433").unwrap(), "localhost");
        assert_eq!(host("[::1]:4433").unwrap(), "::1");
        for bad in ["localhost", ":4433", "localhost:", "localhost:0", "localhost:70000", ""] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_debug_text_shows_no_token() {
        let config = ClientConfig { token: b"s3cret".to_vec(), ..ClientConfig::new("localhost:4433", "pem") };
        let text = format!("{config:?}");
        assert!(text.contains("token_bytes: 6") && !text.contains("s3") && !text.contains("115"), "{text}");
    }

    #[test]
    fn limits_and_authority_are_checked_before_dialling() {
        let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let good = ClientConfig::new("localhost:4433", certificate.cert.pem());
        assert!(good.quinn().is_ok());
        let text = |config: ClientConfig| config.quinn().unwrap_err().to_string();
        assert!(text(ClientConfig { ca_pem: b"nothing".to_vec(), ..good.clone() }).contains("CERTIFICATE"));
        assert!(text(ClientConfig { in_flight_max: 0, ..good.clone() }).contains("1 to 64"));
        assert!(text(ClientConfig { token: vec![0; 1025], ..good.clone() }).contains("1024"));
        assert!(ClientConfig::with_ca_file("localhost:1", "/nowhere.pem").is_err());
    }
}
