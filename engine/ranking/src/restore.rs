//! Coming back at start: ids and runs from cut files, then the tail of the logs by `apply`.
//!
//! It reads no files. What is handed in comes from verified files, and is still checked for
//! contradictions, since a wrong count would be believed for ever.
//!
//! Invariant: after the ids and runs of all cuts and the rows beyond them, with the minute given
//! at the making, counters are what they would be had all of it been applied at that minute; the
//! boards are built from the counters alone when it is finished.

use crate::board::BOARDS;
use crate::config::RankingError;
use crate::core::CoreRanking;
use crate::cut::{RunChange, RunRequest, SlotCount};
use crate::hash::shard_of;
use crate::line::COUNT_MAX;
use crate::shard::{ALL_TIME, Edges, FIRST_WINDOW, Shard, WINDOWS};
use crate::time::{FinalityClass, Minute};
use crate::videos::{INLINE_ID_BYTES_MAX, IdKey};

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
        assert!(state.slots_cut == state.videos.len(), "bug: ids were restored after rows were applied");
        let mut rest = id_bytes;
        for &len in id_lens {
            let slot = state.videos.len();
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
            if state.videos.slots_free() == 0 {
                return Err(RankingError::TableTooSmall {
                    shard,
                    videos: u64::from(slot) + 1,
                    videos_max: self.config.videos_per_shard_max,
                });
            }
            if id.len() > INLINE_ID_BYTES_MAX && state.videos.arena_free() < id.len() {
                return Err(RankingError::ArenaTooSmall {
                    shard,
                    bytes: (state.videos.arena_used() + id.len()) as u64,
                    bytes_max: self.config.id_arena_bytes_per_shard,
                });
            }
            if state.videos.intern(id_hash, IdKey::of(id)) != slot {
                return Err(wrong("an id comes twice"));
            }
            state.slots_cut = slot + 1;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let slot = u64::from(state.videos.len());
        Err(RankingError::Inconsistent { shard, slot, what: "bytes are left after its last id" })
    }

    /// Sets out all-time counts by slot, in slot order from `first_slot` on, of videos whose ids are restored. They are
    /// added to what is there; the views' windows are restored by [`Self::restore_window`].
    ///
    /// # Errors
    /// State that contradicts itself.
    ///
    /// # Panics
    /// After [`Self::finish_restore`], or for a shard that is not owned.
    pub fn restore_all_time(&mut self, shard: u16, first_slot: u32, counts: &[u64]) -> Result<(), RankingError> {
        let edges = self.edges;
        let (state, totals) = self.restored(shard);
        for (slot, count) in (u64::from(first_slot)..).zip(counts) {
            if slot >= u64::from(state.videos.len()) {
                let what = "an all-time count is of a slot beyond the last id";
                return Err(RankingError::Inconsistent { shard, slot, what });
            }
            let line = &mut state.videos.lines[slot as usize];
            line.refresh(&edges);
            let sum = raised(shard, slot as u32, line.fresh_count(ALL_TIME), *count, ALL_TIME)?;
            line.set_count(ALL_TIME, sum);
            totals[ALL_TIME] += count;
        }
        Ok(())
    }

    /// The runs of each window at the edges of the restore: those of views that [`Self::restore_all_time`] counted are
    /// to be handed to [`Self::restore_window`].
    #[must_use]
    pub fn restore_requests(&self) -> Vec<RunRequest> {
        let request = |window| RunRequest {
            window,
            change: RunChange::Enter,
            minutes: self.edges.starts[window]..self.edges.ends[window],
            class_max: Edges::class_max(window),
        };
        (0..WINDOWS).map(request).collect()
    }

    /// Counts a piece of a run in one window, and in no other.
    ///
    /// # Errors
    /// State that contradicts itself.
    ///
    /// # Panics
    /// After [`Self::finish_restore`], or for a shard that is not owned.
    pub fn restore_window(&mut self, window: usize, shard: u16, entries: &[SlotCount]) -> Result<(), RankingError> {
        let edges = self.edges;
        let (state, totals) = self.restored(shard);
        for entry in entries {
            check_entry(state, entry)?;
            let line = &mut state.videos.lines[entry.slot as usize];
            line.refresh(&edges);
            let (board, count) = (FIRST_WINDOW + window, u64::from(entry.count));
            line.set_count(board, raised(shard, entry.slot, line.fresh_count(board), count, board)?);
            totals[board] += count;
        }
        Ok(())
    }

    /// Notes that a view of this minute was counted.
    pub fn restore_minute_max(&mut self, minute: Minute) {
        self.minute_max = self.minute_max.max(minute);
    }

    /// Counts a run, or a piece of one, of a cut whose ids are restored, in all that its minute and class belong to.
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
        let edges = self.edges;
        let (state, totals) = self.restored(shard);
        let mut counted = [1; BOARDS];
        for window in 0..WINDOWS {
            counted[FIRST_WINDOW + window] = edges.counts(window, minute, class);
        }
        for entry in entries {
            check_entry(state, entry)?;
            if class > FinalityClass::MAX {
                let what = "a run's class is beyond the last";
                return Err(RankingError::Inconsistent { shard, slot: u64::from(entry.slot), what });
            }
            let line = &mut state.videos.lines[entry.slot as usize];
            line.refresh(&edges);
            for board in 0..BOARDS {
                let count = u64::from(entry.count) * counted[board];
                line.set_count(board, raised(shard, entry.slot, line.fresh_count(board), count, board)?);
                totals[board] += count;
            }
        }
        if !entries.is_empty() {
            self.restore_minute_max(minute);
        }
        Ok(())
    }

    /// A shard that is being restored, and the totals of all.
    fn restored(&mut self, shard: u16) -> (&mut Shard, &mut [u64; BOARDS]) {
        assert!(self.restoring, "bug: state was restored after the restore was finished");
        let place = usize::from(self.place_of(shard));
        (&mut self.shards[place], &mut self.ledger.totals)
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

/// A count of a board with `more` added, refused where it is more than a video can have.
fn raised(shard: u16, slot: u32, count: u64, more: u64, board: usize) -> Result<u64, RankingError> {
    let what = "its count is beyond what a video can have";
    let wrong = RankingError::Inconsistent { shard, slot: u64::from(slot), what };
    count.checked_add(more).filter(|sum| *sum <= COUNT_MAX[board]).ok_or(wrong)
}

/// Refuses an entry of a run that no view can have made.
fn check_entry(shard: &Shard, entry: &SlotCount) -> Result<(), RankingError> {
    let wrong = |what| RankingError::Inconsistent { shard: shard.number, slot: u64::from(entry.slot), what };
    match entry {
        entry if entry.slot >= shard.videos.len() => Err(wrong("a run holds a slot beyond the last id")),
        entry if entry.count == 0 => Err(wrong("a run holds a count of 0")),
        _ => Ok(()),
    }
}
