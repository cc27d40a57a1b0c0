//! When a part was measured, of which commit, how long that took, and on what: another part may be of another machine.

use highwater_loadgen::machine::Machine;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

/// The page itself, which is written between two parts, is no change.
const STATUS: [&str; 5] = ["status", "--porcelain", "--", ":/", ":(top,exclude)benches/RESULTS.md"];

/// The beginning of a part.
#[derive(Debug)]
pub(crate) struct Stamp {
    at: SystemTime,
    began: Instant,
}

impl Stamp {
    pub(crate) fn now() -> Self {
        Self { at: SystemTime::now(), began: Instant::now() }
    }

    /// The line for the page, as of the end of the part.
    pub(crate) fn close(&self) -> String {
        let at = humantime::format_rfc3339_seconds(self.at).to_string().replace('T', " ").replace('Z', " UTC");
        let took = humantime::format_duration(Duration::from_secs(self.began.elapsed().as_secs().max(1)));
        format!("*{at}, commit {}, {took}, on {}*", commit(), Machine::this().cpu)
    }
}

/// The commit that is checked out where this program was built, and whether anything differs from it.
pub(crate) fn commit() -> String {
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&STATUS).is_none_or(|files| !files.is_empty());
    format!("{commit}{}", if changed { " + changes" } else { "" })
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(source()).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The folder of the benches' sources.
pub(crate) fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_has_date_commit_duration_and_machine() {
        let stamp = Stamp { at: SystemTime::UNIX_EPOCH, began: Instant::now() }.close();
        assert!(stamp.starts_with("*1970-01-01 00:00:00 UTC, commit "), "{stamp}");
        assert!(stamp.ends_with(&format!(", 1s, on {}*", Machine::this().cpu)), "{stamp}");
    }
}
