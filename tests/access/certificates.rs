//! Client certificates: asked for, lacking, of the wrong authority; together with tokens.

use super::{bearer, block_on, produce, read, reason, write_private};
use crate::support::authority::Authority;
use crate::support::{Engine, Load, Setup, Sidecar, wait_for};
use highwater_client::{ClientConfig, ClientError};
use highwater_proto::CloseReason::Unauthorized;
use std::path::Path;

/// An engine that lets in clients of an authority, and more.
fn guarded(folder: &Path, authority: &Authority, more: &[String]) -> Engine {
    let client_ca = format!("--client-ca={}", authority.ca.display());
    let more = std::iter::once(client_ca).chain(more.iter().cloned()).collect();
    Setup { more, ..Setup::new(&folder.join("data")) }.start()
}

fn is_about_the_certificate<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> bool {
    match outcome {
        Err(ClientError::ClientCertificate { .. }) => true,
        other => panic!("not refused for its certificate, but {other:?}"),
    }
}

#[test]
fn only_a_certificate_of_the_right_authority_lets_a_client_in() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "clients");
    let stranger = Authority::new(folder.path(), "strangers");
    let engine = guarded(folder.path(), &authority, &[]);
    let web = authority.client("web");
    let with = |certificate| ClientConfig { client_certificate: certificate, ..bearer(&engine, "") };
    let good = with(Some(web.client_certificate()));
    block_on(produce(good.clone())).unwrap();
    for outcome in block_on(read(good)) {
        outcome.unwrap();
    }
    for bad in [None, Some(stranger.client("web-too").client_certificate())] {
        assert!(is_about_the_certificate(block_on(produce(with(bad.clone())))));
        for outcome in block_on(read(with(bad))) {
            assert!(is_about_the_certificate(outcome));
        }
    }
    wait_for("the count of what was refused", || {
        let page = engine.ask("/metrics").body;
        page.contains("highwater_handshakes_failed_total{reason=\"client_certificate\"} 10\n").then_some(())
    });
    let line = engine.log_line("refused a client in its handshake");
    assert!(line.contains("peer=127.0.0.1:") && line.contains("certificate"), "{line}");
    assert_eq!(engine.log().matches("refused a client in its handshake").count(), 1, "the rest is counted");
    let [cert, key] = web.flags();
    let load = ["run", "--rate=2000", "--duration=1s", "--videos=100", &cert, &key];
    assert_eq!(Load::unverified(&engine, &load).finish().code, Some(0));
    let refused = Load::unverified(&engine, &load[..4]).finish();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--client-cert"), "{}", refused.stderr);
    let sidecar = Sidecar::start(&engine, &[&cert, &key]);
    wait_for("readiness", || (sidecar.ask("/readyz").status == 200).then_some(()));
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn with_both_asked_for_the_token_says_what_its_bearer_may_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "clients");
    let tokens = folder.path().join("tokens");
    write_private(&tokens, "scopes=read s3cret-read\ns3cret-both\n");
    let engine = guarded(folder.path(), &authority, &[format!("--token-file={}", tokens.display())]);
    let certificate = Some(authority.client("web").client_certificate());
    let with = |token| ClientConfig { client_certificate: certificate.clone(), ..bearer(&engine, token) };
    block_on(produce(with("s3cret-both"))).unwrap();
    assert_eq!(reason(block_on(produce(with("s3cret-read")))), Unauthorized);
    assert_eq!(reason(block_on(produce(with("")))), Unauthorized);
    for outcome in block_on(read(with("s3cret-read"))) {
        outcome.unwrap();
    }
    assert!(is_about_the_certificate(block_on(produce(bearer(&engine, "s3cret-both")))));
    super::end_without_secrets(engine, &["s3cret"]);
}

#[test]
fn an_authority_that_cannot_be_read_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.pem");
    let data = folder.path().join("data");
    for text in [None, Some("no certificate\n")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let more = vec![format!("--client-ca={}", path.display())];
        let refused = Setup { more, ..Setup::new(&data) }.refused();
        let said = refused.log.lines().last().unwrap_or_default();
        assert!(said.contains("clients.pem") && said.contains("check the file given by --client-ca"), "{said}");
        assert!(!data.exists(), "nothing is made by a start that is refused");
    }
}
