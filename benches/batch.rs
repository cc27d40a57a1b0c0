//! `highwater_proto::batch`: building a batch as a client does, and checking one as the engine does.
//!
//! Not sending or storing it.

use bytes::Bytes;
use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, Batch, BatchBuilder, FRAME_HEADER_BYTES, PROTOCOL_VERSION, ProducerId, Pushed,
    Sequence,
};

use crate::Scale;
use crate::views::{Draw, user_id, video_id, view};

pub(crate) const PRODUCER: ProducerId = ProducerId(7);

/// Builds a batch from views.
#[derive(Debug)]
pub struct Build {
    builder: BatchBuilder,
    ids: Vec<(String, String)>,
    sequence: u64,
}

impl Build {
    /// The views, and an empty builder.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let mut draw = Draw::new(scale);
        let ids = (0..scale.batch_views).map(|index| (video_id(draw.video()), user_id(index))).collect();
        Self { builder: BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32), ids, sequence: 0 }
    }

    /// Builds the next batch from the same views; returns its frame.
    pub fn run(&mut self) -> Bytes {
        for (video_id, user_id) in &self.ids {
            let pushed = self.builder.push(&view(video_id, user_id)).expect("the views are within the limits");
            assert_eq!(pushed, Pushed::Added, "the batch is within the limits");
        }
        self.sequence += 1;
        self.builder.encode(PRODUCER, Sequence(self.sequence))
    }
}

/// Checks a batch's checksum and structure.
#[derive(Debug)]
pub struct Check {
    payload: Bytes,
}

impl Check {
    /// A batch to check.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        Self { payload: Build::new(scale).run().slice(FRAME_HEADER_BYTES..) }
    }

    /// Bytes of the payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// Verifies and decodes the batch; returns its views.
    #[must_use]
    pub fn run(&self) -> u32 {
        Batch::verify(&self.payload, PROTOCOL_VERSION, PRODUCER).expect("the checksum fits");
        Batch::decode(&self.payload).expect("the batch is well formed").view_count()
    }
}
