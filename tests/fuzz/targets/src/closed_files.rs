//! Cut files, and bases with the roll-ups that they rest on: the reader of a start, that of tables, and the writer.
//!
//! Input of `cuts`: whether checksums are made right, then a cut file. Of `rollups`: the same byte, the lengths of the
//! first two of three files as u16 each, then base, minutes and hours. Of `producers`: the payload of that section of a
//! cut file.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use highwater_proto::Epoch;
use highwater_ranking::{Calendar, CoreCut, FinalityClass, LateViews, Minute, ShardCut, SlotCount};
use highwater_storage::{
    CorePart, CutHeader, CutSection, CutsReplayed, Grain, LogNumber, LogPosition, MemoryDisk, PreparedCut,
    ProducerImage, ProducerTableImage, SlotSums, StorageError, Store, Tables,
};

use crate::bounds::{assert_told, bounded};
use crate::directory::{DIRECTORY, SHARDS, data_directory, mended, options, shared};
use crate::seals::mend_sections;

const CUT: &str = "cuts/cut-0000000001.cut";
const ROLLUPS: [&str; 3] = [
    "bases/base-0000000002.base",
    "rollups/minute-0000000001-0000000002.run",
    "rollups/hour-0000000001-0000000002.run",
];
/// What a byte of an index or of runs becomes, in a list that may hold twice as many while it grows.
const FACTOR: usize = 64;
const CONSTANT_BYTES: usize = 64 << 10;
/// Slots that counts are added up for at most.
const SLOTS_MAX: u32 = 1 << 16;
const ALL_CLASSES: RangeInclusive<FinalityClass> = FinalityClass(0)..=FinalityClass::MAX;

/// Counts by minute, class and slot.
type Runs = BTreeMap<(u32, u8, u32), u64>;

/// What the files hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Held {
    /// Lengths and bytes of the ids of each shard.
    ids: BTreeMap<u16, (Vec<u8>, Vec<u8>)>,
    all_time: BTreeMap<(u16, u32), u64>,
    runs: BTreeMap<u16, Runs>,
    producers: Vec<ProducerImage>,
}

pub(crate) fn cuts(data: &[u8]) {
    let Some(file) = mended(data, mend_sections) else { return };
    let disk = data_directory(&[(CUT, &file)]);
    if let Some((held, header)) = read(&disk, file.len(), &[CUT]) {
        write_again(held, &header);
    }
}

pub(crate) fn rollups(data: &[u8]) {
    let Some((&[mode, a, b, c, d], bytes)) = data.split_first_chunk() else { return };
    let lens = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])].map(usize::from);
    let Some((base, rest)) = bytes.split_at_checked(lens[0]) else { return };
    let Some((minutes, hours)) = rest.split_at_checked(lens[1]) else { return };
    let mut files = [base, minutes, hours].map(<[u8]>::to_vec);
    if mode & 1 == 1 {
        files.iter_mut().for_each(|file| mend_sections(file));
    }
    let disk = data_directory(&[(ROLLUPS[0], &files[0]), (ROLLUPS[1], &files[1]), (ROLLUPS[2], &files[2])]);
    read(&disk, bytes.len(), &ROLLUPS);
}

pub(crate) fn producers(payload: &[u8]) {
    let disk = data_directory(&[(CUT, &around_producers(payload))]);
    if let Some((held, header)) = read(&disk, payload.len(), &[CUT]) {
        write_again(held, &header);
    }
}

/// What a start and tables read; none where a start refuses.
fn read(disk: &MemoryDisk, input_bytes: usize, names: &[&str]) -> Option<(Held, CutHeader)> {
    let replayed = bounded(input_bytes, FACTOR, CONSTANT_BYTES, || replay(disk, |_| {}));
    let tables = bounded(input_bytes, FACTOR, CONSTANT_BYTES, || Tables::open(shared(disk), Calendar::default()));
    match tables {
        Ok(tables) => read_tables(&tables, input_bytes, names, replayed.is_ok()),
        Err(error) => assert_told(&error, names),
    }
    match replayed {
        Ok(replayed) => {
            let mut held = Held::default();
            replay(disk, |section| held.add(section)).expect("it was read before");
            held.producers = replayed.producers.producers;
            Some((held, replayed.last?))
        }
        Err(error) => {
            assert_told(&error, names);
            None
        }
    }
}

fn replay(disk: &MemoryDisk, mut visit: impl FnMut(CutSection<'_>)) -> Result<CutsReplayed, StorageError> {
    let mut store = Store::open(disk.clone(), options())?;
    store.replay_cuts::<StorageError>(|section| {
        visit(section);
        Ok(())
    })
}

impl Held {
    fn add(&mut self, section: CutSection<'_>) {
        match section {
            CutSection::Ids { shard, first_slot, lens, bytes } => {
                let ids = self.ids.entry(shard).or_default();
                assert_eq!(first_slot as usize, ids.0.len(), "ids follow those before");
                ids.0.extend_from_slice(lens);
                ids.1.extend_from_slice(bytes);
            }
            CutSection::AllTime { shard, first_slot, counts } => {
                self.all_time.extend((first_slot..).zip(counts).map(|(slot, count)| ((shard, slot), *count)));
            }
            CutSection::Run { shard, minute, class, entries } => {
                assert!(class <= FinalityClass::MAX && entries.is_sorted_by(|a, b| a.slot < b.slot));
                let known = self.ids.get(&shard).map_or(0, |ids| ids.0.len());
                let runs = self.runs.entry(shard).or_default();
                for entry in entries {
                    assert!(entry.count > 0 && (entry.slot as usize) < known, "a run names slots that are known");
                    *runs.entry((minute.0, class.0, entry.slot)).or_default() += u64::from(entry.count);
                }
            }
            CutSection::Positions(_) | CutSection::Producers(_) => unreachable!("they are not handed out"),
        }
    }

    /// What one shard holds, as a core would freeze it; none where a count is more than one row can have.
    fn shard(&self, shard: u16, minute: Minute) -> Option<ShardCut> {
        let (id_lens, id_bytes) = self.ids.get(&shard).cloned().unwrap_or_default();
        let (mut current, mut late) = (Vec::new(), Vec::new());
        for ((of, class, slot), count) in self.runs.get(&shard).into_iter().flatten() {
            let count = u32::try_from(*count).ok()?;
            if (*of, *class) == (minute.0, 0) {
                current.push(SlotCount { slot: *slot, count });
            } else {
                late.push(LateViews::new(Minute(*of), FinalityClass(*class), *slot, count));
            }
        }
        Some(ShardCut { shard, minute, first_slot: 0, id_lens, id_bytes, current, late })
    }
}

/// Writes what was read as a cut of another directory, and reads that.
fn write_again(held: Held, header: &CutHeader) {
    let shards: Option<Vec<ShardCut>> = (0..SHARDS).map(|shard| held.shard(shard, header.minute)).collect();
    let Some(shards) = shards else { return };
    let CutHeader { time_ms, minute, arrivals_from_ms, .. } = *header;
    let cut = CoreCut { epoch: header.epoch, time_ms, minute, arrivals_from_ms, shards };
    let producers = ProducerTableImage { producers: held.producers.clone() };
    let disk = data_directory(&[]);
    let mut store = Store::open(disk.clone(), options()).expect("an empty directory opens");
    store.replay_cuts::<StorageError>(|_| Ok(())).expect("there are none");
    store.replay_logs::<StorageError>(|_, _| Ok(())).expect("there are none");
    let generation = store.open_generations(1).expect("there is room");
    let part = CorePart { log: LogNumber(0), position: LogPosition::start_of(generation), cut, producers };
    let written = store.write_cut(&PreparedCut::new(vec![part])).expect("there is room");
    assert_eq!(CutHeader { number: header.number, ..written }, *header);
    let (mut again, last) = read(&disk, disk.contents(CUT).len(), &[CUT]).expect("what was written can be read");
    // A shard of which there is nothing is not written.
    let mut held = held;
    for held in [&mut held, &mut again] {
        held.ids.retain(|_, ids| !ids.0.is_empty());
        held.runs.retain(|_, runs| !runs.is_empty());
    }
    assert_eq!((again, last), (held, written), "a cut does not come back as it was");
}

/// Every question that tables answer. Sums take a place for each slot up to the highest, so they are asked for only
/// where a start `has_checked` that runs name slots of ids that are there.
fn read_tables(tables: &Tables, input_bytes: usize, names: &[&str], has_checked: bool) {
    let everything = Minute(0)..Minute(u32::MAX);
    for grain in Grain::ALL {
        assert!(tables.periods(grain, everything.clone()).is_sorted());
    }
    for shard in 0..SHARDS {
        match bounded(input_bytes, FACTOR, CONSTANT_BYTES, || tables.ids(shard)) {
            Ok(ids) => assert!((0..ids.len() as u32).all(|slot| ids.get(slot).is_some()), "ids are text"),
            Err(error) => assert_told(&error, names),
        }
        let mut highest = 0;
        let mut by_file = 0u64;
        let read = bounded(input_bytes, FACTOR, CONSTANT_BYTES, || {
            tables.files().try_for_each(|file| {
                file.positions()?;
                file.runs(shard, &everything, |_, class, entries| {
                    assert!(class <= FinalityClass::MAX && entries.is_sorted_by(|a, b| a.slot < b.slot));
                    highest = highest.max(entries.last().map_or(0, |entry| entry.slot));
                    by_file += entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>();
                })
            })
        });
        if let Err(error) = read {
            assert_told(&error, names);
            continue;
        }
        let mut sums = SlotSums::new();
        if let Err(error) = bounded(input_bytes, FACTOR, CONSTANT_BYTES, || tables.base_counts(shard, &mut sums)) {
            assert_told(&error, names);
        }
        let has_base = tables.base().is_some();
        if has_checked && highest < SLOTS_MAX && !has_base {
            let mut sums = SlotSums::new();
            tables.sums(shard, everything.clone(), ALL_CLASSES, &mut sums).expect("all of it was read before");
            assert_eq!(sums.total(), by_file, "two ways to the same runs");
            let mut sums = SlotSums::new();
            match tables.all_time(shard, &mut sums) {
                Ok(()) => assert!(sums.total() >= by_file, "all-time leaves nothing out"),
                // It also reads a section of which the index says that it has no minutes.
                Err(error) => assert_told(&error, names),
            }
        }
    }
}

/// A cut file that holds these producers and nothing else.
fn around_producers(payload: &[u8]) -> Vec<u8> {
    let mut file = b"HWCUT\0\0\x01\x01\0\0\0\0\0\0\0".to_vec();
    file.extend_from_slice(&DIRECTORY.0.to_le_bytes());
    for number in [1, Epoch(1).0, 60_000] {
        file.extend_from_slice(&u64::to_le_bytes(number));
    }
    file.resize(128, 0);
    for (kind, payload) in [(1u32, &[][..]), (2, payload), (5, &[])] {
        file.extend_from_slice(&kind.to_le_bytes());
        file.extend_from_slice(&[0; 12]);
        file.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        file.extend_from_slice(&[0; 8]);
        file.extend_from_slice(payload);
    }
    file.extend_from_slice(b"HWCUTEND");
    file.resize(file.len() + 24, 0);
    mend_sections(&mut file);
    file
}
