//! The command lines of `runtimes`, `results` and `windows` from outside: what two refuse, and the last on tiny inputs.
//!
//! Whole measurements, which need the engine's binary, are in the tests of the workspace; this one makes cargo build
//! the programs for them. Invariant: wrong usage exits 2, what cannot be measured exits 1, neither with a table.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use std::process::Command;

const RUNTIMES: &str = env!("CARGO_BIN_EXE_runtimes");
const RESULTS: &str = env!("CARGO_BIN_EXE_results");

fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    assert_refused_by(RUNTIMES, arguments, code, words);
}

fn assert_refused_by(program: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
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
fn parts_and_seconds_of_the_results_are_named_when_they_are_wrong() {
    assert_refused_by(RESULTS, &["--only=nothing"], 2, &["--only", "nothing", "sweep", "micro"]);
    assert_refused_by(RESULTS, &["--seconds=0"], 2, &["--seconds", "1..=600"]);
    assert_refused_by(RESULTS, &["--tiny", "--seconds=3"], 2, &["--tiny", "--seconds"]);
    let (engine, load) = (format!("--highwater={RESULTS}"), format!("--loadgen={RESULTS}"));
    let cpus = cpus();
    assert_refused_by(RESULTS, &[&engine, "--loadgen=/nowhere/loadgen", &cpus[0], &cpus[1]], 1, &["/nowhere/loadgen"]);
    let out = "--out=/nowhere/RESULTS.md";
    assert_refused_by(RESULTS, &[&engine, &load, &cpus[0], &cpus[1], out], 1, &[out, "cannot be written"]);
}

#[test]
fn a_missing_engine_or_cpu_is_named_with_the_remedy() {
    assert_refused(&["--highwater=/nowhere/highwater"], 1, &["/nowhere/highwater", "cargo build"]);
    let program = format!("--highwater={RUNTIMES}");
    assert_refused(&[&program, "--engine-cpu=100000"], 1, &["--engine-cpu=100000", "choose"]);
}

/// Flags that put all on one CPU that this process may use.
fn cpus() -> [String; 2] {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
    [format!("--engine-cpu={cpu}"), format!("--load-cpu={cpu}")]
}

#[test]
fn what_is_no_engine_is_told_with_its_own_words() {
    let program = format!("--highwater={RUNTIMES}");
    let cpus = cpus();
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
