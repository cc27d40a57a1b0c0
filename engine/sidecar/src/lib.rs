//! The HTTP side of Highwater: rankings for readers, health and metrics for operators.
//!
//! What it is for: answering `GET /v1/videos/top` and its neighbours from a [`SnapshotSource`], in the engine's
//! process or, by [`RemoteSnapshots`], in one of its own. What it is not: it counts, ranks and stores nothing; what
//! it serves is a published snapshot as it is, a closed list, or the counts that a core answers with. Invariant:
//! equal snapshots give equal bytes, and whatever a client sends, what the sidecar holds for it is bounded by
//! [`HttpLimits`].
//!
//! Sources: RFC 9110 (HTTP semantics), RFC 9457 (problem details), RFC 3339 (times), the Prometheus text format.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod counts;
mod door;
mod history;
mod json;
mod problem;
mod query;
mod remote;
mod router;
mod seats;
mod serve;
mod source;
mod time;

#[cfg(test)]
mod tests;

pub use door::{Admission, Readers};
pub use problem::{About, PROBLEM_CONTENT_TYPE, Problem};
pub use query::{K_DEFAULT, K_MAX, LIMIT_DEFAULT, LIMIT_MAX, MIN_EPOCH_WAIT};
pub use remote::RemoteSnapshots;
pub use router::router;
pub use serve::{HttpLimits, HttpOptions, TlsSource, serve};
pub use source::{LOOKUP_WAIT, LookupError, SnapshotSource, SourceStatus};
