//! The seeded hash of video ids, and the shard that a hash belongs to.
//!
//! XXH3-64, seeded per data directory so that nobody outside can aim ids at one shard or bucket.
//! The hash only finds candidates: ids are compared in full, never by hash alone.
//!
//! Invariant: shard and bucket come from different bits. The shard is the high half scaled, the
//! bucket the low half scaled (`videos.rs`), so the videos of one shard spread over all its buckets.

/// The hash of one data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdHash {
    seed: u64,
}

impl IdHash {
    /// The hash with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The hash of a video id.
    #[inline]
    #[must_use]
    pub fn hash(&self, id: &str) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(id.as_bytes(), self.seed)
    }
}

/// The shard of a hash, below `shards`. Fixed for ever by (hash, shards).
///
/// # Panics
/// When `shards` is 0, in debug builds.
#[inline]
#[must_use]
pub fn shard_of(hash: u64, shards: u16) -> u16 {
    debug_assert!(shards > 0, "a data directory has at least one shard");
    // The product is below shards × 2^32, so the result is below `shards` and fits.
    (((hash >> 32) * u64::from(shards)) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fixed_for_ever() {
        // Data directories depend on these values.
        assert_eq!(IdHash::new(0).hash(""), 0x2d06_8005_38d3_94c2);
        assert_ne!(IdHash::new(1).hash("dQw4w9WgXcQ"), IdHash::new(2).hash("dQw4w9WgXcQ"));
    }

    #[test]
    fn shards_share_evenly() {
        for shards in [1u16, 3, 16, 100] {
            let mut sizes = vec![0u32; usize::from(shards)];
            let hash = IdHash::new(7);
            for n in 0..100_000u32 {
                sizes[usize::from(shard_of(hash.hash(&n.to_string()), shards))] += 1;
            }
            let mean = 100_000 / u32::from(shards);
            assert!(sizes.iter().all(|&size| size > mean / 2 && size < mean * 2 + 10), "{sizes:?}");
        }
    }
}
