//! The report of a load, as JSON for scripts.
//!
//! Keys carry their units. Invariant: `views_acked` = `views_counted` + `duplicates` + `refused`, and without a failure
//! it equals `views_sent`.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_proto::ViewRefusal;
use serde::Serialize;

use crate::error::LoadError;
use crate::machine::{self, Machine};
use crate::send::Start;
use crate::tally::Tally;
use crate::verify::Verification;

/// Microseconds from a batch's planned time (at full speed: from being handed over) to its acknowledgement.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AckLatency {
    /// Median.
    pub p50: u64,
    /// 90 of 100 batches took at most this.
    pub p90: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1000.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// Everything a load has to tell.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Views handed to producers; resent ones are not sent twice.
    pub views_sent: u64,
    /// Views the engine has answered for: counted, duplicate or refused.
    pub views_acked: u64,
    /// Views counted by the acknowledgement that came.
    pub views_counted: u64,
    /// Views counted by an earlier delivery whose acknowledgement was lost; each is counted once in the engine.
    pub duplicates: u64,
    /// Views refused for good.
    pub refused: u64,
    /// The refused by reason.
    pub refused_by_reason: BTreeMap<&'static str, u64>,
    /// Batches handed to producers.
    pub batches_sent: u64,
    /// Times a batch's bytes were sent again after a lost connection or a refusal of the batch.
    pub retries: u64,
    /// Lost connections that were replaced.
    pub reconnects: u64,
    /// Milliseconds added to the file's times.
    pub shift_ms: i64,
    /// Whether the engine's answers equal the exact counts; null where not asked for.
    pub verified: Option<bool>,
    /// Epoch of the answers compared; null where not asked for.
    pub verified_epoch: Option<u64>,
    /// Seconds from start to the last acknowledgement.
    pub duration_s: f64,
    /// Views acknowledged per second of that.
    pub rate_per_s: f64,
    /// Views sent in the leanest whole second; null for less than a second.
    pub sent_in_a_second_min: Option<u64>,
    /// Views acknowledged in the leanest whole second; null for less than a second.
    pub acked_in_a_second_min: Option<u64>,
    /// Bytes of batch frames per view.
    pub bytes_per_view: f64,
    /// Distinct videos among the views sent.
    pub distinct_videos: u64,
    /// Latency of acknowledgements.
    pub ack_latency_us: AckLatency,
    /// What ended the load early; null if nothing did.
    pub failure: Option<String>,
    /// The machine it ran on.
    pub machine: Machine,
    /// The kernel's release.
    pub kernel: String,
    /// The commit the generator was built from.
    pub commit: &'static str,
    /// The command line.
    pub command_line: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        tally: &Tally,
        start: Start,
        reconnects: u64,
        shift_ms: i64,
        verification: Option<&Verification>,
        failure: Option<&LoadError>,
    ) -> Self {
        let duration =
            tally.last_acked_at.map(|last| last.saturating_duration_since(start.instant)).unwrap_or_default();
        let views_acked = tally.views_acked();
        let answered = tally.views_acked().max(1) as f64;
        let reasons = ViewRefusal::ALL.iter().zip(tally.views_refused);
        let latency_us = |quantile| tally.latency_us.value_at_quantile(quantile);
        Self {
            views_sent: tally.views_sent,
            views_acked,
            views_counted: tally.views_counted,
            duplicates: tally.views_duplicate,
            refused: tally.views_refused.iter().sum(),
            refused_by_reason: reasons.map(|(reason, views)| (reason.as_str(), views)).collect(),
            batches_sent: tally.batches_sent,
            retries: tally.retries,
            reconnects,
            shift_ms,
            verified: verification.map(|verification| verification.verified),
            verified_epoch: verification.and_then(|verification| verification.epoch),
            duration_s: duration.as_secs_f64(),
            rate_per_s: views_acked as f64 / duration.as_secs_f64().max(1e-6),
            sent_in_a_second_min: tally.sent_seconds.views_min(),
            acked_in_a_second_min: tally.acked_seconds.views_min(),
            bytes_per_view: tally.frame_bytes as f64 / answered,
            distinct_videos: tally.distinct_videos(),
            ack_latency_us: AckLatency {
                p50: latency_us(0.5),
                p90: latency_us(0.9),
                p99: latency_us(0.99),
                p999: latency_us(0.999),
                max: tally.latency_us.max(),
            },
            failure: failure.map(ToString::to_string),
            machine: Machine::this(),
            kernel: machine::kernel(),
            commit: machine::commit(),
            command_line: std::env::args().collect(),
        }
    }

    /// The report as indented JSON.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] if it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, LoadError> {
        serde_json::to_string_pretty(self).map_err(|error| LoadError::Runtime(error.to_string()))
    }

    /// Writes the JSON to a file.
    ///
    /// # Errors
    /// [`LoadError::Write`] with the file's name.
    pub fn write(&self, path: &Path) -> Result<(), LoadError> {
        let json = self.to_json()? + "\n";
        std::fs::write(path, json).map_err(|source| LoadError::Write { path: path.to_owned(), source })
    }
}

/// A load that was started: its report, and what went wrong.
#[derive(Debug)]
pub struct Outcome {
    /// All figures.
    pub report: Report,
    /// Where the engine's answers differ from the exact counts; the first few per period.
    pub differences: Vec<String>,
    /// What ended the load early.
    pub failure: Option<LoadError>,
}

impl Outcome {
    /// Everything was acknowledged and, where asked for, found exact.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        let report = &self.report;
        self.failure.is_none() && report.views_acked == report.views_sent && report.verified != Some(false)
    }
}
