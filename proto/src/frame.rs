//! Frames: the header before every payload.
//!
//! What it is not: a reader of streams; whoever reads takes 8 bytes, decodes the header, then takes the payload.
//! Invariant: a header that decodes never asks for more bytes than its kind's limit, so a reader may reserve that much
//! at once.

use crate::error::DecodeError;
use crate::limits::{self, FRAME_HEADER_BYTES};
use crate::wire::reserved;
use std::fmt;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Client: opens a producer stream.
    Hello = 0x01,
    /// Engine: the producer may send.
    Welcome = 0x02,
    /// Engine: the producer belongs to another core.
    Redirect = 0x03,
    /// Client: the token under which the stream's next frame comes.
    Token = 0x04,
    /// Client: views.
    Batch = 0x10,
    /// Engine: a batch is durable.
    Ack = 0x11,
    /// Engine: a batch was not taken; send it again later.
    BatchRefused = 0x12,
    /// Client: opens a look-up stream.
    Lookup = 0x20,
    /// Engine: one video's counts.
    LookupAnswer = 0x21,
    /// Client: opens a subscription.
    Subscribe = 0x30,
    /// Engine: a snapshot.
    Snapshot = 0x31,
    /// Client: asks for the final list of a closed period.
    History = 0x40,
    /// Engine: that list, or that there is none.
    HistoryAnswer = 0x41,
    /// Client: asks which closed periods there are.
    Periods = 0x42,
    /// Engine: those periods.
    PeriodsAnswer = 0x43,
}

impl FrameKind {
    /// Every kind, by ascending number.
    pub const ALL: [Self; 15] = [
        Self::Hello,
        Self::Welcome,
        Self::Redirect,
        Self::Token,
        Self::Batch,
        Self::Ack,
        Self::BatchRefused,
        Self::Lookup,
        Self::LookupAnswer,
        Self::Subscribe,
        Self::Snapshot,
        Self::History,
        Self::HistoryAnswer,
        Self::Periods,
        Self::PeriodsAnswer,
    ];

    /// The kind's number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The kind's name in PROTOCOL.md and in errors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hello => "HELLO",
            Self::Welcome => "WELCOME",
            Self::Redirect => "REDIRECT",
            Self::Token => "TOKEN",
            Self::Batch => "BATCH",
            Self::Ack => "ACK",
            Self::BatchRefused => "BATCH_REFUSED",
            Self::Lookup => "LOOKUP",
            Self::LookupAnswer => "LOOKUP_ANSWER",
            Self::Subscribe => "SUBSCRIBE",
            Self::Snapshot => "SNAPSHOT",
            Self::History => "HISTORY",
            Self::HistoryAnswer => "HISTORY_ANSWER",
            Self::Periods => "PERIODS",
            Self::PeriodsAnswer => "PERIODS_ANSWER",
        }
    }

    /// The longest payload of this kind in bytes.
    pub const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Hello => limits::HELLO_PAYLOAD_MAX,
            Self::Welcome => limits::WELCOME_PAYLOAD_MAX,
            Self::Redirect => limits::REDIRECT_PAYLOAD_MAX,
            Self::Token => limits::TOKEN_PAYLOAD_MAX,
            Self::Batch => limits::BATCH_BYTES_MAX,
            Self::Ack => limits::ACK_PAYLOAD_MAX,
            Self::BatchRefused => limits::BATCH_REFUSED_BYTES,
            Self::Lookup => limits::LOOKUP_PAYLOAD_MAX,
            Self::LookupAnswer => limits::ANSWER_PAYLOAD_MAX,
            Self::Subscribe => limits::SUBSCRIBE_BYTES,
            Self::Snapshot => limits::SNAPSHOT_PAYLOAD_MAX,
            Self::History => limits::HISTORY_BYTES,
            Self::HistoryAnswer => limits::HISTORY_ANSWER_PAYLOAD_MAX,
            Self::Periods => limits::PERIODS_BYTES,
            Self::PeriodsAnswer => limits::PERIODS_ANSWER_PAYLOAD_MAX,
        }
    }
}

impl fmt::Display for FrameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The 8 bytes before a payload: length u32, kind u8, three zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the payload is.
    pub kind: FrameKind,
    /// How long it is, without the header; at most [`FrameKind::payload_bytes_max`].
    pub payload_bytes: u32,
}

impl FrameHeader {
    /// Reads a header; refuses unknown kinds, reserved bytes that are not zero, and payloads over the kind's limit.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let [b0, b1, b2, b3, code, zeros @ ..] = *bytes;
        let kind = FrameKind::from_code(code).ok_or(DecodeError::UnknownKind { found: code })?;
        reserved("the frame header", &zeros)?;
        let payload_bytes = u32::from_le_bytes([b0, b1, b2, b3]);
        let max = kind.payload_bytes_max();
        if payload_bytes as usize > max {
            return Err(DecodeError::PayloadTooLong { kind, bytes: u64::from(payload_bytes), max });
        }
        Ok(Self { kind, payload_bytes })
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let [b0, b1, b2, b3] = self.payload_bytes.to_le_bytes();
        [b0, b1, b2, b3, self.kind.code(), 0, 0, 0]
    }

    /// The header of a payload of that length.
    ///
    /// # Panics
    /// If it is over the kind's maximum.
    pub(crate) fn of_payload(kind: FrameKind, payload_bytes: usize) -> Self {
        let max = kind.payload_bytes_max();
        assert!(payload_bytes <= max, "{kind} payload of {payload_bytes} bytes is over the limit of {max}");
        Self { kind, payload_bytes: payload_bytes as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_kind_survive_the_wire_up_to_their_limit() {
        for kind in FrameKind::ALL {
            for payload_bytes in [0, kind.payload_bytes_max() as u32] {
                let header = FrameHeader { kind, payload_bytes };
                assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
            }
            let over = FrameHeader { kind, payload_bytes: kind.payload_bytes_max() as u32 + 1 };
            assert!(matches!(FrameHeader::decode(&over.encode()), Err(DecodeError::PayloadTooLong { .. })));
            assert!(kind.payload_bytes_max() <= limits::FRAME_PAYLOAD_BYTES_MAX);
        }
    }

    #[test]
    fn unknown_kinds_and_reserved_bytes_are_refused() {
        for code in 0..=u8::MAX {
            let known = FrameKind::from_code(code).is_some();
            assert_eq!(FrameHeader::decode(&[0, 0, 0, 0, code, 0, 0, 0]).is_ok(), known, "kind {code:#04x}");
        }
        for position in 5..8 {
            let mut bytes = FrameHeader { kind: FrameKind::Hello, payload_bytes: 24 }.encode();
            bytes[position] = 1;
            let found = 1 << (8 * (position - 5));
            assert_eq!(FrameHeader::decode(&bytes), Err(DecodeError::Reserved { what: "the frame header", found }));
        }
    }
}
