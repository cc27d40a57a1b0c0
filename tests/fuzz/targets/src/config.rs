//! The configuration file: what is wrong is told with its place and nothing in it that does something to a terminal;
//! what a process says it runs with can be given to the next.
//!
//! Input: the command, by its first byte, then the file.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use highwater::config::{Invocation, Refusal, read};
use tempfile::NamedTempFile;

use crate::bounds::bounded;

/// Each command that has a file, with what it requires.
const COMMANDS: [&[&str]; 4] = [
    &["serve", "--data-dir=d", "--memory=4GiB"],
    &["serve"],
    &["sidecar", "--engine=localhost:4433"],
    &["top", "--engine=localhost:4433"],
];
/// Problems that are told of one file, and one more that says so.
const PROBLEMS_MAX: usize = 21;
const PROBLEM_CHARS_MAX: usize = 2000;
const FACTOR: usize = 1024;
/// The definition of all flags, several times over.
const CONSTANT_BYTES: usize = 8 << 20;

pub(crate) fn run(data: &[u8]) {
    let Some((command, text)) = data.split_first() else { return };
    let flags = COMMANDS[usize::from(*command) % COMMANDS.len()];
    let file = NamedTempFile::new().expect("a file can be made");
    match bounded(text.len(), FACTOR, CONSTANT_BYTES, || asked(flags, file.path(), text)) {
        Ok(invocation) => again(flags[0], file.path(), &invocation),
        Err(Refusal::Settings(problems)) => {
            assert!((1..=PROBLEMS_MAX).contains(&problems.len()), "{} problems", problems.len());
            for problem in problems {
                let is_plain = !problem.contains(|character: char| character.is_control());
                assert!(is_plain && problem.chars().count() <= PROBLEM_CHARS_MAX, "{problem:?}");
                assert!(problem.len() > 10, "{problem:?}");
            }
        }
        Err(Refusal::Line(error, _)) => assert!(error.to_string().contains("error: "), "{error}"),
    }
}

fn asked(flags: &[&str], path: &Path, text: &[u8]) -> Result<Invocation, Refusal> {
    std::fs::write(path, text).expect("the file can be written");
    let line = ["highwater"].iter().chain(flags).map(OsString::from);
    let config = OsString::from(format!("--config={}", path.display()));
    read(line.chain([config]), [])
}

/// The effective configuration as a file of its own says the same.
fn again(command: &str, path: &Path, invocation: &Invocation) {
    let mut text = format!("[{command}]\n");
    for setting in invocation.settings.iter().filter(|setting| setting.key != "config") {
        if let Some(value) = &setting.value {
            writeln!(text, "{} = {value}", setting.key).expect("texts grow");
        }
    }
    let values = |invocation: &Invocation| -> Vec<(String, Option<String>)> {
        invocation.settings.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
    };
    let again = asked(&[command], path, text.as_bytes());
    let again = again.unwrap_or_else(|refusal| panic!("what runs is refused as a file: {refusal}\n{text}"));
    assert_eq!(values(&again), values(invocation), "{text}");
}
