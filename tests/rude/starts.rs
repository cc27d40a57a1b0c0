//! Starts that must be refused, with words that help; and the line that tells scripts where a started engine is.
//!
//! Wrong settings are in `settings.rs`. Invariant: a refused start exits 1 and does not change what runs beside it.

use crate::support::{Engine, Setup};
use std::net::SocketAddr;

fn assert_refused(setup: &Setup, words: &[&str]) {
    let refused = setup.refused();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for word in words {
        assert!(refused.log.contains(word), "{word:?} is not said:\n{}", refused.log);
    }
}

#[test]
fn the_ready_line_says_where_the_engine_is() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let listen: SocketAddr = engine.address().parse().unwrap();
    let http: SocketAddr = engine.ready["http"].as_str().unwrap().parse().unwrap();
    assert!(listen.port() != 0 && http.port() != 0, "{}", engine.ready);
    assert_eq!(engine.ready["listen"].as_array().unwrap().len(), 1);
    assert_eq!(engine.ca(), folder.path().join("tls/ca.pem").display().to_string());
    assert!(std::fs::read_to_string(engine.ca()).unwrap().contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_data_directory_has_one_engine() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(folder.path());
    let path = folder.path().display().to_string();
    assert_refused(&Setup::new(folder.path()), &["in use by another process", &path]);
    assert!(engine.runs());
    assert_eq!(engine.ask("/healthz").status, 200);
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("one"));
    let other = Setup::new(&folder.path().join("two"));
    let place = engine.same_place();
    assert_refused(&Setup { listen: place.listen.clone(), ..other.clone() }, &[&place.listen, "--listen"]);
    assert_refused(&Setup { http: place.http.clone(), ..other }, &[&place.http, "--http"]);
}

#[test]
fn the_number_of_shards_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { shards: 4, ..Setup::new(folder.path()) };
    setup.start().terminate();
    assert_refused(&Setup { shards: 8, ..setup.clone() }, &["shards", "4", "8"]);
    assert_eq!(setup.start().ready["shards"], 4);
}

#[test]
fn a_foreign_directory_is_not_taken_for_an_engines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    assert_refused(&Setup::new(&file), &[&file.display().to_string()]);
    let damaged = folder.path().join("damaged");
    Engine::start(&damaged).terminate();
    let path = damaged.join("directory.hw");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_refused(&Setup::new(&damaged), &["directory.hw"]);
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let nothing = folder.path().join("nothing.pem").display().to_string();
    let more = vec![format!("--tls-cert={nothing}"), format!("--tls-key={nothing}")];
    assert_refused(&Setup { more, ..Setup::new(&folder.path().join("data")) }, &["nothing.pem"]);
}
