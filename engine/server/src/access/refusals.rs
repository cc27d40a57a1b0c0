//! What the log says of clients that were not let in: at once, and then not again for a while.
//!
//! The metrics count each of them. Invariant: who knocks without end fills no disk with lines.

use std::time::{Duration, Instant};

/// Between two lines.
const QUIET: Duration = Duration::from_secs(10);

/// When a core's last line was, and how many were left out since.
#[derive(Debug, Default)]
pub struct Refusals {
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    /// Whether to say one more: how many were not said since the last, or `None` for not yet.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        if self.said_at.is_some_and(|said| now.saturating_duration_since(said) < QUIET) {
            self.unsaid += 1;
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_rest_counted() {
        let start = Instant::now();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.say(start), Some(0));
        assert_eq!(refusals.say(start + QUIET / 2), None);
        assert_eq!(refusals.say(start + QUIET / 2), None);
        assert_eq!(refusals.say(start + QUIET), Some(2));
        assert_eq!(refusals.say(start + 2 * QUIET), Some(0));
    }
}
