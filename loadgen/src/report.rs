//! The report of a load, as JSON for scripts.
//!
//! Keys carry their units. Invariant: `views_acked` = `views_counted` + `duplicates` + `refused`, and without a failure
//! it equals `views_sent`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use highwater_proto::ViewRefusal;
use serde::Serialize;

use crate::error::LoadError;
use crate::figures::{Figures, LATE_P99_MAX, LATE_P999_MAX};
use crate::machine::{self, Machine};
use crate::send::Start;
use crate::series::Second;
use crate::tally::Tally;

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
    /// 9999 of 10 000.
    pub p9999: u64,
    /// The longest.
    pub max: u64,
}

/// Whether the generator kept to its plan: else latencies are its own as much as the engine's. Where batches leave as
/// fast as the engine answers there is no plan, and all but the CPU time is null.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Punctuality {
    /// 99 of 100 batches left at most so long after their planned time, or after the engine made room for them if that
    /// came later, or behind such others after their turn, microseconds.
    pub late_us_p99: Option<u64>,
    /// 999 of 1000.
    pub late_us_p999: Option<u64>,
    /// The latest.
    pub late_us_max: Option<u64>,
    /// CPU time of the generator, in percent of one CPU.
    pub cpu_percent: f64,
    /// Whether the first is within 2 ms and the second within 10 ms; if not, the run says nothing about the engine.
    pub valid: Option<bool>,
}

impl Punctuality {
    pub(crate) fn of(figures: &Figures, cpu_percent: f64) -> Self {
        Self {
            late_us_p99: figures.late_us_at(0.99),
            late_us_p999: figures.late_us_at(0.999),
            late_us_max: figures.late_us_at(1.0),
            cpu_percent,
            valid: figures.punctual(),
        }
    }

    /// How late the generator itself was, if that was too late, in words.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let (Some(false), Some(p99), Some(p999)) = (self.valid, self.late_us_p99, self.late_us_p999) else {
            return None;
        };
        let (p99_max, p999_max) = (LATE_P99_MAX.as_micros(), LATE_P999_MAX.as_micros());
        Some(format!(
            "the generator itself was {p99} us late (p99; at most {p99_max} are allowed) and {p999} us (p99.9; \
             {p999_max}): latencies are not the engine's alone; lower the rate or give it a CPU of its own"
        ))
    }
}

impl AckLatency {
    pub(crate) fn of(figures: &Figures) -> Self {
        let latency_us = |quantile| figures.latency_us.value_at_quantile(quantile);
        Self {
            p50: latency_us(0.5),
            p90: latency_us(0.9),
            p99: latency_us(0.99),
            p999: latency_us(0.999),
            p9999: latency_us(0.9999),
            max: figures.latency_us.max(),
        }
    }
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
    /// Seconds of that at the beginning which are in no latency and no rate.
    pub warm_up_s: f64,
    /// Views acknowledged per second after the warm-up.
    pub rate_per_s: f64,
    /// Views sent in the leanest whole second; null for less than a second.
    pub sent_in_a_second_min: Option<u64>,
    /// Views acknowledged in the leanest whole second; null for less than a second.
    pub acked_in_a_second_min: Option<u64>,
    /// Bytes of batch payloads per view.
    pub bytes_per_view: f64,
    /// Distinct videos among the views sent.
    pub distinct_videos: u64,
    /// Latency of acknowledgements.
    pub ack_latency_us: AckLatency,
    /// The generator itself.
    pub generator: Punctuality,
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
    /// What the figures of the last stretch say; the check and what else the load as a whole knows is left to be filled
    /// in.
    pub(crate) fn new(tally: &Tally, start: Start, warm_up: Duration, cpu_percent: f64) -> Self {
        let figures = &tally.figures;
        let duration =
            figures.last_acked_at.map(|last| last.saturating_duration_since(start.instant)).unwrap_or_default();
        let views_acked = figures.views_acked();
        let reasons = ViewRefusal::ALL.iter().zip(figures.views_refused);
        Self {
            views_sent: figures.views_sent,
            views_acked,
            views_counted: figures.views_counted,
            duplicates: figures.views_duplicate,
            refused: figures.views_refused.iter().sum(),
            refused_by_reason: reasons.map(|(reason, views)| (reason.as_str(), views)).collect(),
            batches_sent: figures.batches_sent,
            retries: figures.retries,
            reconnects: 0,
            shift_ms: 0,
            verified: None,
            verified_epoch: None,
            duration_s: duration.as_secs_f64(),
            warm_up_s: warm_up.as_secs_f64(),
            rate_per_s: figures.rate_per_s(),
            sent_in_a_second_min: figures.sent_seconds.views_min(),
            acked_in_a_second_min: figures.acked_seconds.views_min(),
            bytes_per_view: figures.payload_bytes as f64 / views_acked.max(1) as f64,
            distinct_videos: tally.distinct_videos(),
            ack_latency_us: AckLatency::of(figures),
            generator: Punctuality::of(figures, cpu_percent),
            failure: None,
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
    /// Rates and latencies second by second.
    pub seconds: Vec<Second>,
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
