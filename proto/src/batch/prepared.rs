//! Batches that are encoded once and sent over and over.
//!
//! What it is not: the encoding, which is [`super::builder`]'s. Invariant: but for sequence, checksum and times, every
//! frame of a prepared batch has the same bytes.

use super::builder::seal;
use super::times::BASE_MAX;
use crate::limits::TIME_BYTES;
use crate::words::{ProducerId, Sequence};
use bytes::{Bytes, BytesMut};
use std::ops::Range;

/// A batch that was encoded once and is sent over and over, under fresh sequences and at fresh times: what a generator
/// of much load sends. To the engine each is a batch of its own.
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    pub(super) frame: Bytes,
    /// Where the times are in it, of narrow ones the base.
    pub(super) times: Range<usize>,
    pub(super) views: u32,
}

impl PreparedBatch {
    /// How many views it holds.
    #[must_use]
    pub fn view_count(&self) -> u32 {
        self.views
    }

    /// Bytes of each frame's payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.frame.len() - crate::limits::FRAME_HEADER_BYTES
    }

    /// The whole BATCH frame with all its views at one time. Cost: a copy of the frame and its checksum.
    ///
    /// # Panics
    /// If the sequence is 0, or the time above 2^63 - 1.
    #[must_use]
    pub fn encode(&self, producer: ProducerId, sequence: Sequence, timestamp_ms: u64) -> Bytes {
        assert!(timestamp_ms <= BASE_MAX, "a prepared batch at {timestamp_ms}; allowed are times up to {BASE_MAX}");
        let mut frame = BytesMut::from(&self.frame[..]);
        let (times, _) = frame[self.times.clone()].as_chunks_mut::<TIME_BYTES>();
        times.fill(timestamp_ms.to_le_bytes());
        seal(&mut frame, producer, sequence);
        frame.freeze()
    }
}
