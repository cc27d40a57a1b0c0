//! What a part has to say, and what of it could not be measured.
//!
//! Invariant: whatever is missing stands in the text as well.

use anyhow::{Error, Result};

/// Most characters of an error on the page; all of it goes to stderr.
const ERROR_CHARS_MAX: usize = 400;

/// The text of a part, in Markdown.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) text: String,
    /// What was not measured, and why, a line each.
    pub(crate) missing: Vec<String>,
}

impl Report {
    /// Of a part of which there is nothing.
    pub(crate) fn failed(error: Error) -> Self {
        let mut report = Self::default();
        report.miss("all of it", &error);
        report
    }

    /// Adds a paragraph.
    pub(crate) fn say(&mut self, paragraph: impl AsRef<str>) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(paragraph.as_ref().trim_end());
    }

    /// Adds a piece under a heading, or that it is missing.
    pub(crate) fn add(&mut self, heading: &str, piece: Result<String>) {
        self.say(format!("### {heading}"));
        match piece {
            Ok(text) => self.say(text),
            Err(error) => self.miss(heading, &error),
        }
    }

    /// Adds that something is missing.
    pub(crate) fn miss(&mut self, what: &str, error: &Error) {
        eprintln!("results: not measured: {what}: {error:#}");
        let why = one_line(&format!("{error:#}"));
        self.say(format!("not measured: {why}"));
        self.missing.push(format!("{what}: {why}"));
    }
}

fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(ERROR_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn what_is_missing_is_said_where_it_would_be() {
        let mut report = Report::default();
        report.add("One", Ok("figures\n".to_owned()));
        report.add("Two", Err(anyhow!("it\n  broke")));
        assert_eq!(report.text, "### One\n\nfigures\n\n### Two\n\nnot measured: it broke");
        assert_eq!(report.missing, ["Two: it broke"]);
    }

    #[test]
    fn long_errors_are_cut() {
        let report = Report::failed(anyhow!("ä".repeat(1000)));
        assert_eq!(report.text.chars().filter(|one| *one == 'ä').count(), ERROR_CHARS_MAX);
        assert!(report.text.ends_with('…'));
    }
}
