//! `highwater_storage::LogWriter`: appending batches and taking them back as durable, with a device that takes no time.
//!
//! Not the disk. Invariant: each piece appends one batch, and every group comes back at once.

use bytes::Bytes;
use highwater_proto::{FRAME_HEADER_BYTES, Sequence, batch_header};
use highwater_storage::{
    AppendRoom, DirectoryId, LogIdentity, LogLimits, LogNumber, LogWriter, PreparedSegment, RecordKind, RecordMeta,
    SegmentHandle, SegmentNumber, segment_path,
};

use crate::Scale;
use crate::batch::{Build, PRODUCER};
use crate::views::TIME_MS;

const IDENTITY: LogIdentity = LogIdentity { directory: DirectoryId(1), log: LogNumber(0), generation: 1 };

/// Appends batches to a log.
#[derive(Debug)]
pub struct Append {
    writer: LogWriter,
    limits: LogLimits,
    payload: Bytes,
    meta: RecordMeta,
    segments: u64,
}

impl Append {
    /// An empty log, and the batch that is appended again and again.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let limits = LogLimits::default();
        let payload = Build::new(scale).run().slice(FRAME_HEADER_BYTES..);
        let header = batch_header(&payload).expect("the batch is well formed");
        let meta = RecordMeta {
            kind: RecordKind::Batch,
            producer: PRODUCER,
            sequence: Sequence(1),
            arrival_ms: TIME_MS,
            batch_crc: header.crc,
            view_count: header.view_count,
        };
        Self { writer: LogWriter::new(IDENTITY, limits), limits, payload, meta, segments: 0 }
    }

    /// Bytes of the batch's payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Bytes of a segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.limits.segment_bytes
    }

    /// Segments used so far.
    #[must_use]
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Appends the batch and lets its group be written; returns the records that became durable.
    pub fn run(&mut self) -> usize {
        while self.writer.room(self.payload.len()) == AppendRoom::NoSegment {
            self.add_segment();
        }
        self.writer.begin(self.payload.len()).copy_from_slice(&self.payload);
        self.writer.commit(&self.meta, &[]);
        while let Some(write) = self.writer.poll_write() {
            self.writer.handle_written(write);
        }
        let mut durable = 0;
        while self.writer.next_durable().is_some() {
            durable += 1;
        }
        while self.writer.poll_retired().is_some() {}
        durable
    }

    fn add_segment(&mut self) {
        let number = SegmentNumber(self.segments);
        let (log, generation) = (IDENTITY.log, IDENTITY.generation);
        let segment = PreparedSegment { log, generation, number, path: segment_path(log, generation, number) };
        self.writer.add_segment(&segment, SegmentHandle(0));
        self.segments += 1;
    }
}
