//! Reading and writing the fields of a payload.
//!
//! What it is not: the layout of any frame. Invariant: a reader never goes beyond its slice, and every integer is
//! little-endian.

use crate::error::{DecodeError, Place};
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::FRAME_HEADER_BYTES;

/// Takes fields off the front of a payload.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads the payload of a frame; refuses one longer than the kind's maximum.
    pub(crate) fn of_frame(kind: FrameKind, payload: &'a [u8]) -> Result<Self, DecodeError> {
        let max = kind.payload_bytes_max();
        if payload.len() > max {
            return Err(DecodeError::PayloadTooLong { kind, bytes: payload.len() as u64, max });
        }
        Ok(Self { rest: payload, what: kind.as_str() })
    }

    /// Reads what is a part of a frame, called `what` where it ends too soon.
    pub(crate) fn of_part(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, needed: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(needed) else {
            return Err(DecodeError::Truncated { what: self.what, needed, available: self.rest.len() });
        };
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, tail)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { what: self.what, needed: N, available: self.rest.len() });
        };
        self.rest = tail;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_le_bytes)
    }

    /// Takes `N` reserved bytes, which must be zero.
    pub(crate) fn zeros<const N: usize>(&mut self) -> Result<(), DecodeError> {
        reserved(self.what, &self.array::<N>()?)
    }

    pub(crate) fn text(&mut self, bytes: usize, field: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.take(bytes)?).map_err(|_| DecodeError::NotUtf8 { field, place: Place::Field })
    }

    /// Takes a video id: 1 to 255 bytes of UTF-8.
    pub(crate) fn video_id(&mut self, bytes: u8) -> Result<&'a str, DecodeError> {
        if bytes == 0 {
            return Err(DecodeError::EmptyVideoId { place: Place::Field });
        }
        self.text(usize::from(bytes), "video_id")
    }

    /// The payload must end here.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing { what: self.what, bytes: self.rest.len() })
        }
    }
}

/// Refuses reserved bytes, up to 4, that are not zero.
pub(crate) fn reserved(what: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
    let found = bytes.iter().rev().fold(0, |found, byte| found << 8 | u32::from(*byte));
    if found == 0 { Ok(()) } else { Err(DecodeError::Reserved { what, found }) }
}

/// Refuses a number outside `min..=max`.
pub(crate) fn in_range(field: &'static str, found: u64, min: u64, max: u64) -> Result<(), DecodeError> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(DecodeError::OutOfRange { field, found, min, max }) }
}

/// Looks a code up in its closed list.
pub(crate) fn word<T>(field: &'static str, code: u8, of_code: impl Fn(u8) -> Option<T>) -> Result<T, DecodeError> {
    of_code(code).ok_or(DecodeError::UnknownCode { field, found: u64::from(code) })
}

/// Appends a whole frame to `out`: a header, then the payload that `write` appends.
///
/// # Panics
/// If the payload is over its kind's maximum: the caller holds the limits of the parts.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: FrameKind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    write(out);
    let header = FrameHeader::of_payload(kind, out.len() - start - FRAME_HEADER_BYTES);
    out[start..start + FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
}

/// The length of a string that travels with a one-byte length.
///
/// # Panics
/// If it does not fit: the caller holds the limit.
pub(crate) fn length_u8(field: &str, bytes: usize) -> u8 {
    u8::try_from(bytes).unwrap_or_else(|_| panic!("{field} of {bytes} bytes is over the limit of 255"))
}
