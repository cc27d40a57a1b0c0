//! Certificates and tokens read again while the engine runs: on SIGHUP, by themselves, and not when they are bad.

use super::{bearer, block_on, produce, read, reason, with_tokens, write_private};
use crate::support::authority::Authority;
use crate::support::raw::Line;
use crate::support::{Engine, Setup, wait_for};
use highwater_client::{ClientConfig, Producer};
use highwater_proto::CloseReason::Unauthorized;
use highwater_proto::{Hello, HelloMode, PROTOCOL_VERSION, ProducerId, Pushed, View};
use rustix::process::Signal;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// Asks for a reload, and waits until so many were done, and so many failed.
fn reload(engine: &Engine, done: u64, failed: u64) {
    engine.signal(Signal::HUP);
    reloaded(engine, done, failed);
}

fn reloaded(engine: &Engine, done: u64, failed: u64) {
    wait_for("a reload", || {
        let counts = ["access_reloads_total", "access_reloads_failed_total"].map(|name| engine.metric(name));
        (counts == [done, failed]).then_some(())
    });
}

/// A producer's connection that was welcomed under this token.
async fn welcomed(engine: &Engine, id: u128, token: &str) -> Line {
    let mut line = Line::open(engine).await;
    let hello =
        Hello { version: PROTOCOL_VERSION, mode: HelloMode::New, producer: ProducerId(id), token: token.into() };
    let mut frame = Vec::new();
    hello.encode(&mut frame);
    line.ask(&frame).await;
    line
}

#[test]
fn a_token_that_is_taken_back_ends_its_connections_and_a_new_one_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, file) = with_tokens(folder.path(), "s3cret-old\nname=web scopes=produce s3cret-web\n");
    block_on(async {
        let old = welcomed(&engine, 1, "s3cret-old").await;
        let web = welcomed(&engine, 2, "s3cret-web").await;
        write_private(&file, "s3cret-new\nname=web scopes=produce s3cret-web\n");
        engine.signal(Signal::HUP);
        let closed = old.closed().await;
        assert_eq!(closed.reason, Unauthorized);
        assert!(closed.text.contains("taken back"), "{}", closed.text);
        assert!(web.connection.close_reason().is_none(), "the other one stays");
    });
    reloaded(&engine, 1, 0);
    block_on(produce(bearer(&engine, "s3cret-new"))).unwrap();
    assert_eq!(reason(block_on(produce(bearer(&engine, "s3cret-old")))), Unauthorized);
    for outcome in block_on(read(bearer(&engine, "s3cret-old"))) {
        assert_eq!(reason(outcome), Unauthorized);
    }
    super::end_without_secrets(engine, &["s3cret"]);
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "engines");
    let other = Authority::new(folder.path(), "others");
    let signed = authority.engine("engine");
    let tokens = folder.path().join("tokens");
    write_private(&tokens, "s3cret-one\n");
    let more = vec![
        format!("--tls-cert={}", signed.certificate.display()),
        format!("--tls-key={}", signed.key.display()),
        format!("--token-file={}", tokens.display()),
    ];
    let engine = Setup { more, ..Setup::new(&folder.path().join("data")) }.start();
    let client = |token| ClientConfig { ca_pem: std::fs::read(&authority.ca).unwrap(), ..bearer(&engine, token) };
    write_private(&tokens, "scopes=write s3cret-two\n");
    reload(&engine, 0, 1);
    let line = engine.log_line("certificates and tokens stay as they were");
    assert!(line.contains("tokens, line 1") && line.contains("produce and read"), "{line}");
    block_on(produce(client("s3cret-one"))).unwrap();
    // Neither is a part of what is good taken over: the tokens are sound, the certificate's key is another's.
    write_private(&tokens, "s3cret-two\n");
    std::fs::copy(other.engine("other").key, &signed.key).unwrap();
    reload(&engine, 0, 2);
    assert_eq!(engine.metric("access_out_of_date"), 1);
    block_on(produce(client("s3cret-one"))).unwrap();
    assert_eq!(reason(block_on(produce(client("s3cret-two")))), Unauthorized);
    super::end_without_secrets(engine, &["s3cret"]);
}

/// The certificate that a new connection is shown.
fn shown(engine: &Engine) -> CertificateDer<'static> {
    let line = block_on(Line::open(engine));
    let identity = line.connection.peer_identity().unwrap();
    identity.downcast::<Vec<CertificateDer<'static>>>().unwrap()[0].clone()
}

fn of_file(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_the_old_ones_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "engines");
    let signed = authority.engine("engine");
    let more =
        vec![format!("--tls-cert={}", signed.certificate.display()), format!("--tls-key={}", signed.key.display())];
    let mut engine = Setup { more, ..Setup::new(&folder.path().join("data")) }.start();
    engine.ready["ca"] = authority.ca.display().to_string().into();
    let first = of_file(&signed.certificate);
    assert_eq!(shown(&engine), first);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
    let send = |producer: &mut Producer| {
        runtime.block_on(async {
            let mut batch = producer.batch_builder();
            let view = View { video_id: "v", timestamp_ms: 1000, user_id: "", region: "", device: "" };
            assert_eq!(batch.push(&view), Ok(Pushed::Added));
            producer.send(&mut batch, 0).await.unwrap();
        });
    };
    let mut producer = runtime.block_on(Producer::connect(engine.client(), |_| {})).unwrap();
    send(&mut producer);
    authority.engine("engine");
    let second = of_file(&signed.certificate);
    assert_ne!(first, second);
    reload(&engine, 1, 0);
    wait_for("the new certificate", || (shown(&engine) == second).then_some(()));
    send(&mut producer);
    assert_eq!(runtime.block_on(producer.finish()).unwrap().reconnects, 0, "the old connection went on");
    // Without a request the files are looked at too.
    authority.engine("engine");
    reloaded(&engine, 2, 0);
    let third = of_file(&signed.certificate);
    wait_for("the newest certificate", || (shown(&engine) == third).then_some(()));
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn another_authority_of_clients_is_taken_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| Authority::new(folder.path(), name));
    let client_ca = folder.path().join("clients.pem");
    std::fs::copy(&first.ca, &client_ca).unwrap();
    let more = vec![format!("--client-ca={}", client_ca.display())];
    let engine = Setup { more, ..Setup::new(&folder.path().join("data")) }.start();
    let with = |authority: &Authority| ClientConfig {
        client_certificate: Some(authority.client("web").client_certificate()),
        ..bearer(&engine, "")
    };
    block_on(produce(with(&first))).unwrap();
    block_on(produce(with(&second))).unwrap_err();
    std::fs::copy(&second.ca, &client_ca).unwrap();
    reload(&engine, 1, 0);
    wait_for("the new authority", || block_on(produce(with(&second))).ok());
    block_on(produce(with(&first))).unwrap_err();
    assert_eq!(engine.terminate().code, Some(0));
}
