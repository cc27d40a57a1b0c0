//! Cut files, directory and state: round trips and flipped bits.

use highwater_proto::{Epoch, ProducerId, RefusedRange, Sequence, ViewRefusal};
use highwater_ranking::{
    CoreCut, FinalityClass, LateViews, Minute, Run, RunChange, RunRequest, ShardCut, ShardIds, SlotCount,
};
use proptest::prelude::*;

use super::support::{DIRECTORY, below, options, random};
use crate::container::FileWriter;
use crate::cut::{create_cut, open_cut};
use crate::{
    BatchVerdict, CorePart, CutHeader, CutSection, Disk, LogNumber, LogPosition, MemoryDisk, OwnerId, PreparedCut,
    ProducerImage, ProducerTableImage, StorageError, Store,
};

fn header() -> CutHeader {
    CutHeader {
        directory: DIRECTORY,
        number: 1,
        epoch: Epoch(9),
        time_ms: 12_345,
        minute: Minute(100),
        arrivals_from_ms: 12_000,
    }
}

fn producer(id: u128) -> ProducerImage {
    let refused = vec![RefusedRange { first: 3, count: 2, reason: ViewRefusal::TableFull }];
    let entry = BatchVerdict { sequence: Sequence(7), crc32c: 8, counted: 9, refused, complete: true };
    let owner = (id != 1).then_some(OwnerId(id << 64));
    ProducerImage { id: ProducerId(id), owner, last: Sequence(7), last_seen_ms: 99, entries: vec![entry] }
}

type Ids = Vec<(u16, u32, Vec<u8>, Vec<u8>)>;
type Runs = Vec<(u16, Minute, FinalityClass, Vec<SlotCount>)>;

fn read(disk: &MemoryDisk) -> Result<(Ids, Runs, Vec<ProducerImage>), StorageError> {
    let file = open_cut(disk, DIRECTORY, 1)?;
    let (mut ids, mut runs, mut producers) = (Ids::new(), Runs::new(), Vec::new());
    file.sections::<StorageError>(|section| {
        match section {
            CutSection::Positions(_) => {}
            CutSection::Producers(some) => producers.extend(some),
            CutSection::Ids { shard, first_slot, lens, bytes } => {
                ids.push((shard, first_slot, lens.to_vec(), bytes.to_vec()));
            }
            CutSection::AllTime { .. } => panic!("a cut file has no counts"),
            CutSection::Run { shard, minute, class, entries } => runs.push((shard, minute, class, entries.to_vec())),
        }
        Ok(())
    })?;
    Ok((ids, runs, producers))
}

fn finish(disk: &MemoryDisk, writer: FileWriter<'_>) {
    writer.seal().unwrap().name(disk).unwrap();
    disk.sync_dir("cuts").unwrap();
}

fn small_cut(disk: &MemoryDisk) {
    disk.create_dir("cuts").unwrap();
    let mut writer = create_cut(disk, &header()).unwrap();
    writer.positions(&[(LogNumber(0), LogPosition { generation: 1, position: 77 })]).unwrap();
    writer.producers([producer(1), producer(2)].iter()).unwrap();
    let ids = ShardIds { shard: 2, first_slot: 0, id_lens: vec![1, 2], id_bytes: b"abb".to_vec() };
    writer.ids(&ids).unwrap();
    let entries = vec![SlotCount { slot: 0, count: 1 }, SlotCount { slot: 1, count: 300 }];
    writer.runs(2, &[Run { minute: Minute(100), class: FinalityClass(0), entries }]).unwrap();
    finish(disk, writer);
}

#[test]
fn every_flipped_bit_of_a_cut_file_is_refused() {
    let disk = MemoryDisk::new();
    small_cut(&disk);
    assert_eq!(read(&disk).unwrap().2, [producer(1), producer(2)]);
    let path = "cuts/cut-0000000001.cut";
    let original = disk.contents(path);
    for at in 0..original.len() * 8 {
        let mut bytes = original.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        disk.damage(path, bytes);
        let error = read(&disk).expect_err("the bit is covered");
        assert!(matches!(error, StorageError::Damaged { .. }), "bit {at}: {error}");
    }
    for len in 0..original.len() {
        disk.damage(path, original[..len].to_vec());
        read(&disk).expect_err("a short file is refused");
    }
}

#[test]
fn every_flipped_bit_of_directory_and_state_is_refused() {
    let disk = MemoryDisk::new();
    let mut store = Store::open(disk.clone(), options()).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    store.open_generations(2).unwrap();
    drop(store);
    for path in ["directory.hw", "state.hw"] {
        let original = disk.contents(path);
        for at in 0..original.len() * 8 {
            let mut bytes = original.clone();
            bytes[at / 8] ^= 1 << (at % 8);
            disk.damage(path, bytes);
            let error = Store::open(disk.clone(), options()).err().expect("the bit is covered");
            assert!(error.to_string().contains(path), "{error}");
        }
        disk.damage(path, original);
    }
}

#[test]
fn a_newer_file_is_refused_by_name() {
    let disk = MemoryDisk::new();
    drop(Store::open(disk.clone(), options()).unwrap());
    for path in ["directory.hw", "state.hw"] {
        let original = disk.contents(path);
        let mut bytes = original.clone();
        bytes[8] = 9;
        let crc_at = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        disk.damage(path, bytes);
        let error = Store::open(disk.clone(), options()).err().unwrap();
        assert!(matches!(&error, StorageError::NewerVersion { file, found: 9, .. } if file == path), "{error}");
        disk.damage(path, original);
    }
}

#[test]
fn a_directory_without_its_first_files_or_with_other_settings_is_refused() {
    let disk = MemoryDisk::new();
    drop(Store::open(disk.clone(), options()).unwrap());
    let mut other = options();
    other.require_shards = Some(5);
    let error = Store::open(disk.clone(), other).err().unwrap();
    assert!(matches!(error, StorageError::FixedSetting { requested: 5, stored: 4, .. }), "{error}");
    small_cut(&disk);
    disk.remove("state.hw").unwrap();
    let error = Store::open(disk.clone(), options()).err().unwrap();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
    disk.remove("directory.hw").unwrap();
    let error = Store::open(disk, options()).err().unwrap();
    assert!(matches!(error, StorageError::Missing { .. }), "{error}");
}

#[test]
fn large_runs_and_ids_come_back_in_pieces() {
    let disk = MemoryDisk::new();
    disk.create_dir("cuts").unwrap();
    let mut writer = create_cut(&disk, &header()).unwrap();
    writer.positions(&[]).unwrap();
    let count = 200_000u32;
    let id_bytes: Vec<u8> = (0..count * 11).map(|index| b'a' + (index % 26) as u8).collect();
    let ids = ShardIds { shard: 1, first_slot: 40, id_lens: vec![11; count as usize], id_bytes: id_bytes.clone() };
    writer.ids(&ids).unwrap();
    let entries: Vec<SlotCount> = (0..count).map(|slot| SlotCount { slot: slot * 3, count: slot + 1 }).collect();
    writer.runs(1, &[Run { minute: Minute(7), class: FinalityClass(3), entries: entries.clone() }]).unwrap();
    finish(&disk, writer);
    let (ids, runs, _) = read(&disk).unwrap();
    assert!(ids.len() > 1 && runs.len() > 1);
    let mut slot = 40;
    for (_, first_slot, lens, _) in &ids {
        assert_eq!(*first_slot, slot);
        slot += lens.len() as u32;
    }
    assert_eq!(ids.iter().flat_map(|ids| ids.3.clone()).collect::<Vec<_>>(), id_bytes);
    assert_eq!(runs.iter().flat_map(|run| run.3.clone()).collect::<Vec<_>>(), entries);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn leaving_runs_are_all_runs_of_the_minutes(seed in any::<u64>()) {
        let mut random = random(seed);
        let disk = MemoryDisk::new();
        let mut store = Store::open(disk.clone(), options()).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        let slots = 20u32;
        let mut all: Vec<(u16, u32, u32)> = Vec::new();
        for epoch in 1..=8u64 {
            let minute = Minute(60_000 + epoch as u32);
            let mut shards = Vec::new();
            for shard in 0..4u16 {
                let new_ids = if epoch == 1 { slots } else { 0 };
                let current: Vec<SlotCount> = (0..slots)
                    .filter(|_| below(&mut random, 2) == 0)
                    .map(|slot| SlotCount { slot, count: 1 + slot })
                    .collect();
                for entry in &current {
                    all.extend((0..entry.count).map(|_| (shard, minute.0, entry.slot)));
                }
                let mut late = Vec::new();
                for _ in 0..below(&mut random, 30) {
                    let (late_minute, slot) = (59_990 + below(&mut random, 30), below(&mut random, slots));
                    let class = FinalityClass(1 + below(&mut random, 3) as u8);
                    late.push(LateViews::new(Minute(late_minute), class, slot, 1));
                    all.push((shard, late_minute, slot));
                }
                let first_slot = if epoch == 1 { 0 } else { slots };
                let id_lens = vec![1; new_ids as usize];
                let id_bytes = vec![b'x'; new_ids as usize];
                shards.push(ShardCut { shard, minute, first_slot, id_lens, id_bytes, current, late });
            }
            let cut = CoreCut { epoch: Epoch(epoch), time_ms: epoch, minute, arrivals_from_ms: 0, shards };
            let position = LogPosition { generation: 1, position: epoch };
            let producers = ProducerTableImage { producers: vec![producer(u128::from(epoch))] };
            store.write_cut(&PreparedCut::new(vec![CorePart { log: LogNumber(0), position, cut, producers }])).unwrap();
        }
        let expect_leaving = |store: &Store<MemoryDisk>, minutes: std::ops::Range<u32>| {
            let mut counts = vec![vec![0u32; slots as usize]; 4];
            for (shard, minute, slot) in &all {
                if minutes.contains(minute) {
                    counts[usize::from(*shard)][*slot as usize] += 1;
                }
            }
            let request = RunRequest {
                window: 0,
                change: RunChange::Leave,
                minutes: Minute(minutes.start)..Minute(minutes.end),
                class_max: FinalityClass::MAX,
            };
            store
                .runs(&request, None, |shard, entries| {
                    for entry in entries {
                        counts[usize::from(shard)][entry.slot as usize] -= entry.count;
                    }
                })
                .unwrap();
            assert!(counts.iter().flatten().all(|count| *count == 0), "seed {seed} {minutes:?}: {counts:?}");
        };
        for _ in 0..20 {
            let start = 59_985 + below(&mut random, 30);
            expect_leaving(&store, start..start + below(&mut random, 12));
        }
        // A new start knows the same, and restores the same.
        drop(store);
        let mut store = Store::open(disk, options()).unwrap();
        let mut total = 0;
        let replayed = store
            .replay_cuts::<StorageError>(|section| {
                if let CutSection::Run { entries, .. } = section {
                    total += entries.iter().map(|entry| entry.count as usize).sum::<usize>();
                }
                Ok(())
            })
            .unwrap();
        prop_assert_eq!(total, all.len());
        prop_assert_eq!(replayed.producers.producers, vec![producer(8)]);
        prop_assert_eq!(replayed.last.unwrap().number, 8);
        expect_leaving(&store, 59_985..60_020);
    }
}
