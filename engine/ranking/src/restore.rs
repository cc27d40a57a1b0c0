//! Coming back at start: ids and runs from cut files, then the tail of the logs by `apply`.
//!
//! It reads no files. What is handed in comes from verified files, and is still checked for
//! contradictions, since a wrong count would be believed for ever.
//!
//! Invariant: after the ids and runs of all cuts and the rows beyond them, with the minute given
//! at the making, counters are what they would be had all of it been applied at that minute; the
//! boards are built from the counters alone when it is finished.

use crate::config::RankingError;
use crate::core::CoreRanking;
use crate::cut::SlotCount;
use crate::hash::shard_of;
use crate::ids::{INLINE_ID_BYTES_MAX, IdKey};
use crate::shard::{ALL_TIME, SLIDING, WINDOWS};
use crate::time::{FinalityClass, Minute};

impl CoreRanking {
    /// Appends the ids of one cut to a shard, in slot order; cuts in order of their numbers.
    ///
    /// # Errors
    /// State that does not fit, with the figures, or that contradicts itself.
    ///
    /// # Panics
    /// After [`Self::finish_restore`], for a shard that is not owned, or when rows that brought
    /// new videos were applied before.
    pub fn restore_ids(&mut self, shard: u16, id_lens: &[u8], id_bytes: &[u8]) -> Result<(), RankingError> {
        assert!(self.restoring, "bug: ids were restored after the restore was finished");
        let place = usize::from(self.place_of(shard));
        let shards_total = self.config.shards_total;
        let hash = self.id_hash();
        let state = &mut self.shards[place];
        assert!(state.slots_cut == state.ids.len(), "bug: ids were restored after rows were applied");
        let mut rest = id_bytes;
        for &len in id_lens {
            let slot = state.ids.len();
            let wrong = |what| RankingError::Inconsistent { shard, slot: u64::from(slot), what };
            let (id, tail) = rest.split_at_checked(usize::from(len)).ok_or(wrong("its ids are cut short"))?;
            rest = tail;
            let text = std::str::from_utf8(id).map_err(|_| wrong("an id is not UTF-8"))?;
            if text.is_empty() {
                return Err(wrong("an id is empty"));
            }
            let id_hash = hash.hash(text);
            if shard_of(id_hash, shards_total) != shard {
                return Err(wrong("an id belongs to another shard"));
            }
            if state.ids.slots_free() == 0 {
                return Err(RankingError::TableTooSmall {
                    shard,
                    videos: u64::from(slot) + 1,
                    videos_max: self.config.videos_per_shard_max,
                });
            }
            if id.len() > INLINE_ID_BYTES_MAX && state.ids.arena_free() < id.len() {
                return Err(RankingError::ArenaTooSmall {
                    shard,
                    bytes: (state.ids.arena_used() + id.len()) as u64,
                    bytes_max: self.config.id_arena_bytes_per_shard,
                });
            }
            if state.ids.intern(id_hash, IdKey::of(id)) != slot {
                return Err(wrong("an id comes twice"));
            }
            state.slots_cut = slot + 1;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let slot = u64::from(state.ids.len());
        Err(RankingError::Inconsistent { shard, slot, what: "bytes are left after its last id" })
    }

    /// Counts a run, or a piece of one, of a cut whose ids are restored.
    ///
    /// # Errors
    /// State that contradicts itself.
    ///
    /// # Panics
    /// After [`Self::finish_restore`], or for a shard that is not owned.
    pub fn restore_run(
        &mut self,
        shard: u16,
        minute: Minute,
        class: FinalityClass,
        entries: &[SlotCount],
    ) -> Result<(), RankingError> {
        assert!(self.restoring, "bug: a run was restored after the restore was finished");
        let place = usize::from(self.place_of(shard));
        let state = &mut self.shards[place];
        let in_window = self.edges.starts.map(|start| u64::from(minute >= start));
        for &SlotCount { slot, count } in entries {
            let wrong = |what| RankingError::Inconsistent { shard, slot: u64::from(slot), what };
            if slot >= state.ids.len() {
                return Err(wrong("a run holds a slot beyond the last id"));
            }
            if count == 0 || class > FinalityClass::MAX {
                return Err(wrong("a run holds a count of 0 or a class beyond the last"));
            }
            let counts = &mut state.lines[slot as usize].counts;
            counts[ALL_TIME] += u64::from(count);
            for window in 0..WINDOWS {
                counts[SLIDING + window] += u64::from(count) * in_window[window];
            }
        }
        if !entries.is_empty() {
            self.minute_max = self.minute_max.max(minute);
        }
        Ok(())
    }

    /// Ends the restore: builds the boards by a scan of all lines (about 22 ms per 10 M videos
    /// and board).
    ///
    /// # Panics
    /// When called twice.
    pub fn finish_restore(&mut self) {
        assert!(self.restoring, "bug: the restore was finished twice");
        for board in &mut self.boards {
            board.rebuild(&mut self.shards);
        }
        self.restoring = false;
        self.refresh_thetas();
    }
}
