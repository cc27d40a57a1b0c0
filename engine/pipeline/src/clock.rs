//! The engine's clock: wall time that never runs backwards, and a watch on it.
//!
//! Time is an argument everywhere: the shell reads the two clocks once a turn and hands them in. This module never
//! reads a clock. Invariant: `now_ms` never decreases.

use crate::limits::CLOCK_DRIFT_MAX_MS;

/// A drift of one millisecond in so many is followed; ordinary clocks are corrected by less.
const FOLLOW_EVERY_MS: u64 = 100;

/// One reading of the two clocks, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Milliseconds since 1970, UTC.
    pub wall_ms: u64,
    /// Milliseconds of the monotonic clock, from any origin.
    pub monotonic_ms: u64,
}

/// The engine time of a core.
#[derive(Debug)]
pub(crate) struct Clock {
    now_ms: u64,
    monotonic_ms: u64,
    /// Wall minus monotonic time when the clock was started.
    offset_ms: i128,
    drift_ms: i128,
    /// Monotonic time up to which the drift was followed.
    followed_ms: u64,
}

impl Clock {
    /// Starts the clock at the later of the wall clock and `floor_ms`, the engine time that is already durable.
    pub(crate) fn start(reading: Reading, floor_ms: u64) -> Self {
        Self {
            now_ms: reading.wall_ms.max(floor_ms),
            monotonic_ms: reading.monotonic_ms,
            offset_ms: i128::from(reading.wall_ms) - i128::from(reading.monotonic_ms),
            drift_ms: 0,
            followed_ms: reading.monotonic_ms,
        }
    }

    /// Takes a new reading; returns whether the clock's health changed.
    pub(crate) fn advance(&mut self, reading: Reading) -> bool {
        let healthy = self.healthy();
        self.monotonic_ms = self.monotonic_ms.max(reading.monotonic_ms);
        self.drift_ms = i128::from(reading.wall_ms) - i128::from(reading.monotonic_ms) - self.offset_ms;
        if self.healthy() {
            self.now_ms = self.now_ms.max(reading.wall_ms);
            // A slow correction of the wall clock, as NTP makes it, is followed; a jump is not.
            let steps = (self.monotonic_ms - self.followed_ms) / FOLLOW_EVERY_MS;
            self.followed_ms += steps * FOLLOW_EVERY_MS;
            self.offset_ms += self.drift_ms.clamp(-i128::from(steps), i128::from(steps));
        }
        healthy != self.healthy()
    }

    /// Engine time in milliseconds since 1970, UTC.
    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Monotonic time in milliseconds.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms
    }

    /// Whether wall and monotonic clock agree within the limit; without that, intake and edges stop.
    pub(crate) fn healthy(&self) -> bool {
        self.drift_ms.unsigned_abs() <= u128::from(CLOCK_DRIFT_MAX_MS)
    }

    /// How far the wall clock has run from the monotonic one, in milliseconds.
    pub(crate) fn drift_ms(&self) -> i128 {
        self.drift_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(wall_ms: u64, monotonic_ms: u64) -> Reading {
        Reading { wall_ms, monotonic_ms }
    }

    #[test]
    fn time_never_runs_backwards_and_starts_at_the_durable_minute() {
        let mut clock = Clock::start(reading(1_000_000, 0), 1_060_000);
        assert_eq!(clock.now_ms(), 1_060_000);
        clock.advance(reading(1_010_000, 10_000));
        assert_eq!(clock.now_ms(), 1_060_000);
        clock.advance(reading(1_070_000, 70_000));
        assert_eq!(clock.now_ms(), 1_070_000);
    }

    #[test]
    fn a_jump_of_the_wall_clock_stops_the_engine_and_its_return_starts_it_again() {
        let mut clock = Clock::start(reading(1_000_000, 0), 0);
        assert!(!clock.advance(reading(1_004_000, 1_000)));
        assert!(clock.advance(reading(9_000_000, 2_000)));
        assert!(!clock.healthy());
        assert!(clock.now_ms() < 9_000_000);
        assert!(clock.advance(reading(1_003_000, 3_000)));
        assert!(clock.healthy());
    }

    #[test]
    fn a_slow_drift_is_followed() {
        let mut clock = Clock::start(reading(1_000_000, 0), 0);
        for tick in 1..20_000_u64 {
            clock.advance(reading(1_000_000 + tick * 100 + tick / 2, tick * 100));
            assert!(clock.healthy(), "tick {tick}");
        }
    }
}
