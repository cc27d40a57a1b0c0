//! Finds the distinct strings of a column, so that it can travel as a dictionary.
//!
//! What it is not: the choice between the encodings, which is [`super::builder`]'s. Invariant: the same strings give
//! the same entries and indices, in order of first use, and no column takes more than [`PROBES_MAX`] comparisons for
//! each string, whatever its strings. Cost: a hash and mostly one comparison for each string; memory is kept for the
//! next column.

use super::dictionary::{ENTRY_COUNT_BYTES, index_bytes};
use crate::limits::BATCH_VIEWS_MAX;
use bytes::{BufMut, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// Places of the table: at most half of them are taken.
const PLACES: usize = 2 * BATCH_VIEWS_MAX as usize;
/// Places looked at for one string before the column is given up; a few dozen are the most in practice.
const PROBES_MAX: usize = 256;
/// After so many strings a column is given up in which ...
const SAMPLE: usize = 512;
/// ... more than this are distinct: it would hardly be smaller, and the table costs time.
const SAMPLE_DISTINCT_MAX: usize = SAMPLE / 8 * 7;

// A place holds the number of an entry, from 1, and bits of its hash.
const _: () = assert!(PLACES.is_power_of_two() && BATCH_VIEWS_MAX < 1 << ENTRY_BITS);
const ENTRY_BITS: u32 = 14;
const ENTRY_MASK: u32 = (1 << ENTRY_BITS) - 1;

/// The places of strings by their hashes: 0 is free, else the hash's upper bits and the entry's number from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<u32>);

/// The distinct strings of one column.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    /// The entry of each string.
    indices: Vec<u16>,
    lengths: Vec<u8>,
    text: Vec<u8>,
    /// Where each entry ends in the text.
    ends: Vec<u32>,
}

impl Distinct {
    /// Takes up the strings of these lengths that `text` holds; false if they are not worth it.
    pub(super) fn collect(&mut self, places: &mut Places, lengths: &[u8], mut text: &[u8]) -> bool {
        debug_assert!(lengths.len() <= BATCH_VIEWS_MAX as usize);
        self.clear();
        places.0.clear();
        places.0.resize(PLACES, 0);
        for &length in lengths {
            let (string, rest) = text.split_at(length.into());
            text = rest;
            let Some(entry) = self.entry(&mut places.0, string) else { return false };
            self.indices.push(entry);
            if self.indices.len() == SAMPLE && self.lengths.len() > SAMPLE_DISTINCT_MAX {
                return false;
            }
        }
        true
    }

    /// The entry of a string, new or not; `None` if its place is too hard to find.
    fn entry(&mut self, places: &mut [u32], string: &[u8]) -> Option<u16> {
        let hash = xxh3_64(string);
        let mark = (hash >> 32) as u32 & !ENTRY_MASK;
        let first = hash as usize;
        for probe in 0..PROBES_MAX {
            let place = &mut places[first.wrapping_add(probe) % PLACES];
            if *place == 0 {
                let entry = self.lengths.len() as u16;
                *place = mark | u32::from(entry + 1);
                self.lengths.push(string.len() as u8);
                self.text.extend_from_slice(string);
                self.ends.push(self.text.len() as u32);
                return Some(entry);
            }
            let entry = (*place & ENTRY_MASK) - 1;
            if *place & !ENTRY_MASK == mark && self.string(entry as usize) == string {
                return Some(entry as u16);
            }
        }
        None
    }

    fn string(&self, entry: usize) -> &[u8] {
        let end = self.ends[entry] as usize;
        &self.text[end - usize::from(self.lengths[entry])..end]
    }

    /// Bytes of the column as a dictionary.
    pub(super) fn bytes_len(&self) -> usize {
        let entries = self.lengths.len();
        ENTRY_COUNT_BYTES + self.indices.len() * index_bytes(entries) + entries + self.text.len()
    }

    /// Writes the column's bytes.
    pub(super) fn put(&self, frame: &mut BytesMut) {
        let entries = self.lengths.len();
        frame.put_u16_le(entries as u16);
        match index_bytes(entries) {
            0 => {}
            1 => frame.extend(self.indices.iter().map(|&index| index as u8)),
            _ => self.indices.iter().for_each(|&index| frame.put_u16_le(index)),
        }
        frame.put_slice(&self.lengths);
        frame.put_slice(&self.text);
    }

    fn clear(&mut self) {
        self.indices.clear();
        self.lengths.clear();
        self.text.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(strings: &[&str]) -> (Distinct, bool) {
        let mut distinct = Distinct::default();
        let lengths: Vec<u8> = strings.iter().map(|string| string.len() as u8).collect();
        let worth_it = distinct.collect(&mut Places::default(), &lengths, strings.concat().as_bytes());
        (distinct, worth_it)
    }

    #[test]
    fn entries_are_in_order_of_first_use() {
        let (distinct, worth_it) = collected(&["b", "", "aé", "b", "", "b"]);
        assert!(worth_it);
        assert_eq!(distinct.indices, [0, 1, 2, 0, 1, 0]);
        assert_eq!((distinct.lengths.as_slice(), distinct.text.as_slice()), (&[1, 0, 3][..], "baé".as_bytes()));
        let mut frame = BytesMut::new();
        distinct.put(&mut frame);
        assert_eq!(frame.len(), distinct.bytes_len());
    }

    #[test]
    fn a_column_of_which_nearly_all_are_distinct_is_given_up_early() {
        let ids = |distinct: usize, all: usize| -> Vec<String> {
            (0..all).map(|index| format!("{:04}", index.min(distinct - 1))).collect()
        };
        let worth_it = |ids: Vec<String>| {
            let (distinct, worth_it) = collected(&ids.iter().map(String::as_str).collect::<Vec<_>>());
            (worth_it, distinct.indices.len())
        };
        assert_eq!(worth_it(ids(SAMPLE_DISTINCT_MAX + 1, 8192)), (false, SAMPLE));
        assert_eq!(worth_it(ids(SAMPLE_DISTINCT_MAX, 8192)), (true, 8192));
        assert_eq!(worth_it(ids(SAMPLE - 1, SAMPLE - 1)), (true, SAMPLE - 1));
    }

    #[test]
    fn as_many_entries_as_a_batch_can_have_are_found_again() {
        let repeated = (0..SAMPLE).map(|_| "same".to_owned());
        let others = (0..BATCH_VIEWS_MAX as usize - SAMPLE).map(|index| format!("id-{index}"));
        let ids: Vec<String> = repeated.chain(others).collect();
        let (distinct, worth_it) = collected(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(worth_it);
        assert_eq!(distinct.lengths.len(), BATCH_VIEWS_MAX as usize - SAMPLE + 1);
        for (id, &index) in ids.iter().zip(&distinct.indices) {
            assert_eq!(distinct.string(index.into()), id.as_bytes());
        }
    }

    #[test]
    fn a_string_whose_place_is_too_hard_to_find_gives_the_column_up() {
        let mut distinct = Distinct::default();
        let taken = collected(&["taken"]).0;
        distinct.clone_from(&taken);
        let mut places = vec![1; PLACES];
        assert_eq!(distinct.entry(&mut places, b"other"), None);
    }
}
