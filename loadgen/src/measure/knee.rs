//! The search for the knee: which rates are tried, and what is learned of each.
//!
//! It measures nothing itself. Invariant: what is learned is what an attempt said; one that said nothing is made once
//! more, and then the rate is passed over.

use std::collections::BTreeSet;

/// Rates tried first, in percent of what the engine takes as fast as it answers.
const FIRST_PERCENTS: [u64; 6] = [10, 25, 50, 75, 90, 100];
/// Rates between the highest that was held and the lowest above it that was not.
const HALVINGS: u32 = 3;
/// Attempts at a rate, while they say nothing.
const ATTEMPTS: u32 = 2;

/// What an attempt says of its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Held,
    Missed,
    /// The generator was late itself.
    Nothing,
}

/// Makes attempts at shares of the full rate, then between the highest rate that was held and the lowest above it that
/// was not.
pub(super) fn climb<E>(full_per_s: u64, mut attempt: impl FnMut(u64) -> Result<Verdict, E>) -> Result<(), E> {
    let mut bounds = Bounds::default();
    for percent in FIRST_PERCENTS {
        bounds.learn((full_per_s * percent / 100).max(1), &mut attempt)?;
    }
    for _ in 0..HALVINGS {
        let Some(rate) = bounds.between() else { break };
        let is_told = bounds.learn(rate, &mut attempt)?;
        if !is_told {
            // The rate half-way would be the same again.
            break;
        }
    }
    Ok(())
}

/// Where the knee is.
#[derive(Debug, Default)]
struct Bounds {
    held: u64,
    missed: BTreeSet<u64>,
}

impl Bounds {
    /// Makes attempts at a rate until one says something; false if none does.
    fn learn<E>(&mut self, rate: u64, attempt: &mut impl FnMut(u64) -> Result<Verdict, E>) -> Result<bool, E> {
        for _ in 0..ATTEMPTS {
            match attempt(rate)? {
                Verdict::Held => self.held = self.held.max(rate),
                Verdict::Missed => _ = self.missed.insert(rate),
                Verdict::Nothing => continue,
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// A rate half-way, if the two are more than a fiftieth apart; none beyond what was held. A rate that was missed
    /// below one that was held was disturbed by something else.
    fn between(&self) -> Option<u64> {
        let missed = *self.missed.range(self.held + 1..).next()?;
        let middle = self.held.midpoint(missed);
        (missed > self.held + self.held / 50 && middle > self.held).then_some(middle)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::Verdict::{Held, Missed, Nothing};
    use super::*;

    /// All rates at which attempts are made, when the one of a number and rate ends as is said.
    fn rates(full_per_s: u64, verdict: impl Fn(usize, u64) -> Verdict) -> Vec<u64> {
        let mut rates = Vec::new();
        let climbed = climb(full_per_s, |rate| {
            rates.push(rate);
            Ok::<_, Infallible>(verdict(rates.len(), rate))
        });
        assert_eq!(climbed, Ok(()));
        rates
    }

    fn up_to(knee: u64, rate: u64) -> Verdict {
        if rate <= knee { Held } else { Missed }
    }

    #[test]
    fn the_knee_is_closed_in_on_from_both_sides() {
        assert_eq!(rates(1000, |_, rate| up_to(790, rate)), [100, 250, 500, 750, 900, 1000, 825, 787, 806]);
        assert_eq!(rates(1000, |_, rate| up_to(1000, rate)).len(), 6, "nothing was missed");
        assert_eq!(rates(1000, |_, rate| up_to(20, rate))[6..], [50, 25, 12], "nothing was held before");
        assert_eq!(rates(1, |_, rate| up_to(0, rate)), [1; 6], "there is no rate below");
    }

    #[test]
    fn the_search_ends_when_no_rate_between_would_tell_more() {
        assert_eq!(rates(1000, |_, rate| up_to(989, rate))[6..], [950, 975, 987]);
        assert_eq!(rates(10, |_, rate| up_to(9, rate)).len(), 6);
        let near = |missed| Bounds { held: 700, missed: BTreeSet::from([missed]) }.between();
        assert_eq!((near(714), near(715)), (None, Some(707)));
    }

    /// A low rate that something disturbed once stood for all rates above it: no rate between it and the highest held
    /// one could be tried, and the search ended.
    #[test]
    fn a_rate_missed_below_a_held_one_does_not_end_the_search() {
        let disturbed = |number, rate| if number == 2 { Missed } else { up_to(800, rate) };
        assert_eq!(rates(1000, disturbed), [100, 250, 500, 750, 900, 1000, 825, 787, 806]);
    }

    /// An attempt in which the generator was late once counted as missed.
    #[test]
    fn an_attempt_that_says_nothing_is_made_once_more_and_its_rate_passed_over() {
        let once = |number, rate| if number == 3 { Nothing } else { up_to(800, rate) };
        assert_eq!(rates(1000, once), [100, 250, 500, 500, 750, 900, 1000, 825, 787, 806]);
        let never = |_, rate| if rate == 900 { Nothing } else { up_to(800, rate) };
        assert_eq!(rates(1000, never)[4..], [900, 900, 1000, 875, 812, 781], "1000 is the lowest missed");
        let half_way = |_, rate| if rate == 825 { Nothing } else { up_to(800, rate) };
        assert_eq!(rates(1000, half_way)[6..], [825, 825]);
    }

    #[test]
    fn a_failure_ends_it() {
        let mut attempts = 0;
        let failed = climb(1000, |rate| {
            attempts += 1;
            if rate == 500 { Err("broken") } else { Ok(Held) }
        });
        assert_eq!((failed, attempts), (Err("broken"), 3));
    }
}
