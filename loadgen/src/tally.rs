//! The books of one load: what was sent, what the engine said to it, how long that took.
//!
//! It neither sends nor judges. Invariant: views sent = counted + duplicate + refused + those still without an answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use highwater_client::Fate;
use highwater_proto::{Epoch, ViewRefusal};

use crate::error::LoadError;
use crate::oracle::{Oracle, Row};
use crate::seconds::Seconds;

/// Longest latency told apart from longer ones: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
const LATENCY_DIGITS: u8 = 3;
/// Spare row buffers kept for coming batches.
const SPARE_MAX: usize = 256;

/// A batch without an answer yet.
#[derive(Debug)]
struct Unanswered {
    token: u64,
    rows: Vec<Row>,
    planned_at: Instant,
}

/// Figures of one load.
#[derive(Debug)]
pub struct Tally {
    /// Exact counts of what the engine accepted, where a check was asked for.
    pub oracle: Option<Oracle>,
    /// Microseconds from each batch's planned time to its acknowledgement.
    pub latency_us: Histogram<u64>,
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
    /// Bytes of all answered batches' frames, each once.
    pub frame_bytes: u64,
    /// The first epoch that holds everything acknowledged.
    pub visible_epoch: Epoch,
    /// Views by the second in which they were sent, for the last time.
    pub sent_seconds: Seconds,
    /// Views by the second in which they were answered for.
    pub acked_seconds: Seconds,
    /// When the last acknowledgement came.
    pub last_acked_at: Option<Instant>,
    /// The first batch's planned time.
    began: Option<Instant>,
    unanswered: Vec<VecDeque<Unanswered>>,
    spare: Vec<Vec<Row>>,
    videos_seen: Vec<u64>,
}

impl Tally {
    /// Empty books for so many producers and videos.
    ///
    /// # Errors
    /// [`LoadError::Runtime`] if the histogram cannot be made.
    pub fn new(producers: u16, video_count: u32, with_oracle: bool) -> Result<Self, LoadError> {
        let latency_us = Histogram::new_with_max(LATENCY_US_MAX, LATENCY_DIGITS)
            .map_err(|error| LoadError::Runtime(error.to_string()))?;
        Ok(Self {
            oracle: with_oracle.then(|| Oracle::new(video_count)),
            latency_us,
            views_sent: 0,
            views_counted: 0,
            views_duplicate: 0,
            views_refused: [0; ViewRefusal::ALL.len()],
            batches_sent: 0,
            batches_acked: 0,
            retries: 0,
            frame_bytes: 0,
            visible_epoch: Epoch(0),
            sent_seconds: Seconds::default(),
            acked_seconds: Seconds::default(),
            began: None,
            last_acked_at: None,
            unanswered: (0..producers).map(|_| VecDeque::new()).collect(),
            spare: Vec::new(),
            videos_seen: vec![0; (video_count as usize).div_ceil(64)],
        })
    }

    /// An empty buffer for a batch's rows.
    #[must_use]
    pub fn rows(&mut self) -> Vec<Row> {
        self.spare.pop().unwrap_or_default()
    }

    /// A batch is about to be sent by a producer; `token` is what its fate will bear.
    pub fn send(&mut self, producer: u16, token: u64, rows: Vec<Row>, planned_at: Instant) {
        self.views_sent += rows.len() as u64;
        self.batches_sent += 1;
        self.began.get_or_insert(planned_at);
        for row in &rows {
            self.videos_seen[row.video.0 as usize / 64] |= 1 << (row.video.0 % 64);
        }
        self.unanswered[usize::from(producer)].push_back(Unanswered { token, rows, planned_at });
    }

    /// A batch's fate came.
    ///
    /// # Errors
    /// [`LoadError::Contradiction`] if it is not the producer's oldest batch or speaks of other views than were sent.
    pub fn settle(&mut self, producer: u16, fate: &Fate) -> Result<(), LoadError> {
        let batch = self.unanswered[usize::from(producer)].pop_front();
        let Some(batch) = batch.filter(|batch| batch.token == fate.token) else {
            let text = format!("producer {producer} got an answer to its batch {} out of turn", fate.token);
            return Err(LoadError::Contradiction(text));
        };
        let refused: u64 = fate.refused.iter().map(|range| u64::from(range.count)).sum();
        let answered = u64::from(fate.counted) + u64::from(fate.duplicate) + refused;
        if answered != batch.rows.len() as u64 {
            let text = format!("sequence {} holds {} views, {answered} answered", fate.sequence.0, batch.rows.len());
            return Err(LoadError::Contradiction(text));
        }
        self.views_counted += u64::from(fate.counted);
        self.views_duplicate += u64::from(fate.duplicate);
        for range in &fate.refused {
            let reason = usize::from(range.reason.code()) - 1;
            self.views_refused[reason] += u64::from(range.count);
        }
        self.batches_acked += 1;
        self.retries += u64::from(fate.retries);
        self.frame_bytes += u64::from(fate.frame_bytes);
        self.visible_epoch = self.visible_epoch.max(fate.visible_epoch);
        self.last_acked_at = Some(fate.acked_at);
        let began = *self.began.get_or_insert(batch.planned_at);
        self.sent_seconds.add(began, fate.sent_at, answered);
        self.acked_seconds.add(began, fate.acked_at, answered);
        let latency = fate.acked_at.saturating_duration_since(batch.planned_at);
        self.latency_us.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX));
        if let Some(oracle) = &mut self.oracle {
            oracle.add_batch(&batch.rows, &fate.refused);
        }
        let mut rows = batch.rows;
        rows.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(rows);
        }
        Ok(())
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

    /// Distinct videos among the views sent.
    #[must_use]
    pub fn distinct_videos(&self) -> u64 {
        self.videos_seen.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// Latency at a quantile.
    #[must_use]
    pub fn latency(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.latency_us.value_at_quantile(quantile))
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::{RefusedRange, Sequence};

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
        let mut tally = Tally::new(1, 100, true).unwrap();
        tally.send(0, 0, rows(), Instant::now() - Duration::from_millis(5));
        assert!(!tally.all_acked());
        tally.settle(0, &fate(0, 0, 3)).unwrap();
        assert!(tally.all_acked());
        assert_eq!((tally.views_counted, tally.views_duplicate, tally.views_refused), (0, 3, [0, 1, 0]));
        assert_eq!((tally.retries, tally.frame_bytes, tally.visible_epoch.0), (2, 100, 7));
        assert_eq!(tally.distinct_videos(), 4);
        assert!(tally.latency(1.0) >= Duration::from_millis(5));
        let totals = tally.oracle.unwrap().totals(MinuteIndex(1)..MinuteIndex(2));
        assert_eq!(totals[..5], [1, 0, 1, 1, 0]);
    }

    #[test]
    fn answers_that_contradict_what_was_sent_are_errors() {
        let mut tally = Tally::new(1, 100, false).unwrap();
        assert!(tally.settle(0, &fate(0, 3, 0)).is_err(), "nothing was sent");
        tally.send(0, 0, rows(), Instant::now());
        assert!(tally.settle(0, &fate(0, 2, 0)).is_err(), "views do not add up");
        tally.send(0, 1, rows(), Instant::now());
        assert!(tally.settle(0, &fate(2, 3, 0)).is_err(), "another batch's token");
    }
}
