//! Over HTTP: tokens and their scopes, TLS with the engine's certificate or a sidecar's own, and both read again.

use super::write_private;
use crate::support::binaries::command;
use crate::support::{Engine, Load, Setup, Sidecar, http, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;

const LIST: &str = "/v1/videos/top?period=hour";
const TOKENS: &str = "name=web scopes=produce pr0ducer\nname=board scopes=read r3ader\n";

fn status(url: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = command("highwater").arg("status").arg(format!("--engine={url}")).args(more).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn with_tokens_only_who_may_read_is_answered_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    write_private(&tokens, TOKENS);
    let more = vec![format!("--token-file={}", tokens.display())];
    let engine = Setup { more, ..Setup::new(&folder.path().join("data")) }.start();
    for path in [LIST, "/metrics", "/v1/periods?period=day", "/v1/videos/views?video_id=a"] {
        let url = format!("{}{path}", engine.url());
        for (token, status) in [(None, 401), (Some("wrong"), 401), (Some("pr0ducer"), 403)] {
            let answer = http::get_as(&url, token);
            assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path}");
        }
        wait_for("an answer to a reader", || (http::get_as(&url, Some("r3ader")).status == 200).then_some(()));
    }
    assert_eq!(http::get(&format!("{}/healthz", engine.url())).status, 200);
    assert!(engine.metric("http_answers_total") > 12);
    let (code, said) = status(&engine.url(), &[]);
    assert!(code == Some(1) && said.contains("--token-file") && said.contains("Bearer"), "{said}");
    let reader = folder.path().join("reader");
    write_private(&reader, "r3ader");
    let (code, said) = status(&engine.url(), &[&format!("--token-file={}", reader.display())]);
    assert_eq!(code, Some(0), "{said}");
    let ended = engine.terminate();
    assert!(!ended.log.contains("r3ader") && !ended.log.contains("pr0ducer"), "{}", ended.log);
}

#[test]
fn tokens_do_not_go_over_a_network_in_the_clear() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    write_private(&tokens, TOKENS);
    let setup = Setup::new(&folder.path().join("data"));
    let more = vec![format!("--token-file={}", tokens.display())];
    let ended = Setup { http: "0.0.0.0:0".to_owned(), more, ..setup }.refused();
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    for words in ["0.0.0.0", "in the clear", "--http-tls", "127.0.0.1"] {
        assert!(ended.log.contains(words), "{words}: {}", ended.log);
    }
    assert!(!folder.path().join("data").exists(), "nothing was begun");
}

#[test]
fn over_tls_lists_are_served_and_verified_by_the_engines_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    write_private(&tokens, "both");
    let more = vec!["--http-tls".to_owned(), format!("--token-file={}", tokens.display())];
    let engine = Setup { more, ..Setup::new(&folder.path().join("data")) }.start();
    let url = engine.url().replace("http://", "https://");
    let token = format!("--token-file={}", tokens.display());
    let load = ["run", "--rate=5000", "--duration=1s", "--videos=500", &token, &format!("--verify={url}")];
    Load::unverified(&engine, &load).finish().assert_verified();
    let (code, said) = status(&url, &[&token, &format!("--ca={}", engine.ca())]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = status(&url, &[&token]);
    assert!(code == Some(1) && said.contains("--ca"), "{said}");
    // Whoever does not speak TLS is told nothing.
    let answer = http::raw(&engine.url(), b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(!answer.starts_with("HTTP"), "{answer}");
}

/// A certificate for localhost by an authority of its own, as files; the authority's name is returned.
fn certificate(folder: &Path) -> [std::path::PathBuf; 2] {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let paths = ["cert.pem", "key.pem"].map(|name| folder.join(name));
    write_private(&paths[0], &made.cert.pem());
    write_private(&paths[1], &made.signing_key.serialize_pem());
    paths
}

#[test]
fn a_sidecar_serves_over_tls_of_its_own_to_its_readers_and_reads_both_again() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let [cert, key] = certificate(folder.path());
    let tokens = folder.path().join("readers");
    write_private(&tokens, "first");
    let flags = [
        format!("--tls-cert={}", cert.display()),
        format!("--tls-key={}", key.display()),
        format!("--reader-token-file={}", tokens.display()),
    ];
    let sidecar = Sidecar::start(&engine, &flags.each_ref().map(String::as_str));
    let url = sidecar.url().replace("http://", "https://");
    let bearer = folder.path().join("bearer");
    let ask = |token: &str| {
        write_private(&bearer, token);
        status(&url, &[&format!("--token-file={}", bearer.display()), &format!("--ca={}", cert.display())])
    };
    let sound = |(code, said): (Option<i32>, String)| code.is_some_and(|code| code != 1).then_some(said);
    wait_for("a ready sidecar", || sound(ask("first")));
    assert!(sound(ask("second")).is_none());
    // Bad files change nothing.
    write_private(&tokens, "# none");
    kill_process(Pid::from_raw(sidecar.ready["pid"].as_i64().unwrap() as i32).unwrap(), Signal::HUP).unwrap();
    sidecar.log_line("stay as they were");
    assert!(sound(ask("first")).is_some());
    write_private(&tokens, "second");
    certificate(folder.path());
    kill_process(Pid::from_raw(sidecar.ready["pid"].as_i64().unwrap() as i32).unwrap(), Signal::HUP).unwrap();
    sidecar.log_line("read certificate and tokens again");
    assert!(sound(ask("second")).is_some() && sound(ask("first")).is_none());
}
