//! How `--memory` is divided: every large consumer gets a share, and the shares never add up to more.
//!
//! | share | for |
//! |---|---|
//! | 5/8 | video tables: index, lines of keys and counters, arena of long ids |
//! | 1/8 | receive windows and held batches of connections |
//! | 1/16 | views outside the current minute, frozen cuts included |
//! | rest | log buffers, lanes, producer table, snapshots, program |
//!
//! Tables go by shard, all else by core.

use highwater_pipeline::limits::{CUTS_UNWRITTEN_MAX, lanes_bytes};
use highwater_ranking::{LATE_ROW_BYTES, RankingConfig, WindowLengths};
use highwater_storage::LogLimits;

/// The least memory that an engine starts with.
pub const MEMORY_BYTES_MIN: u64 = 512 << 20;

/// What is left of the rest for everything that is the same however many cores there are.
const PROGRAM_BYTES: u64 = 40 << 20;

/// The least that a shard's table holds: a shard closes to new videos when its room is less than a batch could need.
const VIDEOS_PER_SHARD_MIN: u64 = 4 * highwater_proto::BATCH_VIEWS_MAX as u64;

/// Of the memory, this part is the rest: 3/16.
const REST_PARTS: u64 = 3;

/// Why no plan could be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Below the least.
    #[error("--memory is {memory_bytes} bytes, the engine needs at least {MEMORY_BYTES_MIN} (512MiB); give it more")]
    TooLittle {
        /// What was given.
        memory_bytes: u64,
    },
    /// Too little for so many shards.
    #[error(
        "--memory is {memory_bytes} bytes, of which each of {shards} shards has room for {videos} videos; the least is \
         {VIDEOS_PER_SHARD_MIN}, so that a batch of new videos fits: give it more"
    )]
    TooManyShards {
        /// What was given.
        memory_bytes: u64,
        /// Shards of the data directory.
        shards: u16,
        /// Videos that fit one.
        videos: u64,
    },
    /// Too little for so many cores.
    #[error(
        "--memory is {memory_bytes} bytes, {cores} cores need at least {needed_bytes} for their lanes and logs; give it \
         more, or fewer --cores"
    )]
    TooManyCores {
        /// What was given.
        memory_bytes: u64,
        /// Cores asked for.
        cores: u16,
        /// What they need.
        needed_bytes: u64,
    },
}

/// The division of the memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Videos that one shard can hold.
    pub videos_per_shard_max: u32,
    /// Bytes of long ids that one shard can hold.
    pub id_arena_bytes_per_shard: usize,
    /// Rows of late views of a core before an early cut.
    pub late_rows_max: usize,
    /// Bytes for all connections of all cores together.
    pub connection_bytes: u64,
}

impl MemoryPlan {
    /// Divides `memory_bytes` between `shards` shards and `cores` cores.
    ///
    /// # Errors
    /// [`PlanError`] below [`MEMORY_BYTES_MIN`], or when lanes and logs of so many cores do not fit.
    pub fn new(memory_bytes: u64, shards: u16, cores: u16) -> Result<Self, PlanError> {
        if memory_bytes < MEMORY_BYTES_MIN {
            return Err(PlanError::TooLittle { memory_bytes });
        }
        let log = LogLimits::default();
        let log_bytes = (log.buffers * log.buffer_bytes) as u64 * u64::from(cores);
        let needed_bytes = (PROGRAM_BYTES + lanes_bytes(usize::from(cores)) + log_bytes) * 16 / REST_PARTS;
        if memory_bytes < needed_bytes {
            return Err(PlanError::TooManyCores { memory_bytes, cores, needed_bytes });
        }
        let table_bytes = memory_bytes / 8 * 5 / u64::from(shards);
        let arena_bytes = table_bytes / 16;
        // What a million videos take, scaled; huge pages round each table up by at most 2 MiB, four tables a shard.
        let rounding_bytes = 8 << 20;
        let million_bytes = RankingConfig::shard_bytes(1 << 20, 0);
        let per_shard = table_bytes.saturating_sub(arena_bytes + rounding_bytes.min(table_bytes / 4));
        let videos = (u128::from(per_shard) << 20) / u128::from(million_bytes);
        if videos < u128::from(VIDEOS_PER_SHARD_MIN) {
            return Err(PlanError::TooManyShards { memory_bytes, shards, videos: videos as u64 });
        }
        // A cut's late rows lie in memory once being filled (twice over the limit at worst) and once for each
        // unwritten.
        let late_copies = 2 + 1 + CUTS_UNWRITTEN_MAX as u64;
        Ok(Self {
            videos_per_shard_max: u32::try_from(videos).unwrap_or(u32::MAX).min(highwater_ranking::SLOTS_MAX),
            id_arena_bytes_per_shard: arena_bytes as usize,
            late_rows_max: (memory_bytes / 16 / LATE_ROW_BYTES / late_copies / u64::from(cores)) as usize,
            connection_bytes: memory_bytes / 8,
        })
    }

    /// The ranking of a core, to be told which of the `shards` shards it owns.
    pub fn ranking(&self, shards: u16, hash_seed: u64) -> RankingConfig {
        RankingConfig {
            shards_total: shards,
            owned: Vec::new(),
            hash_seed,
            videos_per_shard_max: self.videos_per_shard_max,
            id_arena_bytes_per_shard: self.id_arena_bytes_per_shard,
            late_rows_max: self.late_rows_max,
            top_k: highwater_proto::limits::TOP_K_MAX,
            windows: WindowLengths::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_stay_within_the_memory() {
        let small = MEMORY_BYTES_MIN;
        for (memory_bytes, shards, cores) in
            [(small, 1, 1), (small, 32, 1), (4 << 30, 256, 1), (4 << 30, 16, 8), (512 << 30, 64, 64)]
        {
            let plan = MemoryPlan::new(memory_bytes, shards, cores).unwrap();
            let tables = RankingConfig::shard_bytes(plan.videos_per_shard_max, plan.id_arena_bytes_per_shard);
            let tables = tables * u64::from(shards);
            let late = plan.late_rows_max as u64 * LATE_ROW_BYTES * (3 + CUTS_UNWRITTEN_MAX as u64) * u64::from(cores);
            assert!(tables + plan.connection_bytes + late <= memory_bytes / 16 * 13, "{memory_bytes} {shards}");
            assert!(plan.videos_per_shard_max >= 1000, "{memory_bytes} {shards}: {plan:?}");
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_the_figures() {
        let error = MemoryPlan::new(1 << 20, 16, 1).unwrap_err().to_string();
        assert!(error.contains("1048576") && error.contains("512MiB"), "{error}");
        let error = MemoryPlan::new(MEMORY_BYTES_MIN, 256, 1).unwrap_err().to_string();
        assert!(error.contains("256 shards") && error.contains("32768"), "{error}");
        let error = MemoryPlan::new(MEMORY_BYTES_MIN, 16, 64).unwrap_err().to_string();
        assert!(error.contains("536870912") && error.contains("64 cores"), "{error}");
    }
}
