//! The comparison of the runtimes, as anyone would run it but tiny: it must give rows for each.
//!
//! Not a measurement: no time is asserted, since the machine may be busy. Invariant: what an engine
//! refuses ends the comparison without a table.

use crate::support::binaries::measuring;

/// The cells of a table's line.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn each_runtime_holds_a_tiny_load_and_gets_its_rows() {
    let tiny = ["--rounds=1", "--seconds=1", "--rate=5000", "--videos=1000", "--idle=100ms", "--memory=512MiB"];
    let output = measuring("runtimes").args(tiny).output().unwrap();
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
    let output = measuring("runtimes").arg("--memory=1MiB").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(output.stdout.is_empty(), "a comparison that failed has no table");
    for word in ["round 1 of 3, glommio", "--memory=1MiB", "512"] {
        assert!(log.contains(word), "{word:?} is not said:\n{log}");
    }
}
