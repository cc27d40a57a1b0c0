//! The wire format against its page: golden bytes, tables, properties and malformed input.
//!
//! What it is not: tests of sessions, which need an engine. Invariant: PROTOCOL.md is read, not repeated, so the page
//! cannot drift from the crate.
#![forbid(unsafe_code)]

mod batches;
mod compact;
mod golden;
mod malformed;
mod page;
mod properties;
mod slow;
mod tables;

use highwater_proto::{FRAME_HEADER_BYTES, FrameHeader, FrameKind};

/// Splits a whole frame into its checked header's kind and its payload.
fn split(frame: &[u8]) -> (FrameKind, &[u8]) {
    let (header, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a frame has a header");
    let header = FrameHeader::decode(header).expect("a sound header");
    assert_eq!(header.payload_bytes as usize, payload.len(), "the header states the payload's length");
    (header.kind, payload)
}
