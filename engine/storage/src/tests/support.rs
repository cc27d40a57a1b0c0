//! What the tests share: batches, a log with its device, and a way to read a log back.

use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, FRAME_HEADER_BYTES, InstanceId, ProducerId, Pushed, RefusedRange,
    Sequence, View, ViewRefusal, batch_header,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    AppendRoom, Directory, DirectoryId, Disk, GenerationScan, LogDevice, LogIdentity, LogLimits, LogNumber,
    LogPosition, LogWriter, MemoryDisk, MemoryLogDevice, OpenOptions, PreparedSegment, RecordKind, RecordMeta,
    SegmentNumber, StorageError, scan_generation, segment_path,
};

pub(super) const SEGMENT_BYTES: u64 = 1200 << 10;
pub(super) const DIRECTORY: DirectoryId = DirectoryId(0x1234_5678_9abc_def0_0fed_cba9_8765_4321);

pub(super) fn limits() -> LogLimits {
    LogLimits {
        buffers: 4,
        buffer_bytes: SEGMENT_BYTES as usize,
        depth: 3,
        segment_bytes: SEGMENT_BYTES,
        ..LogLimits::default()
    }
}

pub(super) fn options() -> OpenOptions {
    let directory = Directory {
        id: DIRECTORY,
        instance: InstanceId(5),
        hash_seed: 77,
        shards: 4,
        lateness_max_ms: 600_000,
        segment_bytes: SEGMENT_BYTES,
    };
    OpenOptions { cut_reserve_bytes: 100_000, ..OpenOptions::new(directory) }
}

pub(super) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

pub(super) fn identity(generation: u32) -> LogIdentity {
    LogIdentity { directory: DIRECTORY, log: LogNumber(0), generation }
}

/// The payload of a batch of `views` views.
pub(super) fn batch(producer: u128, sequence: u64, views: u32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for index in 0..views {
        let video_id = format!("video-{}", u64::from(index) * sequence);
        let view = View { video_id: &video_id, timestamp_ms: 1_700_000_000_000, user_id: "u", region: "", device: "d" };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
    builder.encode(ProducerId(producer), Sequence(sequence))[FRAME_HEADER_BYTES..].to_vec()
}

/// A log that is written, and everything that was appended to it.
pub(super) struct TestLog {
    pub(super) disk: MemoryDisk,
    pub(super) writer: LogWriter,
    pub(super) device: MemoryLogDevice,
    pub(super) generation: u32,
    pub(super) segments: u64,
    /// Batches appended, in order.
    pub(super) appended: Vec<Vec<u8>>,
    /// How many of them were handed out as durable.
    pub(super) taken: usize,
    pub(super) producer: u128,
}

impl TestLog {
    pub(super) fn new(disk: &MemoryDisk, generation: u32, seed: u64) -> Self {
        disk.create_dir("log-000").unwrap();
        let device = MemoryLogDevice::new(disk, 3, seed);
        let writer = LogWriter::new(identity(generation), limits());
        Self {
            disk: disk.clone(),
            writer,
            device,
            generation,
            segments: 0,
            appended: Vec::new(),
            taken: 0,
            producer: 9,
        }
    }

    pub(super) fn add_segment(&mut self) {
        let path = segment_path(LogNumber(0), self.generation, SegmentNumber(self.segments));
        if !self.disk.exists(&path).unwrap() {
            let file = self.disk.open(&path, crate::Access::CreateNew).unwrap();
            file.write_at(&vec![0; SEGMENT_BYTES as usize], 0).unwrap();
            file.sync().unwrap();
            self.disk.sync_dir("log-000").unwrap();
        }
        let number = SegmentNumber(self.segments);
        let prepared = PreparedSegment { log: LogNumber(0), generation: self.generation, number, path };
        let handle = self.device.attach(&prepared).unwrap();
        self.writer.add_segment(&prepared, handle);
        self.segments += 1;
    }

    /// Appends a batch of `views` views, of which the first and last are refused where there are three.
    pub(super) fn append(&mut self, views: u32) -> LogPosition {
        let sequence = self.appended.len() as u64 + 1;
        let payload = batch(self.producer, sequence, views);
        loop {
            match self.writer.room(payload.len()) {
                AppendRoom::Ready => break,
                AppendRoom::NoSegment => self.add_segment(),
                AppendRoom::Busy => self.settle().unwrap(),
            }
        }
        self.writer.begin(payload.len()).copy_from_slice(&payload);
        assert_eq!(self.writer.pending(), payload);
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: ProducerId(self.producer),
            sequence: Sequence(sequence),
            arrival_ms: 1000 + sequence,
            batch_crc: batch_header(&payload).unwrap().crc,
            view_count: views,
        };
        self.appended.push(payload);
        self.writer.commit(&meta, &refused(views))
    }

    /// Submits what may be submitted.
    pub(super) fn submit(&mut self) {
        while let Some(write) = self.writer.poll_write() {
            self.device.submit(write).unwrap();
        }
    }

    /// Takes one completion and all records that it makes durable.
    pub(super) fn complete_one(&mut self) -> Result<(), std::io::Error> {
        let Some(written) = self.device.complete() else { return Ok(()) };
        written.result?;
        self.writer.handle_written(written.write);
        while let Some(record) = self.writer.next_durable() {
            if record.header.kind == RecordKind::Batch {
                assert_eq!(record.batch, self.appended[self.taken]);
                assert_eq!(record.header.sequence.0, self.taken as u64 + 1);
                assert_eq!(record.verdicts.iter().collect::<Vec<_>>(), refused(record.header.view_count));
                self.taken += 1;
            }
        }
        while let Some(handle) = self.writer.poll_retired() {
            self.device.detach(handle);
        }
        Ok(())
    }

    /// Submits and completes until everything is durable.
    pub(super) fn settle(&mut self) -> Result<(), std::io::Error> {
        loop {
            self.submit();
            if self.device.in_flight() == 0 {
                return Ok(());
            }
            self.complete_one()?;
        }
    }

    pub(super) fn state_prefix(&mut self) {
        self.settle().unwrap();
        if self.writer.needs_prefix() {
            while self.writer.room(0) == AppendRoom::NoSegment {
                self.add_segment();
            }
            self.writer.append_prefix();
            self.settle().unwrap();
        }
        assert!(!self.writer.needs_prefix());
    }
}

pub(super) fn refused(views: u32) -> Vec<RefusedRange> {
    if views < 3 {
        return Vec::new();
    }
    vec![
        RefusedRange { first: 0, count: 1, reason: ViewRefusal::FutureBeyondSkew },
        RefusedRange { first: views - 1, count: 1, reason: ViewRefusal::TableFull },
    ]
}

/// The batches of a generation, and where it ends.
pub(super) fn read_log(
    disk: &MemoryDisk,
    generation: u32,
    expected_end: Option<u64>,
) -> Result<(Vec<Vec<u8>>, LogPosition), StorageError> {
    let scan = GenerationScan { identity: identity(generation), segment_bytes: SEGMENT_BYTES, from: 0, expected_end };
    let mut batches = Vec::new();
    let end = scan_generation::<StorageError>(disk, &scan, |record| {
        if record.header.kind == RecordKind::Batch {
            batches.push(record.batch.to_vec());
        }
        Ok(())
    })?;
    Ok((batches, end.end))
}

pub(super) fn below(random: &mut ChaCha8Rng, bound: u32) -> u32 {
    random.random_range(0..bound)
}
