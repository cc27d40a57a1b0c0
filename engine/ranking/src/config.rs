//! What a core's ranking is made with, and why it could not be made or restored.
//!
//! Not the operator's configuration: the server derives these figures from `--memory` and the
//! data directory. Invariant: a checked configuration stays within [`SLOTS_MAX`], so slots fit
//! the bits that index entries and late keys have for them.

use highwater_memory::MemoryError;
use highwater_proto::TOP_K_MAX;

use crate::calendar::Calendar;
use crate::cut::LateViews;
use crate::line::CounterLine;
use crate::videos;

/// The most videos a shard can hold: a late key has 30 bits for the slot.
pub const SLOTS_MAX: u32 = 1 << 30;

/// Lengths of the windows: sliding ones in minutes, tumbling ones by a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLengths {
    /// The sliding hour.
    pub hour: u32,
    /// The sliding day.
    pub day: u32,
    /// The sliding month.
    pub month: u32,
    /// Hours, days and months of the tumbling windows.
    pub calendar: Calendar,
}

impl Default for WindowLengths {
    fn default() -> Self {
        Self { hour: 60, day: 1440, month: 43_200, calendar: Calendar::default() }
    }
}

/// What one core's ranking is made with.
#[derive(Clone, Debug)]
pub struct RankingConfig {
    /// Shards of the data directory, over all cores.
    pub shards_total: u16,
    /// The shards that this core owns, each below `shards_total`, each once. May be empty.
    pub owned: Vec<u16>,
    /// Seed of the id hash, fixed per data directory.
    pub hash_seed: u64,
    /// Videos that one shard can hold, 1 to [`SLOTS_MAX`].
    pub videos_per_shard_max: u32,
    /// Bytes of ids longer than [`crate::INLINE_ID_BYTES_MAX`] that one shard can hold.
    pub id_arena_bytes_per_shard: usize,
    /// Rows of views outside the engine's minute that the core holds before it asks for an early cut.
    pub late_rows_max: usize,
    /// K: rows of a full board, 1 to 1000.
    pub top_k: usize,
    /// Lengths of the sliding windows.
    pub windows: WindowLengths,
}

/// Bytes of a row that waits for the next cut.
pub const LATE_ROW_BYTES: u64 = size_of::<LateViews>() as u64;

impl RankingConfig {
    /// Bytes that one shard of `videos` videos and `id_arena_bytes` of long ids takes when it is
    /// full, late rows aside ([`LATE_ROW_BYTES`] each, per core).
    #[must_use]
    pub fn shard_bytes(videos: u32, id_arena_bytes: usize) -> u64 {
        let videos_bytes = u64::from(videos) * size_of::<CounterLine>() as u64;
        videos_bytes + videos::index_bytes(videos) + u64::from(videos).div_ceil(8) + id_arena_bytes as u64
    }

    /// Checks every figure against its limits.
    pub(crate) fn check(&self) -> Result<(), RankingError> {
        let bounds = [
            ("shards_total", u64::from(self.shards_total), 1, u64::from(u16::MAX)),
            ("videos_per_shard_max", u64::from(self.videos_per_shard_max), 1, u64::from(SLOTS_MAX)),
            ("late_rows_max", self.late_rows_max as u64, 1, u64::MAX / 2),
            ("top_k", self.top_k as u64, 1, TOP_K_MAX as u64),
            ("windows.hour", u64::from(self.windows.hour), 1, u64::from(u32::MAX)),
            ("windows.day", u64::from(self.windows.day), 1, u64::from(u32::MAX)),
            ("windows.month", u64::from(self.windows.month), 1, u64::from(u32::MAX)),
        ];
        for (name, value, min, max) in bounds {
            if value < min || value > max {
                return Err(RankingError::OutOfBounds { name, value, min, max });
            }
        }
        for (index, &shard) in self.owned.iter().enumerate() {
            if shard >= self.shards_total || self.owned[..index].contains(&shard) {
                return Err(RankingError::OwnedShard { shard, shards_total: self.shards_total });
            }
        }
        Ok(())
    }
}

/// Why a ranking could not be made, or state could not be restored into it.
#[derive(Debug, thiserror::Error)]
pub enum RankingError {
    /// A figure of the configuration is outside its limits.
    #[error("ranking: {name} is {value}, allowed is {min} to {max}; set it within these limits")]
    OutOfBounds {
        /// The figure's name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// An owned shard does not exist or is listed twice.
    #[error("ranking: shard {shard} is owned twice or is not below {shards_total}, the number of shards")]
    OwnedShard {
        /// The shard.
        shard: u16,
        /// Shards of the data directory.
        shards_total: u16,
    },
    /// The tables could not be reserved.
    #[error("ranking: the tables of shard {shard} could not be reserved: {source}")]
    Memory {
        /// The shard.
        shard: u16,
        /// Why.
        source: MemoryError,
    },
    /// The state holds more videos than the shard's table.
    #[error(
        "the state does not fit: shard {shard} holds at least {videos} videos, and its table has \
         room for {videos_max}; start with a larger --memory"
    )]
    TableTooSmall {
        /// The shard.
        shard: u16,
        /// Videos of the shard read so far, the refused ones included.
        videos: u64,
        /// Videos that fit.
        videos_max: u32,
    },
    /// The state holds more bytes of long ids than the shard's arena.
    #[error(
        "the state does not fit: shard {shard} holds at least {bytes} bytes of long video ids, and \
         its arena has room for {bytes_max}; start with a larger --memory"
    )]
    ArenaTooSmall {
        /// The shard.
        shard: u16,
        /// Bytes read so far, the refused id included.
        bytes: u64,
        /// Bytes that fit.
        bytes_max: usize,
    },
    /// Restored state contradicts itself.
    #[error(
        "restored state of shard {shard} is wrong: {what} (slot {slot}); the cut files are not from \
         this data directory or were changed, restore a backup"
    )]
    Inconsistent {
        /// The shard.
        shard: u16,
        /// The slot concerned.
        slot: u64,
        /// What is wrong.
        what: &'static str,
    },
}
