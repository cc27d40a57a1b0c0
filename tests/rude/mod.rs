//! Whoever uses it wrongly: every test does something wrong and holds the answer to what it must tell.
//!
//! Each wrong deed prints one row of a table (`cargo test -p highwater-tests -- rude --nocapture --test-threads=1`,
//! the lines that begin with `| `): what was done, the text that came back, and how it ended. Invariant: an answer says
//! what was wrong and what to do, without a panic, and what ran before runs on.

mod clocks;
mod directories;
mod disks;
mod files;
mod http;
mod machines;
mod settings;
mod starts;
mod wire;

use crate::support::Setup;
use std::ffi::OsStr;
use std::fmt::Display;
use std::path::Path;

/// Prints the row of a wrong deed.
fn row(deed: &str, answer: &str, end: impl Display) {
    let text = answer.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    println!("| {deed} | {text} | {end} |");
}

/// Prints the row of a wrong deed, after checking that its answer has these words and is no panic.
fn told(deed: &str, answer: &str, end: impl Display, words: &[&str]) {
    row(deed, answer, end);
    assert!(!answer.trim().is_empty() && !answer.contains("panicked"), "{deed}: {answer}");
    for word in words {
        assert!(answer.contains(word), "{deed}: {word:?} is not said: {answer}");
    }
}

/// Starts an engine that must refuse with these words, and exit 1.
fn refused(deed: &str, setup: &Setup, words: &[&str]) {
    let ended = setup.refused();
    assert_eq!(ended.code, Some(1), "{deed}: {ended:?}");
    told(deed, last_words(&ended.log), "exit 1", words);
}

/// The error of a log: what `highwater: ` begins.
fn last_words(log: &str) -> &str {
    log.find("highwater: ").map_or(log, |at| &log[at..])
}

/// Every file below a folder with its length and checksum, to see that nothing has changed: but the lock, and what an
/// engine was still making as it was killed, which the next one removes.
pub(crate) fn contents(folder: &Path) -> Vec<(String, u64, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else if entry.file_name() != "lock" && path.extension() != Some(OsStr::new("tmp")) {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path.display().to_string(), bytes.len() as u64, crc32c::crc32c(&bytes)));
        }
    }
    found.sort();
    found
}

/// Writes the checksum of a small file of the engine, so that it is as the engine would have written it.
fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&crc.to_le_bytes());
}
