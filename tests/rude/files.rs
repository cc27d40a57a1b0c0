//! Files that cannot be what they should, and ids that do things to a terminal.
//!
//! Invariant: a file of views is checked whole before anything is sent, and what came from outside is never shown raw.

use super::told;
use crate::support::binaries::command;
use crate::support::{Engine, Load, http};
use highwater_proto::Period;
use std::path::Path;
use std::process::Output;

const HEADER: &str = "video_id,ts_ms,user_id,region,device\n";

/// What is wrong with it, its name, its bytes, and the words that must be said.
fn files() -> Vec<(&'static str, &'static str, Vec<u8>, Vec<&'static str>)> {
    let rows = |rows: &str| [HEADER, rows].concat().into_bytes();
    let long = format!("a,1,u,r,{}\n", "x".repeat(256));
    let mut latin = rows("a,1,J");
    latin.extend_from_slice(b"\xfcrgen,r,d\n");
    vec![
        ("a time with a letter", "v.csv", rows("a,1,u,r,d\nb,1x,u,r,d\n"), vec!["line 3", "column ts_ms", "\"1x\""]),
        (
            "a time with a point",
            "v.csv",
            rows("a,1.5,u,r,d\n"),
            vec!["line 2", "ts_ms", "\"1.5\"", "whole milliseconds"],
        ),
        ("a time before 1970", "v.csv", rows("a,-1,u,r,d\n"), vec!["line 2", "ts_ms", "\"-1\"", "since 1970"]),
        ("a time after the year 9999", "v.csv", rows("a,253402300800000,u,r,d\n"), vec!["ts_ms", "253402300799999"]),
        ("an empty id, behind a blank line", "v.csv", rows("\r\n,1,u,r,d\r\n"), vec!["line 3", "video_id", "empty"]),
        ("a device of 256 bytes", "v.csv", rows(&long), vec!["line 2", "column device", "256 bytes", "at most 255"]),
        ("a user in Latin-1", "v.csv", latin, vec!["line 2", "user_id", "not UTF-8 after byte 1"]),
        ("four fields", "v.csv", rows("a,1,u,r\n"), vec!["line 2", "4 fields", "5 are needed"]),
        ("a quote never closed", "v.csv", rows("a,1,u,r,d\n\"b,2,u,r,d\n"), vec!["line 3", "quote", "never closed"]),
        ("semicolons", "v.csv", b"video_id;ts_ms;user_id\na;1;u\n".to_vec(), vec!["line 1", "first line must be"]),
        ("no header", "v.csv", b"a,1,u,r,d\n".to_vec(), vec!["line 1", "\"a\"", "first line must be"]),
        ("an empty file", "v.csv", Vec::new(), vec!["line 1", "the file is empty"]),
        ("colours in a time", "v.csv", rows("a,\x1b[31m1,u,r,d\n"), vec!["line 2", "\\u{1b}[31m1"]),
        (
            "gzip in name only",
            "v.csv.gz",
            b"video_id,ts_ms".to_vec(),
            vec!["cannot read", "no gzip file", "get it again"],
        ),
        ("gzip cut short", "v.csv.gz", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b".to_vec(), vec!["cut short"]),
    ]
}

fn replay(file: &Path, engine: &Engine) -> Output {
    let mut command = command("loadgen");
    command.arg("replay").arg(file).arg(format!("--engine={}", engine.address())).arg(format!("--ca={}", engine.ca()));
    command.output().unwrap()
}

#[test]
fn a_file_of_views_that_does_not_parse_is_named_by_line_column_and_value() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let refuse = |deed: &str, file: &Path, words: &[&str]| {
        let output = replay(file, &engine);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{deed}: {output:?}");
        let text = String::from_utf8(output.stderr).unwrap().replace(&folder.path().display().to_string(), "DIR");
        assert!(text.trim_end().chars().all(|one| !one.is_control()), "{deed}: {text:?}");
        told(&format!("`loadgen replay`: {deed}"), &text, "exit 1", words);
    };
    for (deed, name, bytes, words) in files() {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        refuse(deed, &path, &[&words[..], &[name]].concat());
    }
    refuse("a file that is not there", &folder.path().join("none.csv"), &["cannot read", "none.csv", "exists"]);
    refuse("a folder", folder.path(), &["cannot read", "directory"]);
    assert_eq!(engine.metric("views_received_total"), 0);
}

#[test]
fn ids_that_do_things_to_a_terminal_are_counted_as_they_are_and_shown_escaped() {
    let ids = ["\u{1b}[2J\u{1b}]0;owned\u{7}", "\u{9b}31m", "a\rb\nc\td", "\u{202e}gpj.exe", "\u{7f}\u{8}\u{0}"];
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let file = folder.path().join("views.csv");
    let row = |(count, id): (usize, &&str)| format!("\"{id}\",1000,u,r,d\n").repeat(count);
    std::fs::write(&file, format!("{HEADER}{}", (1..).zip(&ids).map(row).collect::<String>())).unwrap();
    Load::verified(&engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish().assert_verified();
    let list = engine.ask("/v1/videos/top?period=hour&k=1000");
    let harmless = |text: &str| text.chars().all(|one| !one.is_control() && one != '\u{202e}');
    assert!(harmless(&list.body), "{list:?}");
    let served: Vec<_> =
        list.json()["top_videos"].as_array().unwrap().iter().map(|row| row["video_id"].clone()).collect();
    assert_eq!(served, ids.iter().rev().map(|id| serde_json::json!(id)).collect::<Vec<_>>());
    told("ids of control characters, asked for over HTTP", &list.body, "HTTP 200", &["\\u001b[2J", "\\u009b31m"]);
    let views = http::get(&format!("{}/v1/videos/views?video_id=%1b%5b2J%1b%5d0;owned%07", engine.url()));
    assert!(harmless(&views.body) && views.json()["views"][0]["view_count"] == 1, "{views:?}");
    let mut top = command("highwater");
    top.arg("top").arg(format!("--engine={}", engine.address())).arg(format!("--ca={}", engine.ca())).arg("--once");
    let picture = String::from_utf8(top.output().unwrap().stdout).unwrap();
    assert!(picture.lines().all(harmless) && picture.lines().count() == 2 + ids.len(), "{picture:?}");
    told("the same in `highwater top`", &picture, "exit 0", &["\\u{1b}[2J", "\\u{9b}31m", "\\u{202e}gpj.exe"]);
    // A list that differs from what is asked for names the ids, too.
    let mut again = command("loadgen");
    again.arg("replay").arg(&file).args(["--shift-to-now", &format!("--verify={}", engine.url())]);
    let again =
        again.arg(format!("--engine={}", engine.address())).arg(format!("--ca={}", engine.ca())).output().unwrap();
    let text = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(1), "{text}");
    assert!(text.lines().all(harmless), "{text:?}");
    told("`loadgen --verify` on an engine that holds views", &text, "exit 1", &["already holds views", "\\u{8}"]);
    assert_eq!(engine.top(Period::Hour, 1)["top_videos"].as_array().unwrap().len(), ids.len());
}
