//! Whether ids, counts and runs follow those of the files before.
//!
//! Not their contents. Invariant: what passed names no slot without an id, and leaves no slot out.

use std::collections::BTreeMap;

use crate::container::CutSection;
use crate::error::StorageError;

/// Slots that are known while files are read, by shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    shards: u16,
    ids: BTreeMap<u16, u32>,
    /// All-time counts read.
    counts: BTreeMap<u16, u32>,
}

impl Slots {
    /// Nothing read yet.
    pub(crate) fn new(shards: u16) -> Self {
        Self { shards, ..Self::default() }
    }

    /// Whether ids of every shard have a count each, as in a base.
    pub(crate) fn are_counted(&self) -> bool {
        self.ids.iter().all(|(shard, ids)| *ids == self.counts.get(shard).copied().unwrap_or(0))
    }

    /// Refuses ids and counts that do not follow those before them, runs of unknown slots, and unknown shards.
    pub(crate) fn check(&mut self, path: &str, section: &CutSection<'_>) -> Result<(), StorageError> {
        let refuse = |what: String| Err(StorageError::damaged(path, 0, what));
        match section {
            CutSection::Ids { shard, first_slot, lens, .. } => {
                let (next, shards) = (self.ids.entry(*shard).or_default(), self.shards);
                if *shard >= shards || first_slot != next {
                    let what = format!("ids of shard {shard} of {shards} start at slot {first_slot}, not at {next}");
                    return refuse(what);
                }
                match u32::try_from(lens.len()).ok().and_then(|count| next.checked_add(count)) {
                    Some(sum) => *next = sum,
                    None => return refuse(format!("shard {shard} has more ids than slots")),
                }
            }
            CutSection::AllTime { shard, first_slot, counts } => {
                let known = self.ids.get(shard).copied().unwrap_or(0);
                let next = self.counts.entry(*shard).or_default();
                if first_slot != next || counts.len() > (known - *next) as usize {
                    let end = u64::from(*first_slot) + counts.len() as u64;
                    let what =
                        format!("counts of shard {shard} are of slots {first_slot} to {end}, not {next} to {known}");
                    return refuse(what);
                }
                *next += counts.len() as u32;
            }
            CutSection::Run { shard, entries, .. } => {
                let known = self.ids.get(shard).copied().unwrap_or(0);
                if let Some(entry) = entries.last().filter(|entry| entry.slot >= known) {
                    return refuse(format!("a run of shard {shard} names slot {}, known are {known}", entry.slot));
                }
            }
            CutSection::Positions(_) | CutSection::Producers(_) => {}
        }
        Ok(())
    }
}
