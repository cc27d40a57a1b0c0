//! The part `changes`: what was tried, as `benches/changes.md` says, word for word.

use crate::report::Report;
use crate::stamp::source;
use anyhow::{Context, Result};

pub(crate) fn measure() -> Result<Report> {
    let path = source().join("changes.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut report = Report::default();
    report.say(text.trim());
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_there_as_it_is() {
        let report = measure().unwrap();
        assert!(report.text.starts_with("### ") && report.missing.is_empty(), "{}", report.text);
    }
}
