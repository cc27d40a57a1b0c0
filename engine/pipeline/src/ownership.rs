//! Who owns what: shards by core, producers by home core.
//!
//! Both are functions of numbers alone, so that every core, and every start with the same number of cores, agrees.

use highwater_proto::ProducerId;
use highwater_ranking::{IdHash, shard_of};

/// The core that owns a shard where there are `cores` cores.
pub fn shard_owner(shard: u16, cores: u16) -> u16 {
    shard % cores
}

/// The shards of `shards_total` that a core owns; none if there are more cores than shards.
pub fn owned_shards(core: u16, cores: u16, shards_total: u16) -> Vec<u16> {
    (0..shards_total).filter(|shard| shard_owner(*shard, cores) == core).collect()
}

/// The core that welcomes a producer.
pub fn home_core(producer: ProducerId, cores: u16) -> u16 {
    (producer.0 % u128::from(cores)) as u16
}

/// Where the rows of a video go.
#[derive(Debug, Clone)]
pub struct Targets {
    hash: IdHash,
    cores: u16,
    /// By shard.
    owners: Box<[u16]>,
}

impl Targets {
    /// The targets in a data directory with this hash and so many shards, shared by `cores` cores.
    pub fn new(hash: IdHash, shards_total: u16, cores: u16) -> Self {
        Self { hash, cores, owners: (0..shards_total).map(|shard| shard_owner(shard, cores)).collect() }
    }

    /// Cores there are.
    pub fn cores(&self) -> usize {
        usize::from(self.cores)
    }

    /// The seeded hash.
    pub fn hash(&self) -> IdHash {
        self.hash
    }

    /// The core that counts this video.
    #[inline]
    pub fn core_of(&self, video_id: &str) -> usize {
        // With one core nothing depends on the hash, which is then computed once only, for the row.
        if self.cores == 1 { 0 } else { self.core_of_hash(self.hash.hash(video_id)) }
    }

    /// The core that counts the video of this hash.
    #[inline]
    pub fn core_of_hash(&self, hash: u64) -> usize {
        self.core_of_shard(shard_of(hash, self.owners.len() as u16))
    }

    /// The core that owns the shard.
    #[inline]
    pub fn core_of_shard(&self, shard: u16) -> usize {
        usize::from(self.owners[usize::from(shard)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_owner_however_many_cores_there_are() {
        for cores in 1..=20 {
            let mut owned: Vec<u16> = (0..cores).flat_map(|core| owned_shards(core, cores, 16)).collect();
            owned.sort_unstable();
            assert_eq!(owned, (0..16).collect::<Vec<u16>>());
        }
        let targets = Targets::new(IdHash::new(1), 16, 3);
        for id in ["a", "b", "c"] {
            let shard = shard_of(IdHash::new(1).hash(id), 16);
            assert!(owned_shards(targets.core_of(id) as u16, 3, 16).contains(&shard));
        }
    }

    #[test]
    fn the_home_core_is_the_remainder_of_the_whole_id() {
        assert_eq!(home_core(ProducerId(u128::MAX), 7), (u128::MAX % 7) as u16);
        assert_eq!(home_core(ProducerId(1 << 64), 3), 1);
    }
}
