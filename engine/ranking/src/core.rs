//! One core's ranking: applying rows, room, and look-ups.
//!
//! Markers and cuts are in `marker.rs`, coming back at start in `restore.rs`. It accepts what it
//! is given: verdicts were fixed before the rows were pushed.
//!
//! Invariant: see the crate; the ledger holds each board's θ count whenever rows are applied, and
//! [`Ledger::LEFT_ALONE`] while restoring, so that boards are left alone until they are built.

use highwater_proto::{Epoch, Period, Window};

use crate::board::{BOARDS, Board, Member, PERIODS};
use crate::cell::{Cell, row_cells, tag};
use crate::config::{RankingConfig, RankingError};
use crate::cut::LateViews;
use crate::hash::{IdHash, shard_of};
use crate::marker::Phase;
use crate::shard::{Edges, Ledger, Shard, Views};
use crate::time::Minute;
use crate::videos::IdKey;

/// Rows whose memory is fetched together.
const SUB_BATCH_ROWS: usize = 256;

/// In `places`: a shard of another core.
const NOT_OWNED: u16 = u16::MAX;

/// The shards and boards of one core.
///
/// Made in restoring state: call [`Self::finish_restore`] before the first marker, also when there
/// is nothing to restore.
pub struct CoreRanking {
    pub(crate) config: RankingConfig,
    hash: IdHash,
    pub(crate) shards: Vec<Shard>,
    /// Place in `shards` by shard number.
    places: Vec<u16>,
    pub(crate) boards: Vec<Board>,
    pub(crate) ledger: Ledger,
    pub(crate) edges: Edges,
    pub(crate) minute_max: Minute,
    /// Epoch and time of the last marker.
    pub(crate) last: Option<(Epoch, u64)>,
    pub(crate) phase: Phase,
    pub(crate) restoring: bool,
}

/// A row of the sub-batch at work.
#[derive(Clone, Copy, Default)]
struct RowAt {
    cell: usize,
    place: u16,
    candidate: Option<u32>,
}

impl CoreRanking {
    /// An empty ranking whose engine minute is `minute_now`, in restoring state.
    ///
    /// # Errors
    /// A figure outside its limits, or memory that cannot be reserved.
    pub fn new(config: RankingConfig, minute_now: Minute) -> Result<Self, RankingError> {
        config.check()?;
        let mut places = vec![NOT_OWNED; usize::from(config.shards_total)];
        let mut shards = Vec::with_capacity(config.owned.len());
        for (place, &number) in (0u16..).zip(&config.owned) {
            places[usize::from(number)] = place;
            shards.push(Shard::new(number, &config)?);
        }
        Ok(Self {
            hash: IdHash::new(config.hash_seed),
            shards,
            places,
            boards: (0..BOARDS).map(|place| Board::new(place, config.top_k)).collect(),
            ledger: Ledger { theta_counts: [Ledger::LEFT_ALONE; BOARDS], totals: [0; BOARDS], views_now: 0 },
            edges: Edges::at(minute_now, &config.windows),
            minute_max: Minute(0),
            last: None,
            phase: Phase::Idle,
            restoring: true,
            config,
        })
    }

    /// Commits the memory that the first views will touch: the indexes whole, since they are touched at random, and
    /// the first huge page of what fills in order. Without it the first batches wait for page after page. Takes up to
    /// some milliseconds for each 2 MiB: for the start.
    pub fn prefault(&mut self) {
        for shard in &mut self.shards {
            shard.prefault();
        }
    }

    /// Counts the rows in `cells`, in order.
    ///
    /// Nothing is allocated but space for late rows.
    ///
    /// # Panics
    /// On anything but whole rows of owned shards, while a marker is at work, and when a table is
    /// full: all of them bugs of the caller.
    pub fn apply(&mut self, cells: &[Cell]) {
        assert!(matches!(self.phase, Phase::Idle), "bug: rows were applied while a marker is at work");
        let mut rest = cells;
        while !rest.is_empty() {
            let used = self.apply_some(rest);
            rest = &rest[used..];
        }
        self.ledger.settle();
    }

    /// Counts up to [`SUB_BATCH_ROWS`] rows; returns their cells. Three passes, so that the two
    /// dependent misses of each row overlap with those of the others.
    fn apply_some(&mut self, cells: &[Cell]) -> usize {
        let mut rows = [RowAt::default(); SUB_BATCH_ROWS];
        let mut row_count = 0;
        let mut used = 0;
        while row_count < SUB_BATCH_ROWS && used < cells.len() {
            let first = &cells[used];
            assert!(first.tag() == tag::ROW, "bug: cell {used} does not begin a row");
            let place = self.place_of(shard_of(first.hash(), self.config.shards_total));
            self.shards[usize::from(place)].videos.prefetch_bucket(first.hash());
            rows[row_count] = RowAt { cell: used, place, candidate: None };
            row_count += 1;
            used += row_cells(first);
        }
        assert!(used <= cells.len(), "bug: the last row has {} cells too few", used - cells.len());
        for row in &mut rows[..row_count] {
            let shard = &self.shards[usize::from(row.place)];
            row.candidate = shard.videos.candidate(cells[row.cell].hash());
        }
        for row in &rows[..row_count] {
            self.apply_row(&cells[row.cell..used], row);
        }
        used
    }

    #[inline]
    fn apply_row(&mut self, cells: &[Cell], row: &RowAt) {
        let first = &cells[0];
        let id = IdKey::of_row(cells);
        let shard = &mut self.shards[usize::from(row.place)];
        let slot = match row.candidate {
            Some(slot) if shard.videos.is(slot, id) => slot,
            _ => shard.videos.intern(first.hash(), id),
        };
        let views = Views { minute: first.minute(), class: first.class(), views: first.views() };
        self.minute_max = self.minute_max.max(views.minute);
        let mut concerned = shard.count(slot, views, &self.edges, &mut self.ledger);
        while concerned != 0 {
            let board = concerned.trailing_zeros() as usize;
            concerned &= concerned - 1;
            let count = self.shards[usize::from(row.place)].videos.lines[slot as usize].fresh_count(board);
            self.boards[board].increased(
                &mut self.shards,
                Member { shard: row.place, slot },
                count - u64::from(views.views),
            );
            self.ledger.theta_counts[board] = self.boards[board].theta.count;
        }
    }

    /// The place of an owned shard.
    #[inline]
    pub(crate) fn place_of(&self, shard: u16) -> u16 {
        let place = self.places[usize::from(shard)];
        assert!(place != NOT_OWNED, "bug: shard {shard} is not owned by this core");
        place
    }

    /// Mirrors the thresholds into the ledger.
    pub(crate) fn refresh_thetas(&mut self) {
        for (count, board) in self.ledger.theta_counts.iter_mut().zip(&self.boards) {
            *count = board.theta.count;
        }
    }

    /// Whether the rows that wait for the next cut have reached their budget, so that a cut
    /// should be asked for.
    #[must_use]
    pub fn late_full(&self) -> bool {
        self.late_rows() >= self.config.late_rows_max
    }

    /// Whether they have reached twice their budget, so that nothing should be applied before the
    /// next cut.
    #[must_use]
    pub fn late_hard_full(&self) -> bool {
        self.late_rows() >= self.config.late_rows_max.saturating_mul(2)
    }

    /// Makes one row of all late rows that are of one video, minute and class, so that they take no more memory than
    /// such videos do. Sorts them: for a start, which makes no cut before the log's end.
    pub fn merge_late_rows(&mut self) {
        self.shards.iter_mut().for_each(|shard| LateViews::merge(&mut shard.late));
    }

    /// Rows outside the engine's minute or class 0 that wait for the next cut; [`crate::LATE_ROW_BYTES`] each.
    #[must_use]
    pub fn late_rows(&self) -> usize {
        self.shards.iter().map(|shard| shard.late.len()).sum()
    }

    /// Whether a shard has room for `new_videos` new videos, the ids of which that are longer than
    /// [`crate::INLINE_ID_BYTES_MAX`] have `long_id_bytes` bytes in all.
    #[must_use]
    pub fn room_for(&self, shard: u16, new_videos: u32, long_id_bytes: usize) -> bool {
        let videos = &self.shards[usize::from(self.place_of(shard))].videos;
        videos.slots_free() >= new_videos && videos.arena_free() >= long_id_bytes
    }

    /// New videos that still fit a shard, as far as slots go.
    #[must_use]
    pub fn slots_free(&self, shard: u16) -> u32 {
        self.shards[usize::from(self.place_of(shard))].videos.slots_free()
    }

    /// Bytes of long ids that still fit a shard.
    #[must_use]
    pub fn id_arena_free(&self, shard: u16) -> usize {
        self.shards[usize::from(self.place_of(shard))].videos.arena_free()
    }

    /// Whether the video of this hash and id is known. Its shard must be owned.
    #[must_use]
    pub fn contains(&self, hash: u64, id: &str) -> bool {
        self.find(hash, id).is_some()
    }

    /// Whether the video of a row is known. Its shard must be owned.
    #[must_use]
    pub fn contains_row(&self, row: &[Cell]) -> bool {
        let hash = row[0].hash();
        let shard = self.place_of(shard_of(hash, self.config.shards_total));
        self.shards[usize::from(shard)].videos.find(hash, IdKey::of_row(row)).is_some()
    }

    /// A video's counts now, by period and window; `None` for an unknown video or one of another core's shards.
    #[must_use]
    pub fn lookup(&self, id: &str) -> Option<Vec<((Period, Window), u64)>> {
        let hash = self.hash.hash(id);
        if id.is_empty() || self.places[usize::from(shard_of(hash, self.config.shards_total))] == NOT_OWNED {
            return None;
        }
        let video = self.find(hash, id)?;
        let line = &self.shards[usize::from(video.shard)].videos.lines[video.slot as usize];
        let counts = (0..BOARDS).map(|board| line.count(board, &self.edges));
        Some(PERIODS.iter().copied().zip(counts).collect())
    }

    fn find(&self, hash: u64, id: &str) -> Option<Member> {
        let shard = self.place_of(shard_of(hash, self.config.shards_total));
        let slot = self.shards[usize::from(shard)].videos.find(hash, IdKey::of(id.as_bytes()))?;
        Some(Member { shard, slot })
    }

    /// The hash of video ids.
    #[must_use]
    pub fn id_hash(&self) -> IdHash {
        self.hash
    }

    /// The shards owned, in the order of the configuration.
    #[must_use]
    pub fn owned(&self) -> &[u16] {
        &self.config.owned
    }

    /// Epoch and engine time, in ms UTC, of the last marker that was worked on; `None` before the first.
    #[must_use]
    pub fn last_marker(&self) -> Option<(Epoch, u64)> {
        self.last
    }

    /// The engine minute as of the last marker.
    #[must_use]
    pub fn minute(&self) -> Minute {
        self.edges.minute
    }

    /// The latest event minute counted.
    #[must_use]
    pub fn minute_max(&self) -> Minute {
        self.minute_max
    }

    /// Videos known.
    #[must_use]
    pub fn videos(&self) -> u64 {
        self.shards.iter().map(|shard| u64::from(shard.videos.len())).sum()
    }

    /// Videos that fit, over all owned shards.
    #[must_use]
    pub fn videos_max(&self) -> u64 {
        self.shards.len() as u64 * u64::from(self.config.videos_per_shard_max)
    }

    /// Boards whose scan is pending.
    #[must_use]
    pub fn scans_pending(&self) -> usize {
        self.boards.iter().filter(|board| board.scan.is_some()).count()
    }
}

impl std::fmt::Debug for CoreRanking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CoreRanking")
            .field("owned", &self.config.owned)
            .field("edges", &self.edges)
            .field("videos", &self.videos())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
