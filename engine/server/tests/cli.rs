//! The command line of `highwater` from outside: help, version, usage errors.
//!
//! No engine is started here. Invariant: what is asked for goes to stdout with exit 0, wrong usage to stderr with exit
//! 2.

use std::process::{Command, Output};

fn highwater(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    // A variable of the shell must not stand in for a flag that is left out on purpose.
    for variable in ["DATA_DIR", "SHARDS", "ENGINE", "CA"] {
        command.env_remove(format!("HIGHWATER_{variable}"));
    }
    command.args(arguments).output().expect("the binary can be started")
}

#[test]
fn help_names_every_command_and_flag() {
    let help = highwater(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(["serve", "sidecar", "demo", "top"].iter().all(|command| text.contains(command)), "{text}");
    let serve = highwater(&["serve", "--help"]);
    let text = String::from_utf8_lossy(&serve.stdout).into_owned();
    for flag in
        ["data-dir", "listen", "http", "cores", "shards", "memory", "skew-max", "tls-name", "tls-cert", "tls-key"]
    {
        assert!(text.contains(&format!("--{flag}")), "{flag}: {text}");
    }
    assert!(serve.status.success() && serve.stderr.is_empty());
    let top = highwater(&["top", "--help"]);
    let text = String::from_utf8_lossy(&top.stdout).into_owned();
    for known in ["--engine", "--ca", "--period", "--rows", "--once", "HIGHWATER_ENGINE", "HIGHWATER_CA"] {
        assert!(text.contains(known), "{known}: {text}");
    }
    let sidecar = highwater(&["sidecar", "--help"]);
    let text = String::from_utf8_lossy(&sidecar.stdout).into_owned();
    for flag in ["engine", "ca", "http", "server-name", "stale-after"] {
        assert!(text.contains(&format!("--{flag}")), "{flag}: {text}");
    }
}

#[test]
fn version_is_the_packages() {
    let version = highwater(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&version.stdout), concat!("highwater ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        &[][..],
        &["serve"],
        &["sevre"],
        &["serve", "--data-dir=d", "--unknown=1"],
        &["serve", "--data-dir=d", "--shards=0"],
        &["serve", "--data-dir=d", "--cores=first"],
        &["serve", "--data-dir=d", "--tls-cert=c"],
        &["sidecar"],
        &["sidecar", "--engine=localhost:4433"],
        &["sidecar", "--engine=localhost:4433", "--ca=c", "--http=here"],
        &["sidecar", "--engine=localhost:4433", "--ca=c", "--stale-after=999ms"],
        &["demo", "--duration=10"],
        &["demo", "--rate=0"],
        &["top"],
        &["top", "--engine=127.0.0.1:1"],
        &["top", "--engine=127.0.0.1:1", "--ca=c", "--period=week"],
        &["top", "--engine=127.0.0.1:1", "--ca=c", "--rows=0"],
        &["top", "--engine=127.0.0.1:1", "--ca=c", "--rows=1001"],
    ] {
        let output = highwater(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}: {output:?}");
    }
}

#[test]
fn a_top_list_that_cannot_be_had_is_an_error_that_names_what() {
    let output = highwater(&["top", "--engine=127.0.0.1:1", "--ca=/nowhere/ca.pem", "--once"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("/nowhere/ca.pem") && text.contains("tls/ca.pem"), "{text}");
    assert!(output.stdout.is_empty(), "{output:?}");
}
