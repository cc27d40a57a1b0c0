//! The files that are installed with the engine: its systemd units and the seccomp profile of its container.
//!
//! What they allow is put on the thread that starts an engine, as the service manager or the container engine would do.
//! Invariant: with no more system calls than that, an engine starts under either runtime, counts, and stops cleanly.

use crate::support::views::{NEWEST_MS, write_csv};
use crate::support::{Load, RUNTIMES, Setup};
use seccompiler::{BpfMap, BpfProgram, TargetArch, apply_filter, compile_from_json};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/server/deploy").join(file)
}

fn arch() -> TargetArch {
    std::env::consts::ARCH.try_into().unwrap()
}

/// The filter that does one thing for these calls and another for the rest. Names that this machine does not know
/// are none of its calls.
fn filter(names: &[String], on_match: &Value, otherwise: &Value) -> BpfProgram {
    let compile = |names: &[String]| {
        let calls: Vec<Value> = names.iter().map(|name| json!({"syscall": name})).collect();
        let whole = json!({"it": {"match_action": on_match, "mismatch_action": otherwise, "filter": calls}});
        compile_from_json(whole.to_string().as_bytes(), arch())
    };
    let known: Vec<String> =
        names.iter().filter(|name| compile(std::slice::from_ref(*name)).is_ok()).cloned().collect();
    assert!(known.len() * 2 > names.len(), "most of the names are unknown: {names:?}");
    let mut filters: BpfMap = compile(&known).unwrap();
    filters.remove("it").unwrap()
}

/// Starts engines that may do only what the filter lets them, sends them views, and stops them.
fn serves_within(filter: &BpfProgram) {
    // Built, if need be, before anything is forbidden.
    crate::support::binaries::binary("highwater");
    crate::support::binaries::binary("loadgen");
    for runtime in RUNTIMES {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { runtime: Some(runtime), ..Setup::new(&folder.path().join("data")) };
        let engine = std::thread::scope(|scope| {
            let start = || {
                apply_filter(filter).unwrap();
                setup.start()
            };
            scope.spawn(start).join().unwrap()
        });
        let rows: Vec<_> = (0..2000).map(|row| (format!("video-{}", row % 50), NEWEST_MS - row * 10)).collect();
        let file = write_csv(folder.path(), &rows);
        Load::verified(&engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish().assert_verified();
        engine.terminate();
    }
}

#[test]
fn an_engine_serves_within_the_seccomp_profile_of_its_container() {
    let text = std::fs::read_to_string(deployed("seccomp.json")).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ALLOW");
    let denied: Vec<String> = serde_json::from_value(profile["syscalls"][0]["names"].clone()).unwrap();
    assert_eq!(profile["syscalls"][0]["action"], "SCMP_ACT_ERRNO");
    for dangerous in ["mount", "bpf", "ptrace", "kexec_load", "init_module", "setns", "unshare"] {
        assert!(denied.iter().any(|name| name == dangerous), "{dangerous} is not denied");
    }
    let errno = profile["syscalls"][0]["errnoRet"].as_u64().unwrap();
    serves_within(&filter(&denied, &json!({"errno": errno}), &json!("allow")));
}

/// The calls of a set that systemd defines, such as `@system-service`.
fn calls_of(set: &str) -> Vec<String> {
    let output = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", set]).output().unwrap();
    assert!(output.status.success(), "{set}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    words.flat_map(|word| if word.starts_with('@') { calls_of(word) } else { vec![word.to_owned()] }).collect()
}

#[test]
fn units_are_sound_and_an_engine_serves_within_their_system_calls() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("skipped: this machine has no systemd-analyze");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for unit in ["highwater.service", "highwater-sidecar.service"] {
        let text = std::fs::read_to_string(deployed(unit)).unwrap();
        assert!(text.contains("\nSystemCallFilter=@system-service\n"), "{unit}");
        // Only where the binary will lie is not so here, and what man pages there are.
        let here = text
            .replace("/usr/local/bin/highwater", crate::support::binaries::binary("highwater").to_str().unwrap())
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .collect::<Vec<_>>()
            .join("\n");
        let path = folder.path().join(unit);
        std::fs::write(&path, here).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !said.contains(unit), "{unit}: {said}");
        // The flags on its command line are those that the engine has.
        let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let mut words = command.split(' ').skip(1);
        let help = crate::support::binaries::command("highwater").arg(words.next().unwrap()).arg("--help").output();
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        for word in words {
            let flag = word.split('=').next().unwrap();
            assert!(help.contains(flag), "{unit}: {flag} is no flag:\n{help}");
        }
    }
    serves_within(&filter(&calls_of("@system-service"), &json!("allow"), &json!({"errno": 1})));
}
