//! What an operator asks for: whether a data directory is sound, and how a running engine is.
//!
//! Invariant: neither changes a file.

use crate::rude::contents;
use crate::support::binaries::command;
use crate::support::views::{NEWEST_MS, write_csv};
use crate::support::{Engine, Load, Setup, wait_for};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

fn highwater(arguments: &[&str]) -> Output {
    command("highwater").args(arguments).output().unwrap()
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    (output.status.code(), out, err)
}

/// Checks a directory, which it must leave as it is: exit code, stdout, stderr.
fn check(data: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let before = contents(data);
    let data_dir = format!("--data-dir={}", data.display());
    let output = highwater(&[&["check", &data_dir], more].concat());
    assert_eq!(contents(data), before, "nothing is changed");
    texts(&output)
}

fn load(engine: &Engine, folder: &Path) {
    let rows: Vec<_> = (0..3000).map(|row| (format!("video-{}", row % 300), NEWEST_MS - row * 10)).collect();
    let file = write_csv(folder, &rows);
    Load::verified(engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish().assert_verified();
}

fn first(folder: PathBuf) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.remove(0)
}

#[test]
fn a_stopped_engines_directory_is_sound_and_a_running_ones_is_not_checked() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = Engine::start(&data);
    load(&engine, folder.path());
    let data_dir = format!("--data-dir={}", data.display());
    let (code, out, err) = texts(&highwater(&["check", &data_dir]));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    for words in ["an engine runs on data directory", "stop the engine", "highwater audit"] {
        assert!(err.contains(words), "{words}: {err}");
    }
    let again = engine.same_place();
    engine.kill();
    let (code, out, err) = check(&data, &[]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "after a kill: {out}");
    assert!(out.contains("\nsound: 0 damaged, "), "{out}");
    again.start().terminate();
    let (code, out, err) = check(&data, &["--format=json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["sound"], &report["damage"], &report["notes"]), (&json!(true), &json!([]), &json!([])));
    let kind =
        |name: &str| report["kinds"].as_array().unwrap().iter().find(|kind| kind["kind"] == name).unwrap().clone();
    assert_eq!(kind("cut")["views"], 3000, "{report}");
    assert_eq!((&kind("log")["views"], &kind("tls")["files"]), (&json!(3000), &json!(5)), "{report}");
}

#[test]
fn damage_is_named_and_an_engine_can_tell_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let setup = Setup::new(&data);
    let engine = setup.start();
    load(&engine, folder.path());
    engine.terminate();
    let cut = first(data.join("cuts"));
    let name = format!("cuts/{}", cut.file_name().unwrap().to_str().unwrap());
    let good = std::fs::read(&cut).unwrap();
    let mut bad = good.clone();
    bad[200] ^= 4;
    std::fs::write(&cut, &bad).unwrap();
    std::fs::write(data.join("tls/reset.key"), "short").unwrap();
    std::fs::write(data.join("mine.txt"), "a stranger").unwrap();
    let (code, out, err) = check(&data, &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains(&format!("damage cut {name} at byte ")), "{out}");
    assert!(out.contains("damage tls tls/reset.key: ") && out.contains("note mine.txt is none"), "{out}");
    assert!(err.contains("is not sound: 2 found") && !err.contains("panicked"), "{err}");
    std::fs::remove_file(data.join("tls/reset.key")).unwrap();
    let refused = setup.refused();
    assert!(refused.log.contains(&name), "{}", refused.log);
    std::fs::write(&cut, good).unwrap();
    std::fs::remove_file(data.join("directory.hw")).unwrap();
    let (code, out, err) = check(&data, &[]);
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("damage directory directory.hw: it is missing"), "{out}");
}

#[test]
fn what_is_no_data_directory_is_told_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let (code, out, err) = check(folder.path(), &[]);
    assert_eq!(code, Some(1), "{err}");
    assert!(out.contains("directory.hw: it is missing") && out.contains("name the directory of an engine"), "{out}");
    std::fs::write(folder.path().join("thesis.txt"), "mine").unwrap();
    let (code, _, err) = check(folder.path(), &[]);
    assert!(code == Some(1) && err.contains("\"thesis.txt\"") && err.contains("--data-dir"), "{err}");
    let absent = format!("--data-dir={}", folder.path().join("absent").display());
    let (code, _, err) = texts(&highwater(&["check", &absent]));
    assert!(code == Some(1) && err.contains("is not there"), "{err}");
}

#[test]
fn a_running_engine_tells_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = Engine::start(&data);
    load(&engine, folder.path());
    let url = format!("--engine={}", engine.url());
    // A loaded machine may let a core be busy, or late, for a moment.
    let (out, _) = wait_for("an engine without problems", || {
        let (code, out, err) = texts(&highwater(&["status", &url, "--over=1s"]));
        assert!(matches!(code, Some(0 | 3)), "{out}{err}");
        (code == Some(0)).then_some((out, err))
    });
    let instance = engine.ready["instance"].as_str().unwrap();
    for words in ["  ready  version ", instance, "300 of ", "received 3000 (", "counted 3000 (", "problems  none"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let (code, out, err) = texts(&highwater(&["status", &url, "--over=1s", "--format=json"]));
    assert!(matches!(code, Some(0 | 3)), "{out}{err}");
    let state: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&state["ready"], &state["instance"], &state["tables"]["videos"]),
        (&json!(true), &json!(instance), &json!(300))
    );
    assert_eq!(state["cores"].as_array().unwrap().len(), 1, "{state}");
    assert!(state["snapshot"]["epoch"].as_u64() > Some(0) && state["disk"]["free_bytes"].is_u64(), "{state}");
    engine.terminate();
    let (code, out, err) = texts(&highwater(&["status", &url]));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("no engine answers at") && err.contains("is it running"), "{err}");
}

#[test]
fn what_answers_but_is_no_engine_is_told_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--engine=http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {
                // Whoever asked may be gone.
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            }
        }
    });
    let (code, _, err) = texts(&highwater(&["status", &url]));
    assert!(code == Some(1) && err.contains("status 404: that is no engine"), "{err}");
    let (code, _, err) = texts(&highwater(&["status", "--engine=127.0.0.1:8080"]));
    assert!(code == Some(2) && err.contains("http://127.0.0.1:8080"), "{err}");
}
