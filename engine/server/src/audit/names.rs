//! The ids of videos: each is in the shard that its hash says, once.
//!
//! Not their counts. Invariant: a slot found by an id is the only one with that id.

use super::report::{Compared, Report};
use highwater_ranking::{IdHash, shard_of};
use highwater_storage::{ShardIdList, StorageError, Tables};
use std::collections::HashMap;
use std::ops::Range;

/// The slots of the ids of some shards.
#[derive(Default)]
pub(super) struct Slots {
    shards: Range<u16>,
    slots: Vec<HashMap<Box<str>, u32>>,
}

impl Slots {
    /// Reads the ids of these shards, unless they are read already.
    ///
    /// # Errors
    /// When a file cannot be read or does not verify.
    pub(super) fn load(&mut self, tables: &Tables, shards: Range<u16>) -> Result<(), StorageError> {
        if self.shards == shards {
            return Ok(());
        }
        // What is not needed any more must be gone before as much again is read.
        self.slots.clear();
        for shard in shards.clone() {
            let list = tables.ids(shard)?;
            self.slots.push(ids(&list).map(|(slot, id)| (id.into(), slot)).collect());
        }
        self.shards = shards;
        Ok(())
    }

    /// The slot of an id in a shard that was read.
    pub(super) fn get(&self, shard: u16, id: &str) -> Option<u32> {
        self.slots[usize::from(shard - self.shards.start)].get(id).copied()
    }
}

/// Slots and ids, ascending.
fn ids(list: &ShardIdList) -> impl Iterator<Item = (u32, &str)> {
    (0..list.len() as u32).filter_map(|slot| Some((slot, list.get(slot)?)))
}

/// Looks at every id.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare(tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let directory = tables.directory();
    let hash = IdHash::new(directory.hash_seed);
    let mut compared = Compared { what: "ids with their shards", ..Compared::default() };
    for shard in 0..directory.shards {
        let list = tables.ids(shard)?;
        let mut seen: HashMap<&str, u32> = HashMap::with_capacity(list.len());
        for (slot, id) in ids(&list) {
            let of_hash = shard_of(hash.hash(id), directory.shards);
            if of_hash != shard {
                report.problem(&format!("{id:?} is in shard {shard} at slot {slot}, its hash is of shard {of_hash}"));
            }
            if let Some(first) = seen.insert(id, slot) {
                report.problem(&format!("{id:?} is twice in shard {shard}, at slots {first} and {slot}"));
            }
        }
        compared.periods += 1;
        compared.counts += list.len() as u64;
    }
    report.compared(compared);
    Ok(())
}
