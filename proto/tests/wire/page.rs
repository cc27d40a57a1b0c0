//! Reads PROTOCOL.md: its named examples and its tables.
//!
//! What it is not: a Markdown parser; it knows fences and rows that start with `|`. Invariant: an example or table that
//! the page does not have fails the test that asks for it.

const PAGE: &str = include_str!("../../PROTOCOL.md");

/// The bytes of the example in the fence ```` ```hex name ````; `#` starts a remark.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}\n");
    let (_, after) = PAGE.split_once(&fence).unwrap_or_else(|| panic!("PROTOCOL.md has no example {name}"));
    let (block, _) = after.split_once("```").expect("the fence ends");
    let numbers = block.lines().map(|line| line.split('#').next().unwrap_or_default());
    numbers
        .flat_map(str::split_whitespace)
        .map(|byte| u8::from_str_radix(byte, 16).unwrap_or_else(|_| panic!("{name}: {byte} is no byte")))
        .collect()
}

/// Names of all examples, in the order of the page.
pub(crate) fn example_names() -> Vec<&'static str> {
    PAGE.lines().filter_map(|line| line.strip_prefix("```hex ")).collect()
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
