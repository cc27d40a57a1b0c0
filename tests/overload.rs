//! The attacks of `overload`, as anyone would run them but small: none may harm the client beside it.
//!
//! Not a measurement: no time is asserted, since the machine may be busy. Invariant: the program itself judges, by its
//! exit code: views lost or counted twice, wrong lists, an engine that ended or took more than its memory.

use crate::support::binaries::{binary, measuring};

#[test]
fn no_attack_harms_the_client_beside_it() {
    let output = measuring("overload")
        .arg(format!("--loadgen={}", binary("loadgen").display()))
        .args(["--seconds=1", "--rate=5000", "--scale=5"])
        .output()
        .unwrap();
    let (table, log) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    println!("{table}");
    assert_eq!(output.status.code(), Some(0), "{log}\n{table}");
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| attack"));
    assert_eq!(rows.count(), 15, "{table}");
}
