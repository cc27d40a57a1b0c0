//! The program `restart` as anyone would run it but small: starts after SIGKILL and after a clean end.
//!
//! Not a measurement: no time is asserted, since the machine may be busy. Invariant: the program itself judges, by its
//! exit code: views not counted, lists that a start changed, a directory that `highwater check` finds fault with.

use crate::support::binaries::{binary, measuring};

#[test]
fn a_start_after_a_load_serves_what_was_served_before() {
    let output = measuring("restart")
        .arg(format!("--loadgen={}", binary("loadgen").display()))
        .args(["--seconds=2", "--rate=20000", "--videos=5000", "--zipf=0", "--memory=512MiB"])
        .output()
        .unwrap();
    let (table, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{log}\n{table}");
    let figure = |what: &str| -> f64 {
        let line =
            table.lines().find(|line| line.starts_with(&format!("{what}  "))).unwrap_or_else(|| panic!("{table}"));
        line[what.len()..].split_whitespace().next().unwrap().parse().unwrap()
    };
    assert_eq!(figure("load of 2 s: acknowledged"), 40_000.0, "{table}");
    assert!((4900.0..=5000.0).contains(&figure("videos")), "{table}");
    for start in ["of an empty directory", "after SIGKILL", "after a clean end"] {
        let (ready, snapshot) =
            (figure(&format!("start {start}: ready")), figure(&format!("start {start}: first snapshot")));
        assert!(ready <= snapshot, "{table}");
    }
    assert!(figure("on disk, of a view") > 10.0, "{table}");
}
