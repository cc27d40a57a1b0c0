//! The program `results` as anyone would run it but tiny: parts are measured, written down, and kept.
//!
//! Not a measurement: no figure is asserted that a busy machine could change. Invariant: it needs no tool that is not
//! built here, and what it cannot measure makes it fail.

use crate::support::binaries::{binary, measuring};
use std::path::Path;
use std::process::Output;

fn results(page: &Path, arguments: &[&str]) -> Output {
    measuring("results")
        .arg(format!("--loadgen={}", binary("loadgen").display()))
        .arg(format!("--out={}", page.display()))
        .arg("--tiny")
        .args(arguments)
        .output()
        .unwrap()
}

/// The text of a part, from its marker to the next.
fn section<'a>(page: &'a str, part: &str) -> &'a str {
    let marker = format!("<!-- part: {part} -->");
    let (_, behind) = page.split_once(&marker).unwrap_or_else(|| panic!("{part} has no marker:\n{page}"));
    behind.split("<!-- part: ").next().unwrap()
}

#[test]
fn parts_are_measured_and_the_others_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("RESULTS.md");
    let output = results(&path, &["--only=machine,sweep,micro"]);
    let (page, log) = (std::fs::read_to_string(&path).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{log}\n{page}");
    for part in ["machine", "sweep", "micro"] {
        let section = section(&page, part);
        assert!(!section.contains("not measured") && section.contains(" UTC, commit "), "{section}");
    }
    assert!(section(&page, "machine").contains("| rustc "), "{page}");
    let sweep = section(&page, "sweep");
    assert_eq!(sweep.matches("all lists verified").count(), 3, "{sweep}");
    assert_eq!(sweep.matches("| full ").count(), 3, "{sweep}");
    assert!(section(&page, "micro").contains("| ranking: apply "), "{page}");
    assert!(section(&page, "growth").contains("not measured yet"), "{page}");

    let output = results(&path, &["--only=changes"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let later = std::fs::read_to_string(&path).unwrap();
    assert_eq!(section(&later, "sweep"), sweep, "what was not asked for stays");
    assert!(section(&later, "changes").contains("rejected"), "{later}");
}

#[test]
fn what_cannot_be_measured_is_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("RESULTS.md");
    let mut command = measuring("results");
    command.arg(format!("--loadgen={}", binary("loadgen").display())).arg(format!("--out={}", path.display()));
    // No tool is found anywhere.
    let output = command.env("PATH", folder.path()).args(["--tiny", "--only=stages,serving"]).output().unwrap();
    let (page, log) = (std::fs::read_to_string(&path).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{log}");
    for (part, words) in [("stages", "`perf` cannot be run"), ("serving", "cargo install oha --locked")] {
        let section = section(&page, part);
        assert!(section.contains("not measured: ") && section.contains(words), "{section}");
        assert!(log.contains(words), "{log}");
    }
}
