//! The command line of `highwater` from outside: help, version, man pages, completions, an error of each kind.
//!
//! No engine is started here; what settings are refused, and how, is held to its words in `tests/rude/settings.rs`.
//! Invariant: what is asked for goes to stdout with exit 0, wrong usage to stderr with exit 2.

use std::process::{Command, Output};

fn highwater(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    // What the caller's variables say, to tests or to engines of his own, must not reach it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().expect("the binary can be started")
}

/// What a command that must succeed prints.
fn printed(arguments: &[&str]) -> String {
    let output = highwater(arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("what is printed is UTF-8")
}

#[test]
fn help_names_every_command_and_flag() {
    let text = printed(&["--help"]);
    for command in
        ["serve", "sidecar", "demo", "top", "export", "audit", "check", "status", "config", "man", "completions"]
    {
        assert!(text.contains(&format!("\n  {command}")), "{command}: {text}");
    }
    // The example is made of the definition, so it knows every setting.
    let mut command = String::new();
    for line in printed(&["config", "example"]).lines() {
        if let Some(table) = line.strip_prefix('[') {
            command = table.trim_end_matches(']').to_owned();
        } else if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ") {
            for help in ["-h", "--help"] {
                let text = printed(&[&command, help]);
                let variable = format!("HIGHWATER_{}", key.to_uppercase().replace('-', "_"));
                assert!(text.contains(&format!("--{key}")) && text.contains(&variable), "{key}: {text}");
            }
        }
    }
    assert_eq!(command, "top");
}

#[test]
fn version_is_the_packages() {
    assert_eq!(printed(&["--version"]), concat!("highwater ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn wrong_usage_exits_with_2() {
    for wrong in [
        &[][..],
        &["serve"],
        &["sidecar"],
        &["sidecar", "--engine=localhost:4433"],
        &["top"],
        &["demo", "--duration=10"],
        &["demo", "--rate=0"],
        &["check"],
        &["status"],
        &["status", "--engine=http://127.0.0.1:8080", "--over=2"],
        &["config"],
        &["config", "check"],
        &["completions", "tcsh"],
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

#[test]
fn man_pages_are_printed_and_written_for_each_command() {
    let page = printed(&["man"]);
    assert!(page.contains(".TH highwater 1"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("made/here");
    assert_eq!(printed(&["man", &format!("--out={}", out.display())]), "");
    let serve = std::fs::read_to_string(out.join("highwater-serve.1")).unwrap();
    assert!(serve.contains("data\\-dir") && serve.contains("HIGHWATER_DATA_DIR"), "{serve}");
    for name in ["highwater.1", "highwater-sidecar.1", "highwater-top.1", "highwater-config-check.1"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output = highwater(&["man", &format!("--out={}", file.display())]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(file.to_str().unwrap()) && text.contains("--out"), "{text}");
}

#[test]
fn completions_are_scripts_of_their_shells() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell]).contains("accept-clock"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("highwater.bash");
    std::fs::write(&script, printed(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(&script).output().expect("bash is there");
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}
