//! A data directory in memory with views that are known, and a naive counter of them.
//!
//! Invariant: what the counter says is made from the list of views alone.

use super::super::Table;
use crate::units::time_text;
use highwater_proto::{Epoch, InstanceId};
use highwater_ranking::{Calendar, CoreCut, FinalityClass, LateViews, Minute, ShardCut, SlotCount};
use highwater_storage::{
    Access, CorePart, Directory, DirectoryId, Disk, HistoryNeeds, LogNumber, LogPosition, MemoryDisk, OpenOptions,
    PreparedCut, ProducerTableImage, Retention, RollupRule, StorageError, Store, Tables, run_rollup,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Minutes of an hour.
pub(super) const HOUR: u32 = 60;
/// 2024-07-15T00:00Z.
pub(super) const START: u32 = 28_683_360;
/// Views lie within so many minutes.
const SPAN: u32 = 80 * HOUR;
const SHARDS: u16 = 3;

/// A data directory and what is in it.
pub(super) struct World {
    disk: MemoryDisk,
    pub(super) directory: Directory,
    options: OpenOptions,
    /// Event minute and video of each view.
    views: Vec<(u32, usize)>,
    videos: Vec<String>,
    /// Of the newest cut.
    pub(super) epoch: u64,
    time_ms: u64,
}

/// What a table must hold.
#[derive(Debug)]
pub(super) struct Counted {
    /// Sorted.
    pub(super) rows: Vec<Vec<String>>,
    pub(super) views: u64,
    /// End of the newest period.
    pub(super) end_ms: u64,
}

impl World {
    /// A directory without a view.
    pub(super) fn empty() -> Self {
        let directory = Directory {
            id: DirectoryId(7),
            instance: InstanceId(5),
            hash_seed: 77,
            shards: SHARDS,
            lateness_max_ms: 600_000,
            segment_bytes: 1 << 20,
        };
        Self::new(directory, Retention::default())
    }

    fn new(directory: Directory, retention: Retention) -> Self {
        let rollup = RollupRule { cuts_min: 3, cuts_max: 7, hours_merged_min: 2, ..RollupRule::default() };
        let options = OpenOptions { retention, rollup, ..OpenOptions::new(directory) };
        let world = Self {
            disk: MemoryDisk::new(),
            options,
            directory,
            views: Vec::new(),
            videos: Vec::new(),
            epoch: 0,
            time_ms: 0,
        };
        world.store();
        world
    }

    /// A few cuts with views of several days, of all classes, in part rolled up; of every other seed what is older than
    /// a few hours is not kept.
    pub(super) fn random(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let short = Retention { minute_minutes: 5 * HOUR, hour_minutes: 20 * HOUR, day_minutes: 30 * HOUR };
        let retention = if seed.is_multiple_of(2) { Retention::default() } else { short };
        let mut world = Self::new(Self::empty().directory, retention);
        let mut store = world.store();
        // Slots known by shard, each as the index of its video.
        let mut slots: Vec<Vec<usize>> = vec![Vec::new(); SHARDS.into()];
        for cut in 1..=random.random_range(4..14u32) {
            let minute = START + SPAN / 14 * cut;
            world.epoch += u64::from(random.random_range(1..100u32));
            world.time_ms = Minute(minute).end_ms() + 500;
            let shards = (0..SHARDS).map(|shard| world.shard_cut(shard, minute, &mut slots, &mut random)).collect();
            let core = CoreCut {
                epoch: Epoch(world.epoch),
                time_ms: world.time_ms,
                minute: Minute(minute),
                arrivals_from_ms: world.time_ms,
                shards,
            };
            let position = LogPosition { generation: store.state().generation, position: u64::from(cut) * 4096 };
            let producers = ProducerTableImage::default();
            store
                .write_cut(&PreparedCut::new(vec![CorePart { log: LogNumber(0), position, cut: core, producers }]))
                .unwrap();
            if let Some(plan) = store.plan_rollup(&HistoryNeeds::NOTHING).unwrap() {
                let done = run_rollup(&world.disk, &plan, &mut || false).unwrap();
                store.finish_rollup(&done).unwrap();
            }
        }
        world
    }

    fn shard_cut(&mut self, shard: u16, minute: u32, slots: &mut [Vec<usize>], random: &mut ChaCha8Rng) -> ShardCut {
        let known = &mut slots[usize::from(shard)];
        let first_slot = known.len() as u32;
        let (mut id_lens, mut id_bytes) = (Vec::new(), Vec::new());
        for _ in 0..random.random_range(1..20u32) {
            let number = self.videos.len();
            let id = match number % 4 {
                0 => format!("v{number}"),
                1 => format!("ü \"{number}\",\n"),
                2 => format!("{number}{}", "x".repeat(250 - number.to_string().len())),
                _ => format!("-{number:010}"),
            };
            id_lens.push(id.len() as u8);
            id_bytes.extend_from_slice(id.as_bytes());
            known.push(number);
            self.videos.push(id);
        }
        let mut current: BTreeMap<u32, u32> = BTreeMap::new();
        let mut late = Vec::new();
        for _ in 0..random.random_range(0..300u32) {
            let slot = random.random_range(0..known.len() as u32);
            let back = if random.random_bool(0.3) { 0 } else { random.random_range(0..9 * HOUR) };
            let view_minute = minute - back.min(minute - START);
            let class = random.random_range(0..4u8);
            if view_minute == minute && class == 0 {
                *current.entry(slot).or_default() += 1;
            } else {
                late.push(LateViews::new(Minute(view_minute), FinalityClass(class), slot, 1));
            }
            self.views.push((view_minute, known[slot as usize]));
        }
        let current = current.into_iter().map(|(slot, count)| SlotCount { slot, count }).collect();
        ShardCut { shard, minute: Minute(minute), first_slot, id_lens, id_bytes, current, late }
    }

    /// The store, ready for cuts.
    fn store(&self) -> Store<MemoryDisk> {
        let mut store = Store::open(self.disk.clone(), self.options).unwrap();
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        store
    }

    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    pub(super) fn as_of(&self) -> String {
        time_text(self.time_ms)
    }

    /// From when on a table must be whole: where its own files begin, rounded up to its grain.
    pub(super) fn whole_from_ms(&self, table: Table) -> u64 {
        let grain = table.grain().unwrap();
        let (grain_ms, _) = table.bounds();
        let tables = Tables::open(self.disk(), Calendar::default()).unwrap();
        tables.complete_from(grain).start_ms().next_multiple_of(grain_ms)
    }

    /// The rows of a table whose periods begin in `range` (milliseconds).
    pub(super) fn counted(&self, table: Table, range: Range<u64>) -> Counted {
        let grain = match table {
            Table::Minute => 1,
            Table::Hour => HOUR,
            _ => 24 * HOUR,
        };
        let mut counts: BTreeMap<(u32, usize), u64> = BTreeMap::new();
        for (minute, video) in &self.views {
            let start = minute - minute % grain;
            if range.contains(&Minute(start).start_ms()) {
                *counts.entry((start, *video)).or_default() += 1;
            }
        }
        let row = |((start, video), count): (&(u32, usize), &u64)| {
            let time = time_text(Minute(*start).start_ms());
            // From 2024-07-15T18:30:00Z.
            let (date, hour, minute) = (&time[..10], &time[11..13], &time[14..16]);
            let number = |digits: &str| digits.parse::<u32>().unwrap().to_string();
            let mut row = vec![self.videos[*video].clone(), date.to_owned()];
            if table != Table::Day {
                row.push(number(hour));
            }
            if table == Table::Minute {
                row.push(number(minute));
            }
            row.extend([count.to_string(), time.clone()]);
            row
        };
        let rows: BTreeSet<Vec<String>> = counts.iter().map(row).collect();
        let end = counts.keys().map(|(start, _)| start + grain).max().unwrap_or_default();
        Counted { rows: rows.into_iter().collect(), views: counts.values().sum(), end_ms: Minute(end).start_ms() }
    }

    /// Damages every closed file in its middle.
    pub(super) fn flip_a_byte_of_each_file(&self) {
        let closed = ["cuts/", "rollups/", "bases/"];
        for path in self.disk.paths().iter().filter(|path| closed.iter().any(|dir| path.starts_with(dir))) {
            let file = self.disk.open(path, Access::Write).unwrap();
            let at = file.len().unwrap() / 2;
            let mut byte = [0];
            file.read_at(&mut byte, at).unwrap();
            file.write_at(&[byte[0] ^ 1], at).unwrap();
        }
    }
}
