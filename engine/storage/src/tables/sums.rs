//! Counts by slot of one shard.
//!
//! Not of several shards: what one shard needs bounds the memory of every job. Invariant: a slot is marked exactly
//! while its count is above 0, and iteration goes by ascending slots.

use highwater_ranking::SlotCount;

const BITS: usize = u64::BITS as usize;

/// Counts by slot of one shard: dense, with a bit for each touched slot. Made once and used for period after period.
#[derive(Clone, Debug, Default)]
pub struct SlotSums {
    counts: Vec<u64>,
    /// A bit for each slot whose count is above 0.
    touched: Vec<u64>,
}

impl SlotSums {
    /// Without any count.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: Vec::new(), touched: Vec::new() }
    }

    /// Adds a run, or a piece of one.
    pub fn add(&mut self, entries: &[SlotCount]) {
        for entry in entries {
            self.add_one(entry.slot, u64::from(entry.count));
        }
    }

    /// Adds to one slot; 0 changes nothing.
    ///
    /// # Panics
    /// When the count no longer fits.
    pub fn add_one(&mut self, slot: u32, count: u64) {
        let index = slot as usize;
        if index >= self.counts.len() {
            let len = (index + 1).next_multiple_of(BITS);
            self.counts.resize(len, 0);
            self.touched.resize(len / BITS, 0);
        }
        let sum = self.counts[index].checked_add(count).expect("views are fewer than 2^64");
        self.counts[index] = sum;
        self.touched[index / BITS] |= u64::from(sum > 0) << (index % BITS);
    }

    /// Whether no slot has a count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.touched.iter().all(|bits| *bits == 0)
    }

    /// The sum of all counts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// The count of a slot.
    #[must_use]
    pub fn get(&self, slot: u32) -> u64 {
        self.counts.get(slot as usize).copied().unwrap_or(0)
    }

    /// Slots with a count, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let words = self.touched.iter().enumerate().filter(|(_, bits)| **bits != 0);
        words.flat_map(move |(word, bits)| {
            bits_of(*bits).map(move |bit| {
                let index = word * BITS + bit;
                (index as u32, self.counts[index])
            })
        })
    }

    /// Hands out slots and counts, slots ascending, and is empty then.
    pub fn drain(&mut self, mut visit: impl FnMut(u32, u64)) {
        for word in 0..self.touched.len() {
            let bits = std::mem::take(&mut self.touched[word]);
            for bit in bits_of(bits) {
                let index = word * BITS + bit;
                visit(index as u32, std::mem::take(&mut self.counts[index]));
            }
        }
    }

    /// Forgets all counts and keeps the room.
    pub fn clear(&mut self) {
        self.drain(|_, _| {});
    }
}

/// The set bits of a word, ascending.
fn bits_of(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (bits != 0).then(|| bits.trailing_zeros() as usize)?;
        bits &= bits - 1;
        Some(bit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn sums_are_those_of_a_map(added in proptest::collection::vec((0u32..300, 0u32..5), 0..200)) {
            let mut sums = SlotSums::new();
            for _ in 0..2 {
                let mut expected: BTreeMap<u32, u64> = BTreeMap::new();
                for (slot, count) in &added {
                    sums.add(&[SlotCount { slot: *slot, count: *count }]);
                    *expected.entry(*slot).or_default() += u64::from(*count);
                }
                expected.retain(|_, count| *count > 0);
                prop_assert_eq!(sums.iter().collect::<BTreeMap<_, _>>(), expected.clone());
                prop_assert!(sums.iter().is_sorted());
                prop_assert_eq!(sums.total(), expected.values().sum::<u64>());
                prop_assert_eq!(sums.is_empty(), expected.is_empty());
                let mut drained = Vec::new();
                sums.drain(|slot, count| drained.push((slot, count)));
                prop_assert_eq!(drained, expected.into_iter().collect::<Vec<_>>());
                prop_assert!(sums.is_empty() && sums.total() == 0);
            }
        }
    }
}
