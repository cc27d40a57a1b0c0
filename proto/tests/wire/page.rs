//! Reads PROTOCOL.md: its named examples and its tables.
//!
//! What it is not: a Markdown parser; it knows fences and rows that start with `|`. Invariant: an example or table that
//! the page does not have fails the test that asks for it.

use highwater_proto::{CloseReason, DecodeError};

const PAGE: &str = include_str!("../../PROTOCOL.md");

/// How the fences of examples begin: of those that every client knows, and of those that it may do without.
const FENCES: [&str; 2] = ["```hex ", "```hex-optional "];

/// The bytes of the example in the fence ```` ```hex name ````; `#` starts a remark.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let mut fences = FENCES.iter().map(|fence| format!("{fence}{name}\n"));
    let found = fences.find_map(|fence| PAGE.split_once(&fence));
    let (_, after) = found.unwrap_or_else(|| panic!("PROTOCOL.md has no example {name}"));
    let (block, _) = after.split_once("```").expect("the fence ends");
    let numbers = block.lines().map(|line| line.split('#').next().unwrap_or_default());
    numbers
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: {byte} is no byte")))
        .collect()
}

/// Names of all examples, in the order of the page.
pub(crate) fn example_names() -> Vec<&'static str> {
    PAGE.lines().filter_map(|line| FENCES.iter().find_map(|fence| line.strip_prefix(fence))).collect()
}

/// The rows of every table with this heading, as trimmed cells.
pub(crate) fn table(heading: &str) -> Vec<Vec<&'static str>> {
    let mut rows = Vec::new();
    let mut lines = PAGE.lines();
    while lines.by_ref().any(|line| line == heading) {
        let body = lines.by_ref().skip(1).take_while(|line| line.starts_with('|'));
        rows.extend(body.map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>()));
    }
    assert!(!rows.is_empty(), "PROTOCOL.md has no table {heading}");
    rows
}

/// The payload of an example with the bytes at `at` replaced.
pub(crate) fn changed(name: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut payload = example(name).split_off(8);
    payload[at..at + bytes.len()].copy_from_slice(bytes);
    payload
}

/// A payload that is refused with this code, and with a text that holds `names`.
pub(crate) fn closes<T: std::fmt::Debug>(outcome: Result<T, DecodeError>, reason: CloseReason, names: &str) {
    let error = outcome.expect_err("the change is refused");
    assert_eq!(error.close_reason(), reason, "{error}");
    assert!(error.to_string().contains(names), "{error:?} reads: {error}");
}
