//! The archive: round trips, damage, power cuts at every call, retention, and segments that wait for it.

use std::sync::Arc;

use highwater_proto::{Batch, Epoch, ProducerId, Sequence, batch_header};
use highwater_ranking::{CoreCut, Minute};

use super::support::{SEGMENT_BYTES, batch, limits, options, refused};
use crate::{
    AppendRoom, ArchiveOutcome, ArchivePart, ArchivePlan, ArchiveRange, ArchiveReader, ArchiveRetention, CorePart,
    Disk, LogDevice, LogNumber, LogPosition, LogWriter, MemoryDisk, MemoryLogDevice, OpenOptions, PreparedCut,
    ProducerTableImage, RecordMeta, StorageError, Store,
};

const PRODUCER: u128 = 6;
pub(super) const ALL_KEPT: ArchiveRetention = ArchiveRetention { age_ms: u64::MAX, bytes: u64::MAX };
pub(super) const LOG: LogNumber = LogNumber(0);

/// A directory, its log, and what was appended.
pub(super) struct Engine {
    pub(super) disk: MemoryDisk,
    pub(super) store: Store<MemoryDisk>,
    pub(super) writer: LogWriter,
    device: MemoryLogDevice,
    next: u64,
    pub(super) epoch: u64,
}

impl Engine {
    fn start(disk: &MemoryDisk, retention: ArchiveRetention) -> Result<Self, StorageError> {
        Self::start_with(disk, OpenOptions { archive: Some(retention), ..options() })
    }

    pub(super) fn start_with(disk: &MemoryDisk, options: OpenOptions) -> Result<Self, StorageError> {
        let mut store = Store::open(disk.clone(), options)?;
        store.replay_cuts::<StorageError>(|_| Ok(()))?;
        store.replay_logs::<StorageError>(|_, _| Ok(()))?;
        store.open_generations(1)?;
        let writer = LogWriter::new(store.log_identity(LOG), limits());
        let device = MemoryLogDevice::new(disk, 3, 5);
        let epoch = store.last_cut().map_or(1, |cut| cut.epoch.0 + 1);
        Ok(Self { disk: disk.clone(), store, writer, device, next: 1, epoch })
    }

    /// Appends a batch of `views` views, of which the first and last are refused; it arrives at 1000 times its number.
    pub(super) fn append(&mut self, views: u32) -> Result<(), StorageError> {
        let payload = batch(PRODUCER, self.next, views);
        loop {
            match self.writer.room(payload.len()) {
                AppendRoom::Ready => break,
                AppendRoom::Busy => self.settle()?,
                AppendRoom::NoSegment => {
                    let segment = self.store.prepare_segment(LOG)?;
                    let handle = self.device.attach(&segment).unwrap();
                    self.writer.add_segment(&segment, handle);
                }
            }
        }
        self.writer.begin(payload.len()).copy_from_slice(&payload);
        let meta = RecordMeta {
            kind: crate::RecordKind::Batch,
            producer: ProducerId(PRODUCER),
            sequence: Sequence(self.next),
            arrival_ms: 1000 * self.next,
            batch_crc: batch_header(&payload).unwrap().crc,
            view_count: views,
        };
        self.writer.commit(&meta, &refused(views));
        self.next += 1;
        Ok(())
    }

    pub(super) fn settle(&mut self) -> Result<(), StorageError> {
        loop {
            while let Some(write) = self.writer.poll_write() {
                self.device.submit(write).unwrap();
            }
            let Some(written) = self.device.complete() else { return Ok(()) };
            written.result.map_err(|source| StorageError::Io {
                operation: "write",
                file: "group".to_owned(),
                source,
            })?;
            self.writer.handle_written(written.write);
            while self.writer.next_durable().is_some() {}
            while let Some(handle) = self.writer.poll_retired() {
                self.device.detach(handle);
            }
        }
    }

    /// Appends so many batches that fill most of a third of a segment, and makes them durable.
    fn fill(&mut self, batches: u32) -> Result<(), StorageError> {
        (0..batches).try_for_each(|_| self.append(8000))?;
        self.settle()
    }

    /// A cut at `time_ms` that covers all that is durable.
    fn cut(&mut self, time_ms: u64) -> Result<(), StorageError> {
        let cut =
            CoreCut { epoch: Epoch(self.epoch), time_ms, minute: Minute(7), arrivals_from_ms: 0, shards: Vec::new() };
        let position = self.writer.durable_end();
        let part = CorePart { log: LOG, position, cut, producers: ProducerTableImage::default() };
        self.store.write_cut(&PreparedCut::new(vec![part]))?;
        self.epoch += 1;
        Ok(())
    }

    /// Copies what waits, one segment after the other, and uses again what can be. Returns how many were copied.
    pub(super) fn archive(&mut self) -> Result<u32, StorageError> {
        let mut copied = 0;
        while let ArchivePlan::Copy(job) = self.store.plan_archive(0)? {
            let done = job.run(&self.disk, || false);
            let is_written = matches!(done.outcome, Ok(ArchiveOutcome::Written { .. }));
            assert!(self.store.archive_done(done)?.is_none(), "nothing is damaged");
            copied += u32::from(is_written);
        }
        self.store.recycle(0)?;
        Ok(copied)
    }
}

/// The numbers of the batches that come back, each of which must be what was appended, and what was read.
fn read(disk: &MemoryDisk, range: &ArchiveRange) -> Result<(Vec<u64>, Vec<ArchivePart>), StorageError> {
    let mut numbers = Vec::new();
    let parts = ArchiveReader::open(Arc::new(disk.clone()))?.visit::<StorageError>(range, |found| {
        let number = found.sequence.0;
        let payload = batch(PRODUCER, number, found.batch.view_count());
        assert_eq!(found.bytes, payload);
        assert_eq!((found.log, found.producer, found.arrival_ms), (LOG, ProducerId(PRODUCER), 1000 * number));
        Batch::verify(found.bytes, found.wire_version, found.producer).unwrap();
        assert_eq!(found.refused().collect::<Vec<_>>(), refused(found.batch.view_count()));
        let all: Vec<_> = Batch::decode(&payload).unwrap().views().map(|view| view.video_id.to_owned()).collect();
        let accepted: Vec<_> = found.accepted().map(|view| view.video_id.to_owned()).collect();
        let expected = if all.len() < 3 { &all[..] } else { &all[1..all.len() - 1] };
        assert_eq!(accepted, expected);
        assert_eq!(accepted.len() as u32, found.accepted_count());
        numbers.push(number);
        Ok(())
    })?;
    Ok((numbers, parts))
}

fn numbers(disk: &MemoryDisk, range: &ArchiveRange) -> Vec<u64> {
    read(disk, range).unwrap().0
}

fn archive_files(disk: &MemoryDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.starts_with("archive/")).collect()
}

/// An engine with four full segments and a begun one, all covered by a cut.
fn filled(retention: ArchiveRetention) -> (MemoryDisk, Engine) {
    filled_up_to(4, retention)
}

fn filled_up_to(segments: u64, retention: ArchiveRetention) -> (MemoryDisk, Engine) {
    let disk = MemoryDisk::new();
    let mut engine = Engine::start(&disk, retention).unwrap();
    while engine.writer.durable_end().position < segments * SEGMENT_BYTES {
        engine.append(2).unwrap();
        engine.fill(1).unwrap();
    }
    engine.cut(1).unwrap();
    (disk, engine)
}

#[test]
fn what_was_accepted_comes_back_from_archive_and_log_once_and_in_order() {
    let (disk, mut engine) = filled(ALL_KEPT);
    let all: Vec<u64> = (1..engine.next).collect();
    assert_eq!(numbers(&disk, &ArchiveRange::All), all, "from the log alone");
    assert_eq!(engine.archive().unwrap(), 4);
    assert_eq!(archive_files(&disk).len(), 4);
    assert!(!disk.paths().contains(&"log-000/g0000000001-s0000000003.seg".to_owned()), "it was used again");
    let (found, parts) = read(&disk, &ArchiveRange::All).unwrap();
    assert_eq!(found, all);
    let end = engine.writer.durable_end();
    let after = LogPosition::start_of(1);
    assert_eq!(parts, [ArchivePart { log: LOG, after, up_to: end, ends_generation: false }]);

    // Behind a restart the rest of the generation goes too, and nothing is copied twice.
    drop(engine);
    let mut engine = Engine::start(&disk, ALL_KEPT).unwrap();
    engine.cut(2).unwrap();
    assert_eq!(engine.archive().unwrap(), 1, "the begun segment");
    assert_eq!(archive_files(&disk).len(), 5);
    let (found, parts) = read(&disk, &ArchiveRange::All).unwrap();
    assert_eq!(found, all);
    assert_eq!(parts, [ArchivePart { log: LOG, after, up_to: end, ends_generation: true }]);
    assert_eq!(engine.store.archive_figures().shed, crate::ArchiveShed::default());
}

/// A reader in another process knows only names: it finds a segment's batches wherever they have gone meanwhile.
#[test]
fn a_reader_follows_what_goes_into_the_archive() {
    let (disk, mut engine) = filled(ALL_KEPT);
    let reader = ArchiveReader::open(Arc::new(disk.clone())).unwrap();
    let mut found = Vec::new();
    let mut is_archived = false;
    let parts = reader
        .visit::<StorageError>(&ArchiveRange::All, |batch| {
            found.push(batch.sequence.0);
            if batch.position.position > SEGMENT_BYTES && !is_archived {
                is_archived = true;
                engine.archive()?;
                for path in disk.paths().iter().filter(|path| path.contains("spare-")) {
                    disk.damage(path, vec![0; SEGMENT_BYTES as usize]);
                }
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(found, (1..engine.next).collect::<Vec<_>>());
    assert_eq!(parts.len(), 1, "{parts:?}");
}

#[test]
fn ranges_of_arrivals_and_of_positions_are_kept_to() {
    let (disk, mut engine) = filled(ALL_KEPT);
    let last = engine.next - 1;
    let mut ends = vec![LogPosition::start_of(1)];
    let reader = ArchiveReader::open(Arc::new(disk.clone())).unwrap();
    reader
        .visit::<StorageError>(&ArchiveRange::All, |batch| {
            ends.push(batch.position);
            Ok(())
        })
        .unwrap();
    for is_archived in [false, true] {
        for (first, end) in [(1, last), (2, 3), (last / 2, last - 1), (last, last)] {
            let arrivals = ArchiveRange::Arrivals(1000 * first..1000 * end + 1);
            assert_eq!(numbers(&disk, &arrivals), (first..=end).collect::<Vec<_>>(), "{is_archived}");
            let (after, up_to) = (ends[first as usize - 1], ends[end as usize]);
            let (found, parts) = read(&disk, &ArchiveRange::Positions { log: LOG, after, up_to }).unwrap();
            assert_eq!(found, (first..=end).collect::<Vec<_>>(), "{is_archived}");
            assert!(parts.len() == 1 && parts[0].after <= after && parts[0].up_to >= up_to, "{parts:?}");
        }
        let foreign = ArchiveRange::Positions { log: LogNumber(1), after: ends[0], up_to: ends[last as usize] };
        assert_eq!(read(&disk, &foreign).unwrap(), (Vec::new(), Vec::new()));
        engine.archive().unwrap();
    }
}

#[test]
fn every_flipped_bit_of_an_archive_file_is_refused() {
    let disk = MemoryDisk::new();
    let mut engine = Engine::start(&disk, ALL_KEPT).unwrap();
    engine.append(3).unwrap();
    engine.append(40).unwrap();
    engine.settle().unwrap();
    drop(engine);
    let mut engine = Engine::start(&disk, ALL_KEPT).unwrap();
    engine.cut(1).unwrap();
    assert_eq!(engine.archive().unwrap(), 1);
    let path = archive_files(&disk).remove(0);
    for at in 0..disk.contents(&path).len() {
        disk.flip_bit(&path, at, at as u32 % 8);
        let error = read(&disk, &ArchiveRange::All).unwrap_err();
        let is_told = matches!(&error, StorageError::Damaged { file, .. } if *file == path);
        assert!(is_told, "byte {at}: {error}");
        // No start needs it.
        Engine::start(&disk.crash(1), ALL_KEPT).unwrap();
        disk.flip_bit(&path, at, at as u32 % 8);
    }
    assert_eq!(numbers(&disk, &ArchiveRange::All), [1, 2]);
}

#[test]
fn a_damaged_segment_is_given_up_and_told_and_the_next_one_copied() {
    let (disk, mut engine) = filled(ALL_KEPT);
    disk.flip_bit("log-000/g0000000001-s0000000001.seg", 5000, 3);
    let mut told = Vec::new();
    while let ArchivePlan::Copy(job) = engine.store.plan_archive(0).unwrap() {
        let done = job.run(&disk, || false);
        told.extend(engine.store.archive_done(done).unwrap());
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].to_string().contains("g0000000001-s0000000001.seg"), "{}", told[0]);
    assert_eq!(archive_files(&disk).len(), 3);
    assert_eq!(engine.store.archive_figures().shed.segments_given_up, 1);
    engine.store.recycle(0).unwrap();
    let (_, parts) = read(&disk, &ArchiveRange::All).unwrap();
    assert_eq!(parts.len(), 2, "the gap is told: {parts:?}");
}

#[test]
fn a_job_that_is_told_to_stop_leaves_nothing_and_comes_again() {
    let (disk, mut engine) = filled(ALL_KEPT);
    let ArchivePlan::Copy(job) = engine.store.plan_archive(0).unwrap() else { panic!("a segment waits") };
    assert_eq!(engine.store.plan_archive(0).unwrap(), ArchivePlan::Nothing, "one at a time");
    let done = job.run(&disk, || true);
    assert_eq!(done.outcome.as_ref().unwrap(), &ArchiveOutcome::Stopped);
    engine.store.archive_done(done).unwrap();
    assert_eq!(archive_files(&disk), [""; 0]);
    assert_eq!(engine.store.plan_archive(0).unwrap(), ArchivePlan::Copy(job));
}

#[test]
fn power_loss_at_each_call_of_the_archive_loses_and_doubles_nothing() {
    let script = |calls: u64| -> (MemoryDisk, bool, u64) {
        let (disk, mut engine) = filled_up_to(2, ALL_KEPT);
        disk.fail_after(calls);
        let ended = engine.archive().and_then(|_| engine.cut(9)).is_ok();
        (disk, ended, engine.next)
    };
    for calls in 0..400 {
        for crash in 0..2 {
            let (disk, ended, next) = script(calls);
            let survived = disk.crash(2 * calls + crash);
            let all: Vec<u64> = (1..next).collect();
            assert_eq!(numbers(&survived, &ArchiveRange::All), all, "call {calls}, before a start");
            let mut engine = Engine::start(&survived, ALL_KEPT).unwrap();
            assert!(archive_files(&survived).iter().all(|path| path.ends_with(".hwa")), "call {calls}");
            engine.cut(10).unwrap();
            engine.archive().unwrap();
            assert_eq!(numbers(&survived, &ArchiveRange::All), all, "call {calls}, after a start");
            assert_eq!(archive_files(&survived).len(), 3, "call {calls}");
            if ended {
                assert!(calls > 15, "the script makes more calls");
                return;
            }
        }
    }
    panic!("the script makes fewer calls");
}

#[test]
fn a_full_disk_pauses_the_archive_and_loses_nothing() {
    for calls in 0..100 {
        let (disk, mut engine) = filled_up_to(2, ALL_KEPT);
        disk.fill_after(calls);
        let outcome = engine.archive();
        disk.make_room();
        if let Err(error) = &outcome {
            assert!(error.is_no_space(), "call {calls}: {error}");
            assert!(archive_files(&disk).iter().all(|path| path.ends_with(".hwa")), "call {calls}");
        }
        engine.archive().unwrap();
        assert_eq!(numbers(&disk, &ArchiveRange::All), (1..engine.next).collect::<Vec<_>>(), "call {calls}");
        if outcome.is_ok() {
            assert!(calls > 5);
            return;
        }
    }
    panic!("the archive makes fewer calls");
}

#[test]
fn too_little_room_pauses_the_archive_and_where_the_log_needs_it_nothing_waits() {
    let (disk, mut engine) = filled(ALL_KEPT);
    let used: u64 = disk.paths().iter().map(|path| disk.contents(path).len() as u64).sum();
    let reserve = options().cut_reserve_bytes;
    disk.set_capacity(used + reserve + 2 * SEGMENT_BYTES - 1);
    let plan = engine.store.plan_archive(0).unwrap();
    assert!(matches!(plan, ArchivePlan::NoRoom { .. }), "{plan:?}");
    assert_eq!(engine.store.recycle(0).unwrap(), 0, "they wait");
    disk.set_capacity(used + reserve + SEGMENT_BYTES - 1);
    assert_eq!(engine.store.recycle(0).unwrap(), 4, "the log would stop");
    assert_eq!(engine.store.archive_figures().shed.segments_given_up, 4);
}

#[test]
fn segments_wait_up_to_the_limit_and_then_the_oldest_is_given_up() {
    let disk = MemoryDisk::new();
    let mut engine = Engine::start(&disk, ALL_KEPT).unwrap();
    let segment_there = |number: u64| disk.paths().contains(&format!("log-000/g0000000001-s{number:010}.seg"));
    while engine.writer.durable_end().position < 16 * SEGMENT_BYTES {
        engine.fill(1).unwrap();
    }
    engine.cut(1).unwrap();
    assert_eq!(engine.store.archive_waiting(0).unwrap(), 16);
    assert_eq!(engine.store.archive_waiting(SEGMENT_BYTES * 4).unwrap(), 12, "four are kept anyway");
    assert_eq!(engine.store.recycle(0).unwrap(), 0);
    let ArchivePlan::Copy(job) = engine.store.plan_archive(0).unwrap() else { panic!("a segment waits") };
    while engine.writer.durable_end().position < 19 * SEGMENT_BYTES {
        engine.fill(1).unwrap();
    }
    engine.cut(2).unwrap();
    assert_eq!(engine.store.recycle(0).unwrap(), 1, "three too many: one is being copied, and needs the one behind it");
    assert!(segment_there(0) && segment_there(1) && !segment_there(2) && segment_there(3));
    assert_eq!(engine.store.archive_figures().shed.segments_given_up, 1);
    let done = job.run(&disk, || false);
    assert!(engine.store.archive_done(done).unwrap().is_none());
    assert_eq!(engine.store.recycle(0).unwrap(), 2, "the one that was copied, and one that is too many");
    assert_eq!(engine.store.archive_figures().shed.segments_given_up, 2);
    assert!(!segment_there(0) && !segment_there(1) && segment_there(3));
}

#[test]
fn the_oldest_files_go_by_age_and_by_bytes() {
    let (disk, mut engine) = filled(ArchiveRetention { age_ms: 10_000, bytes: u64::MAX });
    assert_eq!(engine.archive().unwrap(), 4);
    assert_eq!(engine.store.trim_archive().unwrap(), 0, "all of it is new");
    // The last batch of the first file decides how old it is.
    let first_of_second = numbers(&disk, &ArchiveRange::All)
        .into_iter()
        .find(|number| {
            let arrivals = ArchiveRange::Arrivals(1000 * number..1000 * number + 1);
            let parts = read(&disk, &arrivals).unwrap();
            let mut position = 0;
            ArchiveReader::open(Arc::new(disk.clone()))
                .unwrap()
                .visit::<StorageError>(&arrivals, |batch| {
                    position = batch.position.position;
                    Ok(())
                })
                .unwrap();
            !parts.0.is_empty() && position > SEGMENT_BYTES
        })
        .unwrap();
    let newest_of_first_ms = 1000 * (first_of_second - 1);
    engine.append(2).unwrap();
    engine.settle().unwrap();
    engine.cut(newest_of_first_ms + 10_000).unwrap();
    assert_eq!(engine.store.trim_archive().unwrap(), 0, "exactly as old as allowed");
    engine.append(2).unwrap();
    engine.settle().unwrap();
    engine.cut(newest_of_first_ms + 10_001).unwrap();
    assert_eq!(engine.store.trim_archive().unwrap(), 1);
    assert_eq!(engine.store.plan_archive(0).unwrap(), ArchivePlan::Nothing, "what is too old is not copied again");
    let kept: Vec<u64> = (first_of_second..engine.next).collect();
    assert_eq!(numbers(&disk, &ArchiveRange::All), kept);

    // By bytes, after a restart: the newest file alone fits.
    let files = archive_files(&disk);
    let newest_bytes = disk.contents(&files[2]).len() as u64;
    drop(engine);
    let mut engine = Engine::start(&disk, ArchiveRetention { age_ms: u64::MAX, bytes: newest_bytes + 1 }).unwrap();
    assert_eq!(engine.store.archive_figures().files, 3);
    engine.cut(20_000_000).unwrap();
    assert_eq!(engine.store.trim_archive().unwrap(), 2);
    assert_eq!(archive_files(&disk), files[2..]);
    let figures = engine.store.archive_figures();
    assert_eq!((figures.files, figures.bytes, figures.shed.files_removed), (1, newest_bytes, 2));
}

#[test]
fn a_foreign_or_newer_file_is_refused_by_name() {
    let (disk, mut engine) = filled(ALL_KEPT);
    engine.archive().unwrap();
    drop(engine);
    let path = archive_files(&disk).remove(0);
    let whole = disk.contents(&path);
    let with = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        disk.damage(&path, bytes);
        Engine::start(&disk, ALL_KEPT).err().unwrap()
    };
    let newer = with(8, 3);
    assert!(matches!(&newer, StorageError::NewerVersion { file, found: 3, supported: 2 } if *file == path), "{newer}");
    let foreign = with(16, 0xff);
    assert!(matches!(&foreign, StorageError::ForeignFile { file, .. } if *file == path), "{foreign}");
    disk.damage(&path, whole);
    Engine::start(&disk, ALL_KEPT).unwrap();
}

#[test]
fn without_an_archive_nothing_waits() {
    let disk = MemoryDisk::new();
    let mut store = Store::open(disk.clone(), options()).unwrap();
    store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
    store.open_generations(1).unwrap();
    assert_eq!(store.plan_archive(0).unwrap(), ArchivePlan::Nothing);
    assert_eq!(store.trim_archive().unwrap(), 0);
    assert!(disk.exists("archive").unwrap());
}
