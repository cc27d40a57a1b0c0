//! The sidecar's own counts, in the Prometheus text format.
//!
//! Invariant: labels come from constants and status codes, never from what a client sent, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::{HeaderValue, header};
use axum::response::Response;

/// The last line of the OpenMetrics format, which must stay the last.
const END_OF_METRICS: &str = "# EOF\n";

/// Why the listener ended a connection before its client did.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended {
    /// Its address had its share of the connections.
    Share,
    /// Its TLS handshake failed.
    Handshake,
    /// Its handshake, a header or another request took too long.
    Slow,
}

/// The reasons in metrics, in the order of [`Ended`], and that of a connection that made room for another.
const ENDED: [&str; 3] = ["address_share", "tls_handshake", "slow"];
const MADE_ROOM: &str = "made_room";

/// Answers by route and status, connections now, and those that the listener ended. The atomics are plain counts that
/// order nothing.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    answers: Mutex<BTreeMap<(&'static str, u16), u64>>,
    connections: AtomicUsize,
    sent_away: AtomicU64,
    ended: [AtomicU64; ENDED.len()],
}

impl Counts {
    /// Counts an answer, and forbids to store it unless it says itself how it may be.
    pub(crate) fn answer(&self, route: &'static str, mut answer: Response) -> Response {
        self.answered(route, answer.status().as_u16());
        answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        answer
    }

    fn answered(&self, route: &'static str, status: u16) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry((route, status)).or_default() += 1;
    }

    /// The connections there are, and how many were ever sent away for others.
    pub(crate) fn connections_now(&self, connections: usize, sent_away: u64) {
        self.connections.store(connections, Ordering::Relaxed);
        self.sent_away.store(sent_away, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self, why: Ended) {
        self.ended[why as usize].fetch_add(1, Ordering::Relaxed);
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
        text.push_str(
            "# HELP highwater_http_connections_ended_total Connections that the HTTP sidecar ended, by reason.\n",
        );
        text.push_str("# TYPE highwater_http_connections_ended_total counter\n");
        let ended = ENDED.iter().zip(&self.ended).chain([(&MADE_ROOM, &self.sent_away)]);
        for (reason, count) in ended {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(text, "highwater_http_connections_ended_total{{reason=\"{reason}\"}} {count}");
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
