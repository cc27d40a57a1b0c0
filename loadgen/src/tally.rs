//! The books of a load: what was sent and has no answer yet, what is known of everything sent so far.
//!
//! It neither sends nor judges. Invariants: each answer is held to the batch that it is for, so the oracle has exactly
//! what the engine says it has; each answer makes room for one batch, and each batch that leaves takes the oldest room.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use highwater_client::Fate;
use highwater_proto::Epoch;

use crate::error::LoadError;
use crate::figures::Figures;
use crate::oracle::{Oracle, Row, VideoIndex};
use crate::recurring::Recurring;

/// Spare row buffers kept for coming batches.
const SPARE_MAX: usize = 256;

/// The views of a batch.
#[derive(Debug)]
pub enum Views {
    /// One by one.
    Rows(Vec<Row>),
    /// A recurring batch's.
    Recurring {
        /// Which of them.
        number: u32,
        /// When all its views happened.
        timestamp_ms: u64,
    },
}

/// A batch without an answer yet.
#[derive(Debug)]
struct Unanswered {
    token: u64,
    views: Views,
    view_count: u64,
    planned_at: Instant,
}

/// One producer's batches without an answer, and its room for further ones.
#[derive(Debug, Default)]
struct Window {
    unanswered: VecDeque<Unanswered>,
    /// Since when there has been room, a time for each batch that fits, the oldest first.
    room_since: VecDeque<Instant>,
}

/// Books of one load.
#[derive(Debug)]
pub struct Tally {
    /// Exact counts of what the engine accepted, where a check was asked for.
    pub oracle: Option<Oracle>,
    /// What came of the stretch of load at hand.
    pub figures: Figures,
    /// The first epoch that holds everything acknowledged.
    pub visible_epoch: Epoch,
    windows: Vec<Window>,
    spare: Vec<Vec<Row>>,
    videos_seen: Vec<u64>,
    recurring: Option<Arc<Recurring>>,
    recurring_seen: Vec<bool>,
}

impl Tally {
    /// Empty books for so many producers and videos.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] if the histograms cannot be made.
    pub fn new(
        producers: u16,
        video_count: u32,
        recurring: Option<Arc<Recurring>>,
        with_oracle: bool,
    ) -> Result<Self, LoadError> {
        let mut oracle = with_oracle.then(|| Oracle::new(video_count));
        if let Some(recurring) = &recurring {
            oracle = oracle.map(|oracle| oracle.with_recurring(recurring.clone()));
        }
        let recurring_count = recurring.as_ref().map_or(0, |recurring| recurring.batch_count());
        Ok(Self {
            oracle,
            figures: Figures::new(Instant::now())?,
            visible_epoch: Epoch(0),
            windows: (0..producers).map(|_| Window::default()).collect(),
            spare: Vec::new(),
            videos_seen: vec![0; (video_count as usize).div_ceil(64)],
            recurring,
            recurring_seen: vec![false; recurring_count as usize],
        })
    }

    /// Begins a stretch of load with figures of its own; what is planned before `measured_from` is its warm-up.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] if the histograms cannot be made.
    pub fn begin(&mut self, measured_from: Instant) -> Result<(), LoadError> {
        self.figures = Figures::new(measured_from)?;
        Ok(())
    }

    /// An empty buffer for a batch's rows.
    #[must_use]
    pub fn rows(&mut self) -> Vec<Row> {
        self.spare.pop().unwrap_or_default()
    }

    /// A producer begins a stretch of load, with room for so many batches.
    pub fn open(&mut self, producer: u16, batches: u16, now: Instant) {
        let room = &mut self.windows[usize::from(producer)].room_since;
        room.clear();
        room.extend(std::iter::repeat_n(now, usize::from(batches)));
    }

    /// A batch is handed to a producer; `token` is what its fate will bear.
    pub fn send(&mut self, producer: u16, token: u64, views: Views, planned_at: Instant) {
        let view_count = match &views {
            Views::Rows(rows) => {
                rows.iter().for_each(|row| see(&mut self.videos_seen, row.video));
                rows.len() as u64
            }
            Views::Recurring { number, .. } => self.see_recurring(*number),
        };
        self.figures.send(view_count, planned_at);
        let window = &mut self.windows[usize::from(producer)];
        window.unanswered.push_back(Unanswered { token, views, view_count, planned_at });
    }

    /// A batch has left by a producer; `planned_at` is none if it was not to leave at a time.
    pub fn leave(&mut self, producer: u16, planned_at: Option<Instant>, left_at: Instant) {
        let room_at = self.windows[usize::from(producer)].room_since.pop_front();
        if let Some(planned_at) = planned_at {
            // Room of unknown age has been there all along: the generator is not excused by it.
            self.figures.leave(planned_at, room_at.unwrap_or(planned_at), left_at);
        }
    }

    /// Looks at a recurring batch's videos the first time; returns how many views it holds.
    fn see_recurring(&mut self, number: u32) -> u64 {
        let videos = self.recurring.as_ref().map_or(&[][..], |recurring| recurring.videos(number));
        if let Some(seen) = self.recurring_seen.get_mut(number as usize).filter(|seen| !**seen) {
            *seen = true;
            videos.iter().for_each(|&video| see(&mut self.videos_seen, video));
        }
        videos.len() as u64
    }

    /// A batch's fate came.
    ///
    /// # Errors
    /// [`LoadError::Contradiction`] if it is not the producer's oldest batch or speaks of other views than were sent.
    pub fn settle(&mut self, producer: u16, fate: &Fate) -> Result<(), LoadError> {
        let window = &mut self.windows[usize::from(producer)];
        window.room_since.push_back(fate.acked_at);
        let batch = window.unanswered.pop_front();
        let Some(batch) = batch.filter(|batch| batch.token == fate.token) else {
            let text = format!("producer {producer} got an answer to its batch {} out of turn", fate.token);
            return Err(LoadError::Contradiction(text));
        };
        let refused: u64 = fate.refused.iter().map(|range| u64::from(range.count)).sum();
        let answered = u64::from(fate.counted) + u64::from(fate.duplicate) + refused;
        if answered != batch.view_count {
            let text = format!("sequence {} holds {} views, {answered} answered", fate.sequence.0, batch.view_count);
            return Err(LoadError::Contradiction(text));
        }
        self.figures.settle(fate, answered, batch.planned_at);
        self.visible_epoch = self.visible_epoch.max(fate.visible_epoch);
        match (batch.views, &mut self.oracle) {
            (Views::Recurring { number, timestamp_ms }, Some(oracle)) => {
                oracle.add_recurring(number, timestamp_ms, &fate.refused);
            }
            (Views::Recurring { .. }, None) => {}
            (Views::Rows(mut rows), oracle) => {
                if let Some(oracle) = oracle {
                    oracle.add_batch(&rows, &fate.refused);
                }
                rows.clear();
                if self.spare.len() < SPARE_MAX {
                    self.spare.push(rows);
                }
            }
        }
        Ok(())
    }

    /// Distinct videos among the views sent.
    #[must_use]
    pub fn distinct_videos(&self) -> u64 {
        self.videos_seen.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }
}

fn see(videos_seen: &mut [u64], video: VideoIndex) {
    videos_seen[video.0 as usize / 64] |= 1 << (video.0 % 64);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use highwater_proto::{RefusedRange, Sequence, ViewRefusal};

    use super::*;
    use crate::oracle::{MinuteIndex, VideoIndex};

    fn rows() -> Vec<Row> {
        (0..4).map(|video| Row { video: VideoIndex(video), timestamp_ms: 60_000 }).collect()
    }

    fn fate(token: u64, counted: u32, duplicate: u32) -> Fate {
        let now = Instant::now();
        Fate {
            sequence: Sequence(token + 1),
            visible_epoch: Epoch(7),
            counted,
            duplicate,
            refused: vec![RefusedRange { first: 1, count: 1, reason: ViewRefusal::TableFull }],
            detail_complete: true,
            view_count: 4,
            frame_bytes: 100,
            sent_at: now,
            acked_at: now,
            retries: 2,
            token,
        }
    }

    #[test]
    fn a_settled_batch_is_in_every_figure_and_in_the_oracle_without_its_refused_views() {
        let mut tally = Tally::new(1, 100, None, true).unwrap();
        tally.begin(Instant::now() - Duration::from_secs(1)).unwrap();
        tally.send(0, 0, Views::Rows(rows()), Instant::now() - Duration::from_millis(5));
        assert!(!tally.figures.all_acked());
        tally.settle(0, &fate(0, 0, 3)).unwrap();
        let figures = &tally.figures;
        assert!(figures.all_acked());
        assert_eq!((figures.views_counted, figures.views_duplicate, figures.views_refused), (0, 3, [0, 1, 0]));
        assert_eq!((figures.retries, figures.payload_bytes, tally.visible_epoch.0), (2, 92, 7));
        assert_eq!(tally.distinct_videos(), 4);
        assert!(figures.latency_us.max() >= 5000);
        let totals = tally.oracle.unwrap().totals(MinuteIndex(1)..MinuteIndex(2));
        assert_eq!(totals[..5], [1, 0, 1, 1, 0]);
    }

    #[test]
    fn answers_that_contradict_what_was_sent_are_errors() {
        let mut tally = Tally::new(1, 100, None, false).unwrap();
        assert!(tally.settle(0, &fate(0, 3, 0)).is_err(), "nothing was sent");
        tally.send(0, 0, Views::Rows(rows()), Instant::now());
        assert!(tally.settle(0, &fate(0, 2, 0)).is_err(), "views do not add up");
        tally.send(0, 1, Views::Rows(rows()), Instant::now());
        assert!(tally.settle(0, &fate(2, 3, 0)).is_err(), "another batch's token");
    }

    #[test]
    fn each_answer_makes_room_for_one_batch_from_then_on() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut tally = Tally::new(1, 100, None, false).unwrap();
        tally.begin(start).unwrap();
        tally.open(0, 2, start);
        let mut send = |token, planned_ms, left_ms, answered_ms: &[(u64, u64)]| {
            tally.send(0, token, Views::Rows(rows()), at(planned_ms));
            for &(token, ms) in answered_ms {
                tally.settle(0, &Fate { acked_at: at(ms), ..fate(token, 3, 0) }).unwrap();
            }
            tally.leave(0, Some(at(planned_ms)), at(left_ms));
            tally.figures.late_us.max() / 1000
        };
        assert_eq!(send(0, 10, 11, &[]), 1, "room from the beginning");
        assert_eq!(send(1, 11, 13, &[]), 2);
        assert_eq!(send(2, 12, 51, &[(0, 50)]), 2, "38 ms without room, 1 ms late");
        assert_eq!(send(3, 13, 54, &[(1, 51), (2, 52)]), 3, "room came with the answer to batch 1");
        assert_eq!(send(4, 14, 62, &[]), 10, "and to batch 2, which was not the engine's delay any more");
    }

    #[test]
    fn what_leaves_without_a_plan_takes_room_and_is_never_late() {
        let start = Instant::now();
        let mut tally = Tally::new(1, 100, None, false).unwrap();
        tally.begin(start).unwrap();
        tally.open(0, 1, start);
        tally.send(0, 0, Views::Rows(rows()), start);
        tally.leave(0, None, start + Duration::from_secs(1));
        assert_eq!((tally.figures.punctual(), tally.windows[0].room_since.len()), (None, 0));
    }
}
