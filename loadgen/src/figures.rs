//! The figures of one stretch of load: counts, latencies, and how punctual the generator itself was.
//!
//! Latency is that of batches whose planned time lies behind the warm-up. Invariant: views sent = counted + duplicate +
//! refused + those still without an answer.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_client::Fate;
use highwater_proto::{FRAME_HEADER_BYTES, ViewRefusal};

use crate::error::LoadError;
use crate::seconds::Seconds;
use crate::series::Series;

/// Longest latency told apart from longer ones: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const LATENCY_DIGITS: u8 = 3;
/// A batch that leaves so long after its planned time is still on time: the timer has a grain of 1 ms.
pub const PUNCTUAL: Duration = Duration::from_millis(2);

/// Figures of one stretch of load.
#[derive(Debug)]
pub struct Figures {
    /// Microseconds from a batch's planned time to its acknowledgement.
    pub latency_us: Histogram<u64>,
    /// Microseconds from a batch's planned time until it left, where the engine was not what held it up.
    pub late_us: Histogram<u64>,
    /// Views handed to producers, each once.
    pub views_sent: u64,
    /// Views counted by their acknowledgement.
    pub views_counted: u64,
    /// Views that an earlier delivery of their batch had counted.
    pub views_duplicate: u64,
    /// Views refused, by the order of [`ViewRefusal::ALL`].
    pub views_refused: [u64; ViewRefusal::ALL.len()],
    /// Batches handed to producers.
    pub batches_sent: u64,
    /// Batches answered for.
    pub batches_acked: u64,
    /// Times a batch's bytes were written again.
    pub retries: u64,
    /// Bytes of all answered batches' payloads, each once.
    pub payload_bytes: u64,
    /// Views of the batches that latency is of.
    pub measured_views: u64,
    /// Views by the second in which they were sent, for the last time.
    pub sent_seconds: Seconds,
    /// Views by the second in which they were answered for.
    pub acked_seconds: Seconds,
    /// Rates and latencies second by second.
    pub series: Series,
    /// When the last acknowledgement came.
    pub last_acked_at: Option<Instant>,
    /// When what is measured begins.
    measured_from: Instant,
    /// The first batch's planned time.
    began: Option<Instant>,
    /// The engine held batches up, and no batch has been on time since.
    excused: bool,
}

impl Figures {
    /// Empty figures; what is planned before `measured_from` is warm-up.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] if the histograms cannot be made.
    pub fn new(measured_from: Instant) -> Result<Self, LoadError> {
        Ok(Self {
            latency_us: histogram()?,
            late_us: histogram()?,
            views_sent: 0,
            views_counted: 0,
            views_duplicate: 0,
            views_refused: [0; ViewRefusal::ALL.len()],
            batches_sent: 0,
            batches_acked: 0,
            retries: 0,
            payload_bytes: 0,
            measured_views: 0,
            sent_seconds: Seconds::default(),
            acked_seconds: Seconds::default(),
            series: Series::default(),
            last_acked_at: None,
            measured_from,
            began: None,
            excused: false,
        })
    }

    /// A batch leaves now. Whether a producer `had_room` for it tells who is to blame for the delay of it and of those
    /// after it.
    pub(crate) fn leave(&mut self, views: u64, planned_at: Instant, now: Instant, had_room: bool) {
        self.views_sent += views;
        self.batches_sent += 1;
        self.began.get_or_insert(planned_at);
        let late = now.saturating_duration_since(planned_at);
        if late <= PUNCTUAL {
            self.excused = false;
        }
        if !self.excused && planned_at >= self.measured_from {
            self.late_us.saturating_record(micros(late));
        }
        self.excused |= !had_room;
    }

    /// A batch was answered for.
    pub(crate) fn settle(&mut self, fate: &Fate, answered: u64, planned_at: Instant) {
        self.views_counted += u64::from(fate.counted);
        self.views_duplicate += u64::from(fate.duplicate);
        for range in &fate.refused {
            let reason = usize::from(range.reason.code()) - 1;
            self.views_refused[reason] += u64::from(range.count);
        }
        self.batches_acked += 1;
        self.retries += u64::from(fate.retries);
        self.payload_bytes += u64::from(fate.frame_bytes) - FRAME_HEADER_BYTES as u64;
        self.last_acked_at = Some(fate.acked_at);
        let began = *self.began.get_or_insert(planned_at);
        self.sent_seconds.add(began, fate.sent_at, answered);
        self.acked_seconds.add(began, fate.acked_at, answered);
        let latency_us = micros(fate.acked_at.saturating_duration_since(planned_at));
        self.series.add(fate.acked_at.saturating_duration_since(began), answered, latency_us);
        if planned_at >= self.measured_from {
            self.measured_views += answered;
            self.latency_us.saturating_record(latency_us);
        }
    }

    /// Views answered for: counted, duplicate or refused.
    #[must_use]
    pub fn views_acked(&self) -> u64 {
        self.views_counted + self.views_duplicate + self.views_refused.iter().sum::<u64>()
    }

    /// Whether every view sent has its answer.
    #[must_use]
    pub fn all_acked(&self) -> bool {
        self.views_acked() == self.views_sent && self.batches_acked == self.batches_sent
    }

    /// From the end of the warm-up to the last acknowledgement.
    #[must_use]
    pub fn measured(&self) -> Duration {
        let last = self.last_acked_at.map(|last| last.saturating_duration_since(self.measured_from));
        last.unwrap_or_default()
    }

    /// Views per second of that time.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.measured_views as f64 / self.measured().as_secs_f64().max(1e-6)
    }

    /// Whether the generator itself kept to the plan: at most one batch of a hundred left late for its own sake.
    #[must_use]
    pub fn punctual(&self) -> bool {
        self.late_us.value_at_quantile(0.99) <= micros(PUNCTUAL)
    }
}

fn histogram() -> Result<Histogram<u64>, LoadError> {
    Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS).map_err(|error| LoadError::Runtime(error.to_string()))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(LATENCY_US_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches planned each millisecond; `late_ms` and whether there was room, for each.
    fn left(batches: &[(u64, bool)]) -> Figures {
        let start = Instant::now();
        let mut figures = Figures::new(start).unwrap();
        for (number, &(late_ms, had_room)) in (0..).zip(batches) {
            let planned_at = start + Duration::from_millis(number);
            figures.leave(10, planned_at, planned_at + Duration::from_millis(late_ms), had_room);
        }
        figures
    }

    #[test]
    fn a_generator_that_falls_behind_for_its_own_sake_is_found() {
        let on_time = vec![(1, true); 200];
        assert!(left(&on_time).punctual());
        let mut slow = on_time.clone();
        slow.extend((0..50).map(|late_ms| (late_ms, true)));
        let slow = left(&slow);
        assert!(!slow.punctual());
        assert_eq!((slow.views_sent, slow.late_us.len()), (2500, 250));
    }

    #[test]
    fn delays_behind_an_engine_that_has_no_room_are_not_its_own_until_it_is_on_time_again() {
        let mut held_up = vec![(1, true); 200];
        held_up.push((1, false));
        held_up.extend((0..50).map(|behind| (60 - behind, true)));
        assert!(left(&held_up).punctual());
        held_up.push((1, true));
        held_up.extend([(60, true); 10]);
        assert!(!left(&held_up).punctual(), "on time once, then behind with room");
    }

    #[test]
    fn the_warm_up_is_not_measured() {
        let start = Instant::now();
        let mut figures = Figures::new(start + Duration::from_secs(1)).unwrap();
        figures.leave(10, start, start + Duration::from_secs(5), true);
        assert_eq!((figures.views_sent, figures.late_us.len()), (10, 0));
        assert!(figures.punctual());
    }
}
