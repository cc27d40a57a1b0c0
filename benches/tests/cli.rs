//! The command lines of `runtimes` and `windows` from outside: what the one refuses, and the other on tiny inputs.
//!
//! A whole comparison, which needs the engine's binary, is in the tests of the workspace; this one makes cargo build
//! `runtimes` for them. Invariant: wrong usage exits 2, a comparison that cannot be made exits 1, neither with a table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::process::{Command, Output};

fn runtimes(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_runtimes")).args(arguments).output().unwrap()
}

fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = runtimes(arguments);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {log}");
    assert!(output.stdout.is_empty(), "{arguments:?} has no table");
    for word in words {
        assert!(log.contains(word), "{arguments:?}: {word:?} is not said:\n{log}");
    }
}

#[test]
fn wrong_usage_exits_2() {
    assert_refused(&["--rounds=0"], 2, &["--rounds", "1..=100"]);
    assert_refused(&["--idle=1ms"], 2, &["--idle", "100ms to 1h"]);
    assert_refused(&["--unknown=1"], 2, &["--unknown"]);
}

#[test]
fn a_missing_engine_or_cpu_is_named_with_the_remedy() {
    assert_refused(&["--highwater=/nowhere/highwater"], 1, &["/nowhere/highwater", "cargo build"]);
    let program = format!("--highwater={}", env!("CARGO_BIN_EXE_runtimes"));
    assert_refused(&[&program, "--engine-cpu=100000"], 1, &["--engine-cpu=100000", "choose"]);
}

#[test]
fn what_is_no_engine_is_told_with_its_own_words() {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
    let program = format!("--highwater={}", env!("CARGO_BIN_EXE_runtimes"));
    let cpus = [format!("--engine-cpu={cpu}"), format!("--load-cpu={cpu}")];
    let words = ["round 1 of 3, glommio", "ended before it was ready", "unexpected argument"];
    assert_refused(&[&program, &cpus[0], &cpus[1]], 1, &words);
}

#[test]
fn windows_measures_tiny_inputs_to_the_end() {
    let arguments = ["--videos=3000", "--distinct=1000", "--cuts=3", "--cut-videos=500", "--minute-views=400"];
    let output = Command::new(env!("CARGO_BIN_EXE_windows")).args(arguments).output().unwrap();
    let (table, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    for what in ["memory per video", "bytes/entry", "roll-up of 3 cuts", "start on that base, 3000 videos", "/M views"]
    {
        assert!(table.contains(what), "{what} is missing:\n{table}");
    }
}
