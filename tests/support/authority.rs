//! Certificates for tests: an authority, and what it has signed.
//!
//! Invariant: keys and certificates lie in the folder that a test names.

use highwater_client::ClientCertificate;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::path::{Path, PathBuf};

/// An authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate.
    pub(crate) ca: PathBuf,
}

/// A certificate and its key.
pub(crate) struct Signed {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new authority whose files begin with `name`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let ca = folder.join(format!("{name}.pem"));
        std::fs::write(&ca, certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned(), ca }
    }

    /// A client's certificate.
    pub(crate) fn client(&self, name: &str) -> Signed {
        self.sign(name, name, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// An engine's certificate for this machine, in files of this name: those before it are replaced.
    pub(crate) fn engine(&self, file: &str) -> Signed {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(file, "engine", &names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, file: &str, common: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |ending: &str| self.folder.join(format!("{file}{ending}"));
        let signed = Signed { certificate: path(".pem"), key: path("-key.pem") };
        std::fs::write(&signed.certificate, certificate.pem()).unwrap();
        std::fs::write(&signed.key, key.serialize_pem()).unwrap();
        signed
    }
}

impl Signed {
    /// For the Rust client.
    pub(crate) fn client_certificate(&self) -> ClientCertificate {
        ClientCertificate::read(&self.certificate, &self.key).unwrap()
    }

    /// Flags of a command that reaches an engine.
    pub(crate) fn flags(&self) -> [String; 2] {
        [format!("--client-cert={}", self.certificate.display()), format!("--client-key={}", self.key.display())]
    }
}
