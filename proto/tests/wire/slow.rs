//! A decoder of batches that reads string by string, as the page describes them.
//!
//! It tells no reason: what is wrong is none. Invariant: it shares no code with the decoder that it is compared with.

use highwater_proto::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX, Batch, View};

/// Video, time, and user, region and device of each view.
pub(crate) type Read = Vec<(String, u64, [String; 3])>;

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }

    fn number(&mut self, len: usize) -> Option<u64> {
        let bytes = self.take(len)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }
}

pub(crate) fn slow_decode(payload: &[u8]) -> Option<Read> {
    let mut rest = Bytes(payload);
    rest.number(4)?;
    let views = rest.number(4)? as usize;
    let sequence = rest.number(8)?;
    if !(1..=BATCH_VIEWS_MAX as usize).contains(&views) || sequence == 0 {
        return None;
    }
    let video_ids = strings(&mut rest, views, 1)?;
    let times = times(&mut rest, views)?;
    let users = strings(&mut rest, views, 0)?;
    let regions = strings(&mut rest, views, 0)?;
    let devices = strings(&mut rest, views, 0)?;
    let text = [&video_ids, &users, &regions, &devices].map(|column| column.concat().len());
    let as_plain = 16 + 5 * 8 + 12 * views + text.iter().sum::<usize>();
    if !rest.0.is_empty() || as_plain > BATCH_BYTES_MAX {
        return None;
    }
    let view = |index: usize| {
        let rest = [&users, &regions, &devices].map(|column| column[index].clone());
        (video_ids[index].clone(), times[index], rest)
    };
    Some((0..views).map(view).collect())
}

/// Encoding and bytes of the next column.
fn column<'a>(rest: &mut Bytes<'a>) -> Option<(u8, Bytes<'a>)> {
    let encoding = rest.number(1)? as u8;
    let reserved = rest.number(3)?;
    let len = rest.number(4)?;
    let bytes = rest.take(len as usize)?;
    (reserved == 0).then_some((encoding, Bytes(bytes)))
}

fn strings(rest: &mut Bytes<'_>, views: usize, bytes_min: usize) -> Option<Vec<String>> {
    let (encoding, mut bytes) = column(rest)?;
    match encoding {
        0 => packed(&mut bytes, views, bytes_min),
        1 => {
            let count = bytes.number(2)? as usize;
            let index_len = match count {
                1 => 0,
                2..=256 => 1,
                257..=8192 => 2,
                _ => return None,
            };
            let indices: Option<Vec<u64>> = (0..views).map(|_| bytes.number(index_len)).collect();
            let entries = packed(&mut bytes, count, bytes_min)?;
            indices?.into_iter().map(|index| entries.get(index as usize).cloned()).collect()
        }
        _ => None,
    }
}

/// Lengths, then strings, to the end.
fn packed(bytes: &mut Bytes<'_>, count: usize, bytes_min: usize) -> Option<Vec<String>> {
    let lengths = bytes.take(count)?;
    let mut string = |&length: &u8| {
        let string = bytes.take(length.into())?.to_vec();
        String::from_utf8(string).ok().filter(|string| string.len() >= bytes_min)
    };
    let strings = lengths.iter().map(&mut string).collect::<Option<Vec<_>>>()?;
    bytes.0.is_empty().then_some(strings)
}

fn times(rest: &mut Bytes<'_>, views: usize) -> Option<Vec<u64>> {
    let (encoding, mut bytes) = column(rest)?;
    let (base, width) = match encoding {
        0 => (0, 8),
        2 => {
            let base = bytes.number(8).filter(|base| *base < 1 << 63)?;
            let width = bytes.number(1).filter(|width| [0, 1, 2, 4].contains(width))?;
            let reserved = bytes.number(7)?;
            (reserved == 0).then_some((base, width as usize))?
        }
        _ => return None,
    };
    let times = (0..views).map(|_| bytes.number(width).map(|offset| base + offset)).collect::<Option<Vec<_>>>()?;
    bytes.0.is_empty().then_some(times)
}

/// The same by the decoder of the crate.
pub(crate) fn fast_decode(payload: &[u8]) -> Option<Read> {
    let batch = Batch::decode(payload).ok()?;
    let own = |view: View<'_>| {
        let rest = [view.user_id, view.region, view.device].map(str::to_owned);
        (view.video_id.to_owned(), view.timestamp_ms, rest)
    };
    Some(batch.views().map(own).collect())
}
