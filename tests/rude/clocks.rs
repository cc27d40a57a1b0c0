//! Starts with a clock that is far from the one the data directory was written by.
//!
//! The clock of a machine is not a test's to set, so the directory is moved in time instead: the engine's minute in
//! `state.hw`, with a checksum that is right. Invariant: a refused start leaves every file as it was.

use super::{contents, refused};
use crate::support::{Setup, now_ms};
use std::path::Path;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: i64 = 24 * 60;

/// Where the engine's minute lies: behind magic 8, version 4, directory id 16, epoch lease 8.
const MINUTE_AT: usize = 36;

/// Moves the directory's time, and returns its new end in ms.
fn move_to(data: &Path, minutes_from_now: i64) -> u64 {
    let path = data.join("state.hw");
    let mut bytes = std::fs::read(&path).unwrap();
    let now = i64::try_from(now_ms() / MINUTE_MS).unwrap();
    let before = u32::from_le_bytes(bytes[MINUTE_AT..MINUTE_AT + 4].try_into().unwrap());
    assert!((now - i64::from(before)).abs() <= 2, "minute {before} is not where it is looked for");
    let minute = u32::try_from(now + minutes_from_now).unwrap();
    bytes[MINUTE_AT..MINUTE_AT + 4].copy_from_slice(&minute.to_le_bytes());
    super::seal(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    u64::from(minute) * MINUTE_MS
}

/// The day of a time, as the engine writes it.
fn day(ms: u64) -> String {
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}", ms / 1000), "+%Y-%m-%dT%H:%M:00Z"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn far_away(deed: &str, minutes_from_now: i64) {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path());
    setup.start().terminate();
    let there = move_to(folder.path(), minutes_from_now);
    let before = contents(folder.path());
    let today = day(now_ms());
    refused(
        deed,
        &setup,
        &[
            "the wall clock says",
            &today[..10],
            &day(there),
            "--accept-clock",
            "timedatectl",
            "leaves the windows for good",
        ],
    );
    assert_eq!(contents(folder.path()), before);
    let mut accepted = Setup { more: vec!["--accept-clock".to_owned()], ..setup }.start();
    assert!(accepted.runs());
    assert_eq!(accepted.ask("/healthz").status, 200);
    accepted.terminate();
}

#[test]
fn a_clock_behind_the_data_is_refused_until_it_is_accepted() {
    far_away("start with a clock an hour behind the data", 60);
}

#[test]
fn a_clock_far_ahead_of_the_data_is_refused_until_it_is_accepted() {
    far_away("start with a clock 50 days ahead of the data", -50 * DAY_MINUTES);
}

#[test]
fn a_clock_within_the_limits_is_nothing_to_talk_about() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path());
    setup.start().terminate();
    move_to(folder.path(), 5);
    setup.start().terminate();
}
