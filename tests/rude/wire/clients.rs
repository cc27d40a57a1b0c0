//! What a user of the Rust client and of `loadgen` is told when the engine cannot be reached or will not have them.
//!
//! Invariant: each ends by itself, with exit code 1 and words that name a remedy.

use super::{Victim, told};
use crate::support::binaries::command;
use crate::support::{Engine, Setup, block_on};
use highwater_client::{ClientError, Producer};
use highwater_proto::CloseReason;
use quinn::crypto::rustls::QuicServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;

/// Runs a small load that must fail, and holds its words to what they must say.
fn refuse(deed: &str, engine: &str, ca: &str, more: &[&str], words: &[&str]) {
    let output = command("loadgen")
        .args(["run", "--rate=1000", "--duration=1s"])
        .args([&format!("--engine={engine}"), &format!("--ca={ca}")])
        .args(more)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let said = stderr.lines().rfind(|line| line.starts_with("loadgen: ")).unwrap_or_else(|| panic!("{stderr}"));
    told(&format!("loadgen: {deed}"), said, "exit 1", words);
}

#[test]
fn a_load_without_the_right_token_says_how_to_give_one() {
    let mut victim = Victim::of(|setup| {
        let file = setup.data_dir.with_file_name("tokens");
        std::fs::write(&file, "s3cret\n").unwrap();
        Setup { more: vec![format!("--token-file={}", file.display())], ..setup }
    });
    let (engine, ca) = (victim.engine.address().to_owned(), victim.engine.ca().to_owned());
    let (wrong, right) = (victim.folder.path().join("wrong"), victim.folder.path().join("tokens"));
    std::fs::write(&wrong, "guess\n").unwrap();
    refuse("no token", &engine, &ca, &[], &["unauthorized", "the hello has no token", "--token-file"]);
    let option = format!("--token-file={}", wrong.display());
    refuse("a wrong token", &engine, &ca, &[&option], &["unauthorized", "5 bytes", "--token-file"]);
    let error = block_on(Producer::connect(victim.engine.client(), |_| {})).unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason: CloseReason::Unauthorized, .. }), "{error}");
    told("the Rust client: no token", &error.to_string(), "error", &["unauthorized", "token"]);
    victim.closed.insert(CloseReason::Unauthorized.as_str(), 3);
    victim.recover(&[&format!("--token-file={}", right.display())]);
}

#[test]
fn a_load_that_finds_no_engine_or_another_one_says_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let one = Engine::start(&folder.path().join("one"));
    let other = Engine::start(&folder.path().join("other"));
    let words = ["TLS handshake", "certificate", "ca.pem"];
    refuse("another engine's authority", one.address(), other.ca(), &[], &words);
    let words = ["TLS handshake", "--tls-name", "engine.example"];
    refuse("a name that the certificate lacks", one.address(), one.ca(), &["--server-name=engine.example"], &words);
    // Bound and never read: nobody else can take the port, and nobody answers.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    refuse("an engine that does not answer", &address, one.ca(), &[], &["no connection to", &address, "check that"]);
    let words = ["no connection to", "engine.invalid:4433", "address is right"];
    refuse("a host that does not exist", "engine.invalid:4433", one.ca(), &[], &words);
    let ca = folder.path().join("nothing.pem").display().to_string();
    refuse("an authority that is not there", one.address(), &ca, &[], &["CA file", "nothing.pem", "DIR/tls/ca.pem"]);
    for engine in [one, other] {
        assert_eq!(engine.terminate().code, Some(0));
    }
}

#[test]
fn a_load_at_an_engine_of_another_version_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let ca = engine.ca().to_owned();
    assert_eq!(engine.terminate().code, Some(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (address, serving) = {
        let _entered = runtime.enter();
        let endpoint = endpoint_of(folder.path());
        (endpoint.local_addr().unwrap().to_string(), runtime.spawn(close_everyone(endpoint)))
    };
    let words = ["version_unsupported", "reads version 9", "bring client and engine to the same protocol version"];
    refuse("an engine of another version", &address, &ca, &[], &words);
    serving.abort();
}

/// An endpoint with the identity of the engine that was started there.
fn endpoint_of(data_dir: &Path) -> quinn::Endpoint {
    let chain = vec![CertificateDer::from_pem_file(data_dir.join("tls/cert.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(data_dir.join("tls/key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    tls.alpn_protocols = vec![highwater_proto::ALPN.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Closes every connection as an engine does that reads only version 9.
async fn close_everyone(endpoint: quinn::Endpoint) {
    let text = b"protocol version 1 is not supported: this side reads version 9; bring both to one version";
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        if connection.accept_bi().await.is_ok() {
            connection.close(CloseReason::VersionUnsupported.code().into(), text);
        }
    }
}
