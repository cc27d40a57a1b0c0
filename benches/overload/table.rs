//! The table: what was done, what the engine did, its memory, and how the client fared.
//!
//! Invariant: it reads as a table in Markdown, and a line is printed as soon as its attack is over.

use crate::attack::Attack;
use crate::client::Fared;
use highwater_loadgen::process::engine::{Memory, metric};
use std::collections::BTreeMap;
use std::fmt;

/// The engine's counts that tell what it did about an attack.
const REACTIONS: [&str; 12] = [
    "highwater_connections_refused_total",
    "highwater_connections_overloaded_total",
    "highwater_retries_sent_total",
    "highwater_handshakes_failed_total",
    "highwater_sessions_closed_total",
    "highwater_views_refused_total",
    "highwater_batches_refused_total",
    "highwater_intake_waits_total",
    "highwater_http_connections_ended_total",
    "highwater_http_answers_total",
    "highwater_datagrams_received_total",
    "highwater_silences_total",
];

/// One attack's line.
pub(crate) struct Row {
    name: &'static str,
    done: String,
    reactions: Vec<String>,
    memory: Memory,
    limit: &'static str,
    conserved: bool,
    fared: Fared,
}

pub(crate) fn heading() -> &'static str {
    "| attack | what was done | what the engine did | memory, most of limit (MiB) | client: views acked | verified \
     | ack p50, p99, max (ms) | reads, failed | read p99, max (ms) |\n|---|---|---|---|---|---|---|---|---|"
}

impl Row {
    pub(crate) fn new(attack: &Attack, done: String, before: &str, after: &str, memory: Memory, fared: Fared) -> Self {
        let total = |name: &str| metric(after, name).unwrap_or(0.0);
        let answered = total("highwater_views_counted_total")
            + total("highwater_views_duplicate_total")
            + total("highwater_views_refused_total");
        Self {
            name: attack.name,
            done,
            reactions: reactions(before, after),
            memory,
            limit: attack.memory,
            conserved: (answered - total("highwater_views_received_total")).abs() < 0.5,
            fared,
        }
    }

    /// Who was harmed, in words; nobody if there is none.
    pub(crate) fn harm(&self) -> Option<String> {
        let fared = &self.fared;
        if let Some(failure) = &fared.failure {
            return Some(format!("the client failed: {failure}"));
        }
        if fared.views_acked != fared.views_sent {
            return Some(format!("{} of {} views were acknowledged", fared.views_acked, fared.views_sent));
        }
        if fared.verified == Some(false) {
            return Some("the lists are wrong".to_owned());
        }
        if !self.conserved {
            return Some("views received are not those counted, duplicate or refused".to_owned());
        }
        let (peak, limit) = (self.memory.peak_bytes, self.memory.limit_bytes);
        (peak > limit).then(|| format!("{peak} bytes of memory were used, {limit} are allowed"))
    }
}

/// The counts that grew, by their labels.
fn reactions(before: &str, after: &str) -> Vec<String> {
    let samples = |page: &str| -> BTreeMap<String, f64> {
        let known = |key: &str| REACTIONS.contains(&key.split('{').next().unwrap_or(key));
        let samples = page.lines().filter_map(|line| line.rsplit_once(' ')).filter(|(key, _)| known(key));
        samples.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect()
    };
    let before = samples(before);
    let mut grown = Vec::new();
    for (key, value) in samples(after) {
        let growth = value - before.get(&key).copied().unwrap_or(0.0);
        // What was well is no reaction.
        if growth > 0.0 && !key.contains("status=\"200\"") && !key.contains("datagrams") {
            let name = key.trim_start_matches("highwater_").replace("_total", "").replace('"', "");
            grown.push(format!("{name} {growth:.0}"));
        }
    }
    grown
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fared = &self.fared;
        let ms = |us: u64| us as f64 / 1000.0;
        let reactions = if self.reactions.is_empty() { "nothing".to_owned() } else { self.reactions.join(", ") };
        let verified = fared.verified.map_or("-", |verified| if verified { "yes" } else { "no" });
        let [p50, p99, max] = fared.ack_us.map(ms);
        let [read_p99, read_max] = fared.read_us.map(ms);
        write!(
            out,
            "| {} | {} | {reactions} | {} of {} | {} of {} | {verified} | {p50:.1}, {p99:.1}, {max:.1} | {}, {} | \
             {read_p99:.1}, {read_max:.1} |",
            self.name,
            self.done,
            self.memory.peak_bytes >> 20,
            self.limit,
            fared.views_acked,
            fared.views_sent,
            fared.reads,
            fared.reads_failed,
        )
    }
}
