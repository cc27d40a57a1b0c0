//! The figures of one stretch of load: counts, latencies, and how punctual the generator itself was.
//!
//! Latency and lateness are those of batches whose planned time lies behind the warm-up. A batch is late for the
//! generator's own sake from its planned time, or from when the engine made room for it if that came later. An engine
//! that makes room for many at once leaves a backlog: then from when its turn comes, if the backlog is worked off at
//! five quarters of the planned rate, so that what a moment without room excuses is over after five such moments.
//!
//! What is not seen in that: how long an answer waited to be read, and a batch to be written, on a thread that was
//! busy; the generator's CPU time tells of it.
//!
//! Invariant: views sent = counted + duplicate + refused + those still without an answer.

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
/// A punctual generator's own lateness: that of 99 of 100 batches at most. Its timer has a grain of 1 ms.
pub const LATE_P99_MAX: Duration = Duration::from_millis(2);
/// That of 999 of 1000 at most.
pub const LATE_P999_MAX: Duration = Duration::from_millis(10);

/// Figures of one stretch of load.
#[derive(Debug)]
pub struct Figures {
    /// Microseconds from a batch's planned time to its acknowledgement.
    pub latency_us: Histogram<u64>,
    /// Microseconds that batches of a plan left late for the generator's own sake. Empty where nothing was planned.
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
    /// The last batch that left, of a plan.
    last: Option<Turn>,
}

/// A batch's turn among those of a plan.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// When it could have left.
    due_at: Instant,
    /// The latest planned time of it and those before it.
    planned_at: Instant,
}

impl Turn {
    /// That of the next batch.
    fn next(last: Option<Self>, planned_at: Instant, room_at: Instant) -> Self {
        let due_at = planned_at.max(room_at);
        let Some(last) = last else { return Self { due_at, planned_at } };
        let worked_off_at = last.due_at + planned_at.saturating_duration_since(last.planned_at) * 4 / 5;
        Self { due_at: due_at.max(worked_off_at), planned_at: planned_at.max(last.planned_at) }
    }
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
            last: None,
        })
    }

    /// A batch was handed to a producer.
    pub(crate) fn send(&mut self, views: u64, planned_at: Instant) {
        self.views_sent += views;
        self.batches_sent += 1;
        self.began.get_or_insert(planned_at);
    }

    /// A batch of a plan left at a time, and could have since `room_at`.
    pub(crate) fn leave(&mut self, planned_at: Instant, room_at: Instant, left_at: Instant) {
        let turn = Turn::next(self.last, planned_at, room_at);
        self.last = Some(turn);
        if planned_at >= self.measured_from {
            self.late_us.saturating_record(micros(left_at.saturating_duration_since(turn.due_at)));
        }
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

    /// Microseconds within which so large a share of the batches left, of what was the generator's own part; `None`
    /// where nothing was planned.
    #[must_use]
    pub fn late_us_at(&self, quantile: f64) -> Option<u64> {
        (!self.late_us.is_empty()).then(|| self.late_us.value_at_quantile(quantile))
    }

    /// Whether the generator itself kept to the plan; `None` where there was none.
    #[must_use]
    pub fn punctual(&self) -> Option<bool> {
        let (p99, p999) = (self.late_us_at(0.99)?, self.late_us_at(0.999)?);
        Some(p99 <= micros(LATE_P99_MAX) && p999 <= micros(LATE_P999_MAX))
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

    /// Batches planned each millisecond; how late each left, and how long after its planned time there was room for it.
    fn left(batches: &[(u64, u64)]) -> Figures {
        let start = Instant::now();
        let mut figures = Figures::new(start).unwrap();
        for (number, &(late_ms, room_ms)) in (0..).zip(batches) {
            let planned_at = start + Duration::from_millis(number);
            let after = |ms| planned_at + Duration::from_millis(ms);
            figures.leave(planned_at, after(room_ms), after(late_ms));
        }
        figures
    }

    #[test]
    fn a_generator_that_falls_behind_for_its_own_sake_is_found() {
        let on_time = vec![(1, 0); 200];
        assert_eq!(left(&on_time).punctual(), Some(true));
        let mut slow = on_time.clone();
        slow.extend((0..50).map(|late_ms| (late_ms, 0)));
        let slow = left(&slow);
        assert_eq!((slow.punctual(), slow.late_us.len()), (Some(false), 250));
    }

    #[test]
    fn what_an_engine_without_room_held_up_is_not_the_generator_s() {
        let mut held_up = vec![(1, 0); 200];
        held_up.extend((0..50).map(|behind| (60 - behind, 59 - behind)));
        assert_eq!(left(&held_up).punctual(), Some(true));
    }

    /// 50 batches find room at once, 50 ms after the first of them was planned, and leave one after the other.
    fn worked_off(us_each: u64) -> Figures {
        let start = Instant::now();
        let mut figures = Figures::new(start).unwrap();
        for number in 0..1000 {
            let planned_at = start + Duration::from_millis(number);
            let room_at = start + Duration::from_millis(if number < 50 { 50 } else { 0 });
            let left_at = start + Duration::from_millis(50) + Duration::from_micros(us_each * number);
            figures.leave(planned_at, room_at, left_at.max(planned_at));
        }
        figures
    }

    #[test]
    fn a_backlog_of_the_engine_s_is_worked_off_at_five_quarters_of_the_planned_rate() {
        assert_eq!(worked_off(800).punctual(), Some(true));
        assert_eq!(worked_off(850).punctual(), Some(false), "for too long behind what was excused");
        assert!(worked_off(850).late_us.max() > 10_000);
    }

    /// Of two producers one waits for room; the other's batches, which are not held up, leave meanwhile.
    #[test]
    fn a_producer_without_room_excuses_no_other() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut figures = Figures::new(start).unwrap();
        for number in 1..100 {
            figures.leave(at(number), start, at(number));
        }
        figures.leave(at(0), at(100), at(100));
        figures.leave(at(101), start, at(131));
        assert!(figures.late_us.max() >= 29_000, "{} us of 30 ms", figures.late_us.max());
    }

    /// One moment without room once excused all batches behind it until one was on time, which a generator that is too
    /// slow never is again.
    #[test]
    fn a_moment_without_room_excuses_nothing_behind_it() {
        let mut behind = vec![(1, 0); 200];
        behind.push((5, 5));
        behind.extend((0..50).map(|number| (6 + number, 5)));
        assert_eq!(left(&behind).punctual(), Some(false));
    }

    #[test]
    fn one_batch_of_a_thousand_may_be_a_little_late_and_none_of_them_much() {
        let with = |late: &[(u64, u64)]| left(&[&vec![(1, 0); 2000][..], late].concat()).punctual();
        assert_eq!(with(&[(60, 0), (9, 0), (9, 0)]), Some(true));
        assert_eq!(with(&[(60, 0), (60, 0), (60, 0)]), Some(false));
    }

    #[test]
    fn of_nothing_planned_nothing_is_said() {
        let start = Instant::now();
        let mut figures = Figures::new(start).unwrap();
        figures.send(10, start);
        assert_eq!((figures.views_sent, figures.punctual(), figures.late_us_at(0.99)), (10, None, None));
    }

    #[test]
    fn the_warm_up_is_not_measured() {
        let start = Instant::now();
        let mut figures = Figures::new(start + Duration::from_secs(1)).unwrap();
        figures.send(10, start);
        figures.leave(start, start, start + Duration::from_secs(5));
        assert_eq!((figures.views_sent, figures.late_us.len()), (10, 0));
    }
}
