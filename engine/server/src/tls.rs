//! The engine's TLS identity: its own certificate authority and certificate, or the operator's.
//!
//! Not a policy about clients: which of their certificates are asked for, and what their tokens are good for, is for
//! [`access`](crate::access) to say.
//! Invariants: private keys are readable by the owner only; a file is either whole or absent, because each is written
//! aside, synced and renamed; the authority, once made, stays, so that clients that trust it go on doing so over
//! restarts and reissues.
//!
//! Files in the directory: `ca.pem` (give it to clients), `ca-key.pem`, `cert.pem`, `key.pem`, `reset.key`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A certificate is valid from a day ago, for clients whose clock is behind.
const BACKDATED: Duration = DAY;
/// How long an own certificate is valid.
const VALID_FOR: Duration = Duration::from_secs(2 * 366 * 24 * 60 * 60);
/// One that has less than this left at a start is made anew.
const RENEWED_BEFORE: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The authority is valid to the end of this year.
const AUTHORITY_YEAR_LAST: i32 = 2100;
/// The names that every own certificate bears.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const _: () = assert!(RENEWED_BEFORE.as_secs() < VALID_FOR.as_secs());

/// A certificate that the operator brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// PEM file with the chain, the engine's certificate first.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// What a QUIC endpoint needs to prove who it is.
#[derive(Debug, Clone)]
pub struct ServerTls {
    /// TLS 1.3 only, ALPN of the Highwater protocol, no early data, no tickets.
    pub config: Arc<rustls::ServerConfig>,
    /// The authority to give to clients; `None` with an operator's certificate.
    pub ca_path: Option<PathBuf>,
    /// Key of the stateless resets; the same over restarts, so that peers of a killed engine learn of it at once.
    pub reset_key: [u8; 32],
}

/// Why there is no TLS identity.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file or directory could not be read or written.
    #[error("cannot {act} {}: {source}", path.display())]
    File {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is there but not what it should be.
    #[error("{} is not usable: {cause}; {remedy}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate; give --tls-name a host name or an IP address")]
    Name {
        /// The name.
        name: String,
    },
    /// A certificate or key could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Configuration(#[from] rustls::Error),
}

const REMAKE_REMEDY: &str =
    "restore it from a backup, or remove the whole tls directory and give clients the new ca.pem";
const OWN_REMEDY: &str = "check the files given by --tls-cert and --tls-key";

/// Prepares the identity in `directory` (made if need be), for `names` besides the loopback ones; with `own`, that
/// certificate is used and none is made. With `clients`, only clients that it accepts are let in. `now` decides about
/// expiry.
///
/// # Errors
/// [`TlsError`], which says what to do.
pub fn prepare(
    directory: &Path,
    names: &[String],
    own: Option<&OwnCertificate>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    now: SystemTime,
) -> Result<ServerTls, TlsError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| file_error("create", directory, source))?;
    let reset_key = reset_key(directory)?;
    let (certificate_path, key_path, ca_path) = match own {
        Some(own) => (own.certificate.clone(), own.key.clone(), None),
        None => {
            let identity = Identity::new(directory, names)?;
            identity.ensure(now)?;
            (identity.certificate, identity.key, Some(identity.authority))
        }
    };
    let remedy = if own.is_some() { OWN_REMEDY } else { REMAKE_REMEDY };
    let config = read_identity(&certificate_path, &key_path, clients, remedy).map_err(|error| match error {
        // What the engine makes itself was there a moment ago; what it was given may never have been.
        TlsError::File { path, source, .. } if own.is_some() => unusable(&path, &source, remedy),
        other => other,
    })?;
    Ok(ServerTls { config: Arc::new(config), ca_path, reset_key })
}

/// TLS by an operator's certificate, for clients that show none.
///
/// # Errors
/// [`TlsError`], which says what to do.
pub fn operators(own: &OwnCertificate) -> Result<rustls::ServerConfig, TlsError> {
    read_identity(&own.certificate, &own.key, None, OWN_REMEDY).map_err(|error| match error {
        TlsError::File { path, source, .. } => unusable(&path, &source, OWN_REMEDY),
        other => other,
    })
}

fn read_identity(
    certificate: &Path,
    key: &Path,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    remedy: &'static str,
) -> Result<rustls::ServerConfig, TlsError> {
    let (chain, key) = (read_chain(certificate, remedy)?, read_private_key(key, remedy)?);
    server_config(chain, key, clients).map_err(|error| unusable(certificate, &error, remedy))
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&rustls::version::TLS13])?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![highwater_proto::ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The one crypto provider of the engine.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The engine's own authority and certificate: where their files are, and which names the certificate must bear.
struct Identity<'a> {
    directory: &'a Path,
    authority: PathBuf,
    authority_key: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    names: Vec<String>,
}

impl<'a> Identity<'a> {
    fn new(directory: &'a Path, names: &[String]) -> Result<Self, TlsError> {
        let mut all: Vec<String> = LOCAL_NAMES.iter().map(|&name| name.to_owned()).collect();
        for name in names {
            if ServerName::try_from(name.as_str()).is_err() {
                return Err(TlsError::Name { name: name.clone() });
            }
            if !all.contains(name) {
                all.push(name.clone());
            }
        }
        Ok(Self {
            directory,
            authority: directory.join("ca.pem"),
            authority_key: directory.join("ca-key.pem"),
            certificate: directory.join("cert.pem"),
            key: directory.join("key.pem"),
            names: all,
        })
    }

    /// Makes what is missing, no longer fits the names, or expires within [`RENEWED_BEFORE`].
    fn ensure(&self, now: SystemTime) -> Result<(), TlsError> {
        // Without its key and without a certificate that it signed, an authority is only the rest of a first start cut
        // short.
        if !self.authority_key.exists() && !self.certificate.exists() {
            self.make_authority(now)?;
        }
        if self.serves(now + RENEWED_BEFORE) {
            return Ok(());
        }
        if !self.authority_key.exists() {
            return Err(TlsError::Unusable {
                path: self.authority_key.clone(),
                cause: "it is missing, and the certificate must be made anew (a name is missing, or it expires)".into(),
                remedy: REMAKE_REMEDY,
            });
        }
        self.make_certificate(now)
    }

    fn make_authority(&self, now: SystemTime) -> Result<(), TlsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Highwater engine authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATED);
        params.not_after = date_time_ymd(AUTHORITY_YEAR_LAST, 12, 31);
        let certificate = params.self_signed(&key)?;
        // The key is written last: with it there, the authority is whole.
        self.write("ca.pem", certificate.pem().as_bytes(), 0o644)?;
        self.write("ca-key.pem", key.serialize_pem().as_bytes(), 0o600)?;
        tracing::info!(path = %self.authority.display(), "made a certificate authority; give this file to clients");
        Ok(())
    }

    fn make_certificate(&self, now: SystemTime) -> Result<(), TlsError> {
        let authority_pem = read_text(&self.authority)?;
        let authority_key = KeyPair::from_pem(&read_text(&self.authority_key)?)
            .map_err(|error| unusable(&self.authority_key, &error, REMAKE_REMEDY))?;
        let issuer = Issuer::from_ca_cert_pem(&authority_pem, authority_key)
            .map_err(|error| unusable(&self.authority, &error, REMAKE_REMEDY))?;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name.push(DnType::CommonName, "Highwater engine");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(now - BACKDATED);
        params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(now + VALID_FOR);
        let certificate = params.signed_by(&key, &issuer)?;
        self.write("key.pem", key.serialize_pem().as_bytes(), 0o600)?;
        self.write("cert.pem", certificate.pem().as_bytes(), 0o644)?;
        tracing::info!(names = ?self.names, "made the engine's certificate");
        Ok(())
    }

    /// Whether a client that trusts the authority would accept the certificate under every name at `time`, and the key
    /// belongs to it.
    fn serves(&self, time: SystemTime) -> bool {
        let accepted = || -> Option<bool> {
            let authority = CertificateDer::from_pem_file(&self.authority).ok()?;
            let chain = read_chain(&self.certificate, REMAKE_REMEDY).ok()?;
            let key = read_private_key(&self.key, REMAKE_REMEDY).ok()?;
            server_config(chain.clone(), key, None).ok()?;
            let mut roots = RootCertStore::empty();
            roots.add(authority).ok()?;
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()?;
            let (leaf, intermediates) = chain.split_first()?;
            let time = UnixTime::since_unix_epoch(since_epoch(time));
            Some(self.names.iter().all(|name| {
                ServerName::try_from(name.as_str())
                    .is_ok_and(|name| verifier.verify_server_cert(leaf, intermediates, &name, &[], time).is_ok())
            }))
        };
        accepted().unwrap_or(false)
    }

    fn write(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
        write_whole(self.directory, name, bytes, mode)
    }
}

/// Whether a file of the directory is what its name says; nothing is made.
///
/// # Errors
/// When it cannot be read, or is not.
pub fn check_file(path: &Path) -> Result<(), TlsError> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("ca.pem" | "cert.pem") => read_chain(path, REMAKE_REMEDY).map(drop),
        Some("ca-key.pem" | "key.pem") => read_private_key(path, REMAKE_REMEDY).map(drop),
        _ => {
            let bytes = fs::read(path).map_err(|source| file_error("read", path, source))?;
            parse_reset_key(path, &bytes).map(drop)
        }
    }
}

fn parse_reset_key(path: &Path, bytes: &[u8]) -> Result<[u8; 32], TlsError> {
    bytes.try_into().map_err(|_| TlsError::Unusable {
        cause: format!("it has {} bytes, not 32", bytes.len()),
        path: path.to_owned(),
        remedy: "remove it; a new one is made",
    })
}

/// Reads the key of the stateless resets, or makes it.
fn reset_key(directory: &Path) -> Result<[u8; 32], TlsError> {
    let path = directory.join("reset.key");
    match fs::read(&path) {
        Ok(bytes) => parse_reset_key(&path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut key = [0; 32];
            rand::rng().fill_bytes(&mut key);
            write_whole(directory, "reset.key", &key, 0o600)?;
            Ok(key)
        }
        Err(source) => Err(file_error("read", &path, source)),
    }
}

/// Writes a file so that it is there whole or not at all, also after a power cut.
fn write_whole(directory: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let path = directory.join(name);
    let aside = directory.join(format!("{name}.tmp"));
    let write = || -> io::Result<()> {
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| file_error("write", &path, source))
}

fn read_text(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| file_error("read", path, source))
}

pub(crate) fn read_chain(path: &Path, remedy: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| file_error("read", path, source))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| unusable(path, &error, remedy))?;
    if chain.is_empty() {
        return Err(unusable(path, &"it holds no certificate in PEM", remedy));
    }
    Ok(chain)
}

fn read_private_key(path: &Path, remedy: &'static str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = fs::read(path).map_err(|source| file_error("read", path, source))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| unusable(path, &error, remedy))
}

pub(crate) fn unusable(path: &Path, cause: &dyn std::fmt::Display, remedy: &'static str) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), cause: cause.to_string(), remedy }
}

fn file_error(act: &'static str, path: &Path, source: io::Error) -> TlsError {
    TlsError::File { act, path: path.to_owned(), source }
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_everything_and_the_next_keeps_it() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("tls");
        let now = SystemTime::now();
        let first = prepare(&directory, &["engine.example".into(), "10.1.2.3".into()], None, None, now).unwrap();
        assert_eq!(first.ca_path, Some(directory.join("ca.pem")));
        assert_eq!(first.config.alpn_protocols, vec![highwater_proto::ALPN.to_vec()]);
        for private in ["ca-key.pem", "key.pem", "reset.key"] {
            assert_eq!(mode(&directory.join(private)), 0o600, "{private}");
        }
        let certificate = fs::read(directory.join("cert.pem")).unwrap();
        let second = prepare(&directory, &["engine.example".into()], None, None, now).unwrap();
        assert_eq!(fs::read(directory.join("cert.pem")).unwrap(), certificate);
        assert_eq!(first.reset_key, second.reset_key);
    }

    #[test]
    fn a_new_name_or_age_or_a_lost_key_makes_a_new_certificate_of_the_same_authority() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path();
        let now = SystemTime::now();
        prepare(directory, &[], None, None, now).unwrap();
        let authority = fs::read(directory.join("ca.pem")).unwrap();
        let mut last = fs::read(directory.join("cert.pem")).unwrap();
        let mut changed = |what: &str, names: &[String], now: SystemTime| {
            prepare(directory, names, None, None, now).unwrap();
            let certificate = fs::read(directory.join("cert.pem")).unwrap();
            assert_ne!(certificate, last, "{what}");
            assert_eq!(fs::read(directory.join("ca.pem")).unwrap(), authority, "{what}");
            last = certificate;
        };
        changed("name", &["other.example".into()], now);
        changed("age", &[], now + VALID_FOR - DAY);
        fs::remove_file(directory.join("key.pem")).unwrap();
        changed("lost key", &[], now);
    }

    #[test]
    fn a_lost_authority_key_matters_only_when_it_is_needed() {
        let place = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        prepare(place.path(), &[], None, None, now).unwrap();
        fs::remove_file(place.path().join("ca-key.pem")).unwrap();
        prepare(place.path(), &[], None, None, now).unwrap();
        let text = prepare(place.path(), &["new.example".into()], None, None, now).unwrap_err().to_string();
        assert!(text.contains("ca-key.pem") && text.contains("backup"), "{text}");
    }

    #[test]
    fn the_operators_certificate_is_used_and_bad_ones_are_named() {
        let place = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let other = place.path().join("other");
        prepare(&other, &[], None, None, now).unwrap();
        let own = OwnCertificate { certificate: other.join("cert.pem"), key: other.join("key.pem") };
        let directory = place.path().join("tls");
        assert_eq!(prepare(&directory, &[], Some(&own), None, now).unwrap().ca_path, None);
        assert!(!directory.join("ca.pem").exists());
        let mismatched = OwnCertificate { key: other.join("ca-key.pem"), ..own.clone() };
        let text = prepare(&directory, &[], Some(&mismatched), None, now).unwrap_err().to_string();
        assert!(text.contains("cert.pem") && text.contains("--tls-key"), "{text}");
        let missing = OwnCertificate { certificate: other.join("none.pem"), ..own };
        let text = prepare(&directory, &[], Some(&missing), None, now).unwrap_err().to_string();
        assert!(text.contains("none.pem"), "{text}");
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let error = prepare(place.path(), &["not a name".into()], None, None, SystemTime::now()).unwrap_err();
        assert!(matches!(error, TlsError::Name { .. }), "{error}");
    }
}
