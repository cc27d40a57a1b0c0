//! Checks of a directory that holds every kind of file: sound as it is; with a byte wrong anywhere, named, and all
//! else read all the same.

use std::sync::Arc;

use highwater_proto::Epoch;
use highwater_ranking::{Calendar, CalendarPeriod, CoreCut, Minute, ShardCut, SlotCount};

use super::archive::{ALL_KEPT, Engine, LOG};
use super::support::{DIRECTORY, SEGMENT_BYTES, below, options, random};
use crate::disk::Access;
use crate::{
    CheckReport, CheckedKind, ClosedList, CorePart, Disk, Grain, History, HistoryNeeds, MemoryDisk, OpenOptions,
    PreparedCut, ProducerTableImage, RollupRule, check, run_rollup,
};

/// An hour of ten minutes, a day of four hours, a month of three days.
fn calendar() -> Calendar {
    Calendar::scaled(10, 4, 3)
}

fn start(disk: &MemoryDisk) -> Engine {
    let rollup = RollupRule { cuts_min: 3, cuts_max: 3, hours_merged_min: 2, ..RollupRule::default() };
    let options = OpenOptions { archive: Some(ALL_KEPT), calendar: calendar(), rollup, ..options() };
    Engine::start_with(disk, options).unwrap()
}

fn checked(disk: &MemoryDisk) -> CheckReport {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    check(&disk, calendar())
}

impl Engine {
    /// A cut of a new id and a few views that covers all that is durable.
    fn cut_views(&mut self) {
        let minute = 60_000 + self.epoch as u32 * 4;
        let id = format!("video-{}", self.epoch);
        let slots = self.epoch as u32 - 1;
        let shard = ShardCut {
            shard: 1,
            minute: Minute(minute),
            first_slot: slots,
            id_lens: vec![id.len() as u8],
            id_bytes: id.into_bytes(),
            current: (0..=slots).map(|slot| SlotCount { slot, count: 1 + slot }).collect(),
            late: Vec::new(),
        };
        let (epoch, time_ms) = (Epoch(self.epoch), Minute(minute).end_ms());
        let cut = CoreCut { epoch, time_ms, minute: Minute(minute), arrivals_from_ms: time_ms, shards: vec![shard] };
        let position = self.writer.durable_end();
        let part = CorePart { log: LOG, position, cut, producers: ProducerTableImage::default() };
        self.store.write_cut(&PreparedCut::new(vec![part])).unwrap();
        self.epoch += 1;
    }

    fn roll_up(&mut self) {
        while let Some(plan) = self.store.plan_rollup(&HistoryNeeds::NOTHING).unwrap() {
            let done = run_rollup(&self.disk, &plan, &mut || false).unwrap();
            self.store.finish_rollup(&done).unwrap();
        }
    }

    /// Batches that are durable one after the other, so that each states that those before it are.
    fn views(&mut self, batches: u32) {
        for _ in 0..batches {
            self.append(4000).unwrap();
            self.settle().unwrap();
        }
    }
}

/// A directory with every kind of file: an archive, segments that cuts cover and some beyond them, two bases with
/// roll-ups of each grain, cuts beyond them, and closed lists.
fn world() -> Engine {
    let disk = MemoryDisk::new();
    let mut engine = start(&disk);
    for _ in 0..8 {
        engine.views(3);
        engine.cut_views();
        engine.roll_up();
    }
    assert!(engine.archive().unwrap() > 0);
    engine.views(17);
    for _ in 0..3 {
        engine.cut_views();
    }
    engine.roll_up();
    engine.views(2);
    engine.cut_views();
    engine.views(2);
    engine.cut_views();
    engine.views(3);
    let history = History::open(Arc::new(disk.clone()), DIRECTORY).unwrap();
    let rows: Vec<(Box<str>, u64)> = [("a", 5), ("b", 3)].map(|(id, count)| (id.into(), count)).into();
    let (start, end) = (Minute(60_000), Minute(60_010));
    let kind = CalendarPeriod::Hour;
    history.write(&ClosedList { kind, start, end, final_ms: 1, total_views: 8, videos: 2, rows }).unwrap();
    history.set_closed(kind, end).unwrap();
    engine
}

fn kind_of(path: &str) -> CheckedKind {
    match path.split(['/', '-']).collect::<Vec<_>>()[..] {
        ["directory.hw"] => CheckedKind::Directory,
        ["state.hw"] => CheckedKind::State,
        ["log", ..] => CheckedKind::Log,
        ["cuts", ..] => CheckedKind::Cut,
        ["rollups", "minute", ..] => CheckedKind::Rollup(Grain::Minute),
        ["rollups", "hour", ..] => CheckedKind::Rollup(Grain::Hour),
        ["rollups", ..] => CheckedKind::Rollup(Grain::Day),
        ["bases", ..] => CheckedKind::Base,
        ["history", ..] => CheckedKind::History,
        _ => CheckedKind::Archive,
    }
}

fn segments(disk: &MemoryDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.starts_with("log-000/g")).collect()
}

/// The records of a segment file: offset and length of each, without those that an earlier use has left.
fn records(disk: &MemoryDisk, path: &str) -> Vec<(usize, usize)> {
    let bytes = disk.contents(path);
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let segment: u64 = path.trim_end_matches(".seg").rsplit('s').next().unwrap().parse().unwrap();
    let (mut found, mut offset) = (Vec::new(), 0);
    while offset + 128 <= bytes.len() {
        let is_record = bytes[offset..offset + 4] == *b"HwR\x01";
        if is_record && (number(offset + 32), number(offset + 40)) == (segment, offset as u64) {
            let len = number(offset + 48) as u32 as usize;
            found.push((offset, len));
            offset += len;
        } else if offset % 4096 == 0 {
            break;
        } else {
            offset = offset.next_multiple_of(4096);
        }
    }
    found
}

#[test]
fn a_sound_directory_of_every_kind_has_no_damage() {
    let engine = world();
    let disk = &engine.disk;
    let before: Vec<_> = disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path))).collect();
    let calls = disk.calls();
    let report = checked(disk);
    assert_eq!(report.damage(), []);
    let after: Vec<_> = disk.paths().into_iter().map(|path| (path.clone(), disk.contents(&path))).collect();
    assert!(before == after && disk.calls() == calls, "nothing is changed");
    for kind in CheckedKind::ALL {
        let (found, of_kind) = (report.files(kind), |path: &&String| kind_of(path) == kind);
        let expected = before.iter().map(|(path, _)| path).filter(of_kind).count() as u64;
        assert!(expected > 0, "the directory has no file of the kind {kind:?}");
        assert_eq!(found.files, expected, "{kind:?}");
        let bytes: usize = before.iter().filter(|(path, _)| kind_of(path) == kind).map(|(_, bytes)| bytes.len()).sum();
        assert_eq!(found.bytes, bytes as u64, "{kind:?}");
    }
    assert_eq!(report.files(CheckedKind::History).records, 2);
    assert!(report.files(CheckedKind::Archive).views > 0);
    let (cuts, base) = (report.files(CheckedKind::Cut), report.files(CheckedKind::Base));
    assert!(cuts.views > 0 && base.views > 0 && base.records > 0, "{cuts:?} {base:?}");
    let notes = report.notes();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("log-000: 3 batches with 12000 views of generation 1") && notes[0].contains("replays"),
        "{notes:?}"
    );
}

#[test]
fn one_wrong_byte_in_any_file_is_named_and_all_else_is_read() {
    let engine = world();
    let disk = &engine.disk;
    let sound = checked(disk);
    let mut random = random(7);
    for path in disk.paths().into_iter().filter(|path| !path.contains("spare-")) {
        let kind = kind_of(&path);
        let len = disk.contents(&path).len();
        let offsets: Vec<usize> = if kind == CheckedKind::Log {
            // Within records that others follow.
            let records = records(disk, &path);
            let (_, followed) = records.split_last().expect("every segment holds records");
            let some = followed.first().into_iter().chain(followed.last());
            some.flat_map(|(at, len)| [*at, at + 60, at + 128, at + len - 20]).collect()
        } else {
            let some = (0..3).map(|_| below(&mut random, len as u32) as usize);
            some.chain([0, len - 1]).collect()
        };
        for byte in offsets {
            disk.flip_bit(&path, byte, 3);
            let report = checked(disk);
            disk.flip_bit(&path, byte, 3);
            let damage = report.damage();
            let named = damage.iter().find(|finding| finding.file == path);
            let named = named.unwrap_or_else(|| panic!("{path} at {byte}: {damage:?}"));
            assert_eq!(named.kind, kind, "{path}");
            assert!(!named.what.is_empty() && !named.remedy.is_empty(), "{named:?}");
            assert!(damage.iter().all(|finding| finding.kind == kind), "{path} at {byte}: {damage:?}");
            for other in CheckedKind::ALL.into_iter().filter(|other| *other != kind) {
                assert_eq!(report.files(other), sound.files(other), "{path} at {byte}");
            }
        }
    }
    assert_eq!(checked(disk), sound);
}

#[test]
fn damage_in_several_files_is_told_of_each() {
    let engine = world();
    let disk = &engine.disk;
    let of = |folder: &str| disk.paths().into_iter().filter(|path| path.starts_with(folder)).collect::<Vec<_>>();
    let damaged: Vec<String> = ["directory.hw", "cuts/", "rollups/", "bases/", "archive/", "history/"]
        .iter()
        .flat_map(|folder| of(folder))
        .collect();
    damaged.iter().for_each(|path| disk.flip_bit(path, 20, 0));
    let report = checked(disk);
    let told: Vec<&String> = report.damage().iter().map(|finding| &finding.file).collect();
    assert!(damaged.iter().all(|path| told.contains(&path)), "{told:?}");
    assert!(report.files(CheckedKind::Log).records > 0, "the logs are read all the same");
}

#[test]
fn a_torn_tail_is_noted_and_a_hole_is_damage() {
    let engine = world();
    let disk = &engine.disk;
    let path = segments(disk).pop().unwrap();
    let records = records(disk, &path);
    let [.., (earlier, earlier_len), (before, _), (last, len)] = records[..] else { panic!("{records:?}") };
    let good = disk.contents(&path);
    // The end of the last record did not reach the disk.
    let mut torn = good.clone();
    torn[last + 200..last + len].fill(0);
    disk.damage(&path, torn);
    let report = checked(disk);
    assert_eq!(report.damage(), []);
    let told = format!("{path} at byte {last}: a torn tail");
    assert!(report.notes().iter().any(|note| note.starts_with(&told)), "{:?}", report.notes());
    assert!(report.notes().iter().any(|note| note.contains("2 batches with 8000 views")), "{:?}", report.notes());
    // A later record states that the one before it was durable.
    let mut holed = good.clone();
    holed[before + 200] ^= 1;
    disk.damage(&path, holed);
    let report = checked(disk);
    let [finding] = report.damage() else { panic!("{:?}", report.damage()) };
    let end = earlier + earlier_len;
    assert_eq!((finding.kind, &finding.file, finding.offset), (CheckedKind::Log, &path, Some(end as u64)));
    assert!(finding.what.contains("was durable to") && finding.remedy.contains("backup"), "{finding}");
    // A start says so, too.
    let text = finding.to_string();
    assert!(text.starts_with(&format!("{path} at byte {end}: no valid record")), "{text}");
    disk.damage(&path, good);
    let segment = segments(disk).remove(0);
    disk.damage(&segment, vec![0; SEGMENT_BYTES as usize - 4096]);
    let report = checked(disk);
    assert!(report.damage().iter().all(|finding| finding.file == segment), "{:?}", report.damage());
    assert!(report.damage()[0].remedy.contains("no start reads"), "cuts cover it: {:?}", report.damage());
}

#[test]
fn what_is_missing_is_told_with_why_it_must_be_there() {
    let missing = |path: &str, kind: CheckedKind, words: &str| {
        let engine = world();
        let disk = &engine.disk;
        let found = disk.paths().into_iter().rfind(|one| one.starts_with(path)).unwrap();
        if kind == CheckedKind::Cut {
            // A gap, behind which there is another.
            disk.remove("cuts/cut-0000000012.cut").unwrap();
        } else {
            disk.remove(&found).unwrap();
        }
        let report = checked(disk);
        let [finding] = report.damage() else { panic!("{path}: {:?}", report.damage()) };
        assert_eq!(finding.kind, kind);
        assert!(finding.what.contains("it is missing") && finding.what.contains(words), "{finding}");
    };
    missing("directory.hw", CheckedKind::Directory, "belongs to a data directory");
    missing("state.hw", CheckedKind::State, "made only after it");
    missing("cuts/", CheckedKind::Cut, "each holds views of its own");
    missing("rollups/hour", CheckedKind::Rollup(Grain::Hour), "rests on it");
    missing("history/closed.hw", CheckedKind::History, "made only after it");
}

#[test]
fn newer_foreign_and_unknown_files_are_told() {
    let engine = world();
    let disk = &engine.disk;
    let mut newer = disk.contents("directory.hw");
    newer[8] = 2;
    let end = newer.len() - 4;
    let crc = crc32c::crc32c(&newer[..end]);
    newer[end..].copy_from_slice(&crc.to_le_bytes());
    let good = disk.contents("directory.hw");
    disk.damage("directory.hw", newer);
    let report = checked(disk);
    let [finding] = report.damage() else { panic!("{:?}", report.damage()) };
    assert_eq!(
        finding.to_string(),
        "directory.hw: format version 2, this engine reads up to 1; use the newer engine that wrote it"
    );
    disk.damage("directory.hw", good);
    for path in ["notes.txt", "cuts/notes.txt", "cuts/cut-12.cut", "log-000/notes.txt", "archive/a.hwa.tmp"] {
        disk.open(path, Access::CreateNew).unwrap();
    }
    let report = checked(disk);
    assert_eq!(report.damage(), []);
    for name in ["notes.txt", "cuts/notes.txt", "cuts/cut-12.cut", "log-000/notes.txt", "archive/a.hwa.tmp"] {
        assert!(report.notes().iter().any(|note| note.starts_with(name)), "{name}: {:?}", report.notes());
    }
    // A file of another directory, under a name that would fit.
    let other = MemoryDisk::new();
    let mut foreign = options();
    foreign.create.id.0 ^= 1;
    let mut stranger = Engine::start_with(&other, foreign).unwrap();
    stranger.cut_views();
    let path = "cuts/cut-0000000001.cut";
    disk.open(path, Access::CreateNew).unwrap();
    disk.damage(path, other.contents(path));
    let report = checked(disk);
    let [finding] = report.damage() else { panic!("{:?}", report.damage()) };
    assert!(finding.file == path && finding.what.contains("belongs to data directory"), "{finding}");
}

#[test]
fn a_directory_that_is_none_is_told_to_be() {
    let disk = MemoryDisk::new();
    let report = checked(&disk);
    let [finding] = report.damage() else { panic!("{:?}", report.damage()) };
    assert_eq!((finding.kind, finding.remedy.as_str()), (CheckedKind::Directory, "name the directory of an engine"));
    assert!(finding.what.contains("is this the right directory"), "{finding}");
    assert_eq!(report.notes(), [] as [String; 0]);
}

#[test]
fn starts_and_stops_leave_a_sound_directory() {
    let disk = MemoryDisk::new();
    for seed in 0..6 {
        let mut engine = start(&disk);
        engine.views(1 + seed % 3);
        if seed % 2 == 0 {
            engine.epoch = engine.store.last_cut().map_or(1, |cut| cut.number + 1);
            engine.cut_views();
        }
        engine.views(2);
        drop(engine);
        let report = checked(&disk);
        assert_eq!(report.damage(), [], "after start {seed}");
    }
}
