//! Encoding 1 of string columns, *dictionary*: each string once, and for each view which of them it has.
//!
//! What it is not: the making of one, which is [`super::distinct`]'s. Invariant: every index names an entry, so the
//! iterators and counts cannot fail. Cost: decoding takes one vectorised pass over the indices, besides what as many
//! plain strings as there are entries take.

use super::column::{Entries, Packed};
use crate::error::{DecodeError, Place};
use crate::limits::BATCH_VIEWS_MAX;
use crate::wire::in_range;

/// Bytes of the number of entries.
pub(super) const ENTRY_COUNT_BYTES: usize = 2;
/// Most entries whose indices have one byte.
const BYTE_ENTRIES_MAX: usize = 1 << 8;

// An index has two bytes at most, and so has a count of views.
const _: () = assert!(BATCH_VIEWS_MAX <= u16::MAX as u32);

/// Bytes of an index into so many entries: 0, 1 or 2.
pub(super) fn index_bytes(entries: usize) -> usize {
    match entries {
        0 | 1 => 0,
        2..=BYTE_ENTRIES_MAX => 1,
        _ => 2,
    }
}

/// A column of strings as it travelled: its entries, 1 to [`BATCH_VIEWS_MAX`] of them, and which of them each view has.
///
/// The same string may be several entries, and an entry may be no view's; there may be more entries than views.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dictionary<'a> {
    indices: Indices<'a>,
    pub(super) entries: Packed<'a>,
}

/// The entry of each view, in as many bytes as [`index_bytes`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Indices<'a> {
    /// So many views have the only entry.
    None(usize),
    Bytes(&'a [u8]),
    Pairs(&'a [[u8; 2]]),
}

impl<'a> Dictionary<'a> {
    pub(super) fn decode(column: &'static str, bytes: &'a [u8], views: usize) -> Result<Self, DecodeError> {
        let wrong =
            |needed: usize| DecodeError::ColumnLength { column, stated: bytes.len() as u64, needed: needed as u64 };
        let (count, rest) = bytes.split_first_chunk().ok_or(wrong(ENTRY_COUNT_BYTES))?;
        let count = u16::from_le_bytes(*count);
        in_range("entries of a dictionary", count.into(), 1, BATCH_VIEWS_MAX.into())?;
        let count = usize::from(count);
        let indices_len = views * index_bytes(count);
        let short = wrong(ENTRY_COUNT_BYTES + indices_len + count);
        let (indices, rest) = rest.split_at_checked(indices_len).ok_or(short)?;
        let (lengths, text) = rest.split_at_checked(count).ok_or(short)?;
        let indices = match index_bytes(count) {
            0 => Indices::None(views),
            1 => Indices::Bytes(indices),
            _ => Indices::Pairs(indices.as_chunks().0),
        };
        if indices.greatest() >= count {
            let view = indices.iter().position(|index| index >= count).unwrap_or_default();
            let index = indices.iter().nth(view).unwrap_or_default();
            return Err(DecodeError::DictionaryIndex {
                column,
                view: view as u32,
                index: index as u32,
                entries: count as u32,
            });
        }
        let entries = Packed::check(column, lengths, text, Place::Entry).map_err(|error| match error {
            // What stands before the lengths belongs to the column too.
            DecodeError::ColumnLength { needed, .. } => wrong(ENTRY_COUNT_BYTES + indices_len + needed as usize),
            error => error,
        })?;
        Ok(Self { indices, entries })
    }

    /// The entries in their order. Cost: a walk over lengths and text, without allocation.
    #[must_use]
    pub fn entries(&self) -> Entries<'a> {
        self.entries.iter()
    }

    /// Sets `uses` to how many views have each entry, in the order of the entries. Their sum is the number of views.
    pub fn count_uses(&self, uses: &mut Vec<u16>) {
        let entries = self.entries.lengths().len();
        uses.clear();
        uses.resize(entries, 0);
        match self.indices {
            Indices::None(views) => uses[0] = views as u16,
            Indices::Bytes(indices) => {
                // Of a size that no index is beyond, so that the loop checks nothing.
                let mut counts = [0; BYTE_ENTRIES_MAX];
                indices.iter().for_each(|&index| counts[usize::from(index)] += 1);
                uses.copy_from_slice(&counts[..entries]);
            }
            Indices::Pairs(indices) => {
                indices.iter().for_each(|&index| uses[usize::from(u16::from_le_bytes(index))] += 1);
            }
        }
    }

    /// Bytes of the strings of all views.
    pub(super) fn text_bytes(&self) -> usize {
        let lengths = self.entries.lengths();
        self.indices.iter().map(|index| usize::from(lengths[index])).sum()
    }

    pub(super) fn strings(&self) -> DictionaryStrings<'a> {
        let mut end = 0;
        let ends = self.entries.lengths().iter().map(|&length| {
            end += u32::from(length);
            end
        });
        let bounds = std::iter::once(0).chain(ends).collect();
        DictionaryStrings { indices: self.indices.iter(), bounds, text: self.entries.text() }
    }
}

impl<'a> Indices<'a> {
    fn greatest(&self) -> usize {
        match self {
            Self::None(_) => 0,
            Self::Bytes(indices) => indices.iter().fold(0, |greatest, &index| greatest.max(index)).into(),
            Self::Pairs(indices) => {
                let indices = indices.iter().map(|&index| u16::from_le_bytes(index));
                indices.fold(0, u16::max).into()
            }
        }
    }

    fn iter(&self) -> IndexIter<'a> {
        match self {
            Self::None(views) => IndexIter::None(0..*views),
            Self::Bytes(indices) => IndexIter::Bytes(indices.iter()),
            Self::Pairs(indices) => IndexIter::Pairs(indices.iter()),
        }
    }
}

#[derive(Clone, Debug)]
enum IndexIter<'a> {
    None(std::ops::Range<usize>),
    Bytes(std::slice::Iter<'a, u8>),
    Pairs(std::slice::Iter<'a, [u8; 2]>),
}

impl Iterator for IndexIter<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        match self {
            Self::None(views) => views.next().map(|_| 0),
            Self::Bytes(indices) => indices.next().map(|&index| index.into()),
            Self::Pairs(indices) => indices.next().map(|&index| u16::from_le_bytes(index).into()),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::None(views) => views.size_hint(),
            Self::Bytes(indices) => indices.size_hint(),
            Self::Pairs(indices) => indices.size_hint(),
        }
    }
}

/// The string of each view.
#[derive(Clone, Debug)]
pub(super) struct DictionaryStrings<'a> {
    indices: IndexIter<'a>,
    /// Where each entry begins, and where the last one ends.
    bounds: Vec<u32>,
    text: &'a str,
}

impl<'a> Iterator for DictionaryStrings<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let index = self.indices.next()?;
        Some(&self.text[self.bounds[index] as usize..self.bounds[index + 1] as usize])
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}
