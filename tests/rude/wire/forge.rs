//! Frames as no honest encoder makes them.
//!
//! What it is not: a judge of them. Invariant: only what a test says is wrong; lengths and checksums fit otherwise.

use highwater_proto::{BATCH_BYTES_MAX, BatchBuilder, FrameKind, HelloMode, ProducerId, Pushed, Sequence, View};
use highwater_proto::{PROTOCOL_VERSION, batch_checksum};

/// A frame of any kind with any payload.
pub(crate) fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&header(kind, payload.len() as u32)[..], payload].concat()
}

/// A frame's header alone.
pub(crate) fn header(kind: u8, payload_bytes: u32) -> [u8; 8] {
    let [b0, b1, b2, b3] = payload_bytes.to_le_bytes();
    [b0, b1, b2, b3, kind, 0, 0, 0]
}

/// A sound hello of a new producer without a token.
pub(crate) fn hello(id: ProducerId) -> Vec<u8> {
    hello_with(id, HelloMode::New, b"")
}

/// A hello with any token, also one that is too long.
pub(crate) fn hello_with(id: ProducerId, mode: HelloMode, token: &[u8]) -> Vec<u8> {
    let version = PROTOCOL_VERSION.to_le_bytes();
    let length = (token.len() as u32).to_le_bytes();
    frame(FrameKind::Hello.code(), &[&version[..], &[mode.code(), 0], &length, &id.0.to_le_bytes(), token].concat())
}

/// A token before a question.
pub(crate) fn token(token: &[u8]) -> Vec<u8> {
    frame(FrameKind::Token.code(), &[&(token.len() as u32).to_le_bytes(), token].concat())
}

/// A hello of a new producer with the bytes at `at` of its payload replaced.
pub(crate) fn hello_changed(id: ProducerId, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = hello(id);
    frame[8 + at..8 + at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// A look-up with these bytes as the video id, and any length before them.
pub(crate) fn lookup(length: u8, video_id: &[u8]) -> Vec<u8> {
    frame(FrameKind::Lookup.code(), &[&[length, 0, 0, 0], video_id].concat())
}

/// A subscription to the newest snapshot and all later ones.
pub(crate) fn subscribe() -> Vec<u8> {
    frame(FrameKind::Subscribe.code(), &[0; 8])
}

/// A sound batch of one view.
pub(crate) fn batch(id: ProducerId, sequence: u64) -> Vec<u8> {
    batch_of(id, sequence, &[("v", crate::support::now_ms())])
}

/// A sound batch.
pub(crate) fn batch_of(id: ProducerId, sequence: u64, views: &[(&str, u64)]) -> Vec<u8> {
    let mut batch = BatchBuilder::new(views.len() as u32, BATCH_BYTES_MAX as u32);
    for (video_id, timestamp_ms) in views {
        let view = View { video_id, timestamp_ms: *timestamp_ms, user_id: "u", region: "", device: "" };
        assert_eq!(batch.push(&view), Ok(Pushed::Added));
    }
    batch.encode(id, Sequence(sequence)).to_vec()
}

/// The columns of a batch, each whole with its header.
#[derive(Clone)]
pub(crate) struct Columns(pub(crate) [Vec<u8>; 5]);

impl Columns {
    /// Those of two sound views.
    pub(crate) fn of_two() -> Self {
        let now = crate::support::now_ms().to_le_bytes();
        Self([
            strings(&[b"first", b"second"]),
            column(0, 16, &[now, now].concat()),
            strings(&[b"u", b""]),
            strings(&[b"DE", b"FR"]),
            strings(&[b"tv", b""]),
        ])
    }

    /// With another column in the place of one.
    pub(crate) fn with(mut self, index: usize, column: Vec<u8>) -> Self {
        self.0[index] = column;
        self
    }

    /// The batch, which states so many views, under a checksum that fits.
    pub(crate) fn batch(&self, id: ProducerId, views: u32, sequence: u64) -> Vec<u8> {
        let mut payload = [&[0; 4], &views.to_le_bytes()[..], &sequence.to_le_bytes(), &self.0.concat()].concat();
        let checksum = batch_checksum(&payload, PROTOCOL_VERSION, id);
        payload[..4].copy_from_slice(&checksum.to_le_bytes());
        frame(FrameKind::Batch.code(), &payload)
    }
}

/// A column that states any length.
pub(crate) fn column(encoding: u8, stated_bytes: u32, bytes: &[u8]) -> Vec<u8> {
    [&[encoding, 0, 0, 0], &stated_bytes.to_le_bytes()[..], bytes].concat()
}

/// A plain column of strings.
pub(crate) fn strings(values: &[&[u8]]) -> Vec<u8> {
    let lengths: Vec<u8> = values.iter().map(|value| value.len() as u8).collect();
    let bytes = [lengths, values.concat()].concat();
    column(0, bytes.len() as u32, &bytes)
}
