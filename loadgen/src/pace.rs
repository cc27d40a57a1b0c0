//! When views happen and batches leave: by plan, or as fast as the engine answers.
//!
//! View number v of a plan happens at start + v / rate, and a batch leaves when its last view has happened. Invariant:
//! which views a batch holds and when it is due depend on the plan alone, not on the engine.

use std::time::Duration;

use crate::error::LoadError;
use crate::send::{Due, Start};

/// Highest rate that can be asked for, views per second.
pub const RATE_PER_S_MAX: u64 = 1_000_000_000;

/// How fast views are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// So many views per second, open loop.
    PerSecond(u64),
    /// As fast as the engine answers.
    Max,
}

/// The batches of one stretch of load, by number from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    rate: Rate,
    duration: Duration,
    /// Views in all; 0 where only time ends it.
    views: u64,
    batch_views: u64,
}

/// One batch of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Number of its first view.
    pub(crate) first: u64,
    pub(crate) views: u64,
    pub(crate) due: Due,
}

impl Plan {
    pub(crate) fn new(rate: Rate, duration: Duration, batch_views: u32) -> Result<Self, LoadError> {
        let views = match rate {
            Rate::PerSecond(rate_per_s) => planned_views(rate_per_s, duration)?,
            Rate::Max => 0,
        };
        Ok(Self { rate, duration, views, batch_views: u64::from(batch_views) })
    }

    /// So many views, as fast as the engine answers.
    pub(crate) fn through(views: u64, batch_views: u32) -> Self {
        Self { rate: Rate::Max, duration: Duration::MAX, views, batch_views: u64::from(batch_views) }
    }

    /// A plan of whole batches: the last one of another is filled up.
    pub(crate) fn of_whole_batches(self) -> Self {
        Self { views: self.views.next_multiple_of(self.batch_views), ..self }
    }

    /// Views in all; 0 where only time ends it.
    pub(crate) fn views(&self) -> u64 {
        self.views
    }

    /// Batch `number`; `None` when the plan is over.
    pub(crate) fn batch(&self, number: u64, start: Start) -> Option<Planned> {
        let first = number * self.batch_views;
        if self.views > 0 && first >= self.views {
            return None;
        }
        match self.rate {
            Rate::PerSecond(rate_per_s) => {
                let views = self.batch_views.min(self.views - first);
                Some(Planned { first, views, due: Due::After(happened(first + views, rate_per_s)) })
            }
            Rate::Max if start.instant.elapsed() >= self.duration => None,
            Rate::Max => Some(Planned { first, views: self.batch_views, due: Due::AtOnce }),
        }
    }

    /// When view `number` happens by the wall clock, which shows `now_ms`.
    pub(crate) fn time_ms(&self, number: u64, start: Start, now_ms: u64) -> u64 {
        match self.rate {
            Rate::PerSecond(rate_per_s) => start.wall_ms + number * 1000 / rate_per_s,
            Rate::Max => now_ms,
        }
    }
}

fn planned_views(rate_per_s: u64, duration: Duration) -> Result<u64, LoadError> {
    let invalid =
        |reason: &str| LoadError::Option { option: "rate", value: rate_per_s.to_string(), reason: reason.into() };
    if rate_per_s == 0 || rate_per_s > RATE_PER_S_MAX {
        return Err(invalid("1 to 1000000000 views per second, or max, are allowed"));
    }
    let views = u128::from(rate_per_s) * duration.as_millis() / 1000;
    match u64::try_from(views) {
        Ok(0) => Err(invalid("not one view falls into --duration; raise one of them")),
        Ok(views) => Ok(views),
        Err(_) => Err(invalid("more views than can be numbered; shorten --duration")),
    }
}

/// The time until view `number` has happened.
fn happened(number: u64, rate_per_s: u64) -> Duration {
    let nanoseconds = u128::from(number) * 1_000_000_000 / u128::from(rate_per_s);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(plan: Plan) -> Vec<(u64, u64, Due)> {
        let start = Start::now();
        (0..).map_while(|number| plan.batch(number, start)).map(|batch| (batch.first, batch.views, batch.due)).collect()
    }

    #[test]
    fn the_plan_spreads_exactly_the_views_asked_for() {
        let plan = Plan::new(Rate::PerSecond(1300), Duration::from_millis(2500), 1000).unwrap();
        let after = |ms: f64| Due::After(Duration::from_nanos((ms * 1e6) as u64));
        let listed = batches(plan);
        assert_eq!(
            listed.iter().map(|batch| (batch.0, batch.1)).collect::<Vec<_>>(),
            [(0, 1000), (1000, 1000), (2000, 1000), (3000, 250)]
        );
        assert_eq!(listed[3].2, after(2500.0));
        assert_eq!(plan.views(), 3250);
        let whole = plan.of_whole_batches();
        assert_eq!((whole.views(), batches(whole).len(), batches(whole)[3].1), (4000, 4, 1000));
    }

    #[test]
    fn impossible_rates_are_usage_errors() {
        for rate in [0, RATE_PER_S_MAX + 1] {
            assert!(Plan::new(Rate::PerSecond(rate), Duration::from_secs(1), 10).unwrap_err().is_usage());
        }
        assert!(Plan::new(Rate::PerSecond(10), Duration::from_millis(1), 10).unwrap_err().is_usage());
    }

    #[test]
    fn an_unpaced_plan_ends_by_time() {
        let plan = Plan::new(Rate::Max, Duration::ZERO, 10).unwrap();
        assert_eq!((plan.batch(0, Start::now()), plan.views()), (None, 0));
        let plan = Plan::new(Rate::Max, Duration::from_hours(1), 10).unwrap();
        let batch = plan.batch(7, Start::now()).unwrap();
        assert_eq!((batch.first, batch.views, batch.due), (70, 10, Due::AtOnce));
        let through = Plan::through(15, 10).of_whole_batches();
        assert_eq!(batches(through), [(0, 10, Due::AtOnce), (10, 10, Due::AtOnce)]);
    }
}
