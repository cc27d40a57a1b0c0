//! Generated load at a set rate: `loadgen run`, and the load of the engine's demo.
//!
//! Batches are generated as they are sent, or made ahead and sent over and over. Invariant: which views batch g holds
//! depends on the options alone, not on the engine.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{BatchBuilder, Pushed};

use crate::campaign::Campaign;
use crate::error::LoadError;
use crate::oracle::Row;
use crate::pace::{Plan, Rate};
use crate::progress::Progress;
use crate::recurring::Recurring;
use crate::report::Outcome;
use crate::send::{Next, Start, Target, Workload, wall_ms};
use crate::zipf::{GeneratedIds, ViewGenerator};

/// What to generate and where to send it.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The engine and the way to it.
    pub target: Target,
    /// Views per second.
    pub rate: Rate,
    /// For how long views are made; answers are waited for beyond it.
    pub duration: Duration,
    /// What is planned within so much of it is sent, but in no latency and no rate; less than `duration`.
    pub warm_up: Duration,
    /// At least so many views are made ahead, and their batches sent over and over; 0 generates each as it is sent.
    pub prepared: u64,
    /// Distinct videos that views are drawn from.
    pub videos: u32,
    /// Zipf exponent of their popularity; 0 is uniform.
    pub zipf: f64,
    /// Bytes of user ids; none is [`crate::zipf::USER_ID_BYTES`].
    pub user_bytes: Option<u8>,
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
    if options.warm_up >= options.duration {
        return Err(LoadError::Option {
            option: "warm-up",
            value: format!("{:?}", options.warm_up),
            reason: format!(
                "it leaves nothing of --duration={:?} to be measured; give a shorter one",
                options.duration
            ),
        });
    }
    let generator = ViewGenerator::with_user_bytes(options.videos, options.zipf, options.seed, options.user_bytes)?;
    let plan = Plan::new(options.rate, options.duration, options.target.batch_views)?;
    if options.prepared == 0 {
        let workload = Generated::new(generator, plan, &options.ages);
        carry_out(&options.target, workload, progress, options.warm_up, 0)
    } else {
        if options.ages.iter().any(|age| !age.is_zero()) {
            return Err(LoadError::Option {
                option: "prepared",
                value: options.prepared.to_string(),
                reason: "batches made ahead have views of one time; leave out --age".into(),
            });
        }
        let encodings = options.target.client.encodings;
        let recurring = Recurring::make(&generator, options.prepared, options.target.batch_views, encodings)?;
        let workload = Recurred::new(&generator, recurring, plan);
        carry_out(&options.target, workload, progress, options.warm_up, 0)
    }
}

/// A load of one stretch.
pub(crate) fn carry_out<W: Workload>(
    target: &Target,
    workload: W,
    progress: &Arc<Progress>,
    warm_up: Duration,
    shift_ms: i64,
) -> Result<Outcome, LoadError> {
    let mut campaign = Campaign::open(target, workload, progress)?;
    campaign.stretch(warm_up)?;
    Ok(campaign.conclude(shift_ms))
}

/// Batches that are generated as they are sent.
#[derive(Debug)]
struct Generated {
    generator: ViewGenerator,
    ids: GeneratedIds,
    plan: Plan,
    /// At least one.
    ages_ms: Vec<u64>,
    next_batch: u64,
}

impl Generated {
    fn new(generator: ViewGenerator, plan: Plan, ages: &[Duration]) -> Self {
        let ages_ms = if ages.is_empty() { vec![0] } else { ages.iter().map(|age| age.as_millis() as u64).collect() };
        Self { ids: generator.ids(), generator, plan, ages_ms, next_batch: 0 }
    }
}

impl Workload for Generated {
    type Ids = GeneratedIds;

    fn ids(&self) -> &GeneratedIds {
        &self.ids
    }

    fn views_planned(&self) -> u64 {
        self.plan.views()
    }

    fn fill(&mut self, batch: &mut BatchBuilder, rows: &mut Vec<Row>, start: Start) -> Result<Option<Next>, LoadError> {
        let Some(planned) = self.plan.batch(self.next_batch, start) else {
            return Ok(None);
        };
        let now_ms = wall_ms();
        let mut draws = self.generator.batch(self.next_batch);
        self.next_batch += 1;
        for number in planned.first..planned.first + planned.views {
            let age_ms = self.ages_ms[(number % self.ages_ms.len() as u64) as usize];
            let timestamp_ms = self.plan.time_ms(number, start, now_ms).saturating_sub(age_ms);
            let draw = draws.draw();
            let pushed = batch.push(&draw.view(timestamp_ms)).map_err(highwater_client::ClientError::from)?;
            if pushed == Pushed::Full {
                return Err(too_large(planned.views, number - planned.first, self.generator.view_bytes_max()));
            }
            rows.push(Row { video: draw.video, timestamp_ms });
        }
        Ok(Some(Next { due: planned.due, recurring: None }))
    }
}

/// Batches that were made ahead, one after the other and from the beginning again, across stretches.
#[derive(Debug)]
pub(crate) struct Recurred {
    ids: GeneratedIds,
    recurring: Arc<Recurring>,
    plan: Plan,
    /// Of the plan.
    next_batch: u64,
    next_recurring: u32,
}

impl Recurred {
    pub(crate) fn new(generator: &ViewGenerator, recurring: Arc<Recurring>, plan: Plan) -> Self {
        let plan = plan.of_whole_batches();
        Self { ids: generator.ids(), recurring, plan, next_batch: 0, next_recurring: 0 }
    }

    /// Goes on by another plan.
    pub(crate) fn follow(&mut self, plan: Plan) {
        (self.plan, self.next_batch) = (plan.of_whole_batches(), 0);
    }
}

impl Workload for Recurred {
    type Ids = GeneratedIds;

    fn ids(&self) -> &GeneratedIds {
        &self.ids
    }

    fn views_planned(&self) -> u64 {
        self.plan.views()
    }

    fn recurring(&self) -> Option<Arc<Recurring>> {
        Some(self.recurring.clone())
    }

    fn fill(&mut self, _: &mut BatchBuilder, _: &mut Vec<Row>, start: Start) -> Result<Option<Next>, LoadError> {
        let Some(planned) = self.plan.batch(self.next_batch, start) else {
            return Ok(None);
        };
        let number = self.next_recurring;
        self.next_batch += 1;
        self.next_recurring = (number + 1) % self.recurring.batch_count();
        let timestamp_ms = self.plan.time_ms(planned.first, start, wall_ms());
        Ok(Some(Next { due: planned.due, recurring: Some((number, timestamp_ms)) }))
    }
}

pub(crate) fn too_large(batch_views: u64, fitting: u64, view_bytes_max: usize) -> LoadError {
    LoadError::Option {
        option: "batch",
        value: batch_views.to_string(),
        reason: format!("only {fitting} generated views of up to {view_bytes_max} bytes fit the engine's batch size"),
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::{
        BATCH_BYTES_MAX, BATCH_VIEWS_MAX, Batch, ENCODINGS, FRAME_HEADER_BYTES, ProducerId, Sequence,
    };

    use super::*;
    use crate::send::Due;

    fn generated(rate_per_s: u64, ages: &[Duration]) -> Generated {
        let plan = Plan::new(Rate::PerSecond(rate_per_s), Duration::from_millis(2500), 1000).unwrap();
        Generated::new(ViewGenerator::new(500, 1.0, 1).unwrap(), plan, ages)
    }

    fn builder() -> BatchBuilder {
        BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32)
    }

    #[test]
    fn rows_are_the_views_of_the_batch_and_none_happens_after_it_leaves() {
        let mut workload = generated(1300, &[]);
        let start = Start::now();
        let mut batch = builder();
        let mut total = 0;
        let mut dues = Vec::new();
        loop {
            let mut rows = Vec::new();
            let Some(Next { due: Due::After(due), .. }) = workload.fill(&mut batch, &mut rows, start).unwrap() else {
                break;
            };
            assert_eq!(batch.len() as usize, rows.len());
            let frame = batch.encode(ProducerId(1), Sequence(1));
            let decoded = Batch::decode(&frame[FRAME_HEADER_BYTES..]).unwrap();
            for (row, view) in rows.iter().zip(decoded.views()) {
                assert_eq!(row.timestamp_ms, view.timestamp_ms);
                assert_eq!(view.video_id.as_bytes(), crate::zipf::video_id(row.video));
                assert!(view.user_id.len() >= 12 && !view.region.is_empty() && !view.device.is_empty());
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
        let mut workload = generated(1000, &[0, 3600, 90_000].map(Duration::from_secs));
        let (mut rows, start) = (Vec::new(), Start::now());
        workload.fill(&mut builder(), &mut rows, start).unwrap();
        let age_ms = |number: usize| start.wall_ms + number as u64 - rows[number].timestamp_ms;
        assert_eq!([0, 1, 2, 3, 4].map(age_ms), [0, 3_600_000, 90_000_000, 0, 3_600_000]);
    }

    #[test]
    fn batches_made_ahead_go_round_across_plans() {
        let generator = ViewGenerator::new(500, 1.0, 1).unwrap();
        let recurring = Recurring::make(&generator, 3000, 1000, ENCODINGS).unwrap();
        let plan = |views| Plan::new(Rate::PerSecond(views), Duration::from_secs(1), 1000).unwrap();
        let mut workload = Recurred::new(&generator, recurring, plan(3500));
        let start = Start::now();
        let numbers = |workload: &mut Recurred| -> Vec<(u32, u64)> {
            let mut next = || workload.fill(&mut builder(), &mut Vec::new(), start).unwrap();
            std::iter::from_fn(|| next().map(|next| next.recurring.unwrap())).collect()
        };
        let after = |ms: u64| start.wall_ms + ms;
        assert_eq!(numbers(&mut workload), [(0, after(0)), (1, after(285)), (2, after(571)), (0, after(857))]);
        assert_eq!(workload.views_planned(), 4000);
        workload.follow(plan(2000));
        assert_eq!(numbers(&mut workload), [(1, after(0)), (2, after(500))]);
    }
}
