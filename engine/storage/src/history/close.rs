//! The final lists of closed periods, counted from the closed files.
//!
//! Not which periods are due. Invariants: a list is a pure function of the views of the period and of their finality
//! classes, so that later views and the order of files change nothing; memory is that of one shard's counts and ids and
//! of the rows kept, however many videos tie.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::Range;

use highwater_ranking::{CalendarPeriod, FinalityClass, Minute};

use super::format::{CLOSED_ROWS_MAX, ClosedList};
use crate::error::StorageError;
use crate::tables::{ShardIdList, SlotSums, Tables};

/// Counts the final list of one period: its first `rows_max` videos. None when the period has no view that counts.
///
/// # Errors
/// When a file does not verify, or the disk refuses.
///
/// # Panics
/// When `rows_max` is 0 or above [`CLOSED_ROWS_MAX`].
pub fn close_period(
    tables: &Tables,
    kind: CalendarPeriod,
    period: Range<Minute>,
    rows_max: usize,
) -> Result<Option<ClosedList>, StorageError> {
    let lists = close_periods(tables, &[(kind, period)], rows_max, || false)?;
    Ok(lists.into_iter().flatten().next())
}

/// Counts the final lists of several periods, and reads the ids of each shard at most once for all of them. Returns
/// those with a view that counts, in the order of the periods; none at all when `should_stop` said so, which is asked
/// before each shard of each period.
pub(super) fn close_periods(
    tables: &Tables,
    periods: &[(CalendarPeriod, Range<Minute>)],
    rows_max: usize,
    should_stop: impl Fn() -> bool,
) -> Result<Option<Vec<ClosedList>>, StorageError> {
    assert!((1..=CLOSED_ROWS_MAX).contains(&rows_max), "{rows_max} rows are not 1 to {CLOSED_ROWS_MAX}");
    let mut firsts: Vec<First> = periods.iter().map(|_| First::new(rows_max)).collect();
    let mut sums = SlotSums::new();
    for shard in 0..tables.directory().shards {
        let mut ids = None;
        for ((kind, period), first) in periods.iter().zip(&mut firsts) {
            if should_stop() {
                return Ok(None);
            }
            tables.sums(shard, period.clone(), FinalityClass::IN_HOUR..=kind.class_max(), &mut sums)?;
            first.take_shard(tables, shard, &mut sums, &mut ids)?;
        }
    }
    let lateness_max_ms = tables.directory().lateness_max_ms;
    let lists = periods.iter().zip(firsts).filter(|(_, first)| first.videos > 0);
    Ok(Some(lists.map(|((kind, period), first)| first.into_list(*kind, period.clone(), lateness_max_ms)).collect()))
}

/// The first videos of one period, of the shards seen so far.
struct First {
    rows_max: usize,
    total_views: u64,
    videos: u64,
    /// The last of those kept is on top.
    kept: BinaryHeap<Row>,
}

impl First {
    fn new(rows_max: usize) -> Self {
        Self { rows_max, total_views: 0, videos: 0, kept: BinaryHeap::with_capacity(rows_max) }
    }

    /// Takes the counts of a shard; reads its ids if one of them may be among the first and nobody has read them yet.
    fn take_shard(
        &mut self,
        tables: &Tables,
        shard: u16,
        sums: &mut SlotSums,
        ids: &mut Option<ShardIdList>,
    ) -> Result<(), StorageError> {
        if ids.is_none() && sums.iter().any(|(_, count)| count >= self.count_min()) {
            *ids = Some(tables.ids(shard)?);
        }
        let mut nameless = None;
        sums.drain(|slot, count| {
            self.total_views += count;
            self.videos += 1;
            if count >= self.count_min() {
                match ids.as_ref().and_then(|ids| ids.get(slot)) {
                    Some(id) => self.offer(id, count),
                    None => nameless = Some(slot),
                }
            }
        });
        nameless.map_or(Ok(()), |slot| {
            let what = format!("slot {slot} of shard {shard} was viewed, but no file gives it an id");
            Err(StorageError::damaged(crate::cut::CUTS_DIR, 0, what))
        })
    }

    /// The least count that may still be among the first: equal ones go by their ids.
    fn count_min(&self) -> u64 {
        if self.kept.len() < self.rows_max { 1 } else { self.kept.peek().map_or(1, |last| last.count) }
    }

    fn offer(&mut self, id: &str, count: u64) {
        if self.kept.len() < self.rows_max {
            self.kept.push(Row { count, id: id.into() });
        } else if let Some(mut last) = self.kept.peek_mut()
            && rank_order((count, id), (last.count, &last.id)) == Ordering::Less
        {
            *last = Row { count, id: id.into() };
        }
    }

    fn into_list(self, kind: CalendarPeriod, period: Range<Minute>, lateness_max_ms: u64) -> ClosedList {
        let Self { total_views, videos, kept, .. } = self;
        let rows = kept.into_sorted_vec().into_iter().map(|row| (row.id, row.count)).collect();
        let (start, end) = (period.start, period.end);
        let final_ms = end.start_ms().saturating_add(lateness_max_ms);
        ClosedList { kind, start, end, final_ms, total_views, videos, rows }
    }
}

/// A row kept; ordered as in the list, the first the least.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    count: u64,
    id: Box<str>,
}

impl Ord for Row {
    fn cmp(&self, other: &Self) -> Ordering {
        rank_order((self.count, &self.id), (other.count, &other.id))
    }
}

impl PartialOrd for Row {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By count descending, then id ascending by bytes.
fn rank_order(a: (u64, &str), b: (u64, &str)) -> Ordering {
    b.0.cmp(&a.0).then_with(|| a.1.as_bytes().cmp(b.1.as_bytes()))
}
