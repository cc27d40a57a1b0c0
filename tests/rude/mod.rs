//! Whoever uses it wrongly: every test does something wrong and holds the answer to what it must tell.
//!
//! Each wrong deed prints one row of a table (`cargo test -p highwater-tests -- rude --nocapture --test-threads=1`,
//! the lines that begin with `| `): what was done, the text that came back, and how it ended. Invariant: an answer says
//! what was wrong and what to do, without a panic, and what ran before runs on.

mod files;
mod http;
mod settings;
mod starts;
mod wire;

use std::fmt::Display;

/// Prints the row of a wrong deed, after checking that its answer has these words and is no panic.
fn told(deed: &str, answer: &str, end: impl Display, words: &[&str]) {
    let text = answer.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    println!("| {deed} | {text} | {end} |");
    assert!(!text.is_empty() && !text.contains("panicked"), "{deed}: {answer}");
    for word in words {
        assert!(answer.contains(word), "{deed}: {word:?} is not said: {answer}");
    }
}
