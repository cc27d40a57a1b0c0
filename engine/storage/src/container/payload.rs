//! The payloads of sections other than runs.
//!
//! Not which of them a file has. Invariant: what parses makes sense by itself, and everything else is `None`.

use highwater_ranking::Minute;

use crate::codec::{PutLe, TakeLe};
use crate::position::{LogNumber, LogPosition};
use crate::producers::ProducerImage;

/// Where the runs of which periods are; in a base where ids and counts are, without periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) shard: u16,
    /// Byte of the section's header within the file.
    pub(crate) offset: u64,
    /// First minutes of the periods, ascending, each once.
    pub(crate) minutes: Vec<Minute>,
}

pub(crate) fn put_positions(positions: &[(LogNumber, LogPosition)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (log, position) in positions {
        payload.put_u32(log.0);
        payload.put_u32(position.generation);
        payload.put_u64(position.position);
    }
    payload
}

pub(crate) fn parse_positions(payload: &[u8]) -> Option<Vec<(LogNumber, LogPosition)>> {
    let mut reader = TakeLe::new(payload);
    let mut positions = Vec::new();
    while !reader.is_empty() {
        let log = LogNumber(reader.u32()?);
        positions.push((log, LogPosition { generation: reader.u32()?, position: reader.u64()? }));
    }
    Some(positions)
}

pub(crate) fn parse_producers(payload: &[u8], version: u32) -> Option<Vec<ProducerImage>> {
    let mut reader = TakeLe::new(payload);
    let mut producers = Vec::new();
    while !reader.is_empty() {
        producers.push(ProducerImage::decode(&mut reader, version)?);
    }
    Some(producers)
}

pub(crate) fn put_ids(lens: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(4 + lens.len() + bytes.len());
    payload.put_u32(lens.len() as u32);
    payload.extend_from_slice(lens);
    payload.extend_from_slice(bytes);
    payload
}

pub(crate) fn parse_ids(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = TakeLe::new(payload);
    let count = reader.u32()? as usize;
    let lens = reader.take(count)?;
    let bytes = reader.take(reader.left())?;
    let total: usize = lens.iter().map(|len| usize::from(*len)).sum();
    (total == bytes.len()).then_some((lens, bytes))
}

pub(crate) fn put_counts(counts: &[u64]) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.put_u32(counts.len() as u32);
    counts.iter().for_each(|count| payload.put_varint(*count));
    payload
}

pub(crate) fn parse_counts(payload: &[u8]) -> Option<Vec<u64>> {
    let mut reader = TakeLe::new(payload);
    let len = reader.u32()? as usize;
    if len > reader.left() {
        return None;
    }
    let counts = (0..len).map(|_| reader.varint()).collect::<Option<Vec<_>>>()?;
    reader.is_empty().then_some(counts)
}

pub(crate) fn put_index(blocks: &[Block]) -> Vec<u8> {
    let mut index = Vec::new();
    for block in blocks {
        index.put_varint(u64::from(block.shard));
        index.put_varint(block.offset);
        index.put_varint(block.minutes.len() as u64);
        let mut before = 0;
        for minute in &block.minutes {
            index.put_varint(u64::from(minute.0 - before));
            before = minute.0;
        }
    }
    index
}

pub(crate) fn parse_index(payload: &[u8]) -> Option<Vec<Block>> {
    let mut reader = TakeLe::new(payload);
    let mut blocks = Vec::new();
    while !reader.is_empty() {
        let shard = reader.varint()?.try_into().ok()?;
        let offset = reader.varint()?;
        let count = reader.varint_u32()?;
        let mut minutes = Vec::new();
        let mut minute = 0u32;
        for _ in 0..count {
            minute = minute.checked_add(reader.varint_u32()?)?;
            minutes.push(Minute(minute));
        }
        blocks.push(Block { shard, offset, minutes });
    }
    Some(blocks)
}
