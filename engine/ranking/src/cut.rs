//! What a marker closes: the ids and runs that go into a cut file, and the runs that leave.
//!
//! Data only; the close itself is in `marker.rs`, the file format in the storage crate.
//! [`ShardCut::into_runs`] sorts, so it belongs on a helper thread.
//!
//! Invariant: the counts of a cut's runs add up to the views applied since the last cut, by
//! (minute, class, slot).

use std::ops::Range;

use highwater_proto::Epoch;

use crate::time::{FinalityClass, Minute};

/// How often a slot was viewed, in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotCount {
    /// The slot.
    pub slot: u32,
    /// Views, at least 1.
    pub count: u32,
}

/// The views of one minute and class, per slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Event minute.
    pub minute: Minute,
    /// Finality class of all its views.
    pub class: FinalityClass,
    /// Slots in ascending order, each once, counts at least 1.
    pub entries: Vec<SlotCount>,
}

/// Ids that a shard interned since its last cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardIds {
    /// The shard.
    pub shard: u16,
    /// Slot of the first id; the others follow in slot order.
    pub first_slot: u32,
    /// Length of each id in bytes, 1 to 255.
    pub id_lens: Vec<u8>,
    /// The ids, one after the other.
    pub id_bytes: Vec<u8>,
}

/// Everything that a core's shards hold beyond the last cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreCut {
    /// Epoch of the marker that closed it.
    pub epoch: Epoch,
    /// Engine time of that marker, in ms UTC.
    pub time_ms: u64,
    /// The engine minute that was in force until that marker; `current` is its views.
    pub minute: Minute,
    /// Every view that arrived before this time (ms UTC) is in this cut or an earlier one.
    pub arrivals_from_ms: u64,
    /// One piece per owned shard.
    pub shards: Vec<ShardCut>,
}

/// One shard's piece of a cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCut {
    /// The shard.
    pub shard: u16,
    /// The minute of `current`.
    pub minute: Minute,
    /// Slot of the first new id.
    pub first_slot: u32,
    /// Lengths of the new ids in slot order, in bytes.
    pub id_lens: Vec<u8>,
    /// Bytes of the new ids, one after the other.
    pub id_bytes: Vec<u8>,
    /// Views of the engine's minute and class 0, slots ascending.
    pub current: Vec<SlotCount>,
    /// All other views, row by row, unsorted.
    pub late: Vec<LateViews>,
}

/// Views of one slot, minute and class that are not in the engine's minute's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateViews {
    key: u64,
    views: u32,
}

impl LateViews {
    /// So many views of a slot, at least 1.
    #[inline]
    #[must_use]
    pub fn new(minute: Minute, class: FinalityClass, slot: u32, views: u32) -> Self {
        Self { key: LateKey::of(minute, class, slot), views }
    }

    /// Makes one row of those that are of one slot, minute and class; sorts them.
    pub(crate) fn merge(rows: &mut Vec<Self>) {
        rows.sort_unstable_by_key(|one| one.key);
        rows.dedup_by(|next, row| {
            let sum = row.views.checked_add(next.views).filter(|_| next.key == row.key);
            sum.inspect(|views| row.views = *views).is_some()
        });
    }
}

impl ShardCut {
    /// The new ids, and the runs in order of (minute, class).
    ///
    /// Sorts all late rows: for a helper thread. Should a slot's count of one minute pass
    /// `u32::MAX`, the excess comes in a further run of the same minute and class; runs of the same
    /// minute add up wherever they are read.
    #[must_use]
    pub fn into_runs(self) -> (ShardIds, Vec<Run>) {
        let Self { shard, minute, first_slot, id_lens, id_bytes, current, mut late } = self;
        let ids = ShardIds { shard, first_slot, id_lens, id_bytes };
        late.sort_unstable_by_key(|one| one.key);
        let current_key = LateKey::group(minute, FinalityClass::IN_HOUR);
        let mut runs = Vec::new();
        let mut current = Some(current).filter(|entries| !entries.is_empty());
        let mut rest = late.as_slice();
        while let Some(first) = rest.first() {
            let group = first.key >> LateKey::SLOT_BITS;
            if group >= current_key
                && let Some(entries) = current.take()
            {
                runs.push(Run { minute, class: FinalityClass::IN_HOUR, entries });
            }
            let group_len = rest.partition_point(|one| one.key >> LateKey::SLOT_BITS == group);
            let (same, tail) = rest.split_at(group_len);
            push_late_runs(&mut runs, same);
            rest = tail;
        }
        if let Some(entries) = current.take() {
            runs.push(Run { minute, class: FinalityClass::IN_HOUR, entries });
        }
        (ids, runs)
    }
}

/// Sums sorted rows of one minute and class into a run; what is beyond the largest count of a run goes into further
/// ones.
fn push_late_runs(runs: &mut Vec<Run>, rows: &[LateViews]) {
    let (minute, class, _) = LateKey::parts(rows[0].key);
    let mut sums: Vec<(u32, u64)> = Vec::new();
    for same in rows.chunk_by(|a, b| a.key == b.key) {
        let (_, _, slot) = LateKey::parts(same[0].key);
        sums.push((slot, same.iter().map(|one| u64::from(one.views)).sum()));
    }
    while !sums.is_empty() {
        let count = |left: u64| u32::try_from(left).unwrap_or(u32::MAX);
        let entries = sums.iter().map(|&(slot, left)| SlotCount { slot, count: count(left) }).collect();
        runs.push(Run { minute, class, entries });
        sums.iter_mut().for_each(|(_, left)| *left -= u64::from(count(*left)));
        sums.retain(|(_, left)| *left > 0);
    }
}

/// The layout of a late key, minute << 32 | class << 30 | slot: keys sort by (minute, class, slot).
struct LateKey;

impl LateKey {
    /// Bits of the slot.
    const SLOT_BITS: u32 = 30;

    /// The key of late views.
    #[inline]
    fn of(minute: Minute, class: FinalityClass, slot: u32) -> u64 {
        Self::group(minute, class) << Self::SLOT_BITS | u64::from(slot)
    }

    /// What all keys of one minute and class share.
    #[inline]
    fn group(minute: Minute, class: FinalityClass) -> u64 {
        u64::from(minute.0) << 2 | u64::from(class.0)
    }

    /// The parts of a key.
    fn parts(key: u64) -> (Minute, FinalityClass, u32) {
        let class = FinalityClass((key >> Self::SLOT_BITS) as u8 & 3);
        (Minute((key >> 32) as u32), class, key as u32 & ((1 << Self::SLOT_BITS) - 1))
    }
}

const _: () = assert!(crate::config::SLOTS_MAX == 1 << LateKey::SLOT_BITS);

/// What runs do to a window's counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunChange {
    /// Their minutes leave a sliding window: they are to be subtracted.
    Leave,
    /// A tumbling window opens that holds their minutes, or a window is restored: they are to be added.
    Enter,
}

/// A question for runs that leave or enter a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRequest {
    /// The window: sliding hour 0, day 1, month 2; tumbling hour 3, day 4, month 5.
    pub window: usize,
    /// What they do to it.
    pub change: RunChange,
    /// The event minutes. All runs of these minutes, of the classes allowed, in every cut up to and including the one
    /// just closed, are meant.
    pub minutes: Range<Minute>,
    /// The latest class that counts in the window.
    pub class_max: FinalityClass,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(current: Vec<SlotCount>, late: Vec<LateViews>) -> ShardCut {
        ShardCut { shard: 3, minute: Minute(10), first_slot: 0, id_lens: vec![], id_bytes: vec![], current, late }
    }

    fn late_views(minute: u32, class: u8, slot: u32, views: u32) -> LateViews {
        LateViews::new(Minute(minute), FinalityClass(class), slot, views)
    }

    #[test]
    fn merged_rows_are_one_for_each_slot_minute_and_class_and_lose_no_view() {
        let mut rows = Vec::new();
        for number in 0..1000 {
            rows.push(late_views(9 + number % 2, (number % 3) as u8, number % 5, 1 + number));
        }
        rows.extend([late_views(9, 0, 0, u32::MAX), late_views(9, 0, 0, u32::MAX)]);
        let (_, runs) = cut(vec![], rows.clone()).into_runs();
        LateViews::merge(&mut rows);
        assert!(
            (32..=34).contains(&rows.len()),
            "30, and two that are too large to be added to others: {}",
            rows.len()
        );
        assert_eq!(cut(vec![], rows).into_runs().1, runs);
    }

    #[test]
    fn a_sum_beyond_one_count_goes_on_in_further_runs() {
        let late = vec![late_views(9, 1, 3, u32::MAX), late_views(9, 1, 4, 1), late_views(9, 1, 3, u32::MAX)];
        let (_, runs) = cut(vec![], [late, vec![late_views(9, 1, 3, 5)]].concat()).into_runs();
        let counts: Vec<Vec<_>> =
            runs.iter().map(|run| run.entries.iter().map(|one| (one.slot, one.count)).collect()).collect();
        assert_eq!(counts, [vec![(3, u32::MAX), (4, 1)], vec![(3, u32::MAX)], vec![(3, 5)]]);
        assert!(runs.iter().all(|run| (run.minute, run.class) == (Minute(9), FinalityClass(1))));
    }

    #[test]
    fn runs_come_in_order_of_minute_and_class_with_merged_counts() {
        let slots_max = crate::config::SLOTS_MAX - 1;
        let late = vec![
            late_views(11, 0, 5, 1),
            late_views(9, 3, slots_max, 40),
            late_views(10, 1, 2, 1),
            late_views(9, 3, 1, 1),
            late_views(9, 3, slots_max, 2),
            late_views(u32::MAX, 3, slots_max, 1),
        ];
        let (_, runs) = cut(vec![SlotCount { slot: 7, count: 4 }], late).into_runs();
        let heads: Vec<_> = runs.iter().map(|run| (run.minute.0, run.class.0)).collect();
        assert_eq!(heads, [(9, 3), (10, 0), (10, 1), (11, 0), (u32::MAX, 3)]);
        let expected = [SlotCount { slot: 1, count: 1 }, SlotCount { slot: slots_max, count: 42 }];
        assert_eq!(runs[0].entries, expected);
        assert_eq!(runs[1].entries, [SlotCount { slot: 7, count: 4 }]);
    }

    #[test]
    fn the_current_run_comes_whether_or_not_there_are_late_ones() {
        let current = vec![SlotCount { slot: 0, count: 1 }];
        assert_eq!(cut(current.clone(), vec![]).into_runs().1.len(), 1);
        assert_eq!(cut(vec![], vec![]).into_runs().1.len(), 0);
        let (_, runs) = cut(current, vec![late_views(2, 0, 1, 1)]).into_runs();
        assert_eq!((runs[0].minute, runs[1].minute), (Minute(2), Minute(10)));
    }
}
