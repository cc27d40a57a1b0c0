//! Roll-ups against a naive oracle: random cuts, jobs, stops, full disks, retention and crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use highwater_proto::Epoch;
use highwater_ranking::{
    Calendar, CoreCut, FinalityClass, LateViews, Minute, RunChange, RunRequest, ShardCut, SlotCount,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::support::{below, options, random};
use crate::{
    CorePart, CutSection, Disk, Grain, HistoryNeeds, LogNumber, LogPosition, MemoryDisk, OpenOptions, PreparedCut,
    ProducerTableImage, Retention, RollupRule, RollupStop, SlotSums, StorageError, Store, Tables, run_rollup,
};

const SHARDS: u16 = 4;
const SLOTS: u32 = 12;
const START: u32 = 60_000;

/// Views of one shard, minute, class and slot.
type Views = BTreeMap<(u16, u32, u8, u32), u64>;

struct World {
    disk: MemoryDisk,
    options: OpenOptions,
    store: Option<Store<MemoryDisk>>,
    random: ChaCha8Rng,
    minute: u32,
    epoch: u64,
    /// By shard: ids that are in cuts.
    ids: Vec<u32>,
    views: Views,
    /// A cut whose writing was cut short: its number, and what it would add.
    doubtful: Option<(u64, Vec<u32>, Views)>,
    rollups: u32,
    merges: u32,
    given_up: u32,
}

fn world(seed: u64) -> World {
    let mut random = random(seed);
    let retention = Retention {
        minute_minutes: 20 + below(&mut random, 40),
        hour_minutes: 40 + below(&mut random, 80),
        day_minutes: 80 + below(&mut random, 200),
    };
    let rollup = RollupRule {
        cuts_min: 1 + below(&mut random, 4) as usize,
        bytes_min: u64::MAX,
        cuts_max: 1 + below(&mut random, 5) as usize,
        hours_merged_min: 2 + below(&mut random, 3) as usize,
    };
    World {
        disk: MemoryDisk::new(),
        options: OpenOptions { calendar: Calendar::scaled(6, 4, 10), retention, rollup, ..options() },
        store: None,
        random,
        minute: START,
        epoch: 0,
        ids: vec![0; usize::from(SHARDS)],
        views: Views::new(),
        doubtful: None,
        rollups: 0,
        merges: 0,
        given_up: 0,
    }
}

impl World {
    fn below(&mut self, bound: u32) -> u32 {
        below(&mut self.random, bound)
    }

    /// Starts, and checks that exactly the views of the cuts come back.
    fn start(&mut self) -> Result<(), StorageError> {
        let mut store = Store::open(self.disk.clone(), self.options)?;
        if let Some((number, ids, views)) = self.doubtful.take()
            && store.last_cut().is_some_and(|cut| cut.number == number)
        {
            self.ids = ids;
            views.into_iter().for_each(|(key, count)| *self.views.entry(key).or_default() += count);
        }
        let (mut ids, mut all_time) = (vec![0; usize::from(SHARDS)], BTreeMap::new());
        store.replay_cuts::<StorageError>(|section| {
            let mut add = |shard, slot, count| {
                *all_time.entry((shard, slot)).or_insert(0u64) += count;
            };
            match section {
                CutSection::Ids { shard, lens, bytes, .. } => {
                    assert_eq!(lens.len(), bytes.len());
                    ids[usize::from(shard)] += lens.len() as u32;
                }
                CutSection::AllTime { shard, first_slot, counts } => {
                    (first_slot..).zip(counts).for_each(|(slot, count)| add(shard, slot, *count));
                }
                CutSection::Run { shard, entries, .. } => {
                    entries.iter().for_each(|entry| add(shard, entry.slot, u64::from(entry.count)));
                }
                _ => unreachable!(),
            }
            Ok(())
        })?;
        all_time.retain(|_, count| *count > 0);
        assert_eq!(ids, self.ids);
        assert_eq!(all_time, self.all_time());
        store.replay_logs::<StorageError>(|_, _| Ok(()))?;
        store.open_generations(1)?;
        self.store = Some(store);
        Ok(())
    }

    fn all_time(&self) -> BTreeMap<(u16, u32), u64> {
        let mut sums = BTreeMap::new();
        for ((shard, _, _, slot), count) in &self.views {
            *sums.entry((*shard, *slot)).or_insert(0) += count;
        }
        sums
    }

    fn store(&mut self) -> &mut Store<MemoryDisk> {
        self.store.as_mut().expect("the store is open")
    }

    fn write_cut(&mut self) -> Result<(), StorageError> {
        self.minute += self.below(4) * self.below(5);
        self.epoch += 1;
        let (mut ids, mut new) = (self.ids.clone(), Views::new());
        let mut shards = Vec::new();
        for shard in 0..SHARDS {
            let first_slot = ids[usize::from(shard)];
            let added = self.below(3).min(SLOTS - first_slot);
            let known = first_slot + added;
            ids[usize::from(shard)] = known;
            let mut current = Vec::new();
            for slot in 0..known {
                if self.below(3) == 0 {
                    // So large that sums do not fit an entry.
                    let count = if self.below(4) == 0 { u32::MAX - slot } else { 1 + slot };
                    current.push(SlotCount { slot, count });
                    *new.entry((shard, self.minute, 0, slot)).or_default() += u64::from(count);
                }
            }
            let mut late = Vec::new();
            for _ in 0..if known == 0 { 0 } else { self.below(12) } {
                let back = [3, 30, 600][self.below(3) as usize];
                let (minute, class) = (self.minute + 1 - self.below(back), self.below(4) as u8);
                let slot = self.below(known);
                late.push(LateViews::new(Minute(minute), FinalityClass(class), slot, 1));
                *new.entry((shard, minute, class, slot)).or_default() += 1;
            }
            let (id_lens, id_bytes) = (vec![1; added as usize], vec![b'a' + shard as u8; added as usize]);
            let minute = Minute(self.minute);
            shards.push(ShardCut { shard, minute, first_slot, id_lens, id_bytes, current, late });
        }
        let (epoch, minute) = (Epoch(self.epoch), Minute(self.minute));
        let cut = CoreCut { epoch, time_ms: self.epoch, minute, arrivals_from_ms: 0, shards };
        let position = LogPosition::start_of(self.store().state().generation);
        let part = CorePart { log: LogNumber(0), position, cut, producers: ProducerTableImage::default() };
        let number = self.store().last_cut().map_or(0, |cut| cut.number) + 1;
        self.doubtful = Some((number, ids, new));
        match self.store().write_cut(&PreparedCut::new(vec![part])) {
            Ok(header) => assert_eq!(header.number, number),
            Err(error) => {
                if error.is_no_space() {
                    self.doubtful = None;
                }
                return Err(error);
            }
        }
        let (_, ids, new) = self.doubtful.take().expect("it was just put there");
        self.ids = ids;
        new.into_iter().for_each(|(key, count)| *self.views.entry(key).or_default() += count);
        Ok(())
    }

    /// Plans and does a roll-up, with a cut between its steps.
    fn roll_up(&mut self) -> Result<(), StorageError> {
        let history_from = if self.below(3) == 0 { self.minute - self.below(300) } else { u32::MAX };
        let needs = HistoryNeeds { hours_from: Minute(history_from), days_from: Minute(history_from) };
        let Some(plan) = self.store().plan_rollup(&needs)? else { return Ok(()) };
        if self.below(2) == 0 {
            self.write_cut()?;
        }
        let mut patience = if self.below(3) == 0 { self.below(60) } else { u32::MAX };
        let mut should_stop = || {
            patience = patience.saturating_sub(1);
            patience == 0
        };
        let done = match run_rollup(&self.disk, &plan, &mut should_stop) {
            Ok(done) => done,
            Err(RollupStop::Stopped) => return Ok(()),
            Err(RollupStop::NoSpace(error) | RollupStop::Failed(error)) => return Err(error),
        };
        if self.below(2) == 0 {
            self.write_cut()?;
        }
        let before = self.store().figures();
        let complete_before = Grain::ALL.map(|grain| self.tables().complete_from(grain));
        self.store().finish_rollup(&done)?;
        let complete_from = Grain::ALL.map(|grain| self.tables().complete_from(grain));
        for (grain, needed_from) in [(Grain::Hour, needs.hours_from), (Grain::Day, needs.days_from)] {
            let (before, after) = (complete_before[grain as usize], complete_from[grain as usize]);
            assert!(after <= needed_from.max(before), "{needs:?}, {grain:?} complete from {before:?}, now {after:?}");
        }
        let after = self.store().figures();
        self.rollups += 1;
        self.merges += u32::from(after.days.files > before.days.files);
        self.given_up += u32::from(after.minutes.files <= before.minutes.files);
        Ok(())
    }

    fn step(&mut self) -> Result<(), StorageError> {
        match self.below(8) {
            0..4 => self.write_cut(),
            4..6 => self.roll_up(),
            6 => {
                self.check();
                Ok(())
            }
            _ => {
                self.store = None;
                self.start()
            }
        }
    }

    fn tables(&self) -> Tables {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        Tables::open(disk, self.options.calendar).unwrap()
    }

    /// Holds tables and runs to the oracle.
    fn check(&mut self) {
        let tables = self.tables();
        for shard in 0..SHARDS {
            let mut sums = SlotSums::new();
            tables.all_time(shard, &mut sums).unwrap();
            let expected: BTreeMap<u32, u64> =
                self.all_time().into_iter().filter(|(key, _)| key.0 == shard).map(|(key, sum)| (key.1, sum)).collect();
            assert_eq!(sums.iter().collect::<BTreeMap<_, _>>(), expected, "all-time of shard {shard}");
            assert_eq!(tables.ids(shard).unwrap().len() as u32, self.ids[usize::from(shard)]);
        }
        for _ in 0..6 {
            let grain = Grain::ALL[self.below(3) as usize];
            let minutes = self.whole_minutes(&tables, grain);
            self.check_periods(&tables, grain, &minutes);
            let classes = self.below(4) as u8;
            let classes = FinalityClass(self.below(u32::from(classes) + 1) as u8)..=FinalityClass(classes);
            let shard = self.below(u32::from(SHARDS)) as u16;
            let mut sums = SlotSums::new();
            tables.sums(shard, minutes.clone(), classes.clone(), &mut sums).unwrap();
            let meant = |class| classes.contains(&FinalityClass(class));
            let expected = self.sums(&minutes, |of, class| of == shard && meant(class));
            let found: BTreeMap<_, _> = sums.iter().map(|(slot, count)| ((shard, slot), count)).collect();
            assert_eq!(found, expected, "{grain:?} {minutes:?} {classes:?} of shard {shard}");
            self.check_runs(minutes, *classes.end());
        }
    }

    /// A range of whole periods from where those of the grain, and of coarser ones, are kept.
    fn whole_minutes(&mut self, tables: &Tables, grain: Grain) -> Range<Minute> {
        let coarser = Grain::ALL.into_iter().filter(|other| *other >= grain);
        let from = coarser.map(|grain| tables.complete_from(grain)).max().expect("there are grains");
        let low = from.0.max(self.minute.saturating_sub(700));
        let at = |minute| grain.period_at(tables.calendar(), Minute(minute)).start;
        let start = at(low + self.below(self.minute + 60 - low.min(self.minute + 30)));
        let start = if start < from { grain.period_at(tables.calendar(), start).end } else { start };
        start..at(start.0 + self.below(200)).max(start)
    }

    fn sums(&self, minutes: &Range<Minute>, meant: impl Fn(u16, u8) -> bool) -> BTreeMap<(u16, u32), u64> {
        let mut sums = BTreeMap::new();
        for ((shard, minute, class, slot), count) in &self.views {
            if minutes.contains(&Minute(*minute)) && meant(*shard, *class) {
                *sums.entry((*shard, *slot)).or_insert(0) += count;
            }
        }
        sums
    }

    fn check_periods(&self, tables: &Tables, grain: Grain, minutes: &Range<Minute>) {
        let listed: BTreeSet<Minute> = tables.periods(grain, minutes.clone()).into_iter().collect();
        let held = self.views.keys().map(|(_, minute, ..)| Minute(*minute)).filter(|minute| minutes.contains(minute));
        let expected: BTreeSet<Minute> = held.map(|minute| grain.period_at(tables.calendar(), minute).start).collect();
        assert_eq!(listed, expected, "{grain:?} {minutes:?}");
    }

    fn check_runs(&mut self, minutes: Range<Minute>, class_max: FinalityClass) {
        let expected = self.sums(&minutes, |_, class| class <= class_max.0);
        let request = RunRequest { window: 0, change: RunChange::Enter, minutes, class_max };
        let mut found = BTreeMap::new();
        let add = |shard, entries: Vec<SlotCount>| {
            for entry in entries {
                *found.entry((shard, entry.slot)).or_insert(0u64) += u64::from(entry.count);
            }
        };
        self.store().runs(&request, None, add).unwrap();
        assert_eq!(found, expected, "{request:?}");
    }

    /// Lives until its disk fails, then crashes.
    fn life(&mut self, seed: u64) {
        if self.below(2) == 0 {
            let calls = u64::from(self.below(120));
            self.disk.fail_after(calls);
        }
        let lived = self.start().and_then(|()| (0..25).try_for_each(|_| self.step()));
        if let Err(error) = lived {
            assert!(error.to_string().contains("the power has failed"), "{error}");
        }
        self.store = None;
        if self.below(2) == 0 {
            self.disk.restart();
        } else {
            self.disk = self.disk.crash(seed);
        }
    }
}

fn lives(seed: u64) -> [u32; 3] {
    let mut world = world(seed);
    for life in 0..7 {
        world.life(seed.wrapping_mul(31) ^ life);
    }
    world.disk.restart();
    world.start().unwrap();
    world.check();
    [world.rollups, world.merges, world.given_up]
}

#[test]
fn runs_and_tables_are_those_of_the_views_whatever_is_rolled_up_and_lost() {
    let only = std::env::var("HIGHWATER_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = only.map_or(0..120, |seed| seed..seed + 1);
    let mut sums = [0; 3];
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| lives(seed));
        let Ok(counted) = outcome else {
            panic!("seed {seed}; rerun it by HIGHWATER_SEED={seed} cargo test -p highwater-storage rolled_up_and_lost")
        };
        sums.iter_mut().zip(counted).for_each(|(sum, count)| *sum += count);
    }
    // A test in which little is rolled up proves little.
    assert!(only.is_some() || sums.iter().all(|sum| *sum > 60), "{sums:?}");
}

/// A world with bases, roll-ups of every grain and cuts.
fn settled(seed: u64) -> World {
    let mut world = world(seed);
    world.start().unwrap();
    while world.store().figures().days.files == 0 || world.store().figures().cuts.files == 0 {
        world.write_cut().unwrap();
        world.roll_up().unwrap();
    }
    world.check();
    world
}

#[test]
fn every_flipped_bit_of_bases_and_roll_ups_is_refused() {
    let mut world = settled(1);
    let base = world.store().figures().base_number;
    let newest = world.store().last_cut().unwrap().number;
    assert!(newest > base);
    world.store = None;
    let believed = |path: &String| path.starts_with("rollups/") || path.contains(&format!("base-{base:010}"));
    let mut flipped = 0;
    for path in world.disk.paths().into_iter().filter(believed) {
        let original = world.disk.contents(&path);
        for at in (0..original.len() * 8).step_by(1 + original.len() / 60) {
            let mut bytes = original.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            let disk = MemoryDisk::clone(&world.disk.crash(0));
            disk.damage(&path, bytes);
            let error = read_all(&disk, world.options).err();
            // What only the base before rests on is not read.
            let Some(error) = error else { continue };
            assert!(matches!(error, StorageError::Damaged { .. }), "{path} bit {at}: {error}");
            assert!(error.to_string().contains(&path), "{error}");
            flipped += 1;
        }
    }
    assert!(flipped > 300, "{flipped}");
}

/// Reads everything that a start and its questions can read.
fn read_all(disk: &MemoryDisk, options: OpenOptions) -> Result<(), StorageError> {
    let mut store = Store::open(disk.clone(), options)?;
    store.replay_cuts::<StorageError>(|_| Ok(()))?;
    let tables = Tables::open(Arc::new(disk.clone()), options.calendar)?;
    for grain in Grain::ALL {
        let coarser = Grain::ALL.into_iter().filter(|other| *other >= grain);
        let from = coarser.map(|grain| tables.complete_from(grain)).max().unwrap();
        for start in tables.periods(grain, from..Minute(u32::MAX)) {
            let period = grain.period_at(&options.calendar, start);
            for shard in 0..SHARDS {
                tables.sums(shard, period.clone(), FinalityClass(0)..=FinalityClass::MAX, &mut SlotSums::new())?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_missing_file_is_named_and_the_base_before_stands_in_for_a_lost_one() {
    let mut world = settled(2);
    let figures = world.store().figures();
    world.store = None;
    let paths = world.disk.paths();
    let manifest = |path: &&String| path.starts_with("rollups/");
    for path in paths.iter().filter(manifest) {
        let disk = world.disk.crash(0);
        disk.remove(path).unwrap();
        if let Err(error) = Store::open(disk.clone(), world.options) {
            assert!(matches!(&error, StorageError::Missing { file, .. } if file == path), "{error}");
        } else {
            read_all(&disk, world.options).unwrap();
        }
    }
    let base = format!("bases/base-{:010}.base", figures.base_number);
    world.disk.remove(&base).unwrap();
    world.disk.sync_dir("bases").unwrap();
    world.start().unwrap();
    assert!(world.store().figures().base_number < figures.base_number);
    world.check();
}

#[test]
fn a_full_disk_leaves_no_trace_of_a_roll_up_and_keeps_the_reserve() {
    let mut world = settled(3);
    for _ in 0..world.options.rollup.cuts_min {
        world.write_cut().unwrap();
    }
    let before = world.disk.paths();
    let used: u64 = before.iter().map(|path| world.disk.contents(path).len() as u64).sum();
    world.disk.set_capacity(used + world.options.cut_reserve_bytes - 1);
    let error = world.store().plan_rollup(&HistoryNeeds::NOTHING).unwrap_err();
    assert!(error.is_no_space() && error.to_string().contains("reserve of 100000"), "{error}");
    world.disk.set_capacity(1 << 40);
    let plan = world.store().plan_rollup(&HistoryNeeds::NOTHING).unwrap().expect("one is due");
    for calls in 0..200 {
        world.disk.fill_after(calls);
        let outcome = run_rollup(&world.disk, &plan, &mut || false);
        world.disk.make_room();
        match outcome {
            Ok(done) => {
                world.store().finish_rollup(&done).unwrap();
                return world.check();
            }
            Err(error) => assert!(matches!(error, RollupStop::NoSpace(_)), "call {calls}: {error}"),
        }
        assert_eq!(world.disk.paths(), before, "call {calls}");
        if world.random.random_bool(0.1) {
            world.check();
        }
    }
    panic!("a roll-up makes fewer calls");
}
