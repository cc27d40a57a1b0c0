//! The helper that commits table memory ahead of the cores, so that no core waits for the system to zero a page.
//!
//! It is told once a second how full each shard is. Invariant: nothing is committed beyond the tables, which the plan
//! for the memory counts in full.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use highwater_ranking::{Populated, ShardPopulator};
use std::collections::HashMap;

/// Slots that are kept ready however slowly a shard grows.
const AHEAD_SLOTS_MIN: u32 = 16_384;

/// Reports that may wait; a later one says all that an earlier one did.
const REPORTS_MAX: usize = 4;

/// How full shards are: number and slots used.
pub type Fill = Vec<(u16, u32)>;

/// The helper's state.
pub struct Prefaulter {
    /// By shard: what commits it, and the slots that were used at the last report.
    shards: HashMap<u16, (ShardPopulator, u32)>,
    reports: Receiver<Fill>,
}

/// Where cores report to.
#[derive(Clone)]
pub struct Reports {
    sender: Sender<Fill>,
}

impl Reports {
    /// Reports how full shards are. When the helper is behind, this report is dropped: the next one says more.
    pub fn send(&self, fill: Fill) {
        match self.sender.try_send(fill) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

impl Prefaulter {
    /// A helper for these shards of `cores` cores, and where they report to.
    pub fn new(populators: impl IntoIterator<Item = ShardPopulator>, cores: usize) -> (Self, Reports) {
        let (sender, reports) = bounded(REPORTS_MAX * cores);
        let shards = populators.into_iter().map(|populator| (populator.shard(), (populator, 0))).collect();
        (Self { shards, reports }, Reports { sender })
    }

    /// Commits until the cores hang up.
    pub fn run(mut self) {
        while let Ok(fill) = self.reports.recv() {
            for (shard, slots_used) in fill {
                let Some((populator, used_before)) = self.shards.get_mut(&shard) else { continue };
                let populated = populator.populate_ahead(slots_used, ahead(*used_before, slots_used));
                *used_before = slots_used;
                if populated == Populated::Refused {
                    tracing::debug!(shard, "memory is not committed ahead here, but on first touch");
                    self.shards.remove(&shard);
                }
            }
        }
    }
}

/// Slots to keep ready: four times the growth since the last report covers one that doubles until the next.
fn ahead(used_before: u32, used: u32) -> u32 {
    used.saturating_sub(used_before).saturating_mul(4).max(AHEAD_SLOTS_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_ranking::{CoreRanking, Minute, RankingConfig, WindowLengths};

    #[test]
    fn the_faster_a_shard_grows_the_more_is_kept_ready() {
        assert_eq!(ahead(100, 100), AHEAD_SLOTS_MIN);
        assert_eq!(ahead(0, 100_000), 400_000);
        assert_eq!(ahead(5, 0), AHEAD_SLOTS_MIN, "a shard that is reported anew");
    }

    #[test]
    fn reports_are_followed_until_the_cores_are_gone() {
        let config = RankingConfig {
            shards_total: 2,
            owned: vec![0, 1],
            hash_seed: 1,
            videos_per_shard_max: 100_000,
            id_arena_bytes_per_shard: 1 << 16,
            late_rows_max: 10,
            top_k: 10,
            windows: WindowLengths::default(),
        };
        let ranking = CoreRanking::new(config, Minute(1)).unwrap();
        let (helper, reports) = Prefaulter::new(ranking.populators(), 1);
        reports.send(ranking.slots_used().collect());
        reports.send(vec![(1, 70_000), (9, 1)]);
        drop(reports);
        let shards = helper.shards.len();
        assert_eq!(shards, 2);
        helper.run();
    }
}
