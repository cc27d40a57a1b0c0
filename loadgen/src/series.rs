//! What a load looked like second by second: for plots.
//!
//! Invariant: memory is bounded, since of a long load only the first hours are kept.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Most seconds that are kept: four hours.
pub const SECONDS_MAX: usize = 14_400;
const LATENCY_DIGITS: u8 = 2;
/// Longest latency told apart from longer ones: a minute.
const LATENCY_US_MAX: u64 = 60_000_000;

/// One second of a load, by the time of its acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Second {
    /// Seconds since the first batch's planned time.
    pub second: u64,
    /// Views answered for.
    pub views: u64,
    /// Median latency of their batches, microseconds.
    pub p50_us: u64,
    /// 99 of 100 took at most this.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// The seconds of a load so far.
#[derive(Debug, Default)]
pub struct Series {
    past: Vec<Second>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    second: u64,
    views: u64,
    latency_us: Histogram<u64>,
}

impl Series {
    /// Adds a batch that was answered for so long after the beginning. One from before the second at hand counts to it.
    pub fn add(&mut self, at: Duration, views: u64, latency_us: u64) {
        let second = at.as_secs();
        if self.current.as_ref().is_some_and(|current| current.second < second) {
            self.close();
        }
        if self.current.is_none() && self.past.len() < SECONDS_MAX {
            // Only a number of digits above 5 is refused, or a largest value below 2.
            let latency_us = Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS).expect("both are allowed");
            self.current = Some(Current { second, views: 0, latency_us });
        }
        if let Some(current) = &mut self.current {
            current.views += views;
            current.latency_us.saturating_record(latency_us);
        }
    }

    /// All seconds with an answer, the last one as far as it goes.
    #[must_use]
    pub fn seconds(&self) -> Vec<Second> {
        self.past.iter().copied().chain(self.current.as_ref().map(Current::summary)).collect()
    }

    fn close(&mut self) {
        self.past.extend(self.current.take().map(|current| current.summary()));
    }
}

impl Current {
    fn summary(&self) -> Second {
        Second {
            second: self.second,
            views: self.views,
            p50_us: self.latency_us.value_at_quantile(0.5),
            p99_us: self.latency_us.value_at_quantile(0.99),
            max_us: self.latency_us.max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_follow_one_another_and_the_number_kept_is_bounded() {
        let mut series = Series::default();
        for (at_ms, latency_us) in [(100, 50), (900, 70), (1100, 1000), (700, 90), (5000, 10)] {
            series.add(Duration::from_millis(at_ms), 10, latency_us);
        }
        let seconds = series.seconds();
        let short: Vec<(u64, u64, u64)> = seconds.iter().map(|one| (one.second, one.views, one.p50_us)).collect();
        assert_eq!(short, [(0, 20, 50), (1, 20, 90), (5, 10, 10)]);
        assert!(seconds[1].max_us >= 1000 && seconds[0].max_us >= 70);
        for second in 0..2 * SECONDS_MAX as u64 {
            series.add(Duration::from_secs(6 + second), 1, 1);
        }
        assert_eq!(series.seconds().len(), SECONDS_MAX);
    }
}
