//! The sidecar's own counts, in the Prometheus text format.
//!
//! Invariant: labels come from constants and status codes, never from what a client sent, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The last line of the OpenMetrics format, which must stay the last.
const END_OF_METRICS: &str = "# EOF\n";

/// Answers by route and status, and connections now. The atomic is a plain count that orders nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    connections: AtomicUsize,
}

impl Counts {
    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((route, status)).or_default() += 1;
    }

    pub(crate) fn connections_now(&self, connections: usize) {
        self.connections.store(connections, Ordering::Relaxed);
    }

    /// The source's metrics with the sidecar's behind them.
    pub(crate) fn append_to(&self, source: String) -> String {
        let (mut text, ends) = match source.strip_suffix(END_OF_METRICS) {
            Some(rest) => (rest.to_owned(), true),
            None => (source, false),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("# HELP highwater_http_answers_total Answers of the HTTP sidecar by route and status.\n");
        text.push_str("# TYPE highwater_http_answers_total counter\n");
        for ((route, status), count) in &*self.answers.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "highwater_http_answers_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        text.push_str("# HELP highwater_http_connections Connections of the HTTP sidecar now.\n");
        text.push_str("# TYPE highwater_http_connections gauge\n");
        let _ = writeln!(text, "highwater_http_connections {}", self.connections.load(Ordering::Relaxed));
        if ends {
            text.push_str(END_OF_METRICS);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_mark_stays_last() {
        let counts = Counts::default();
        counts.answered("top", 200);
        counts.answered("top", 200);
        let text = counts.append_to("# TYPE a counter\na_total 1\n# EOF\n".into());
        assert!(text.starts_with("# TYPE a counter\na_total 1\n# HELP highwater_http_answers_total"), "{text}");
        assert!(text.contains("highwater_http_answers_total{route=\"top\",status=\"200\"} 2\n"), "{text}");
        assert!(text.ends_with("highwater_http_connections 0\n# EOF\n"), "{text}");
        assert!(!counts.append_to("a_total 1".into()).contains("EOF"));
    }
}
