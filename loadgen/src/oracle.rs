//! The exact count that the engine's answers are compared with: plain adding per (minute, video), nothing clever.
//!
//! It shares no code with the engine's ranking on purpose. It is not fast at answering (a full pass per question) but
//! cheap at counting. Invariant: the sum over all minutes is the number of views added.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use highwater_proto::RefusedRange;

use crate::recurring::Recurring;

/// A video's dense number within one workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VideoIndex(pub u32);

/// Minutes since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinuteIndex(pub u64);

impl MinuteIndex {
    /// The minute that holds the time.
    #[must_use]
    pub fn of_ms(time_ms: u64) -> Self {
        Self(time_ms / 60_000)
    }
}

/// What the oracle keeps of a view that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its video.
    pub video: VideoIndex,
    /// Its event time as sent, milliseconds UTC since 1970.
    pub timestamp_ms: u64,
}

/// Names of a workload's videos.
pub trait VideoIds {
    /// How many videos there can be; indexes are below it.
    fn video_count(&self) -> u32;
    /// Appends the video's id.
    fn write_id(&self, video: VideoIndex, out: &mut String);
}

/// One row of an expected list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedRow {
    /// The video's id.
    pub video_id: String,
    /// Its views within the bounds.
    pub view_count: u64,
}

/// Counts of one minute: few videos by a map, many by an array over all videos.
#[derive(Debug)]
enum MinuteCounts {
    Sparse(HashMap<u32, u32>),
    Dense(Vec<u32>),
}

impl MinuteCounts {
    fn add(&mut self, video: VideoIndex, video_count: u32) {
        match self {
            Self::Dense(counts) => counts[video.0 as usize] += 1,
            Self::Sparse(map) => {
                *map.entry(video.0).or_insert(0) += 1;
                // A map entry costs about eight times an array cell, so from here on the array is smaller.
                if map.len() > video_count as usize / 8 {
                    let mut counts = vec![0; video_count as usize];
                    for (video, count) in map.drain() {
                        counts[video as usize] = count;
                    }
                    *self = Self::Dense(counts);
                }
            }
        }
    }

    fn add_to(&self, totals: &mut [u64]) {
        match self {
            Self::Sparse(map) => {
                for (video, count) in map {
                    totals[*video as usize] += u64::from(*count);
                }
            }
            Self::Dense(counts) => {
                for (total, count) in totals.iter_mut().zip(counts) {
                    *total += u64::from(*count);
                }
            }
        }
    }
}

/// Exact counts of the views the engine accepted.
#[derive(Debug)]
pub struct Oracle {
    minutes: BTreeMap<MinuteIndex, MinuteCounts>,
    /// How often each recurring batch was counted in a minute.
    recurred: BTreeMap<MinuteIndex, Vec<u32>>,
    recurring: Option<Arc<Recurring>>,
    video_count: u32,
    views: u64,
    undecidable_views: u64,
}

impl Oracle {
    /// An oracle over videos `0..video_count`.
    #[must_use]
    pub fn new(video_count: u32) -> Self {
        Self {
            minutes: BTreeMap::new(),
            recurred: BTreeMap::new(),
            recurring: None,
            video_count,
            views: 0,
            undecidable_views: 0,
        }
    }

    /// An oracle that also takes batches which recur.
    #[must_use]
    pub fn with_recurring(self, recurring: Arc<Recurring>) -> Self {
        Self { recurring: Some(recurring), ..self }
    }

    /// Adds the views of a recurring batch, all at one time, but for those refused, as [`Oracle::add_batch`] does.
    /// Nothing is added to an oracle without recurring batches.
    pub fn add_recurring(&mut self, number: u32, timestamp_ms: u64, refused: &[RefusedRange]) {
        let Some(recurring) = self.recurring.clone() else {
            return;
        };
        let videos = recurring.videos(number);
        if refused.is_empty() {
            self.views += videos.len() as u64;
            let uses = self.recurred.entry(MinuteIndex::of_ms(timestamp_ms));
            uses.or_insert_with(|| vec![0; recurring.batch_count() as usize])[number as usize] += 1;
        } else {
            let rows: Vec<Row> = videos.iter().map(|&video| Row { video, timestamp_ms }).collect();
            self.add_batch(&rows, refused);
        }
    }

    /// Adds a batch's views but for those refused. Ranges that do not say which views they mean (first = `u32::MAX`)
    /// make the batch undecidable: none of it is added, and [`Oracle::undecidable_views`] grows by its length.
    pub fn add_batch(&mut self, rows: &[Row], refused: &[RefusedRange]) {
        if refused.iter().any(|range| range.first == u32::MAX) {
            self.undecidable_views += rows.len() as u64;
            return;
        }
        let mut next = 0;
        for range in refused {
            let first = (range.first as usize).min(rows.len());
            self.add_rows(&rows[next.min(first)..first]);
            next = (first + range.count as usize).min(rows.len());
        }
        self.add_rows(&rows[next..]);
    }

    fn add_rows(&mut self, rows: &[Row]) {
        self.views += rows.len() as u64;
        // Neighbouring views mostly share their minute, so the map is asked once per stretch.
        for stretch in rows.chunk_by(|a, b| a.timestamp_ms / 60_000 == b.timestamp_ms / 60_000) {
            let minute = MinuteIndex::of_ms(stretch[0].timestamp_ms);
            let counts = self.minutes.entry(minute).or_insert_with(|| MinuteCounts::Sparse(HashMap::new()));
            for row in stretch {
                counts.add(row.video, self.video_count);
            }
        }
    }

    /// Views added.
    #[must_use]
    pub fn views(&self) -> u64 {
        self.views
    }

    /// Views of batches whose refusals the engine could no longer detail; above 0 nothing exact can be said.
    #[must_use]
    pub fn undecidable_views(&self) -> u64 {
        self.undecidable_views
    }

    /// The latest minute with a view.
    #[must_use]
    pub fn minute_max(&self) -> Option<MinuteIndex> {
        self.minutes.keys().next_back().copied().max(self.recurred.keys().next_back().copied())
    }

    /// Views per video within `minutes`.
    #[must_use]
    pub fn totals(&self, minutes: Range<MinuteIndex>) -> Vec<u64> {
        let mut totals = vec![0; self.video_count as usize];
        if minutes.start < minutes.end {
            for counts in self.minutes.range(minutes.clone()).map(|(_, counts)| counts) {
                counts.add_to(&mut totals);
            }
            self.add_recurred(minutes, &mut totals);
        }
        totals
    }

    fn add_recurred(&self, minutes: Range<MinuteIndex>, totals: &mut [u64]) {
        let Some(recurring) = &self.recurring else {
            return;
        };
        for number in 0..recurring.batch_count() {
            let uses: u64 =
                self.recurred.range(minutes.clone()).map(|(_, uses)| u64::from(uses[number as usize])).sum();
            if uses > 0 {
                recurring.videos(number).iter().for_each(|video| totals[video.0 as usize] += uses);
            }
        }
    }

    /// The `k` most viewed videos within `minutes`: count descending, then id ascending by bytes; never a count of 0.
    #[must_use]
    pub fn top(&self, minutes: Range<MinuteIndex>, k: usize, ids: &dyn VideoIds) -> Vec<ExpectedRow> {
        let totals = self.totals(minutes);
        let mut counts: Vec<u64> = totals.iter().copied().filter(|count| *count > 0).collect();
        if counts.is_empty() || k == 0 {
            return Vec::new();
        }
        // Everything at or above the k-th count is named and sorted, so ties at the end are cut by id.
        let kth = k.min(counts.len()) - 1;
        let (_, least, _) = counts.select_nth_unstable_by(kth, |a, b| b.cmp(a));
        let least = *least;
        let mut rows: Vec<ExpectedRow> = (0..self.video_count)
            .zip(&totals)
            .filter(|(_, count)| **count >= least)
            .map(|(index, count)| {
                let mut video_id = String::new();
                ids.write_id(VideoIndex(index), &mut video_id);
                ExpectedRow { video_id, view_count: *count }
            })
            .collect();
        rows.sort_unstable_by(|a, b| {
            b.view_count.cmp(&a.view_count).then_with(|| a.video_id.as_bytes().cmp(b.video_id.as_bytes()))
        });
        rows.truncate(k);
        rows
    }
}

#[cfg(test)]
mod tests {
    use highwater_proto::ViewRefusal;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::zipf::ViewGenerator;

    struct Names(u32);

    impl VideoIds for Names {
        fn video_count(&self) -> u32 {
            self.0
        }
        fn write_id(&self, video: VideoIndex, out: &mut String) {
            out.push_str(&format!("v{:03}", self.0 - video.0));
        }
    }

    fn row(video: u32, timestamp_ms: u64) -> Row {
        Row { video: VideoIndex(video), timestamp_ms }
    }

    fn refused(first: u32, count: u32) -> RefusedRange {
        RefusedRange { first, count, reason: ViewRefusal::FutureBeyondSkew }
    }

    fn all() -> Range<MinuteIndex> {
        MinuteIndex(0)..MinuteIndex(u64::MAX)
    }

    #[test]
    fn refused_views_are_left_out() {
        let mut oracle = Oracle::new(5);
        let rows: Vec<Row> = (0..5).map(|video| row(video, 0)).collect();
        oracle.add_batch(&rows, &[refused(0, 1), refused(2, 2)]);
        assert_eq!(oracle.totals(all()), [0, 1, 0, 0, 1]);
        oracle.add_batch(&rows, &[refused(4, 1)]);
        assert_eq!(oracle.totals(all()), [1, 2, 1, 1, 1]);
        assert_eq!(oracle.views(), 6);
        oracle.add_batch(&rows, &[refused(u32::MAX, 1)]);
        assert_eq!(oracle.undecidable_views(), 5);
        assert_eq!(oracle.views(), 6);
    }

    #[test]
    fn bounds_are_half_open_at_minute_grain() {
        let mut oracle = Oracle::new(1);
        oracle.add_batch(&[row(0, 59_999), row(0, 60_000), row(0, 119_999), row(0, 120_000)], &[]);
        assert_eq!(oracle.totals(MinuteIndex(1)..MinuteIndex(2)), [2]);
        assert_eq!(oracle.totals(MinuteIndex(2)..MinuteIndex(1)), [0]);
        assert_eq!(oracle.minute_max(), Some(MinuteIndex(2)));
    }

    #[test]
    fn ties_go_by_id_and_zero_is_never_listed() {
        let mut oracle = Oracle::new(4);
        oracle.add_batch(&[row(0, 0), row(1, 0), row(2, 0), row(2, 0)], &[]);
        let top = oracle.top(all(), 10, &Names(4));
        let listed: Vec<(&str, u64)> = top.iter().map(|row| (row.video_id.as_str(), row.view_count)).collect();
        assert_eq!(listed, [("v002", 2), ("v003", 1), ("v004", 1)]);
        assert_eq!(oracle.top(all(), 2, &Names(4)).len(), 2);
        assert!(Oracle::new(4).top(all(), 2, &Names(4)).is_empty());
    }

    #[test]
    fn a_recurring_batch_counts_as_its_views_would_one_by_one() {
        let generator = ViewGenerator::new(50, 1.0, 1).unwrap();
        let recurring = Recurring::make(&generator, 200, 40, highwater_proto::ENCODINGS).unwrap();
        let mut oracle = Oracle::new(50).with_recurring(recurring.clone());
        let mut plain = Oracle::new(50);
        let uses = [(0, 1000), (3, 61_000), (0, 62_000), (4, 62_000), (0, 119_000), (1, 300_000), (2, 301_000)];
        for (number, timestamp_ms) in uses {
            let ranges = if number == 4 { vec![refused(3, 30)] } else { vec![] };
            oracle.add_recurring(number, timestamp_ms, &ranges);
            let rows: Vec<Row> = recurring.videos(number).iter().map(|video| row(video.0, timestamp_ms)).collect();
            plain.add_batch(&rows, &ranges);
        }
        assert_eq!((oracle.views(), oracle.minute_max()), (plain.views(), plain.minute_max()));
        for minutes in
            [all(), MinuteIndex(1)..MinuteIndex(2), MinuteIndex(0)..MinuteIndex(5), MinuteIndex(2)..MinuteIndex(5)]
        {
            assert_eq!(oracle.totals(minutes.clone()), plain.totals(minutes));
        }
        oracle.add_recurring(0, 0, &[refused(u32::MAX, 1)]);
        assert_eq!(oracle.undecidable_views(), 40);
    }

    #[test]
    fn agrees_with_sorting_every_view_over_random_workloads() {
        for seed in 0..200_u64 {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let videos = random.random_range(1..200_u32);
            let mut oracle = Oracle::new(videos);
            let mut accepted = Vec::new();
            for _ in 0..random.random_range(1..20) {
                let rows: Vec<Row> = (0..random.random_range(1..300))
                    .map(|_| row(random.random_range(0..videos), random.random_range(0..600_000)))
                    .collect();
                let first = random.random_range(0..rows.len() as u32);
                let count = random.random_range(0..=rows.len() as u32 - first);
                let ranges = if count > 0 { vec![refused(first, count)] } else { vec![] };
                oracle.add_batch(&rows, &ranges);
                let gone = first as usize..(first + count) as usize;
                accepted.extend(rows.iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, row)| *row));
            }
            let start = random.random_range(0..10);
            let end = random.random_range(start..=10);
            let mut counts = vec![0_u64; videos as usize];
            for row in &accepted {
                if row.timestamp_ms >= start * 60_000 && row.timestamp_ms < end * 60_000 {
                    counts[row.video.0 as usize] += 1;
                }
            }
            let mut expected: Vec<(u64, String)> = (0..videos)
                .map(|video| (counts[video as usize], format!("v{:03}", videos - video)))
                .filter(|(count, _)| *count > 0)
                .collect();
            expected.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
            expected.truncate(7);
            let top: Vec<(u64, String)> = oracle
                .top(MinuteIndex(start)..MinuteIndex(end), 7, &Names(videos))
                .into_iter()
                .map(|row| (row.view_count, row.video_id))
                .collect();
            assert_eq!(top, expected, "seed {seed}");
        }
    }
}
