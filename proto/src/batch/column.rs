//! The columns of a batch in encoding 0 (plain): strings as lengths and bytes, times as 64-bit numbers.
//!
//! What it is not: other encodings; a new one gets its own type beside these. Invariant: every length ends at a
//! character boundary and the lengths fill the bytes exactly, so [`Strings`] never splits wrongly. Cost: one vectorised
//! pass over the lengths and two over the bytes; only a column that is not all ASCII takes a loop over its strings.

use crate::error::DecodeError;
use crate::limits::{BATCH_VIEWS_MAX, TIME_BYTES};
use crate::wire::Reader;

const PLAIN: u8 = 0;

// The sum of a column's lengths is taken in u32.
const _: () = assert!(BATCH_VIEWS_MAX as u64 * u8::MAX as u64 <= u32::MAX as u64);

/// A column of strings: one length byte per view, then all bytes one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringColumn<'a> {
    lengths: &'a [u8],
    text: &'a str,
}

impl<'a> StringColumn<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, column: &'static str, views: usize) -> Result<Self, DecodeError> {
        let bytes = column_bytes(reader, column)?;
        let stated = bytes.len() as u64;
        let short = DecodeError::ColumnLength { column, stated, needed: views as u64 };
        let (lengths, text) = bytes.split_at_checked(views).ok_or(short)?;
        let sum: u32 = lengths.iter().map(|&length| u32::from(length)).sum();
        if sum as usize != text.len() {
            return Err(DecodeError::ColumnLength { column, stated, needed: views as u64 + u64::from(sum) });
        }
        match simdutf8::basic::from_utf8(text) {
            Ok(text) if text.is_ascii() || splits_at_characters(lengths, text) => Ok(Self { lengths, text }),
            _ => Err(DecodeError::NotUtf8 { field: column, view: first_not_utf8(lengths, text) }),
        }
    }

    /// Refuses a column with an empty string.
    pub(super) fn refuse_empty(&self) -> Result<(), DecodeError> {
        if !self.lengths.contains(&0) {
            return Ok(());
        }
        let full = self.lengths.iter().take_while(|&&length| length > 0).count();
        Err(DecodeError::EmptyVideoId { view: Some(full as u32) })
    }

    pub(super) fn iter(&self) -> Strings<'a> {
        Strings { lengths: self.lengths.iter(), text: self.text }
    }
}

/// Whether every string ends at a character boundary; then each is valid UTF-8 because the whole is.
fn splits_at_characters(lengths: &[u8], text: &str) -> bool {
    let mut end = 0;
    lengths.iter().all(|&length| {
        end += usize::from(length);
        text.is_char_boundary(end)
    })
}

/// The first string that is not UTF-8 by itself.
fn first_not_utf8(lengths: &[u8], text: &[u8]) -> Option<u32> {
    let mut rest = text;
    let is_wrong = |&length: &u8| {
        let (head, tail) = rest.split_at(usize::from(length));
        rest = tail;
        std::str::from_utf8(head).is_err()
    };
    lengths.iter().position(is_wrong).map(|view| view as u32)
}

/// A column of times: one u64 per view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeColumn<'a> {
    times: &'a [[u8; TIME_BYTES]],
}

impl<'a> TimeColumn<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, column: &'static str, views: usize) -> Result<Self, DecodeError> {
        let bytes = column_bytes(reader, column)?;
        let (times, rest) = bytes.as_chunks();
        if times.len() != views || !rest.is_empty() {
            let needed = (views * TIME_BYTES) as u64;
            return Err(DecodeError::ColumnLength { column, stated: bytes.len() as u64, needed });
        }
        Ok(Self { times })
    }

    pub(super) fn iter(&self) -> Times<'a> {
        Times { times: self.times.iter() }
    }
}

/// Reads a column's header and takes its bytes.
fn column_bytes<'a>(reader: &mut Reader<'a>, column: &'static str) -> Result<&'a [u8], DecodeError> {
    let encoding = reader.u8()?;
    if encoding != PLAIN {
        return Err(DecodeError::Encoding { column, found: encoding });
    }
    reader.zeros::<3>()?;
    let bytes = reader.u32()?;
    reader.take(bytes as usize)
}

/// The strings of a column, in order.
#[derive(Clone, Debug)]
pub struct Strings<'a> {
    lengths: std::slice::Iter<'a, u8>,
    text: &'a str,
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let length = usize::from(*self.lengths.next()?);
        let (head, tail) = self.text.split_at(length);
        self.text = tail;
        Some(head)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.lengths.size_hint()
    }
}

impl ExactSizeIterator for Strings<'_> {}

/// The times of a column, in order.
#[derive(Clone, Debug)]
pub struct Times<'a> {
    times: std::slice::Iter<'a, [u8; TIME_BYTES]>,
}

impl Iterator for Times<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        self.times.next().map(|bytes| u64::from_le_bytes(*bytes))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.times.size_hint()
    }
}

impl ExactSizeIterator for Times<'_> {}
