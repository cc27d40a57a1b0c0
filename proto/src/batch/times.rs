//! The times of a batch: encoding 0 (plain), 64-bit numbers, and encoding 2 (narrow), a base and offsets from it.
//!
//! Invariant: no sum of base and offset overflows, since a base has 63 bits. Cost: decoding looks at the column's
//! header and at the base, never at single times.

use super::column::{PLAIN, column_parts};
use crate::error::DecodeError;
use crate::limits::{ENCODING_NARROW_TIMES_BIT, ENCODING_PLAIN_BIT, TIME_BYTES};
use crate::wire::{Reader, word};

/// The encoding of times that lie close together.
pub(super) const NARROW: u8 = 2;
/// Bytes before the offsets: the base, their width, reserved ones.
pub(super) const NARROW_FIXED_BYTES: usize = 16;
/// Greatest base.
pub(super) const BASE_MAX: u64 = i64::MAX as u64;

const ACCEPTED: &str = "0 (plain) and 2 (narrow)";
/// Times that a scan of plain ones compares at once.
const LANES: usize = 8;

const _: () = assert!(ENCODING_PLAIN_BIT == 1 << PLAIN && ENCODING_NARROW_TIMES_BIT == 1 << NARROW);
const _: () = assert!(BASE_MAX.checked_add(u32::MAX as u64).is_some());

/// A column of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeColumn<'a> {
    Plain(&'a [[u8; TIME_BYTES]]),
    Narrow(u64, Offsets<'a>),
}

/// What is added to the base for each view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offsets<'a> {
    /// Nothing, for so many views.
    None(usize),
    Bytes(&'a [u8]),
    Pairs(&'a [[u8; 2]]),
    Quads(&'a [[u8; 4]]),
}

impl<'a> TimeColumn<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, column: &'static str, views: usize) -> Result<Self, DecodeError> {
        let (encoding, bytes) = column_parts(reader)?;
        match encoding {
            PLAIN => {
                fits(column, bytes, views * TIME_BYTES)?;
                Ok(Self::Plain(bytes.as_chunks().0))
            }
            NARROW => Self::decode_narrow(column, bytes, views),
            found => Err(DecodeError::Encoding { column, found, accepted: ACCEPTED }),
        }
    }

    fn decode_narrow(column: &'static str, bytes: &'a [u8], views: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_part(column, bytes);
        let base = reader.u64()?;
        if base > BASE_MAX {
            return Err(DecodeError::TimeBase { found: base, max: BASE_MAX });
        }
        let width =
            word("width of narrow times", reader.u8()?, |width| matches!(width, 0 | 1 | 2 | 4).then_some(width))?;
        reader.zeros::<3>()?;
        reader.zeros::<4>()?;
        fits(column, bytes, NARROW_FIXED_BYTES + views * usize::from(width))?;
        let offsets = &bytes[NARROW_FIXED_BYTES..];
        let offsets = match width {
            0 => Offsets::None(views),
            1 => Offsets::Bytes(offsets),
            2 => Offsets::Pairs(offsets.as_chunks().0),
            _ => Offsets::Quads(offsets.as_chunks().0),
        };
        Ok(Self::Narrow(base, offsets))
    }

    pub(super) fn iter(&self) -> Times<'a> {
        Times(match *self {
            Self::Plain(times) => Form::Plain(times.iter()),
            Self::Narrow(base, Offsets::None(views)) => Form::Same(base, 0..views),
            Self::Narrow(base, Offsets::Bytes(offsets)) => Form::Bytes(base, offsets.iter()),
            Self::Narrow(base, Offsets::Pairs(offsets)) => Form::Pairs(base, offsets.iter()),
            Self::Narrow(base, Offsets::Quads(offsets)) => Form::Quads(base, offsets.iter()),
        })
    }

    /// The least and the greatest time.
    pub(super) fn bounds(&self) -> (u64, u64) {
        match *self {
            Self::Plain(times) => plain_bounds(times),
            Self::Narrow(base, offsets) => {
                let (least, greatest) = offsets.bounds();
                (base + u64::from(least), base + u64::from(greatest))
            }
        }
    }
}

impl Offsets<'_> {
    fn bounds(&self) -> (u32, u32) {
        match self {
            Self::None(_) => (0, 0),
            Self::Bytes(offsets) => widened(bounds(offsets.iter().copied(), u8::MAX, 0)),
            Self::Pairs(offsets) => widened(bounds(offsets.iter().map(|&two| u16::from_le_bytes(two)), u16::MAX, 0)),
            Self::Quads(offsets) => bounds(offsets.iter().map(|&four| u32::from_le_bytes(four)), u32::MAX, 0),
        }
    }
}

fn widened<T: Into<u32>>((least, greatest): (T, T)) -> (u32, u32) {
    (least.into(), greatest.into())
}

/// Least and greatest, at most and at least what is given; without a branch in the loop, so that it is vectorised.
fn bounds<T: Copy + Ord>(numbers: impl Iterator<Item = T>, most: T, least: T) -> (T, T) {
    numbers.fold((most, least), |(least, greatest), number| (least.min(number), greatest.max(number)))
}

/// As [`bounds`], in several lanes: 64-bit numbers are compared one by one on many machines, and then no comparison
/// waits for the one before it.
fn plain_bounds(times: &[[u8; TIME_BYTES]]) -> (u64, u64) {
    let (mut least, mut greatest) = ([u64::MAX; LANES], [0; LANES]);
    let (chunks, rest) = times.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let time = u64::from_le_bytes(chunk[lane]);
            least[lane] = least[lane].min(time);
            greatest[lane] = greatest[lane].max(time);
        }
    }
    let rest = bounds(rest.iter().map(|&time| u64::from_le_bytes(time)), u64::MAX, 0);
    (least.into_iter().fold(rest.0, u64::min), greatest.into_iter().fold(rest.1, u64::max))
}

fn fits(column: &'static str, bytes: &[u8], needed: usize) -> Result<(), DecodeError> {
    if bytes.len() == needed {
        return Ok(());
    }
    Err(DecodeError::ColumnLength { column, stated: bytes.len() as u64, needed: needed as u64 })
}

/// The times of a column, in the order of its views.
#[derive(Clone, Debug)]
pub struct Times<'a>(Form<'a>);

#[derive(Clone, Debug)]
enum Form<'a> {
    Plain(std::slice::Iter<'a, [u8; TIME_BYTES]>),
    Same(u64, std::ops::Range<usize>),
    Bytes(u64, std::slice::Iter<'a, u8>),
    Pairs(u64, std::slice::Iter<'a, [u8; 2]>),
    Quads(u64, std::slice::Iter<'a, [u8; 4]>),
}

impl Iterator for Times<'_> {
    type Item = u64;

    #[inline]
    fn next(&mut self) -> Option<u64> {
        match &mut self.0 {
            Form::Plain(times) => times.next().map(|&time| u64::from_le_bytes(time)),
            Form::Same(base, views) => views.next().map(|_| *base),
            Form::Bytes(base, offsets) => offsets.next().map(|&offset| *base + u64::from(offset)),
            Form::Pairs(base, offsets) => offsets.next().map(|&two| *base + u64::from(u16::from_le_bytes(two))),
            Form::Quads(base, offsets) => offsets.next().map(|&four| *base + u64::from(u32::from_le_bytes(four))),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Form::Plain(times) => times.size_hint(),
            Form::Same(_, views) => views.size_hint(),
            Form::Bytes(_, offsets) => offsets.size_hint(),
            Form::Pairs(_, offsets) => offsets.size_hint(),
            Form::Quads(_, offsets) => offsets.size_hint(),
        }
    }
}

impl ExactSizeIterator for Times<'_> {}
