//! The whole directory under power loss at every call, and under a full disk.

use std::io;

use highwater_proto::{Epoch, ProducerId, Sequence, batch_header};
use highwater_ranking::{CoreCut, Minute, ShardCut, SlotCount};
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;

use super::support::{SEGMENT_BYTES, batch, below, limits, options, random};
use crate::disk::Access;
use crate::{
    AppendRoom, CorePart, CutSection, Disk, LogDevice, LogNumber, LogWriter, MemoryDisk, MemoryLogDevice, OwnerId,
    PreparedCut, ProducerImage, ProducerTableImage, RecordKind, RecordMeta, StorageError, Store,
};

const PRODUCER: u128 = 4;

/// What users were promised, across lives.
#[derive(Debug, Default)]
struct Promised {
    /// Largest sequence acknowledged.
    acknowledged: u64,
    /// Largest sequence ever appended.
    appended: u64,
    epoch: u64,
    minute: u32,
    generation: u32,
}

/// One run of the engine, reduced to its storage; each batch counts one view of slot 0.
struct Life {
    store: Store<MemoryDisk>,
    writer: LogWriter,
    device: MemoryLogDevice,
    /// Largest sequence that is durable.
    last: u64,
    /// Sequence to be appended next.
    next: u64,
    /// Largest sequence that a cut file holds.
    cut: u64,
    epoch: u64,
    has_id: bool,
}

impl Life {
    /// Recovers and checks that every batch up to the last is there once, and nothing promised is lost.
    fn start(disk: &MemoryDisk, promised: &mut Promised, seed: u64) -> Result<Self, StorageError> {
        let mut store = Store::open(disk.clone(), options())?;
        assert!(store.state().epoch_lease_end.0 >= promised.epoch, "{promised:?}");
        assert!(store.state().time_minute.0 >= promised.minute, "{promised:?}");
        let mut counted = 0;
        let mut has_id = false;
        let cuts = store.replay_cuts::<StorageError>(|section| {
            match section {
                CutSection::Run { entries, .. } => counted += u64::from(entries[0].count),
                CutSection::Ids { .. } => has_id = true,
                _ => unreachable!(),
            }
            Ok(())
        })?;
        let mut last = cuts.producers.producers.first().map_or(0, |producer| producer.last.0);
        assert_eq!(counted, last, "the runs hold what the producer table says");
        let cut = last;
        store.replay_logs::<StorageError>(|_, record| {
            if record.header.kind == RecordKind::Batch {
                last += 1;
                assert_eq!(record.header.sequence.0, last, "each batch comes once and in order");
                assert_eq!(record.batch, batch(PRODUCER, last, views_of(last)));
            }
            Ok(())
        })?;
        assert!(last >= promised.acknowledged, "{last} came back, {promised:?}");
        assert!(last <= promised.appended, "{last} came back, {promised:?}");
        // What was found is told to clients, so it is promised from here on.
        let epoch = store.state().epoch_lease_end.0 + 1;
        let generation = store.open_generations(1)?;
        promised.acknowledged = last;
        promised.appended = promised.appended.max(last);
        assert!(generation > promised.generation);
        promised.generation = generation;
        let writer = LogWriter::new(store.log_identity(LogNumber(0)), limits());
        let device = MemoryLogDevice::new(disk, 3, seed);
        Ok(Self { store, writer, device, last, next: last + 1, cut, epoch, has_id })
    }

    fn append(&mut self, promised: &mut Promised, sequence: u64) -> Result<bool, StorageError> {
        let payload = batch(PRODUCER, sequence, views_of(sequence));
        loop {
            match self.writer.room(payload.len()) {
                AppendRoom::Ready => break,
                AppendRoom::Busy => return Ok(false),
                AppendRoom::NoSegment => {
                    let segment = self.store.prepare_segment(LogNumber(0))?;
                    let handle = self.device.attach(&segment).unwrap();
                    self.writer.add_segment(&segment, handle);
                }
            }
        }
        self.writer.begin(payload.len()).copy_from_slice(&payload);
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: ProducerId(PRODUCER),
            sequence: Sequence(sequence),
            arrival_ms: 1,
            batch_crc: batch_header(&payload).unwrap().crc,
            view_count: views_of(sequence),
        };
        self.writer.commit(&meta, &[]);
        promised.appended = promised.appended.max(sequence);
        Ok(true)
    }

    fn turn_device(&mut self, promised: &mut Promised) -> Result<(), StorageError> {
        while let Some(write) = self.writer.poll_write() {
            self.device.submit(write).unwrap();
        }
        let Some(written) = self.device.complete() else { return Ok(()) };
        written.result.map_err(failed)?;
        self.writer.handle_written(written.write);
        while let Some(record) = self.writer.next_durable() {
            if record.header.kind == RecordKind::Batch {
                self.last = record.header.sequence.0;
                promised.acknowledged = self.last;
            }
        }
        while let Some(handle) = self.writer.poll_retired() {
            self.device.detach(handle);
        }
        Ok(())
    }

    fn write_cut(&mut self, promised: &mut Promised) -> Result<(), StorageError> {
        if self.epoch > self.store.state().epoch_lease_end.0 {
            self.store.lease_epochs(3)?;
            promised.epoch = self.store.state().epoch_lease_end.0;
        }
        let minute = Minute(50_000 + self.epoch as u32);
        self.store.record_minute(minute)?;
        promised.minute = minute.0;
        let new = self.last - self.cut;
        let current = if new == 0 { Vec::new() } else { vec![SlotCount { slot: 0, count: new as u32 }] };
        let ids = if new == 0 || self.has_id { Vec::new() } else { vec![1] };
        let has_id = self.has_id || !ids.is_empty();
        let id_bytes = vec![b'v'; ids.len()];
        let first_slot = u32::from(self.has_id);
        let shard = ShardCut { shard: 0, minute, first_slot, id_lens: ids, id_bytes, current, late: Vec::new() };
        let cut =
            CoreCut { epoch: Epoch(self.epoch), time_ms: self.epoch, minute, arrivals_from_ms: 0, shards: vec![shard] };
        let last = Sequence(self.last);
        let producer =
            ProducerImage { id: ProducerId(PRODUCER), owner: None, last, last_seen_ms: 1, entries: Vec::new() };
        let producers = ProducerTableImage { producers: vec![producer] };
        let position = self.writer.durable_end();
        self.store.write_cut(&PreparedCut::new(vec![CorePart { log: LogNumber(0), position, cut, producers }]))?;
        self.has_id = has_id;
        self.cut = self.last;
        self.epoch += 1;
        Ok(())
    }

    /// Works for a while; ends early when the power fails.
    fn work(&mut self, promised: &mut Promised, random: &mut ChaCha8Rng) -> Result<(), StorageError> {
        (0..30).try_for_each(|_| self.step(promised, below(random, 20)))
    }

    fn step(&mut self, promised: &mut Promised, dice: u32) -> Result<(), StorageError> {
        match dice % 10 {
            0..=4 => {
                if self.append(promised, self.next)? {
                    self.next += 1;
                }
            }
            5..=7 => self.turn_device(promised)?,
            8 => self.write_cut(promised)?,
            _ => {
                self.store.recycle(u64::from(dice / 10) * SEGMENT_BYTES)?;
            }
        }
        Ok(())
    }

    /// Works for a while; when the disk is full, room is made and the same is tried again. Says whether it was full.
    fn work_on(&mut self, disk: &MemoryDisk, promised: &mut Promised, random: &mut ChaCha8Rng) -> bool {
        let mut was_full = false;
        for _ in 0..30 {
            let dice = below(random, 20);
            if let Err(error) = self.step(promised, dice) {
                assert!(error.is_no_space(), "{error}");
                was_full = true;
                disk.make_room();
                self.step(promised, dice).unwrap();
            }
        }
        was_full
    }
}

/// Small and large batches, so that segments fill.
fn views_of(sequence: u64) -> u32 {
    if sequence.is_multiple_of(3) { 8000 } else { 1 + (sequence % 50) as u32 }
}

fn failed(source: io::Error) -> StorageError {
    StorageError::Io { operation: "write", file: "group".to_owned(), source }
}

fn lives(seed: u64) {
    let mut random = random(seed);
    let mut disk = MemoryDisk::new();
    let mut promised = Promised::default();
    for life in 0..8 {
        if below(&mut random, 5) > 0 {
            disk.fail_after(u64::from(below(&mut random, 90)));
        }
        let lived =
            Life::start(&disk, &mut promised, seed ^ life).and_then(|mut life| life.work(&mut promised, &mut random));
        if let Err(error) = lived {
            assert!(error.to_string().contains("the power has failed"), "seed {seed} life {life}: {error}");
        }
        if below(&mut random, 2) == 0 {
            disk.restart();
        } else {
            disk = disk.crash(seed.wrapping_mul(31) ^ life);
        }
    }
    disk.restart();
    Life::start(&disk, &mut promised, 0).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn power_loss_at_any_call_loses_and_doubles_nothing(seed in any::<u64>()) {
        lives(seed);
    }
}

/// Runs a script whose `calls`-th changing call fails; says whether it came to its end.
fn script(disk: &MemoryDisk, promised: &mut Promised, calls: u64) -> bool {
    disk.fail_after(calls);
    let lived = Life::start(disk, promised, 1).and_then(|mut life| {
        life.work(promised, &mut random(2))?;
        life.work(promised, &mut random(3))
    });
    lived.is_ok()
}

#[test]
fn power_loss_at_each_call_of_one_script() {
    for calls in 0..400 {
        for crash in 0..3 {
            let disk = MemoryDisk::new();
            let mut promised = Promised::default();
            let ended = script(&disk, &mut promised, calls);
            let survived = disk.crash(calls * 3 + crash);
            Life::start(&survived, &mut promised, 0).unwrap_or_else(|error| panic!("call {calls}: {error}"));
            if ended {
                assert!(calls > 50, "the script makes more calls");
                return;
            }
        }
    }
    panic!("the script makes fewer calls");
}

/// Going on after each call that finds the disk full, and a start that finds it full: refused, and later all is there.
#[test]
fn a_disk_that_is_full_at_each_call_of_one_script_costs_nothing() {
    for calls in 0..400 {
        let disk = MemoryDisk::new();
        let mut promised = Promised::default();
        disk.fill_after(calls);
        let mut life = match Life::start(&disk, &mut promised, 1) {
            Ok(life) => life,
            Err(error) => {
                assert!(error.is_no_space(), "call {calls}: {error}");
                disk.make_room();
                Life::start(&disk, &mut promised, 1).unwrap_or_else(|error| panic!("call {calls}: {error}"))
            }
        };
        let was_full = life.work_on(&disk, &mut promised, &mut random(2));
        let was_full = life.work_on(&disk, &mut promised, &mut random(3)) || was_full;
        drop(life);
        let survived = disk.crash(calls);
        survived.fill_after(calls % 12);
        if let Err(error) = Life::start(&survived, &mut promised, 0) {
            assert!(error.is_no_space(), "call {calls}: {error}");
        }
        survived.make_room();
        Life::start(&survived, &mut promised, 0).unwrap_or_else(|error| panic!("call {calls}: {error}"));
        if calls > 50 && !was_full {
            return;
        }
    }
    panic!("the script makes fewer calls");
}

/// A process was killed between giving a cut file its name and syncing the directory. The next start believed the name
/// and built upon it; then the power failed and took the name away, and with it acknowledged views. So a start makes
/// durable what it finds, names and records, before it believes it.
#[test]
fn a_kill_at_each_call_followed_by_power_loss() {
    for calls in 0..400 {
        for crash in 0..3 {
            let disk = MemoryDisk::new();
            let mut promised = Promised::default();
            let ended = script(&disk, &mut promised, calls);
            disk.restart();
            let mut life = Life::start(&disk, &mut promised, 2).unwrap_or_else(|error| panic!("call {calls}: {error}"));
            life.store.record_minute(Minute(60_000)).unwrap();
            let survived = disk.crash(calls * 3 + crash);
            Life::start(&survived, &mut promised, 0).unwrap_or_else(|error| panic!("call {calls}: {error}"));
            if ended {
                return;
            }
        }
    }
    panic!("the script makes fewer calls");
}

/// A process was killed while its last groups were on their way, and the start after it could not sync them. The next
/// one read them all the same, out of the cache; its sync succeeded, with nothing left to write; the end of the log was
/// recorded behind them. Then the power failed, they were gone, and every later start was refused. So a start writes
/// again what it read and nothing states to be durable.
#[test]
fn a_sync_that_fails_at_a_start_is_not_made_up_for_by_the_next_one() {
    let mut failed = 0;
    for calls in (0..120).step_by(6) {
        for syncs in 5..13 {
            let disk = MemoryDisk::new();
            let mut promised = Promised::default();
            script(&disk, &mut promised, calls);
            disk.restart();
            disk.fail_sync_after(syncs);
            if let Err(error) = Life::start(&disk, &mut promised, 2) {
                assert!(error.to_string().contains("os error 5"), "call {calls}, sync {syncs}: {error}");
                failed += 1;
            }
            disk.restart();
            Life::start(&disk, &mut promised, 3).unwrap_or_else(|error| panic!("call {calls}: {error}"));
            let survived = disk.crash(calls * 16 + syncs);
            Life::start(&survived, &mut promised, 0)
                .unwrap_or_else(|error| panic!("call {calls}, sync {syncs}: {error}"));
        }
    }
    assert!(failed > 40, "only {failed} starts met a failed sync");
}

/// A disk acknowledged the new name of the state file and lost it. The start believed the state of before, did not know
/// the newest generation, read the one before once more, and gave up all that had been acknowledged since. So a state
/// file that is older than the rest is refused.
#[test]
fn a_state_file_of_before_is_refused() {
    let disk = MemoryDisk::new();
    let mut promised = Promised::default();
    for _ in 0..2 {
        let mut life = Life::start(&disk, &mut promised, 1).unwrap();
        let next = life.next;
        assert!(life.append(&mut promised, next).unwrap());
        while life.last < next {
            life.turn_device(&mut promised).unwrap();
        }
    }
    let (with_segment, with_cut) = (disk.copy(), disk.copy());
    assert!(with_segment.go_back("state.hw"));
    let error = Life::start(&with_segment, &mut promised, 1).err().expect("it is refused").to_string();
    assert!(error.contains("state.hw") && error.contains("log-000/g0000000002-s0000000000.seg"), "{error}");

    let mut life = Life::start(&with_cut, &mut promised, 1).unwrap();
    let before = with_cut.contents("state.hw");
    life.write_cut(&mut promised).unwrap();
    drop(life);
    with_cut.damage("state.hw", disk.contents("state.hw"));
    assert_ne!(before, disk.contents("state.hw"));
    let error = Life::start(&with_cut, &mut promised, 1).err().expect("it is refused").to_string();
    assert!(
        error.contains("state.hw") && error.contains("cuts/cut-0000000001.cut covers records of generation 3"),
        "{error}"
    );
}

#[test]
fn two_starts_that_end_at_any_call_leave_a_directory_to_start_on() {
    let start = |disk: &MemoryDisk, calls| {
        disk.fail_after(calls);
        let started = Store::open(disk.clone(), options());
        disk.restart();
        started.map(drop)
    };
    for (first, second) in (0..12).flat_map(|first| (0..24).map(move |second| (first, second))) {
        for seed in 0..4 {
            let disk = MemoryDisk::new();
            let ends = [start(&disk, first), start(&disk, second)];
            let opened = Store::open(disk.crash(seed), options());
            assert!(opened.is_ok(), "calls {first} and {second}, seed {seed}: {ends:?}, then {:?}", opened.err());
        }
    }
}

#[test]
fn a_full_disk_is_found_when_preparing_and_covered_segments_are_used_again() {
    let disk = MemoryDisk::new();
    let mut promised = Promised::default();
    let mut life = Life::start(&disk, &mut promised, 0).unwrap();
    for sequence in 1..=30 {
        while !life.append(&mut promised, sequence).unwrap() {
            life.turn_device(&mut promised).unwrap();
        }
    }
    while life.last < 30 {
        life.turn_device(&mut promised).unwrap();
    }
    disk.set_capacity(disk.paths().iter().map(|path| disk.contents(path).len() as u64).sum::<u64>() + SEGMENT_BYTES);
    let error = life.store.prepare_segment(LogNumber(0)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains("reserve of 100000"));
    assert_eq!(life.store.recycle(0).unwrap(), 0, "nothing is covered yet");
    life.write_cut(&mut promised).unwrap();
    assert!(life.store.recycle(0).unwrap() > 0);
    life.store.prepare_segment(LogNumber(0)).unwrap();
    drop(life);
    Life::start(&disk, &mut promised, 0).unwrap();
}

#[test]
fn fewer_cores_still_read_the_logs_of_more() {
    let disk = MemoryDisk::new();
    let mut store = Store::open(disk.clone(), options()).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    store.open_generations(2).unwrap();
    let mut writer = LogWriter::new(store.log_identity(LogNumber(1)), limits());
    let mut device = MemoryLogDevice::new(&disk, 3, 0);
    let segment = store.prepare_segment(LogNumber(1)).unwrap();
    writer.add_segment(&segment, device.attach(&segment).unwrap());
    writer.append_producer_new(ProducerId(8), Some(OwnerId(3)), 5);
    device.submit(writer.poll_write().unwrap()).unwrap();
    writer.handle_written(device.complete().unwrap().write);
    drop(store);
    for _ in 0..2 {
        let mut store = Store::open(disk.clone(), options()).unwrap();
        let mut seen = Vec::new();
        store
            .replay_logs::<StorageError>(|log, record| {
                seen.push((log, record.header.producer, record.owner()));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, [(LogNumber(1), ProducerId(8), Some(OwnerId(3)))]);
        store.open_generations(1).unwrap();
    }
    let mut store = Store::open(disk.clone(), options()).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    let generation = store.open_generations(1).unwrap();
    let cut = CoreCut { epoch: Epoch(1), time_ms: 1, minute: Minute(1), arrivals_from_ms: 0, shards: Vec::new() };
    let position = crate::LogPosition::start_of(generation);
    let producers = ProducerTableImage::default();
    store.write_cut(&PreparedCut::new(vec![CorePart { log: LogNumber(0), position, cut, producers }])).unwrap();
    drop(disk.open("log-001/spare-0000000009.seg", Access::CreateNew).unwrap());
    assert!(store.recycle(0).unwrap() > 0);
    assert!(store.state().closed.is_empty());
    assert!(disk.list("log-001").unwrap().is_empty());
    let mut store = Store::open(disk, options()).unwrap();
    store.replay_logs::<StorageError>(|_, _| panic!("everything is covered")).unwrap();
}
