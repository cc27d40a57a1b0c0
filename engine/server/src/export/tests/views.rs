//! Exports of views from a log in memory, its archive and what retention leaves of it.
//!
//! Invariant: what is expected is made from the batches as they were appended.

use super::super::{Format, Table};
use super::{arguments, exported, read_back::rows, refused};
use crate::args::ExportArguments;
use crate::units::time_text;
use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, Epoch, FRAME_HEADER_BYTES, InstanceId, ProducerId, Pushed,
    RefusedRange, Sequence, View, ViewRefusal, batch_header,
};
use highwater_ranking::{CoreCut, Minute};
use highwater_storage::{
    AppendRoom, ArchivePlan, ArchiveRetention, CorePart, Directory, DirectoryId, Disk, LogDevice, LogLimits, LogNumber,
    LogWriter, MemoryDisk, MemoryLogDevice, OpenOptions, PreparedCut, ProducerTableImage, RecordKind, RecordMeta,
    StorageError, Store,
};
use std::sync::Arc;

const LOG: LogNumber = LogNumber(0);
const PRODUCER: ProducerId = ProducerId(6);
const SEGMENT_BYTES: u64 = 1200 << 10;
/// Views of a batch, of which the first and the last are refused.
const VIEWS: u64 = 8000;

/// Arrival of the batch of a number; two numbers arrive together.
const fn arrival_ms(number: u64) -> u64 {
    1_721_000_000_000 + number / 2 * 10
}

/// One start of an engine with one log.
struct Engine {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    writer: LogWriter,
    device: MemoryLogDevice,
    next: u64,
}

impl Engine {
    fn start(disk: &MemoryDisk, next: u64, age_ms: u64) -> Self {
        let directory = Directory {
            id: DirectoryId(7),
            instance: InstanceId(5),
            hash_seed: 77,
            shards: 1,
            lateness_max_ms: 600_000,
            segment_bytes: SEGMENT_BYTES,
        };
        let archive = Some(ArchiveRetention { age_ms, bytes: u64::MAX });
        let options = OpenOptions { archive, cut_reserve_bytes: 100_000, ..OpenOptions::new(directory) };
        let mut store = Store::open(disk.clone(), options).unwrap();
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        let buffer_bytes = SEGMENT_BYTES as usize;
        let limits =
            LogLimits { buffers: 4, buffer_bytes, depth: 3, segment_bytes: SEGMENT_BYTES, ..LogLimits::default() };
        let writer = LogWriter::new(store.log_identity(LOG), limits);
        Self { disk: disk.clone(), store, writer, device: MemoryLogDevice::new(disk, 3, 5), next }
    }

    /// Appends a batch, makes it durable, and returns whether it began a segment.
    fn append(&mut self) -> bool {
        let payload = payload(self.next);
        let mut begins = false;
        loop {
            match self.writer.room(payload.len()) {
                AppendRoom::Ready => break,
                AppendRoom::Busy => self.settle(),
                AppendRoom::NoSegment => {
                    begins = true;
                    let segment = self.store.prepare_segment(LOG).unwrap();
                    let handle = self.device.attach(&segment).unwrap();
                    self.writer.add_segment(&segment, handle);
                }
            }
        }
        self.writer.begin(payload.len()).copy_from_slice(&payload);
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: PRODUCER,
            sequence: Sequence(self.next),
            arrival_ms: arrival_ms(self.next),
            batch_crc: batch_header(&payload).unwrap().crc,
            view_count: VIEWS as u32,
        };
        let range = |first, reason| RefusedRange { first, count: 1, reason };
        let last = VIEWS as u32 - 1;
        let ranges = [range(0, ViewRefusal::FutureBeyondSkew), range(last, ViewRefusal::TableFull)];
        self.writer.commit(&meta, &ranges);
        self.next += 1;
        self.settle();
        begins
    }

    fn append_some(&mut self, batches: u64) {
        for _ in 0..batches {
            self.append();
        }
    }

    fn settle(&mut self) {
        loop {
            while let Some(write) = self.writer.poll_write() {
                self.device.submit(write).unwrap();
            }
            let Some(written) = self.device.complete() else { return };
            written.result.unwrap();
            self.writer.handle_written(written.write);
            while self.writer.next_durable().is_some() {}
            while let Some(handle) = self.writer.poll_retired() {
                self.device.detach(handle);
            }
        }
    }

    /// A cut of all that is durable, as of the arrival of the newest batch.
    fn cut(&mut self) {
        let time_ms = arrival_ms(self.next - 1);
        let (epoch, minute) = (Epoch(self.next), Minute::of_ms(time_ms));
        let cut = CoreCut { epoch, time_ms, minute, arrivals_from_ms: time_ms, shards: Vec::new() };
        let position = self.writer.durable_end();
        let part = CorePart { log: LOG, position, cut, producers: ProducerTableImage::default() };
        self.store.write_cut(&PreparedCut::new(vec![part])).unwrap();
    }

    /// Copies every segment that is done with, and uses it again.
    fn archive(&mut self) {
        while let ArchivePlan::Copy(job) = self.store.plan_archive(0).unwrap() {
            assert!(self.store.archive_done(job.run(&self.disk, || false)).unwrap().is_none());
        }
        self.store.recycle(0).unwrap();
    }
}

/// The texts of a view: every sixth kind of each field.
fn view(number: u64, index: u64) -> [String; 4] {
    let kinds = ["", "ü,\"x\"", "line\nbreak", " space ", "日本", "plain"];
    let kind = |shift: u64| kinds[((number + index + shift) % 6) as usize].to_owned();
    [format!("video-{}", (number * index) % 1000), kind(0), kind(1), kind(2)]
}

fn payload(number: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for index in 0..VIEWS {
        let [video_id, user_id, region, device] = &view(number, index);
        let view = View { video_id, timestamp_ms: index, user_id, region, device };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
    builder.encode(PRODUCER, Sequence(number))[FRAME_HEADER_BYTES..].to_vec()
}

/// The rows of batches.
fn wanted(numbers: impl Iterator<Item = u64>) -> Vec<Vec<String>> {
    let row = |number, index| {
        let [video_id, user_id, region, device] = view(number, index);
        vec![video_id, time_text(index), user_id, region, device, time_text(arrival_ms(number))]
    };
    numbers.flat_map(|number| (1..VIEWS - 1).map(move |index| row(number, index))).collect()
}

fn assert_exported(disk: &MemoryDisk, asked: &ExportArguments, numbers: std::ops::Range<u64>) {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let summary = exported(&disk, asked).unwrap_or_else(|error| panic!("{numbers:?}: {error:#}"));
    let count = numbers.end - numbers.start;
    assert_eq!((summary.rows, summary.views), (count * (VIEWS - 2), Some(count * (VIEWS - 2))), "{numbers:?}");
    let newest = arrival_ms(numbers.end - 1) + 1;
    assert_eq!(summary.to, Some(time_text(asked.to.unwrap_or(newest))), "{numbers:?}");
    assert!(rows(&asked.out, asked.format().unwrap()) == wanted(numbers.clone()), "{numbers:?}");
}

#[test]
fn accepted_views_come_back_up_to_the_newest_cut_from_wherever_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let mut engine = Engine::start(&disk, 1, u64::MAX);
    engine.append_some(20);
    engine.cut();
    let covered = engine.next;
    engine.append_some(3);
    for format in super::FORMATS {
        let asked = arguments(Table::Views, format, folder.path());
        assert_exported(&disk, &asked, 1..covered);
        let some = ExportArguments { from: Some(arrival_ms(4)), to: Some(arrival_ms(10)), ..asked };
        assert_exported(&disk, &some, 4..10);
    }
    engine.archive();
    assert!(disk.paths().iter().any(|path| path.starts_with("archive/")));
    assert_exported(&disk, &arguments(Table::Views, Format::Csv, folder.path()), 1..covered);
    // The rest is covered by the cut of the next start, whose own generation follows without a gap.
    let next = engine.next;
    drop(engine);
    let mut engine = Engine::start(&disk, next, u64::MAX);
    engine.append_some(1);
    engine.cut();
    engine.archive();
    assert_exported(&disk, &arguments(Table::Views, Format::Parquet, folder.path()), 1..engine.next);
}

#[test]
fn a_range_of_which_retention_has_taken_something_is_refused_with_where_to_begin() {
    let folder = tempfile::tempdir().unwrap();
    let disk = MemoryDisk::new();
    let mut engine = Engine::start(&disk, 1, 20);
    let mut begun = Vec::new();
    while begun.len() < 5 {
        let number = engine.next;
        if engine.append() {
            begun.push(number);
        }
    }
    engine.cut();
    engine.archive();
    let asked = arguments(Table::Views, Format::Csv, folder.path());
    assert_exported(&disk, &asked, 1..engine.next);
    std::fs::remove_file(&asked.out).unwrap();
    assert!(engine.store.trim_archive().unwrap() > 0);
    let kept = disk.paths().iter().filter(|path| path.starts_with("archive/")).count();
    // The newest segment is still in the log.
    let first = begun[begun.len() - 1 - kept];
    assert!(first > 1 && kept > 0, "{kept} files are kept");
    // The batch before it may have arrived in the same millisecond.
    let whole_from_ms = arrival_ms(first) + 1;
    let disk_read: Arc<dyn Disk> = Arc::new(disk.clone());
    for from in [0, arrival_ms(first)] {
        let told = refused(&disk_read, &ExportArguments { from: Some(from), ..asked.clone() });
        assert!(told.contains("too early") && told.contains(&time_text(whole_from_ms)), "{told}");
    }
    let told = refused(&disk_read, &ExportArguments { to: Some(whole_from_ms), ..asked.clone() });
    assert!(told.contains("--to=") && told.contains(&time_text(whole_from_ms)), "{told}");
    let numbers = (first..engine.next).find(|number| arrival_ms(*number) >= whole_from_ms).unwrap()..engine.next;
    assert_exported(&disk, &asked, numbers.clone());
    assert_exported(&disk, &ExportArguments { from: Some(whole_from_ms), ..asked }, numbers);
}
