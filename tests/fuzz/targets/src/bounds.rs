//! What every target holds its decoder to: memory in proportion to the input, and errors that say something.

use std::fmt::Display;

/// Longest text of an error.
const TEXT_BYTES_MAX: usize = 4096;

/// Runs a decoder on an input of `input_bytes`; what it holds at once must not be more than `factor` for each of them
/// and `constant_bytes` besides.
pub(crate) fn bounded<T>(input_bytes: usize, factor: usize, constant_bytes: usize, decode: impl FnOnce() -> T) -> T {
    let mut decoded = None;
    let held = allocation_counter::measure(|| decoded = Some(decode()));
    let allowed = (input_bytes * factor + constant_bytes) as u64;
    assert!(
        held.bytes_max <= allowed,
        "{} bytes held for an input of {input_bytes}, allowed {allowed}",
        held.bytes_max
    );
    decoded.expect("the decoder ran")
}

/// An error says something, is not endless, and names one of `names`, where there are any.
pub(crate) fn assert_told(error: &impl Display, names: &[&str]) {
    let text = error.to_string();
    assert!(text.len() > 10 && text.len() <= TEXT_BYTES_MAX, "an error of {} bytes: {text}", text.len());
    assert!(names.is_empty() || names.iter().any(|name| text.contains(name)), "none of {names:?} is named: {text}");
}
