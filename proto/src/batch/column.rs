//! The string columns of a batch: a header, then strings in one of the encodings of their kind.
//!
//! Encoding 0 (plain) is here, encoding 1 (dictionary) in [`super::dictionary`]. Invariant: every length ends at a
//! character boundary and the lengths fill the bytes exactly, so [`Entries`] never splits wrongly. Cost: one vectorised
//! pass over the lengths and two over the bytes; only a column that is not all ASCII takes a loop over its strings.

use super::dictionary::{Dictionary, DictionaryStrings};
use crate::error::{DecodeError, Place};
use crate::limits::{BATCH_VIEWS_MAX, ENCODING_DICTIONARY_BIT, ENCODING_PLAIN_BIT};
use crate::wire::Reader;

/// The encoding that every column may have.
pub(super) const PLAIN: u8 = 0;
/// That of strings of which each stands once, however many views have it.
pub(super) const DICTIONARY: u8 = 1;

const ACCEPTED: &str = "0 (plain) and 1 (dictionary)";

const _: () = assert!(ENCODING_PLAIN_BIT == 1 << PLAIN && ENCODING_DICTIONARY_BIT == 1 << DICTIONARY);
// The sum of a column's lengths is taken in u32.
const _: () = assert!(BATCH_VIEWS_MAX as u64 * u8::MAX as u64 <= u32::MAX as u64);

/// A column of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StringColumn<'a> {
    Plain(Packed<'a>),
    Dictionary(Dictionary<'a>),
}

impl<'a> StringColumn<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, column: &'static str, views: usize) -> Result<Self, DecodeError> {
        let (encoding, bytes) = column_parts(reader)?;
        match encoding {
            PLAIN => {
                let short = DecodeError::ColumnLength { column, stated: bytes.len() as u64, needed: views as u64 };
                let (lengths, text) = bytes.split_at_checked(views).ok_or(short)?;
                Packed::check(column, lengths, text, Place::View).map(Self::Plain)
            }
            DICTIONARY => Dictionary::decode(column, bytes, views).map(Self::Dictionary),
            found => Err(DecodeError::Encoding { column, found, accepted: ACCEPTED }),
        }
    }

    /// Refuses a column with an empty string.
    pub(super) fn refuse_empty(&self) -> Result<(), DecodeError> {
        let (empty, place): (_, fn(u32) -> Place) = match self {
            Self::Plain(strings) => (strings.first_empty(), Place::View),
            Self::Dictionary(dictionary) => (dictionary.entries.first_empty(), Place::Entry),
        };
        empty.map_or(Ok(()), |index| Err(DecodeError::EmptyVideoId { place: place(index) }))
    }

    pub(super) fn iter(&self) -> Strings<'a> {
        Strings(match self {
            Self::Plain(strings) => Form::Plain(strings.iter()),
            Self::Dictionary(dictionary) => Form::Dictionary(dictionary.strings()),
        })
    }

    /// The bytes that the column would have as plain, or more.
    pub(super) fn plain_bytes_bound(&self, views: usize) -> usize {
        match self {
            Self::Plain(strings) => strings.bytes_len(),
            Self::Dictionary(dictionary) => views * (1 + dictionary.entries.longest()),
        }
    }

    /// The bytes that the column would have as plain.
    pub(super) fn plain_bytes(&self, views: usize) -> usize {
        match self {
            Self::Plain(strings) => strings.bytes_len(),
            Self::Dictionary(dictionary) => views + dictionary.text_bytes(),
        }
    }
}

/// Reads a column's header and takes its bytes.
pub(super) fn column_parts<'a>(reader: &mut Reader<'a>) -> Result<(u8, &'a [u8]), DecodeError> {
    let encoding = reader.u8()?;
    reader.zeros::<3>()?;
    let bytes = reader.u32()?;
    Ok((encoding, reader.take(bytes as usize)?))
}

/// Strings one after the other, with a length byte for each: a plain column, or the entries of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed<'a> {
    lengths: &'a [u8],
    text: &'a str,
}

impl<'a> Packed<'a> {
    /// Strings of these lengths must fill `text`, and each be UTF-8; `place` names the one that is not.
    pub(super) fn check(
        column: &'static str,
        lengths: &'a [u8],
        text: &'a [u8],
        place: fn(u32) -> Place,
    ) -> Result<Self, DecodeError> {
        let sum: u32 = lengths.iter().map(|&length| u32::from(length)).sum();
        if sum as usize != text.len() {
            let stated = (lengths.len() + text.len()) as u64;
            return Err(DecodeError::ColumnLength { column, stated, needed: lengths.len() as u64 + u64::from(sum) });
        }
        match simdutf8::basic::from_utf8(text) {
            Ok(text) if text.is_ascii() || splits_at_characters(lengths, text) => Ok(Self { lengths, text }),
            _ => Err(DecodeError::NotUtf8 {
                field: column,
                place: first_not_utf8(lengths, text).map_or(Place::Field, place),
            }),
        }
    }

    pub(super) fn iter(&self) -> Entries<'a> {
        Entries { lengths: self.lengths.iter(), text: self.text }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    pub(super) fn lengths(&self) -> &'a [u8] {
        self.lengths
    }

    fn bytes_len(&self) -> usize {
        self.lengths.len() + self.text.len()
    }

    fn longest(&self) -> usize {
        self.lengths.iter().fold(0, |longest, &length| longest.max(length)).into()
    }

    fn first_empty(&self) -> Option<u32> {
        if !self.lengths.contains(&0) {
            return None;
        }
        self.lengths.iter().position(|&length| length == 0).map(|index| index as u32)
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
    lengths.iter().position(is_wrong).map(|index| index as u32)
}

/// Strings that stand one after the other, in their order: the entries of a [`Dictionary`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    lengths: std::slice::Iter<'a, u8>,
    text: &'a str,
}

impl<'a> Iterator for Entries<'a> {
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

impl ExactSizeIterator for Entries<'_> {}

/// The strings of a column, in the order of its views.
///
/// Those of a dictionary hold where each of its entries ends, in a vector of 4 bytes for each entry that is made with
/// the iterator and copied with it; those of a plain column allocate nothing.
#[derive(Clone, Debug)]
pub struct Strings<'a>(Form<'a>);

#[derive(Clone, Debug)]
enum Form<'a> {
    Plain(Entries<'a>),
    Dictionary(DictionaryStrings<'a>),
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            Form::Plain(strings) => strings.next(),
            Form::Dictionary(strings) => strings.next(),
        }
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Form::Plain(strings) => strings.size_hint(),
            Form::Dictionary(strings) => strings.size_hint(),
        }
    }

    #[inline]
    fn fold<B, F: FnMut(B, &'a str) -> B>(self, start: B, add: F) -> B {
        match self.0 {
            Form::Plain(strings) => strings.fold(start, add),
            Form::Dictionary(strings) => strings.fold(start, add),
        }
    }
}

impl ExactSizeIterator for Strings<'_> {}
