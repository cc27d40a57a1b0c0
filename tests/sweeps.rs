//! `loadgen sweep`, `growth` and `compare`, as anyone would run them but tiny.
//!
//! Not a measurement: no figure is asserted that a busy machine could change. Invariant: all judge themselves; lists
//! that are wrong, or views without an answer, end them with exit code 1.

use crate::support::binaries::{binary, command, cpus};
use serde_json::Value;
use std::process::Output;

const TINY: [&str; 6] =
    ["--memory=512MiB", "--videos=5000", "--prepared=60000", "--batch=500", "--duration=300ms", "--warm-up=100ms"];

fn loadgen(arguments: &[String]) -> Output {
    let mut command = command("loadgen");
    command.args(&arguments[..1]).args(TINY).args(cpus()).args(&arguments[1..]).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{log}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_sweep_climbs_verifies_and_draws() {
    let folder = tempfile::tempdir().unwrap();
    let (report, page) = (folder.path().join("sweep.json"), folder.path().join("sweep.html"));
    let output = loadgen(&[
        "sweep".to_owned(),
        format!("--highwater={}", binary("highwater").display()),
        "--p99-max=10s".to_owned(),
        format!("--report={}", report.display()),
        format!("--page={}", page.display()),
    ]);
    let table = succeeded(&output);
    assert!(table.contains("lists verified") && table.contains("| full "), "{table}");
    let found: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(found["verified"], true);
    assert_eq!(found["filling"]["views"], 60_000);
    assert!(found["distinct_videos"].as_u64().unwrap() > 4000, "{found}");
    let stages = found["stages"].as_array().unwrap();
    assert!(stages.len() >= 6);
    let planned: Vec<u64> = stages.iter().map(|stage| stage["planned_per_s"].as_u64().unwrap()).collect();
    assert!(planned.is_sorted(), "{planned:?}");
    for stage in stages {
        assert!(stage["engine_cpu_s_per_million_views"].as_f64().unwrap() > 0.0, "{stage}");
        assert!(stage["engine_resident_bytes"].as_u64().unwrap() > 1 << 20, "{stage}");
        assert!(!stage["seconds"].as_array().unwrap().is_empty(), "{stage}");
    }
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<svg").count(), 3);
    assert!(html.trim_end().ends_with("</html>"));
}

#[test]
fn growth_tells_the_cost_of_each_load() {
    let engine = format!("--highwater={}", binary("highwater").display());
    let batches = |more: &[&str]| -> Vec<f64> {
        let mut arguments = vec!["growth".to_owned(), engine.clone(), "--only=batch".to_owned()];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let table = succeeded(&loadgen(&arguments));
        let rows = table.lines().filter(|line| line.starts_with("| batch "));
        rows.map(|row| row.split('|').rev().nth(2).unwrap().trim().parse().unwrap()).collect()
    };
    let compact = batches(&[]);
    assert!(compact.len() == 4 && compact.iter().all(|&bytes_per_view| bytes_per_view < 40.0), "{compact:?}");
    let plain = batches(&["--encoding=plain", "--user-bytes=70"]);
    assert!(plain.iter().all(|&bytes_per_view| (100.0..102.0).contains(&bytes_per_view)), "{plain:?}");
    let none = loadgen(&["growth".to_owned(), engine, "--only=nothing".to_owned()]);
    assert_eq!(none.status.code(), Some(2));
}

#[test]
fn two_engines_are_compared_round_by_round() {
    let engine = binary("highwater").display().to_string();
    let output = loadgen(&[
        "compare".to_owned(),
        engine.clone(),
        engine.clone(),
        "--rounds=2".to_owned(),
        "--encoding=plain".to_owned(),
    ]);
    let table = succeeded(&output);
    assert!(table.contains("B/A") && table.contains("engine CPU s/M views"), "{table}");
    let order: Vec<String> = String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| Some(line.strip_prefix("round ")?.split(':').next()?.to_owned()))
        .collect();
    assert_eq!(order, ["1 of 2, A", "1 of 2, B", "2 of 2, B", "2 of 2, A"]);
    let missing = loadgen(&["compare".to_owned(), engine, "/nowhere/highwater".to_owned()]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/highwater"));
}
