//! Asking an engine or a sidecar over HTTP, plain or within TLS, with what it wants to be shown.
//!
//! Not what is asked. Invariants: every question ends within a time limit and never goes through a proxy; neither token
//! nor key is ever shown; only the authorities given are trusted.

use std::sync::Arc;
use std::time::Duration;

use highwater_client::ClientCertificate;
use ureq::http::HeaderValue;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// What is shown to whoever answers, and whom to trust.
#[derive(Debug, Default)]
pub struct Shown<'a> {
    /// PEM certificates of the authorities trusted for an https address.
    pub ca_pem: &'a [u8],
    /// Token that may read; empty where none is asked for.
    pub token: &'a [u8],
    /// Certificate for who asks for one.
    pub certificate: Option<&'a ClientCertificate>,
}

/// One HTTP address.
#[derive(Debug)]
pub struct HttpClient {
    url: String,
    agent: ureq::Agent,
    authorization: Option<HeaderValue>,
}

impl HttpClient {
    /// A client for `http://HOST:PORT` or `https://HOST:PORT` whose questions take at most `time_max`.
    ///
    /// # Errors
    /// In words, what cannot be used: the address, a certificate, a key or the token.
    pub fn new(url: &str, shown: &Shown<'_>, time_max: Duration) -> Result<Self, String> {
        let url = url.trim_end_matches('/');
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        if host.is_none_or(str::is_empty) {
            return Err("http://HOST:PORT or https://HOST:PORT is needed, such as http://127.0.0.1:8080".to_owned());
        }
        let mut config =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(time_max)).proxy(None);
        if url.starts_with("https://") {
            config = config.tls_config(tls(shown)?);
        }
        let authorization = (!shown.token.is_empty()).then(|| {
            let mut value = HeaderValue::from_bytes(&[b"Bearer ", shown.token].concat())?;
            value.set_sensitive(true);
            Ok::<_, ureq::http::header::InvalidHeaderValue>(value)
        });
        let authorization = authorization.transpose().map_err(|_| "the token cannot stand in a header".to_owned())?;
        Ok(Self { url: url.to_owned(), agent: config.build().into(), authorization })
    }

    /// The address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a path with its query.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        request.call()
    }
}

fn tls(shown: &Shown<'_>) -> Result<TlsConfig, String> {
    let roots = certificates(shown.ca_pem)?;
    if roots.is_empty() {
        return Err("an https address needs an authority to trust; give --ca=FILE".to_owned());
    }
    let client = shown.certificate.map(|own| {
        let key = PrivateKey::from_pem(&own.key_pem).map_err(|error| format!("the client key: {error}"))?;
        Ok::<_, String>(ClientCert::new_with_certs(&certificates(&own.chain_pem)?, key))
    });
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client.transpose()?)
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let items = parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(error) => Some(Err(error.to_string())),
    });
    items.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_no_address_is_refused_and_https_needs_an_authority() {
        for wrong in ["127.0.0.1:8080", "ftp://x", "http://", "https://"] {
            assert!(HttpClient::new(wrong, &Shown::default(), TIME).unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
        let error = HttpClient::new("https://x:1", &Shown::default(), TIME).unwrap_err();
        assert!(error.contains("--ca"), "{error}");
        assert_eq!(HttpClient::new("http://x:1/", &Shown::default(), TIME).unwrap().url(), "http://x:1");
    }

    #[test]
    fn the_token_is_not_shown() {
        let shown = Shown { token: b"s3cret", ..Shown::default() };
        let client = HttpClient::new("http://x:1", &shown, TIME).unwrap();
        assert!(!format!("{client:?}").contains("s3cret"), "{client:?}");
    }
}
