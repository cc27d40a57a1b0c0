//! The comparison of the runtimes, as anyone would run it but tiny: it must give rows for each.
//!
//! Not a measurement: no time is asserted, since the machine may be busy. Invariant: it takes CPUs that this process
//! may use, the same one twice where there is only one.

use crate::support::binaries::{binary, command};
use std::process::Output;

/// The cells of a table's line.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

fn compare(arguments: &[String]) -> Output {
    let mut command = command("runtimes");
    command.arg(format!("--highwater={}", binary("highwater").display()));
    command.args(arguments).output().unwrap()
}

#[test]
fn each_runtime_holds_a_tiny_load_and_gets_its_rows() {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    let mut arguments: Vec<String> =
        ["--rounds=1", "--seconds=1", "--rate=5000", "--videos=1000", "--idle=100ms", "--memory=512MiB"]
            .map(str::to_owned)
            .to_vec();
    arguments.push(format!("--engine-cpu={}", cpus[0]));
    arguments.push(format!("--load-cpu={}", cpus[cpus.len() - 1]));
    let output = compare(&arguments);
    let (table, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{log}");
    let rows: Vec<Vec<&str>> = table.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    assert_eq!(rows[0][..3], ["runtime", "over rounds", "views/s"], "{table}");
    for runtime in ["glommio", "thread"] {
        for statistic in ["median", "min", "max"] {
            let row = rows.iter().find(|row| row[..2] == [runtime, statistic]);
            let row = row.unwrap_or_else(|| panic!("{runtime} has no {statistic}:\n{table}"));
            assert_eq!(row.len(), rows[0].len(), "{table}");
            assert!(row[2].parse::<f64>().unwrap() > 0.0, "no views were held:\n{table}");
        }
    }
    println!("{table}");
}

#[test]
fn what_the_engine_refuses_is_told_with_its_own_words() {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
    let output = compare(&[format!("--engine-cpu={cpu}"), format!("--load-cpu={cpu}"), "--memory=1MiB".to_owned()]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(output.stdout.is_empty(), "a comparison that failed has no table");
    for word in ["round 1 of 3, glommio", "--memory=1MiB", "512"] {
        assert!(log.contains(word), "{word:?} is not said:\n{log}");
    }
}
