//! What a client shows an engine that asks who it is: a token, a certificate, or both.
//!
//! It judges nothing; that is the engine's. Invariant: neither token nor private key is ever shown, in no debug text
//! and in no error.

use std::fmt;
use std::path::Path;

use highwater_proto::TokenLine;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::ClientError;

/// A client certificate with its private key, as PEM. The debug text shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, the client's certificate first.
    pub chain_pem: Vec<u8>,
    /// The private key.
    pub key_pem: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("chain_pem_bytes", &self.chain_pem.len()).finish_non_exhaustive()
    }
}

impl ClientCertificate {
    /// Reads the chain and the key from two files.
    ///
    /// # Errors
    /// [`ClientError::Config`] if one cannot be read.
    pub fn read(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, ClientError> {
        let chain_pem = read("client certificate", chain.as_ref())?;
        Ok(Self { chain_pem, key_pem: read("client key", key.as_ref())? })
    }

    /// What rustls needs.
    pub(crate) fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ClientError> {
        let unusable = |what, reason: String| ClientError::Config { what, value: "PEM".to_owned(), reason };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.chain_pem).collect();
        let chain = chain.map_err(|error| unusable("client certificate", error.to_string()))?;
        if chain.is_empty() {
            let reason = "it holds no CERTIFICATE block; give the chain, the client's certificate first";
            return Err(unusable("client certificate", reason.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key_pem);
        Ok((chain, key.map_err(|error| unusable("client key", format!("{error}; give its private key in PEM")))?))
    }
}

/// The token of a file: of several lines, the first that is not blank and does not begin with `#`, without the
/// attributes that may stand before it in an engine's file.
///
/// # Errors
/// [`ClientError::Config`] if the file cannot be read or holds no token.
pub fn read_token_file(path: impl AsRef<Path>) -> Result<Vec<u8>, ClientError> {
    let path = path.as_ref();
    let unusable =
        |reason: String| ClientError::Config { what: "token file", value: path.display().to_string(), reason };
    let text = String::from_utf8(read("token file", path)?);
    let text = text.map_err(|_| unusable("it is not UTF-8; save it as plain text".to_owned()))?;
    let mut lines = text.split('\n').map(TokenLine::parse);
    match lines.find_map(Result::transpose) {
        Some(Ok(line)) => Ok(line.token.as_bytes().to_vec()),
        Some(Err(error)) => Err(unusable(error.to_string())),
        None => Err(unusable("it holds no token; write it on a line of its own".to_owned())),
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|error| ClientError::Config {
        what,
        value: path.display().to_string(),
        reason: format!("{error}; check that it exists and is readable"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_token_of_a_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_token_file(&path)
        };
        assert_eq!(read("# since March\n\n  first one\r\nsecond\n").unwrap(), b"first one");
        assert_eq!(read("name=web scopes=read s3cret\n").unwrap(), b"s3cret");
        for (bad, word) in [("# none\n", "holds no token"), ("name=web\u{7} s3cret", "name has 4 bytes")] {
            let text = read(bad).unwrap_err().to_string();
            assert!(text.contains(word) && !text.contains("s3"), "{text}");
        }
        assert!(read_token_file(folder.path().join("none")).unwrap_err().to_string().contains("none"));
    }
}
