//! Building batches on the client's side.
//!
//! What it is not: the choice of when to send, or of the sequence. Invariant: a builder never holds more views or bytes
//! than its limits, so what it encodes is a batch that the engine's decoder takes.

use crate::batch::batch_checksum;
use crate::error::InvalidView;
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, COLUMN_HEADER_BYTES, COLUMNS,
    FRAME_HEADER_BYTES, PROTOCOL_VERSION, TIME_BYTES,
};
use crate::words::{ProducerId, Sequence, View};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// Whether a view went into the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It did.
    Added,
    /// It did not: the builder is full. Encode what it holds, then push the view again.
    Full,
}

/// Collects views by column.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    views_max: u32,
    bytes_max: u32,
    video_ids: Column,
    times: Vec<u8>,
    users: Column,
    regions: Column,
    devices: Column,
}

#[derive(Clone, Debug, Default)]
struct Column {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

impl Column {
    fn push(&mut self, text: &str) {
        self.lengths.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn bytes_len(&self) -> usize {
        self.lengths.len() + self.bytes.len()
    }

    fn clear(&mut self) {
        self.lengths.clear();
        self.bytes.clear();
    }

    fn put(&self, frame: &mut BytesMut) {
        put_column_header(frame, self.bytes_len());
        frame.put_slice(&self.lengths);
        frame.put_slice(&self.bytes);
    }
}

fn put_column_header(frame: &mut BytesMut, bytes: usize) {
    frame.put_u32_le(0);
    frame.put_u32_le(bytes as u32);
}

impl BatchBuilder {
    /// A builder that keeps to the limits of a welcome: most views, and most bytes of a BATCH payload.
    ///
    /// # Panics
    /// If a limit is outside the protocol's: 1 to [`BATCH_VIEWS_MAX`] views, [`BATCH_BYTES_MIN`] to [`BATCH_BYTES_MAX`]
    /// bytes.
    pub fn new(views_max: u32, bytes_max: u32) -> Self {
        assert!(
            (1..=BATCH_VIEWS_MAX).contains(&views_max),
            "a batch of up to {views_max} views; allowed are limits of 1 to {BATCH_VIEWS_MAX}"
        );
        assert!(
            (BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&(bytes_max as usize)),
            "a batch of up to {bytes_max} bytes; allowed are limits of {BATCH_BYTES_MIN} to {BATCH_BYTES_MAX}"
        );
        Self {
            views_max,
            bytes_max,
            video_ids: Column::default(),
            times: Vec::new(),
            users: Column::default(),
            regions: Column::default(),
            devices: Column::default(),
        }
    }

    /// Adds a view, unless the builder is full. Never full while empty.
    pub fn push(&mut self, view: &View<'_>) -> Result<Pushed, InvalidView> {
        view.check()?;
        let strings = view.video_id.len() + view.user_id.len() + view.region.len() + view.device.len();
        let bytes = strings + (COLUMNS - 1) + TIME_BYTES;
        if self.len() >= self.views_max || self.payload_bytes() + bytes > self.bytes_max as usize {
            return Ok(Pushed::Full);
        }
        self.video_ids.push(view.video_id);
        self.times.extend_from_slice(&view.timestamp_ms.to_le_bytes());
        self.users.push(view.user_id);
        self.regions.push(view.region);
        self.devices.push(view.device);
        Ok(Pushed::Added)
    }

    /// Whether it holds no view.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// How many views it holds.
    pub fn len(&self) -> u32 {
        self.video_ids.lengths.len() as u32
    }

    /// The size of the BATCH payload that it would encode to, without the frame header.
    pub fn payload_bytes(&self) -> usize {
        let strings = [&self.video_ids, &self.users, &self.regions, &self.devices];
        let columns: usize = strings.iter().map(|column| column.bytes_len()).sum();
        BATCH_HEADER_BYTES + COLUMNS * COLUMN_HEADER_BYTES + columns + self.times.len()
    }

    /// Forgets every view; keeps its memory.
    pub fn clear(&mut self) {
        self.times.clear();
        for column in [&mut self.video_ids, &mut self.users, &mut self.regions, &mut self.devices] {
            column.clear();
        }
    }

    /// The whole BATCH frame with its header; the builder is empty afterwards. These bytes are what every retry sends.
    ///
    /// # Panics
    /// If the builder is empty or the sequence is 0.
    pub fn encode(&mut self, producer: ProducerId, sequence: Sequence) -> Bytes {
        let mut frame = self.put();
        seal(&mut frame, producer, sequence);
        self.clear();
        frame.freeze()
    }

    /// The batch as one to be sent over and over; the builder is empty afterwards.
    ///
    /// # Panics
    /// If the builder is empty.
    pub fn prepare(&mut self) -> PreparedBatch {
        let frame = self.put();
        let times_at = FRAME_HEADER_BYTES + BATCH_HEADER_BYTES + 2 * COLUMN_HEADER_BYTES + self.video_ids.bytes_len();
        let times = times_at..times_at + self.times.len();
        let views = self.len();
        self.clear();
        PreparedBatch { frame: frame.freeze(), times, views }
    }

    /// The frame but for its sequence and checksum.
    fn put(&self) -> BytesMut {
        assert!(!self.is_empty(), "a batch has at least one view");
        let payload_bytes = self.payload_bytes();
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + payload_bytes);
        frame.put_slice(&FrameHeader::of_payload(FrameKind::Batch, payload_bytes).encode());
        frame.put_u32_le(0);
        frame.put_u32_le(self.len());
        frame.put_u64_le(0);
        self.video_ids.put(&mut frame);
        put_column_header(&mut frame, self.times.len());
        frame.put_slice(&self.times);
        for column in [&self.users, &self.regions, &self.devices] {
            column.put(&mut frame);
        }
        debug_assert_eq!(frame.len(), FRAME_HEADER_BYTES + payload_bytes);
        frame
    }
}

/// Writes the sequence and the checksum into a frame.
fn seal(frame: &mut [u8], producer: ProducerId, sequence: Sequence) {
    assert!(sequence > Sequence::NONE, "sequences start at 1");
    let payload = &mut frame[FRAME_HEADER_BYTES..];
    payload[8..BATCH_HEADER_BYTES].copy_from_slice(&sequence.0.to_le_bytes());
    let crc = batch_checksum(payload, PROTOCOL_VERSION, producer);
    payload[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A batch that was encoded once and is sent over and over, under fresh sequences and at fresh times: what a generator
/// of much load sends. To the engine each is a batch of its own.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    frame: Bytes,
    times: Range<usize>,
    views: u32,
}

impl PreparedBatch {
    /// How many views it holds.
    #[must_use]
    pub fn view_count(&self) -> u32 {
        self.views
    }

    /// The whole BATCH frame with all its views at one time. Cost: a copy of the frame and its checksum.
    ///
    /// # Panics
    /// If the sequence is 0.
    #[must_use]
    pub fn encode(&self, producer: ProducerId, sequence: Sequence, timestamp_ms: u64) -> Bytes {
        let mut frame = BytesMut::from(&self.frame[..]);
        let (times, _) = frame[self.times.clone()].as_chunks_mut::<TIME_BYTES>();
        times.fill(timestamp_ms.to_le_bytes());
        seal(&mut frame, producer, sequence);
        frame.freeze()
    }
}
