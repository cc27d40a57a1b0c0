//! Tells the program which commit it was built from; "unknown" outside of a repository or without git.

use std::path::Path;
use std::process::Command;

fn main() {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok();
    let commit = output
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let commit = commit.filter(|commit| !commit.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=HIGHWATER_COMMIT={commit}");
    println!("cargo::rerun-if-changed=build.rs");
    for file in ["../.git/HEAD", "../.git/logs/HEAD"] {
        if Path::new(file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
}
