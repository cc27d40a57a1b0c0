//! Client certificates: who judges them, and the name of who they are for.
//!
//! Invariants: a name is 1 to 255 bytes without control characters; only a certificate that the handshake has verified
//! is asked for its name.

use highwater_proto::IDENTITY_BYTES_MAX;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use std::path::Path;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::{self, TlsError};

const REMEDY: &str = "check the file given by --client-ca: PEM with the authorities of the clients' certificates";

/// What lets in clients with a certificate of an authority in this file, and nobody else.
///
/// # Errors
/// [`TlsError`]: the file, what is wrong with it and what to do.
pub(super) fn verifier(path: &Path) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    let missing = |error| match error {
        TlsError::File { path, source, .. } => tls::unusable(&path, &source, REMEDY),
        other => other,
    };
    for authority in tls::read_chain(path, REMEDY).map_err(missing)? {
        roots.add(authority).map_err(|error| tls::unusable(path, &error, REMEDY))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build();
    verifier.map_err(|error| tls::unusable(path, &error, REMEDY))
}

/// The name of a client: the common name of its certificate's subject, else the first DNS name, URI or e-mail address
/// of its subjectAltName. `None` where it has none that can be used.
pub fn client_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let others = parsed.subject_alternative_name().ok().flatten();
    let others = others.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => Some(*name),
        _ => None,
    });
    common.chain(others).find(|name| is_name(name)).map(str::to_owned)
}

fn is_name(name: &str) -> bool {
    (1..=IDENTITY_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn name_of(common: Option<&str>, others: &[&str]) -> Option<String> {
        let others: Vec<String> = others.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(others).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        client_name(certificate.der())
    }

    #[test]
    fn the_common_name_goes_before_the_others() {
        assert_eq!(name_of(Some("web"), &["web.example"]).as_deref(), Some("web"));
        assert_eq!(name_of(None, &["127.0.0.1", "web.example"]).as_deref(), Some("web.example"));
        assert_eq!(name_of(Some("two\nlines"), &["web.example"]).as_deref(), Some("web.example"));
        assert_eq!(name_of(Some(&"n".repeat(256)), &[]), None);
        assert_eq!(name_of(None, &["127.0.0.1"]), None);
        assert_eq!(client_name(&CertificateDer::from_slice(b"none")), None);
    }

    #[test]
    fn a_file_without_authorities_is_refused_by_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("clients.pem");
        for text in [None, Some("nothing")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let said = verifier(&path).err().unwrap().to_string();
            assert!(said.contains("clients.pem") && said.contains("--client-ca"), "{said}");
        }
    }
}
