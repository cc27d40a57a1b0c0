//! What an audit found: differences, what was compared, and what could not be.
//!
//! Not the comparing. Invariant: every difference is counted; of them the first 100 are kept.

use highwater_ranking::Minute;
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::Write;

/// Differences that are listed.
pub(super) const LISTED_MAX: usize = 100;

/// One count that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The video; empty for a sum of all.
    pub video_id: String,
    /// `minute`, `hour`, `day`, `month`, `all-time` or the name of a served board.
    pub period: String,
    /// Where the period starts, RFC 3339; none for all-time.
    pub start_time: Option<String>,
    /// The finality class of the views; none for several.
    pub class: Option<u8>,
    /// What is stored or served.
    pub stored: u64,
    /// What it should be: exactly, or at the least and at the most.
    pub recomputed: String,
    /// Where it is stored.
    pub file: String,
}

/// How much of one kind was compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Compared {
    /// What with what.
    pub what: &'static str,
    /// Files.
    pub files: u64,
    /// Periods: minutes, hours, days or lists.
    pub periods: u64,
    /// Counts.
    pub counts: u64,
    /// Views in those counts.
    pub views: u64,
}

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    differences: Vec<Difference>,
    differences_total: u64,
    /// What could not be read, or makes no sense.
    problems: Vec<String>,
    compared: Vec<Compared>,
    not_compared: Vec<String>,
}

impl Report {
    /// Notes a difference.
    pub fn difference(&mut self, difference: Difference) {
        self.differences_total += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(difference);
        }
    }

    /// Whether a further difference would be listed.
    pub fn is_listing(&self) -> bool {
        self.differences.len() < LISTED_MAX
    }

    /// Notes that something could not be read, or makes no sense.
    pub fn problem(&mut self, text: &str) {
        self.problems.push(text.to_owned());
    }

    /// Notes what was compared.
    pub fn compared(&mut self, compared: Compared) {
        self.compared.push(compared);
    }

    /// Notes what was not compared, and why.
    pub fn not_compared(&mut self, text: impl Into<String>) {
        self.not_compared.push(text.into());
    }

    /// Differences and problems.
    pub fn wrong(&self) -> u64 {
        self.differences_total + self.problems.len() as u64
    }

    /// The differences listed.
    pub fn differences(&self) -> &[Difference] {
        &self.differences
    }

    /// What was compared.
    pub fn comparisons(&self) -> &[Compared] {
        &self.compared
    }

    /// What was not compared.
    pub fn left_out(&self) -> &[String] {
        &self.not_compared
    }

    /// What could not be read.
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// For people: a line for each thing.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for one in &self.differences {
            let Difference { video_id, period, start_time, class, stored, recomputed, file } = one;
            let start = start_time.as_deref().unwrap_or("-");
            let class = class.map_or_else(String::new, |class| format!(" class={class}"));
            let id = video_id.escape_debug();
            line(
                &mut out,
                format_args!(
                    "difference video_id=\"{id}\" period={period} start_time={start}{class} stored={stored} recomputed={recomputed} file={file}"
                ),
            );
        }
        for problem in &self.problems {
            line(&mut out, format_args!("problem {problem}"));
        }
        for Compared { what, files, periods, counts, views } in &self.compared {
            line(
                &mut out,
                format_args!("compared {what}: files={files} periods={periods} counts={counts} views={views}"),
            );
        }
        for text in &self.not_compared {
            line(&mut out, format_args!("not compared {text}"));
        }
        let (total, problems) = (self.differences_total, self.problems.len());
        let listed = self.differences.len() as u64;
        let more = if total > listed { format!(", {listed} of them listed") } else { String::new() };
        line(&mut out, format_args!("total {total} differences{more}, {problems} problems"));
        out
    }

    /// For programs.
    pub fn json(&self) -> String {
        let text = serde_json::to_string(self).expect("a report has nothing that JSON lacks");
        format!("{text}\n")
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all that is written to it");
}

/// The start of a minute as RFC 3339; its number where that ends before it does.
pub(super) fn time_text(minute: Minute) -> String {
    let milliseconds = i64::try_from(minute.start_ms()).ok();
    let time = milliseconds.and_then(|milliseconds| Timestamp::from_millisecond(milliseconds).ok());
    time.map_or_else(|| format!("minute {}", minute.0), |time| time.to_string())
}
