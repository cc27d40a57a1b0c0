//! One shard's videos: from id to slot, and a line for each slot.
//!
//! Fixed-size open addressing with linear probing in front of lines in slot order. It never
//! forgets a video, never rehashes and never moves one; counting is not its business.
//!
//! | table | per | bytes | content |
//! |---|---|---|---|
//! | index | bucket, 4/3 of the slots | 8 | slot + 1 in the low half (0 is empty), hash tag in the high half |
//! | lines | slot | 64 | key and counters, see `line.rs` |
//! | key | line | 16 | to 15 bytes: the id, zero padded, length in byte 15; longer: arena offset in bytes 0 to 7, length in byte 8, 0xFF in byte 15 |
//! | arena | shard | | the long ids, one after the other |
//!
//! Invariants: slots are dense from 0 in order of first sight and stable; each id has one slot,
//! for ids are compared in full; the load stays at or below 3/4, so probes end. The bucket comes
//! from the low half of the hash, the tag from the high half.

use highwater_memory::{HUGE_PAGE_BYTES, MemoryError, Slab, prefetch_at};

use crate::cell::{Cell, inline_words, row_cells};
use crate::line::{CounterLine, Key};

/// The longest id that lies in its key; a longer one costs an access to the arena.
pub const INLINE_ID_BYTES_MAX: usize = 15;

/// Byte 15 of a key whose id is in the arena.
const LONG_MARK: u64 = 0xFF << 56;

/// Buckets of an index for `slots_max` slots: never more than 3/4 full, never quite full.
fn index_len(slots_max: u32) -> usize {
    (u64::from(slots_max) * 4).div_ceil(3) as usize + 1
}

/// Bytes of an index for `slots_max` slots.
pub(crate) fn index_bytes(slots_max: u32) -> u64 {
    (index_len(slots_max) * size_of::<u64>()) as u64
}

/// An id in the form that keys are compared in.
#[derive(Clone, Copy)]
pub(crate) enum IdKey<'a> {
    /// At most 15 bytes: the key itself.
    Inline(Key),
    /// Longer: the bytes.
    Long(&'a [u8]),
}

impl<'a> IdKey<'a> {
    /// The form of an id of 1 to 255 bytes.
    pub(crate) fn of(id: &'a [u8]) -> Self {
        if id.len() <= INLINE_ID_BYTES_MAX {
            let [low, high] = inline_words(id);
            Self::Inline([low, high | (id.len() as u64) << 56])
        } else {
            Self::Long(id)
        }
    }

    /// The form of the id of the row that `cells` begin with.
    #[inline]
    pub(crate) fn of_row(cells: &'a [Cell]) -> Self {
        let first = &cells[0];
        let len = first.id_len();
        if len <= INLINE_ID_BYTES_MAX {
            Self::Inline([first.0[2], first.0[3] | (len as u64) << 56])
        } else {
            Self::Long(&bytemuck::cast_slice(&cells[1..row_cells(first)])[..len])
        }
    }
}

/// The videos of one shard.
pub(crate) struct VideoTable {
    index: Slab<u64>,
    /// A line per slot.
    pub(crate) lines: Slab<CounterLine>,
    arena: Slab<u8>,
    arena_used: usize,
    len: u32,
}

impl VideoTable {
    /// An empty table.
    pub(crate) fn reserve(slots_max: u32, arena_bytes: usize) -> Result<Self, MemoryError> {
        Ok(Self {
            index: Slab::reserve(index_len(slots_max))?,
            lines: Slab::reserve(slots_max as usize)?,
            arena: Slab::reserve(arena_bytes)?,
            arena_used: 0,
            len: 0,
        })
    }

    /// Commits the whole index, which is touched at random, and the first of what is filled in order.
    pub(crate) fn prefault(&mut self) {
        self.index.populate(usize::MAX);
        self.lines.populate(HUGE_PAGE_BYTES / size_of::<CounterLine>());
        self.arena.populate(HUGE_PAGE_BYTES);
    }

    /// Ids known.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Ids that still fit, as far as slots go.
    pub(crate) fn slots_free(&self) -> u32 {
        self.lines.len() as u32 - self.len
    }

    /// Bytes of long ids that still fit.
    pub(crate) fn arena_free(&self) -> usize {
        self.arena.len() - self.arena_used
    }

    /// Bytes of long ids held.
    pub(crate) fn arena_used(&self) -> usize {
        self.arena_used
    }

    /// The id of a slot.
    #[inline]
    pub(crate) fn id(&self, slot: u32) -> &[u8] {
        let key = &self.lines[slot as usize].key;
        if key[1] >= LONG_MARK { self.long_id(*key) } else { &bytemuck::bytes_of(key)[..(key[1] >> 56) as usize] }
    }

    fn long_id(&self, key: Key) -> &[u8] {
        let start = key[0] as usize;
        &self.arena[start..start + usize::from(key[1] as u8)]
    }

    /// Fetches the bucket of a hash.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u64) {
        prefetch_at(&self.index, self.bucket(hash));
    }

    /// The slot that the index alone suggests for a hash, and fetches its line.
    #[inline]
    pub(crate) fn candidate(&self, hash: u64) -> Option<u32> {
        let mut bucket = self.bucket(hash);
        loop {
            let entry = self.index[bucket];
            if entry == 0 {
                return None;
            }
            if (entry ^ hash) >> 32 == 0 {
                let slot = entry as u32 - 1;
                prefetch_at(&self.lines, slot as usize);
                return Some(slot);
            }
            bucket = self.bucket_after(bucket);
        }
    }

    /// Whether a slot has this id.
    #[inline]
    pub(crate) fn is(&self, slot: u32, id: IdKey<'_>) -> bool {
        let key = self.lines[slot as usize].key;
        match id {
            IdKey::Inline(inline) => key == inline,
            IdKey::Long(bytes) => key[1] >= LONG_MARK && self.long_id(key) == bytes,
        }
    }

    /// The slot of an id, if it is known.
    pub(crate) fn find(&self, hash: u64, id: IdKey<'_>) -> Option<u32> {
        self.probe(hash, id).ok()
    }

    /// The slot of an id, a new one if it is not known.
    ///
    /// # Panics
    /// When the table or the arena is full: room is asked for before a view is accepted.
    pub(crate) fn intern(&mut self, hash: u64, id: IdKey<'_>) -> u32 {
        match self.probe(hash, id) {
            Ok(slot) => slot,
            Err(bucket) => self.append(bucket, hash, id),
        }
    }

    fn append(&mut self, bucket: usize, hash: u64, id: IdKey<'_>) -> u32 {
        assert!(
            self.slots_free() > 0,
            "bug: a view of a new video was accepted for a table that is full at {} videos",
            self.len
        );
        let slot = self.len;
        self.lines[slot as usize].key = match id {
            IdKey::Inline(key) => key,
            IdKey::Long(bytes) => {
                assert!(
                    self.arena_free() >= bytes.len(),
                    "bug: a view of a new video was accepted for an arena that is full at {} bytes",
                    self.arena_used
                );
                let start = self.arena_used;
                self.arena_used += bytes.len();
                self.arena[start..self.arena_used].copy_from_slice(bytes);
                [start as u64, LONG_MARK | bytes.len() as u64]
            }
        };
        self.index[bucket] = u64::from(slot + 1) | (hash >> 32) << 32;
        self.len += 1;
        slot
    }

    /// The slot of an id, or the empty bucket that it belongs in.
    fn probe(&self, hash: u64, id: IdKey<'_>) -> Result<u32, usize> {
        let mut bucket = self.bucket(hash);
        loop {
            let entry = self.index[bucket];
            if entry == 0 {
                return Err(bucket);
            }
            if (entry ^ hash) >> 32 == 0 && self.is(entry as u32 - 1, id) {
                return Ok(entry as u32 - 1);
            }
            bucket = self.bucket_after(bucket);
        }
    }

    #[inline]
    fn bucket(&self, hash: u64) -> usize {
        ((u128::from(hash.rotate_left(32)) * self.index.len() as u128) >> 64) as usize
    }

    #[inline]
    fn bucket_after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.index.len() { 0 } else { bucket + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_length_keep_their_slots_to_the_last_one() {
        let lens = (1..=255usize).collect::<Vec<_>>();
        let long_bytes = lens.iter().filter(|&&len| len > INLINE_ID_BYTES_MAX).sum();
        let mut table = VideoTable::reserve(255, long_bytes).unwrap();
        let id = |len: usize| "x".repeat(len).into_bytes();
        // One hash for all: probing and full comparison alone must keep them apart.
        for &len in &lens {
            assert_eq!(table.intern(42, IdKey::of(&id(len))), len as u32 - 1);
        }
        assert_eq!((table.slots_free(), table.arena_free()), (0, 0));
        for &len in &lens {
            assert_eq!(table.find(42, IdKey::of(&id(len))), Some(len as u32 - 1));
            assert_eq!(table.intern(42, IdKey::of(&id(len))), len as u32 - 1);
            assert_eq!(table.id(len as u32 - 1), id(len));
        }
        assert_eq!(table.find(42, IdKey::of(b"y")), None);
        assert_eq!(table.find(1 << 32 | 42, IdKey::of(b"x")), None);
    }

    #[test]
    fn probes_wrap_at_the_end_of_the_index() {
        let mut table = VideoTable::reserve(8, 0).unwrap();
        let hash = 0xFFFF_FFFF; // the last bucket
        for n in 0..8u8 {
            assert_eq!(table.intern(hash, IdKey::of(&[b'a' + n])), u32::from(n));
        }
        assert_eq!(table.candidate(hash), Some(0));
        assert_eq!(table.find(hash, IdKey::of(b"h")), Some(7));
        assert_eq!(table.find(hash, IdKey::of(b"i")), None);
    }

    #[test]
    #[should_panic(expected = "full at 2 videos")]
    fn a_full_table_is_a_bug_of_the_caller() {
        let mut table = VideoTable::reserve(2, 0).unwrap();
        for id in [b"a", b"b", b"c"] {
            table.intern(1, IdKey::of(id));
        }
    }
}
