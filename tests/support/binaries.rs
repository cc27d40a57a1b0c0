//! Finds the binaries under test, and makes cargo bring them up to date first.
//!
//! Cargo tells a package only of its own binaries. What it is not: a second build: the command is the one that builds
//! this very test, so after `cargo test --workspace` it finds nothing to do. Invariant: the binaries are those of the
//! sources and of the profile of this test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of `highwater` or `loadgen`.
pub(crate) fn binary(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let path = FOLDER.get_or_init(build).join(name);
    assert!(path.is_file(), "{} is missing although cargo has built the workspace", path.display());
    path
}

/// A command that starts a binary; see [`program`].
pub(crate) fn command(name: &str) -> Command {
    program(binary(name))
}

/// A command that starts a program in an environment without settings: what the caller's variables say, to these tests
/// or to engines of his own, must not reach it.
pub(crate) fn program(path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
        command.env_remove(name);
    }
    command
}

/// A command that starts a program of `benches` on the binaries under test and on [`cpus`].
pub(crate) fn measuring(name: &str) -> Command {
    let mut command = command(name);
    command.arg(format!("--highwater={}", binary("highwater").display())).args(cpus());
    command
}

/// Flags that put the engine on the first CPU that this process may use, and the load on the last: the same where there
/// is only one.
pub(crate) fn cpus() -> [String; 2] {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect();
    [format!("--engine-cpu={}", cpus[0]), format!("--load-cpu={}", cpus[cpus.len() - 1])]
}

/// Brings the workspace up to date; returns the folder of its binaries.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).expect("a test lies in TARGET/PROFILE/deps");
    let target = folder.parent().expect("a test lies in TARGET/PROFILE/deps");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--workspace", "--no-run", "--quiet", "--target-dir"]).arg(target);
    let profile = folder.file_name().and_then(|name| name.to_str()).unwrap();
    if profile != "debug" {
        cargo.args(["--profile", profile]);
    }
    cargo.current_dir(workspace());
    // What cargo tells a test of its package would make build scripts that look at it run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if told.iter().any(|prefix| text.starts_with(prefix)) || ["CARGO", "OUT_DIR"].contains(&text.as_ref()) {
            cargo.env_remove(&name);
        }
    }
    let output = cargo.output().expect("cargo can be started");
    assert!(output.status.success(), "cargo cannot build:\n{}", String::from_utf8_lossy(&output.stderr));
    folder.to_owned()
}

/// The root of the source tree.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
