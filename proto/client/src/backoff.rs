//! Waiting times between attempts: 10 ms doubling to 1 s, each with jitter.
//!
//! It does not sleep itself. Invariant: every delay is within half and the whole of its step.

use std::time::Duration;

use rand::RngExt;

const DELAY_FIRST: Duration = Duration::from_millis(10);
const DELAY_MAX: Duration = Duration::from_secs(1);
const ATTEMPT_FIRST: Duration = Duration::from_secs(1);
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// The state between two successes.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How long to wait before the next attempt; grows with each call.
    pub(crate) fn delay(&mut self) -> Duration {
        let step = DELAY_FIRST.saturating_mul(1 << self.attempts.min(16)).min(DELAY_MAX);
        self.attempts = self.attempts.saturating_add(1);
        step.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// How long one attempt may take: short at first, so that an engine that comes back is found soon, longer later, so
    /// that a slow path is not given up each time.
    pub(crate) fn attempt_timeout(&self) -> Duration {
        ATTEMPT_FIRST.saturating_mul(1 << self.attempts.min(4)).min(ATTEMPT_MAX)
    }

    /// A success: start over.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_one_second_and_start_over() {
        let mut backoff = Backoff::default();
        let first = backoff.delay();
        assert!(first >= DELAY_FIRST / 2 && first <= DELAY_FIRST, "{first:?}");
        for _ in 0..100 {
            assert!(backoff.delay() <= DELAY_MAX);
        }
        assert!(backoff.delay() >= DELAY_MAX / 2);
        assert_eq!(backoff.attempt_timeout(), ATTEMPT_MAX);
        backoff.reset();
        assert!(backoff.delay() <= DELAY_FIRST);
    }
}
