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
    /// All other views, one key each (minute << 32 | class << 30 | slot), unsorted.
    pub late: Vec<u64>,
}

impl ShardCut {
    /// The new ids, and the runs in order of (minute, class).
    ///
    /// Sorts all late views: for a helper thread. Should a slot's count of one minute pass
    /// `u32::MAX`, the excess comes in a further run of the same minute and class; runs of the same
    /// minute add up wherever they are read.
    #[must_use]
    pub fn into_runs(self) -> (ShardIds, Vec<Run>) {
        let Self { shard, minute, first_slot, id_lens, id_bytes, current, mut late } = self;
        let ids = ShardIds { shard, first_slot, id_lens, id_bytes };
        late.sort_unstable();
        let current_key = LateKey::group(minute, FinalityClass::IN_HOUR);
        let mut runs = Vec::new();
        let mut current = Some(current).filter(|entries| !entries.is_empty());
        let mut rest = late.as_slice();
        while let Some(&first) = rest.first() {
            let group = first >> LateKey::SLOT_BITS;
            if group >= current_key
                && let Some(entries) = current.take()
            {
                runs.push(Run { minute, class: FinalityClass::IN_HOUR, entries });
            }
            let group_len = rest.partition_point(|&key| key >> LateKey::SLOT_BITS == group);
            let (keys, tail) = rest.split_at(group_len);
            push_late_runs(&mut runs, keys);
            rest = tail;
        }
        if let Some(entries) = current.take() {
            runs.push(Run { minute, class: FinalityClass::IN_HOUR, entries });
        }
        (ids, runs)
    }
}

/// Counts sorted keys of one minute and class into a run; an overflowing count opens another.
fn push_late_runs(runs: &mut Vec<Run>, keys: &[u64]) {
    let (minute, class, _) = LateKey::parts(keys[0]);
    let mut entries: Vec<SlotCount> = Vec::new();
    let mut excess: Vec<SlotCount> = Vec::new();
    for same in keys.chunk_by(|a, b| a == b) {
        let (_, _, slot) = LateKey::parts(same[0]);
        let mut left = same.len();
        let count = u32::try_from(left).unwrap_or(u32::MAX);
        entries.push(SlotCount { slot, count });
        left -= count as usize;
        if let Ok(count) = u32::try_from(left)
            && count > 0
        {
            excess.push(SlotCount { slot, count });
        }
    }
    runs.push(Run { minute, class, entries });
    if !excess.is_empty() {
        runs.push(Run { minute, class, entries: excess });
    }
}

/// The layout of a late key; keys sort by (minute, class, slot).
pub(crate) struct LateKey;

impl LateKey {
    /// Bits of the slot.
    pub(crate) const SLOT_BITS: u32 = 30;

    /// The key of one late view.
    #[inline]
    pub(crate) fn of(minute: Minute, class: FinalityClass, slot: u32) -> u64 {
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

    fn cut(current: Vec<SlotCount>, late: Vec<u64>) -> ShardCut {
        ShardCut { shard: 3, minute: Minute(10), first_slot: 0, id_lens: vec![], id_bytes: vec![], current, late }
    }

    #[test]
    fn runs_come_in_order_of_minute_and_class_with_merged_counts() {
        let key = |minute, class, slot| LateKey::of(Minute(minute), FinalityClass(class), slot);
        let slots_max = crate::config::SLOTS_MAX - 1;
        let late = vec![
            key(11, 0, 5),
            key(9, 3, slots_max),
            key(10, 1, 2),
            key(9, 3, 1),
            key(9, 3, slots_max),
            key(u32::MAX, 3, slots_max),
        ];
        let (_, runs) = cut(vec![SlotCount { slot: 7, count: 4 }], late).into_runs();
        let heads: Vec<_> = runs.iter().map(|run| (run.minute.0, run.class.0)).collect();
        assert_eq!(heads, [(9, 3), (10, 0), (10, 1), (11, 0), (u32::MAX, 3)]);
        let expected = [SlotCount { slot: 1, count: 1 }, SlotCount { slot: slots_max, count: 2 }];
        assert_eq!(runs[0].entries, expected);
        assert_eq!(runs[1].entries, [SlotCount { slot: 7, count: 4 }]);
    }

    #[test]
    fn the_current_run_comes_whether_or_not_there_are_late_ones() {
        let current = vec![SlotCount { slot: 0, count: 1 }];
        assert_eq!(cut(current.clone(), vec![]).into_runs().1.len(), 1);
        assert_eq!(cut(vec![], vec![]).into_runs().1.len(), 0);
        let after = LateKey::of(Minute(2), FinalityClass(0), 1);
        let (_, runs) = cut(current, vec![after]).into_runs();
        assert_eq!((runs[0].minute, runs[1].minute), (Minute(2), Minute(10)));
    }
}
