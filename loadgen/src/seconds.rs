//! The leanest second of a load: how few views it held.
//!
//! Not a rate over the whole, which hides a stall that is caught up with. Invariant: only whole seconds count, so
//! neither the first moment nor the last one is taken for a lean second.

use std::time::Instant;

/// Views by second since the first one's planned time, of which the least is kept.
#[derive(Debug, Default)]
pub struct Seconds {
    origin: Option<Instant>,
    current: u64,
    views: u64,
    views_min: Option<u64>,
}

impl Seconds {
    /// Adds views at a time, in a load that began at `began`. A time before the second at hand counts to that second.
    pub fn add(&mut self, began: Instant, at: Instant, views: u64) {
        let origin = *self.origin.get_or_insert(began);
        let second = at.saturating_duration_since(origin).as_secs();
        while self.current < second {
            let least = self.views_min.map_or(self.views, |least| least.min(self.views));
            (self.views_min, self.views) = (Some(least), 0);
            // Seconds without any views are all alike.
            self.current = if least == 0 { second } else { self.current + 1 };
        }
        self.views += views;
    }

    /// Views in the leanest whole second; `None` while there was none.
    #[must_use]
    pub fn views_min(&self) -> Option<u64> {
        self.views_min
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_leanest_whole_second_counts_and_the_last_one_does_not() {
        let began = Instant::now();
        let mut seconds = Seconds::default();
        let mut add = |at: f64, views| {
            seconds.add(began, began + Duration::from_secs_f64(at), views);
            seconds.views_min()
        };
        assert_eq!(add(0.1, 100), None);
        assert_eq!(add(0.9, 100), None);
        assert_eq!(add(1.5, 150), Some(200));
        assert_eq!(add(0.5, 20), Some(200), "late news of the second before");
        assert_eq!(add(2.1, 7), Some(170));
        assert_eq!(add(3.0, 500), Some(7));
        assert_eq!(add(1000.0, 1), Some(0), "a stall");
    }
}
