//! Committing the memory of new videos ahead of the core, from a helper's thread.
//!
//! A core that gives out a new slot touches a line and a dirty bit for the first time; where their pages
//! are not committed, the kernel zeroes up to 2 MiB for each in the middle of the core's turn. A helper that knows how
//! many slots are used does that before. Not covered: the index, which is touched at random and committed whole at
//! start ([`crate::CoreRanking::prefault`]), and the arena of long ids, which fills by bytes and not by slots.
//!
//! It counts no videos and changes none. Invariant: nothing beyond a shard's table is committed, so what is committed
//! in all stays within what the table was reserved for; and no slot is committed twice.

use highwater_memory::{HUGE_PAGE_BYTES, Populated, Populator};

use crate::core::CoreRanking;
use crate::line::CounterLine;

/// Slots are committed in multiples of this, a huge page of counter lines, so that a helper that hears of every few
/// new videos mostly has nothing to do.
const STEP_SLOTS: u32 = (HUGE_PAGE_BYTES / size_of::<CounterLine>()) as u32;

/// Slots that one word of dirty bits covers.
const SLOTS_PER_WORD: usize = u64::BITS as usize;

/// Commits memory of one shard ahead of its core. May be sent to a helper's thread; sound whatever the core does
/// meanwhile, and without effect once the core's ranking is dropped.
#[derive(Debug)]
pub struct ShardPopulator {
    shard: u16,
    lines: Populator,
    dirty: Populator,
    /// The slots below this are committed, by the core itself or from here.
    done: u32,
}

impl ShardPopulator {
    /// The shard's number.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Slots of the shard's table.
    #[must_use]
    pub fn slots_max(&self) -> u32 {
        // A table has at most `SLOTS_MAX` slots.
        self.lines.len() as u32
    }

    /// The slots below this one need no more committing.
    #[must_use]
    pub fn slots_done(&self) -> u32 {
        self.done
    }

    /// Commits what the next `ahead` slots after the `slots_used` first ones need, rounded up to whole huge pages of
    /// counter lines and never beyond the table; what was done before is not done again.
    ///
    /// How far ahead: at least the slots that can be given out between two calls, twice, since the call itself takes
    /// time. With reports once a second four times the last second's growth, and no less than 16 384, covers a growth
    /// that doubles from one second to the next. More only commits sooner what the plan for the memory counts anyway;
    /// but a shard that hardly grows should not hold pages that others could use, so the table's whole rest is too far.
    ///
    /// Takes up to some milliseconds for each 32 768 slots that are new; 64 bytes and a bit each.
    pub fn populate_ahead(&mut self, slots_used: u32, ahead: u32) -> Populated {
        let slots_max = self.slots_max();
        let wanted = slots_used.saturating_add(ahead).min(slots_max);
        // What is used the core has touched itself.
        let start = self.done.max(slots_used.min(slots_max));
        if wanted <= start {
            return Populated::Done;
        }
        let end = wanted.next_multiple_of(STEP_SLOTS).min(slots_max);
        let slots = start as usize..end as usize;
        let words = slots.start / SLOTS_PER_WORD..slots.end.div_ceil(SLOTS_PER_WORD);
        let parts = [(&self.lines, slots), (&self.dirty, words)];
        for (populator, elements) in parts {
            match populator.populate(elements) {
                Populated::Done => {}
                failed => return failed,
            }
        }
        self.done = end;
        Populated::Done
    }
}

impl CoreRanking {
    /// A populator for each owned shard, in the order of the configuration; for a helper, see [`ShardPopulator`].
    #[must_use]
    pub fn populators(&self) -> Vec<ShardPopulator> {
        let populator = |shard: &crate::shard::Shard| ShardPopulator {
            shard: shard.number,
            lines: shard.videos.lines.populator(),
            dirty: shard.dirty.populator(),
            done: 0,
        };
        self.shards.iter().map(populator).collect()
    }

    /// Number and slots used of each owned shard, in the order of the configuration: what
    /// [`ShardPopulator::populate_ahead`] is told. Costs one load for each shard.
    pub fn slots_used(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.shards.iter().map(|shard| (shard.number, shard.videos.len()))
    }
}
