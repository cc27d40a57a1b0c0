//! Frame headers and the payload of every kind but batches: what decodes comes back byte for byte.
//!
//! Input: the header's kind by index, then a payload; the whole is also taken for a header.

use highwater_proto::{
    Ack, BatchRefused, DecodeError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Hello, History, HistoryAnswer, Lookup,
    Periods, PeriodsAnswer, Redirect, Snapshot, Subscribe, Token, VideoCounts, Welcome,
};

use crate::bounds::{assert_told, bounded};

/// A row of 10 bytes becomes a text of its own and an entry of 24, in a list that may hold twice as many while it
/// grows.
const FACTOR: usize = 32;
const CONSTANT_BYTES: usize = 4096;

pub(crate) fn run(data: &[u8]) {
    if let Some(header) = data.first_chunk::<FRAME_HEADER_BYTES>() {
        header_again(header);
    }
    let Some((kind, payload)) = data.split_first() else { return };
    let Some(kind) = FrameKind::ALL.get(usize::from(*kind)) else { return };
    match bounded(payload.len(), FACTOR, CONSTANT_BYTES, || again(*kind, payload)) {
        Ok(frame) if *kind != FrameKind::Batch => {
            let (header, body) = frame.split_at(FRAME_HEADER_BYTES);
            assert_eq!(body, payload, "{kind} does not come back as it was");
            let header = FrameHeader::decode(header.first_chunk().expect("a frame has a header"));
            assert_eq!(header, Ok(FrameHeader { kind: *kind, payload_bytes: payload.len() as u32 }));
        }
        Ok(_) => {}
        Err(error) => {
            assert_told(&error, &[]);
            assert!(!error.close_reason().to_string().is_empty());
        }
    }
}

fn header_again(bytes: &[u8; FRAME_HEADER_BYTES]) {
    match FrameHeader::decode(bytes) {
        Ok(header) => {
            assert_eq!(header.encode(), *bytes);
            assert!(header.payload_bytes as usize <= header.kind.payload_bytes_max());
        }
        Err(error) => assert_told(&error, &[]),
    }
}

/// Decodes a payload and encodes it again, as a whole frame; nothing of a batch, which has a target of its own.
fn again(kind: FrameKind, payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = Vec::new();
    match kind {
        FrameKind::Hello => Hello::decode(payload)?.encode(&mut out),
        FrameKind::Welcome => Welcome::decode(payload)?.encode(&mut out),
        FrameKind::Redirect => Redirect::decode(payload)?.encode(&mut out),
        FrameKind::Token => Token::decode(payload)?.encode(&mut out),
        FrameKind::Batch => {}
        FrameKind::Ack => Ack::decode(payload)?.encode(&mut out),
        FrameKind::BatchRefused => BatchRefused::decode(payload)?.encode(&mut out),
        FrameKind::Lookup => Lookup::decode(payload)?.encode(&mut out),
        FrameKind::LookupAnswer => VideoCounts::decode(payload)?.encode(&mut out),
        FrameKind::Subscribe => Subscribe::decode(payload)?.encode(&mut out),
        FrameKind::Snapshot => Snapshot::decode(payload)?.encode(&mut out),
        FrameKind::History => History::decode(payload)?.encode(&mut out),
        FrameKind::HistoryAnswer => HistoryAnswer::decode(payload)?.encode(&mut out),
        FrameKind::Periods => Periods::decode(payload)?.encode(&mut out),
        FrameKind::PeriodsAnswer => PeriodsAnswer::decode(payload)?.encode(&mut out),
    }
    Ok(out)
}
