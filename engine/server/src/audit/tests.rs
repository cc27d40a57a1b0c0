//! An audit of a directory whose log, cuts, roll-ups and lists agree finds nothing; one wrong count anywhere, under
//! valid checksums, is found and named.

use super::{Difference, Report, stored};
use highwater_proto::{
    BatchBuilder, Epoch, FRAME_HEADER_BYTES, InstanceId, ProducerId, Pushed, RefusedRange, Sequence, View, ViewRefusal,
    batch_header,
};
use highwater_ranking::{Calendar, CoreCut, IdHash, LateViews, Minute, ShardCut, shard_of};
use highwater_storage::{
    AppendRoom, ArchivePlan, ArchiveRetention, CorePart, Directory, DirectoryId, Disk, History, HistoryJob,
    HistoryNeeds, LogDevice, LogLimits, LogNumber, LogWriter, MemoryDisk, MemoryLogDevice, OpenOptions, PreparedCut,
    ProducerTableImage, RecordKind, RecordMeta, Retention, RollupRule, StorageError, Store, Tables, run_rollup,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::sync::Arc;

const SHARDS: u16 = 3;
const LATENESS_MAX_MS: u64 = 120_000;
const SEGMENT_BYTES: u64 = 4 << 20;
const START: u32 = 28_000_000;
const VIDEOS: u32 = 40;
const MINUTE_MS: u64 = 60_000;
const LOG: LogNumber = LogNumber(0);

/// An hour of ten minutes, a day of four hours, a month of three days.
fn calendar() -> Calendar {
    Calendar::scaled(10, 4, 3)
}

/// A directory that is written as an engine would.
struct World {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    writer: LogWriter,
    device: MemoryLogDevice,
    random: StdRng,
    sequence: u64,
    epoch: u64,
    /// The slots of each shard's videos.
    slots: Vec<BTreeMap<String, u32>>,
    /// Ids since the last cut, by shard.
    fresh: Vec<Vec<String>>,
    /// Late keys since the last cut, by shard.
    late: Vec<Vec<LateViews>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = MemoryDisk::new();
        let mut world = Self {
            store: open(&disk),
            writer: LogWriter::new(placeholder(), log_limits()),
            device: MemoryLogDevice::new(&disk, 3, seed),
            disk,
            random: StdRng::seed_from_u64(seed),
            sequence: 0,
            epoch: 0,
            slots: vec![BTreeMap::new(); SHARDS.into()],
            fresh: vec![Vec::new(); SHARDS.into()],
            late: vec![Vec::new(); SHARDS.into()],
        };
        world.writer = LogWriter::new(world.store.log_identity(LOG), log_limits());
        world
    }

    /// Stops and starts; what no cut covers is cut then, as an engine does.
    fn restart(&mut self, minute: u32) {
        self.store = open(&self.disk);
        self.writer = LogWriter::new(self.store.log_identity(LOG), log_limits());
        self.cut(minute);
    }

    /// Views of one engine minute, some of them late and some refused.
    fn views(&mut self, minute: u32) {
        let arrival_ms = Minute(minute).start_ms() + 30_000;
        let hash = IdHash::new(directory().hash_seed);
        for _ in 0..self.random.random_range(1..4) {
            let count = self.random.random_range(3..200u32);
            let mut builder = BatchBuilder::new(8192, 1 << 20);
            for index in 0..count {
                let video = format!("video-{}", self.random.random_range(0..VIDEOS).pow(2));
                let age_ms = match self.random.random_range(0..10) {
                    0 => u64::from(self.random.random_range(0..60u32)) * MINUTE_MS,
                    _ => u64::from(self.random.random_range(0..30_000u32)),
                };
                let timestamp_ms = arrival_ms - age_ms;
                let view = View { video_id: &video, timestamp_ms, user_id: "u", region: "r", device: "d" };
                assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
                if index == 1 {
                    continue;
                }
                let shard = usize::from(shard_of(hash.hash(&video), SHARDS));
                let next = self.slots[shard].len() as u32;
                let fresh = &mut self.fresh[shard];
                let slot = *self.slots[shard].entry(video.clone()).or_insert_with(|| {
                    fresh.push(video.clone());
                    next
                });
                let class = calendar().class_of(timestamp_ms, arrival_ms, LATENESS_MAX_MS);
                self.late[shard].push(LateViews::new(Minute::of_ms(timestamp_ms), class, slot, 1));
            }
            self.append(&mut builder, count, arrival_ms);
        }
    }

    /// Appends a batch of which the second view is refused.
    fn append(&mut self, builder: &mut BatchBuilder, views: u32, arrival_ms: u64) {
        self.sequence += 1;
        let frame = builder.encode(ProducerId(4), Sequence(self.sequence));
        let payload = &frame[FRAME_HEADER_BYTES..];
        while self.writer.room(payload.len()) == AppendRoom::NoSegment {
            let segment = self.store.prepare_segment(LOG).unwrap();
            let handle = self.device.attach(&segment).unwrap();
            self.writer.add_segment(&segment, handle);
        }
        self.writer.begin(payload.len()).copy_from_slice(payload);
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: ProducerId(4),
            sequence: Sequence(self.sequence),
            arrival_ms,
            batch_crc: batch_header(payload).unwrap().crc,
            view_count: views,
        };
        self.writer.commit(&meta, &[RefusedRange { first: 1, count: 1, reason: ViewRefusal::FutureBeyondSkew }]);
        while let Some(write) = self.writer.poll_write() {
            self.device.submit(write).unwrap();
            let written = self.device.complete().unwrap();
            self.writer.handle_written(written.write);
        }
        while self.writer.next_durable().is_some() {}
        while let Some(handle) = self.writer.poll_retired() {
            self.device.detach(handle);
        }
    }

    /// A cut of what came since the last.
    fn cut(&mut self, minute: u32) {
        self.epoch += 1;
        let shards = (0..SHARDS).map(|shard| {
            let fresh = std::mem::take(&mut self.fresh[usize::from(shard)]);
            ShardCut {
                shard,
                minute: Minute(minute),
                first_slot: (self.slots[usize::from(shard)].len() - fresh.len()) as u32,
                id_lens: fresh.iter().map(|id| id.len() as u8).collect(),
                id_bytes: fresh.concat().into_bytes(),
                current: Vec::new(),
                late: std::mem::take(&mut self.late[usize::from(shard)]),
            }
        });
        let time_ms = Minute(minute).end_ms();
        let cut = CoreCut {
            epoch: Epoch(self.epoch),
            time_ms,
            minute: Minute(minute),
            arrivals_from_ms: time_ms,
            shards: shards.collect(),
        };
        let position = self.writer.durable_end();
        let part = CorePart { log: LOG, position, cut, producers: ProducerTableImage::default() };
        self.store.write_cut(&PreparedCut::new(vec![part])).unwrap();
    }

    /// Roll-ups, lists and archive, as far as they are due.
    fn chores(&mut self) {
        let history = History::open(self.shared(), directory().id).unwrap();
        let tables = Tables::open(self.shared(), calendar()).unwrap();
        let horizon_ms = tables.newest().unwrap().arrivals_from_ms;
        HistoryJob::new(horizon_ms, LATENESS_MAX_MS, calendar()).run(&history, &tables, || false).unwrap();
        while let Some(plan) = self.store.plan_rollup(&HistoryNeeds::NOTHING).unwrap() {
            let done = run_rollup(&self.disk, &plan, &mut || false).unwrap();
            self.store.finish_rollup(&done).unwrap();
        }
        while let ArchivePlan::Copy(job) = self.store.plan_archive(0).unwrap() {
            let done = job.run(&self.disk, || false);
            assert!(self.store.archive_done(done).unwrap().is_none());
        }
        self.store.recycle(0).unwrap();
    }

    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn audit(&self) -> Report {
        let mut report = Report::default();
        stored(&self.shared(), calendar(), &mut report).unwrap();
        report
    }
}

fn directory() -> Directory {
    Directory {
        id: DirectoryId(9),
        instance: InstanceId(5),
        hash_seed: 77,
        shards: SHARDS,
        lateness_max_ms: LATENESS_MAX_MS,
        segment_bytes: SEGMENT_BYTES,
    }
}

fn log_limits() -> LogLimits {
    LogLimits { segment_bytes: SEGMENT_BYTES, ..LogLimits::default() }
}

fn placeholder() -> highwater_storage::LogIdentity {
    highwater_storage::LogIdentity { directory: DirectoryId(9), log: LOG, generation: 1 }
}

fn open(disk: &MemoryDisk) -> Store<MemoryDisk> {
    let retention = Retention { minute_minutes: 1000, hour_minutes: 1000, day_minutes: 1000 };
    let options = OpenOptions {
        calendar: calendar(),
        retention,
        rollup: RollupRule { cuts_min: 5, cuts_max: 10, hours_merged_min: 3, ..RollupRule::default() },
        archive: Some(ArchiveRetention { age_ms: u64::MAX, bytes: u64::MAX }),
        cut_reserve_bytes: 1 << 20,
        ..OpenOptions::new(directory())
    };
    let mut store = Store::open(disk.clone(), options).unwrap();
    store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    store.open_generations(1).unwrap();
    store
}

/// Some days with a restart, all of it rolled up but the last cuts.
fn lived(seed: u64) -> World {
    let mut world = World::new(seed);
    for minute in 0..130 {
        world.views(START + minute);
        if minute == 60 {
            world.restart(START + minute);
        }
        if minute % 2 == 1 {
            world.cut(START + minute);
            world.chores();
        }
    }
    world.views(START + 130);
    world.cut(START + 130);
    world
}

fn compared(report: &Report, what: &str) -> (u64, u64) {
    let found = report.comparisons().iter().find(|one| one.what == what).unwrap();
    (found.files, found.counts)
}

#[test]
fn what_agrees_is_told_to_agree() {
    for seed in [1, 2] {
        let world = lived(seed);
        let report = world.audit();
        assert_eq!(report.wrong(), 0, "seed {seed}: {}", report.text());
        for what in ["minutes with the accepted views", "hours with minutes", "days with hours", "history with periods"]
        {
            let (files, counts) = compared(&report, what);
            assert!(files > 1 && counts > 20, "seed {seed}: {what}: {}", report.text());
        }
        assert!(compared(&report, "all-time with periods").1 > 20);
        assert!(report.left_out().is_empty(), "seed {seed}: {:?}", report.left_out());
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["differences_total"], 0, "{json}");
    }
}

/// Adds 1 to the last count in the last section of a kind, and makes its checksum right.
fn add_one(disk: &MemoryDisk, path: &str, kind: u32) {
    let mut bytes = disk.contents(path);
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 128;
    let mut last = None;
    while at < bytes.len() - 32 {
        let len = u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap()) as usize;
        if u32_at(&bytes, at) == kind {
            last = Some((at, len));
        }
        at += 32 + len;
    }
    let (at, len) = last.unwrap();
    let count = &mut bytes[at + 32 + len - 1];
    assert!(*count < 0x7f, "the last byte is a whole count");
    *count += 1;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[at..at + 28]), &bytes[at + 32..at + 32 + len]);
    bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
    disk.damage(path, bytes);
}

fn newest(world: &World, prefix: &str) -> String {
    world.disk.paths().into_iter().filter(|path| path.starts_with(prefix)).max().unwrap()
}

/// The differences found when one count of a file is one too high.
fn planted(prefix: &str, kind: u32) -> (String, Vec<Difference>) {
    let world = lived(3);
    let path = newest(&world, prefix);
    add_one(&world.disk, &path, kind);
    let report = world.audit();
    assert!(report.problems().is_empty(), "{:?}", report.problems());
    (path, report.differences().to_vec())
}

fn is_one_more(one: &Difference) -> bool {
    one.recomputed.parse::<u64>().is_ok_and(|right| right + 1 == one.stored)
}

#[test]
fn one_wrong_count_of_a_cut_file_is_found_and_named() {
    let (path, differences) = planted("cuts/", 4);
    let [one] = differences.as_slice() else { panic!("{differences:?}") };
    assert!(is_one_more(one) && one.file == path && one.period == "minute", "{one:?}");
    assert!(one.video_id.starts_with("video-") && one.start_time.is_some(), "{one:?}");
}

#[test]
fn one_wrong_count_of_a_roll_up_by_minute_is_found_against_the_views_and_the_hours() {
    let (path, differences) = planted("rollups/minute", 4);
    let of_file: Vec<&Difference> = differences.iter().filter(|one| one.file == path).collect();
    assert!(of_file.len() == 1 && is_one_more(of_file[0]), "{differences:?}");
    let hours = differences.iter().filter(|one| one.period == "hour").count();
    assert!(hours == 1 && differences.len() == 2, "{differences:?}");
}

#[test]
fn one_wrong_count_of_a_roll_up_by_hour_or_day_is_found_and_named() {
    for (prefix, period) in [("rollups/hour", "hour"), ("rollups/day", "day")] {
        let (path, differences) = planted(prefix, 4);
        let found = differences.iter().find(|one| one.period == period && one.file.contains(&path)).unwrap();
        assert!(is_one_more(found) && found.video_id.starts_with("video-"), "{found:?}");
        assert!(differences.iter().any(|one| one.period == "all-time"), "{differences:?}");
    }
}

#[test]
fn one_wrong_all_time_count_is_found_and_named() {
    let (path, differences) = planted("bases/", 6);
    let [one] = differences.as_slice() else { panic!("{differences:?}") };
    // The byte that was changed need not be the lowest of the count.
    assert!(one.recomputed.parse::<u64>().is_ok_and(|right| right < one.stored), "{one:?}");
    assert!(one.file == path && one.period == "all-time", "{one:?}");
}

#[test]
fn a_list_that_is_lacking_is_named() {
    let world = lived(5);
    let path = newest(&world, "history/hour");
    world.disk.remove(&path).unwrap();
    let report = world.audit();
    let [one] = report.differences() else { panic!("{}", report.text()) };
    assert!(one.file == path && one.stored == 0 && one.recomputed.parse::<u64>().unwrap() > 0, "{one:?}");
}

#[test]
fn a_damaged_file_is_told_and_the_other_comparisons_are_made() {
    let world = lived(4);
    let path = newest(&world, "history/month");
    world.disk.flip_bit(&path, 40, 1);
    let report = world.audit();
    assert!(report.wrong() == 1 && report.problems()[0].contains(&path), "{}", report.text());
    assert!(compared(&report, "days with hours").1 > 20);
}
