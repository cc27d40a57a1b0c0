//! Generated load at a set rate: `loadgen run`, and the load of the engine's demo.
//!
//! Pacing is by plan: view number v happens at start + v / rate, and a batch leaves when its last view has happened.
//! Invariant: which views batch g holds depends on the options alone, not on the engine.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{BatchBuilder, Pushed};

use crate::error::LoadError;
use crate::oracle::Row;
use crate::progress::Progress;
use crate::report::Outcome;
use crate::send::{Due, Start, Target, Workload, carry_out, wall_ms};
use crate::zipf::{GeneratedIds, VIEW_BYTES_MAX, ViewGenerator};

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

/// What to generate and where to send it.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The engine and the way to it.
    pub target: Target,
    /// Views per second.
    pub rate: Rate,
    /// For how long views are made; answers are waited for beyond it.
    pub duration: Duration,
    /// Distinct videos that views are drawn from.
    pub videos: u32,
    /// Zipf exponent of their popularity; 0 is uniform.
    pub zipf: f64,
    /// How long before they are due views happened, for each in turn; none is as 0.
    pub ages: Vec<Duration>,
    /// Seed of all draws.
    pub seed: u64,
}

/// Generates and sends the load, waits for every answer and compares where asked to. Blocks; call it outside of any
/// asynchronous runtime.
///
/// # Errors
/// What keeps the load from starting; later failures are in the outcome.
pub fn run(options: &RunOptions, progress: &Arc<Progress>) -> Result<Outcome, LoadError> {
    let workload = Generated::new(options)?;
    carry_out(&options.target, workload, progress, 0)
}

/// The generated batches in order.
#[derive(Debug)]
struct Generated {
    generator: ViewGenerator,
    ids: GeneratedIds,
    batch_views: u64,
    pace: Pace,
    /// At least one.
    ages_ms: Vec<u64>,
    next_batch: u64,
}

#[derive(Debug, Clone, Copy)]
enum Pace {
    Planned { rate_per_s: u64, views: u64 },
    Max { duration: Duration },
}

impl Generated {
    fn new(options: &RunOptions) -> Result<Self, LoadError> {
        let generator = ViewGenerator::new(options.videos, options.zipf, options.seed)?;
        let pace = match options.rate {
            Rate::Max => Pace::Max { duration: options.duration },
            Rate::PerSecond(rate_per_s) => {
                Pace::Planned { rate_per_s, views: planned_views(rate_per_s, options.duration)? }
            }
        };
        let ages = options.ages.iter().map(|age| age.as_millis() as u64);
        Ok(Self {
            ids: generator.ids(),
            generator,
            batch_views: u64::from(options.target.batch_views),
            pace,
            ages_ms: if options.ages.is_empty() { vec![0] } else { ages.collect() },
            next_batch: 0,
        })
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

impl Workload for Generated {
    type Ids = GeneratedIds;

    fn ids(&self) -> &GeneratedIds {
        &self.ids
    }

    fn views_planned(&self) -> u64 {
        match self.pace {
            Pace::Planned { views, .. } => views,
            Pace::Max { .. } => 0,
        }
    }

    fn fill(&mut self, batch: &mut BatchBuilder, rows: &mut Vec<Row>, start: Start) -> Result<Option<Due>, LoadError> {
        let number = self.next_batch;
        let first = number * self.batch_views;
        let (views, due) = match self.pace {
            Pace::Planned { views, .. } if first >= views => return Ok(None),
            Pace::Planned { views, rate_per_s } => {
                let count = self.batch_views.min(views - first);
                (count, Due::After(happened(first + count, rate_per_s)))
            }
            Pace::Max { duration } if start.instant.elapsed() >= duration => return Ok(None),
            Pace::Max { .. } => (self.batch_views, Due::AtOnce),
        };
        self.next_batch += 1;
        let now_ms = wall_ms();
        let mut draws = self.generator.batch(number);
        for view in 0..views {
            let due_ms = match self.pace {
                Pace::Planned { rate_per_s, .. } => start.wall_ms + (first + view) * 1000 / rate_per_s,
                Pace::Max { .. } => now_ms,
            };
            let age_ms = self.ages_ms[((first + view) % self.ages_ms.len() as u64) as usize];
            let timestamp_ms = due_ms.saturating_sub(age_ms);
            let draw = draws.draw();
            let pushed = batch.push(&draw.view(timestamp_ms)).map_err(highwater_client::ClientError::from)?;
            if pushed == Pushed::Full {
                return Err(too_large(self.batch_views, view));
            }
            rows.push(Row { video: draw.video, timestamp_ms });
        }
        Ok(Some(due))
    }
}

fn too_large(batch_views: u64, fitting: u64) -> LoadError {
    LoadError::Option {
        option: "batch",
        value: batch_views.to_string(),
        reason: format!("only {fitting} generated views of up to {VIEW_BYTES_MAX} bytes fit the engine's batch size"),
    }
}

#[cfg(test)]
mod tests {
    use highwater_client::ClientConfig;
    use highwater_proto::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX, Batch, FRAME_HEADER_BYTES, ProducerId, Sequence};

    use super::*;

    fn options(rate: Rate) -> RunOptions {
        RunOptions {
            target: Target {
                client: ClientConfig::new("localhost:1", ""),
                producers: 1,
                batch_views: 1000,
                verify: None,
            },
            rate,
            duration: Duration::from_millis(2500),
            videos: 500,
            zipf: 1.0,
            ages: Vec::new(),
            seed: 1,
        }
    }

    fn builder() -> BatchBuilder {
        BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32)
    }

    #[test]
    fn the_plan_spreads_exactly_the_views_asked_for() {
        let mut workload = Generated::new(&options(Rate::PerSecond(1300))).unwrap();
        let start = Start::now();
        let mut batch = builder();
        let mut total = 0;
        let mut dues = Vec::new();
        loop {
            let mut rows = Vec::new();
            let Some(Due::After(due)) = workload.fill(&mut batch, &mut rows, start).unwrap() else {
                break;
            };
            assert_eq!(batch.len() as usize, rows.len());
            let frame = batch.encode(ProducerId(1), Sequence(1));
            let decoded = Batch::decode(&frame[FRAME_HEADER_BYTES..]).unwrap();
            for (row, view) in rows.iter().zip(decoded.views()) {
                assert_eq!(row.timestamp_ms, view.timestamp_ms);
                assert_eq!(view.video_id.as_bytes(), crate::zipf::video_id(row.video));
                assert!(view.user_id.len() >= 12 && !view.region.is_empty() && !view.device.is_empty());
                // A view never happens after its batch leaves.
                assert!(view.timestamp_ms - start.wall_ms <= due.as_millis() as u64);
            }
            total += rows.len();
            dues.push(due.as_millis());
        }
        assert_eq!(total, 3250);
        assert_eq!(dues, [769, 1538, 2307, 2500]);
    }

    #[test]
    fn ages_are_taken_in_turn() {
        let ages = [0, 3600, 90_000].map(Duration::from_secs).to_vec();
        let mut workload = Generated::new(&RunOptions { ages, ..options(Rate::PerSecond(1000)) }).unwrap();
        let (mut rows, start) = (Vec::new(), Start::now());
        workload.fill(&mut builder(), &mut rows, start).unwrap();
        let age_ms = |number: usize| start.wall_ms + number as u64 - rows[number].timestamp_ms;
        assert_eq!([0, 1, 2, 3, 4].map(age_ms), [0, 3_600_000, 90_000_000, 0, 3_600_000]);
    }

    #[test]
    fn impossible_rates_are_usage_errors() {
        for rate in [0, RATE_PER_S_MAX + 1] {
            assert!(Generated::new(&options(Rate::PerSecond(rate))).unwrap_err().is_usage());
        }
        let short = RunOptions { duration: Duration::from_millis(1), ..options(Rate::PerSecond(10)) };
        assert!(Generated::new(&short).unwrap_err().is_usage());
    }

    #[test]
    fn an_unpaced_load_ends_by_time() {
        let mut workload = Generated::new(&RunOptions { duration: Duration::ZERO, ..options(Rate::Max) }).unwrap();
        let ended = workload.fill(&mut builder(), &mut Vec::new(), Start::now()).unwrap();
        assert_eq!(ended, None);
        assert_eq!(workload.views_planned(), 0);
    }
}
