//! Batches: views by column, under one sequence and one checksum.
//!
//! What it is for: the engine's hot path reads batches here, clients build them in [`BatchBuilder`]. What it is not:
//! verdicts on views; any time is sound here. Invariant: in a decoded batch every column holds exactly one value per
//! view, every video id has 1 to 255 bytes and every string is UTF-8, so the iterators cannot fail; and with plain
//! columns the batch would not be over its limit of bytes, so no few bytes stand for very many. Cost: decoding checks
//! whole columns and allocates nothing.

mod builder;
mod column;
mod dictionary;
mod distinct;
mod prepared;
mod times;

pub use builder::{BatchBuilder, Pushed};
pub use column::{Entries, Strings};
pub use dictionary::Dictionary;
pub use prepared::PreparedBatch;
pub use times::Times;

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, COLUMN_HEADER_BYTES, COLUMNS, TIME_BYTES};
use crate::wire::{Reader, in_range};
use crate::words::{ProducerId, Sequence, View};
use column::StringColumn;
use times::TimeColumn;

/// What stands before the columns of a BATCH payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// CRC32C that the client computed; see [`batch_checksum`].
    pub crc: u32,
    /// Views in the batch, 1 to [`BATCH_VIEWS_MAX`].
    pub view_count: u32,
    /// The batch's number, from 1.
    pub sequence: Sequence,
}

/// Reads only the first 16 bytes of a BATCH payload, which may end after them.
pub fn batch_header(payload: &[u8]) -> Result<BatchHeader, DecodeError> {
    let start = payload.get(..BATCH_HEADER_BYTES).unwrap_or(payload);
    let mut reader = Reader::of_frame(FrameKind::Batch, start)?;
    let (crc, view_count, sequence) = (reader.u32()?, reader.u32()?, reader.u64()?);
    in_range("batch view count", view_count.into(), 1, BATCH_VIEWS_MAX.into())?;
    in_range("batch sequence", sequence, 1, u64::MAX)?;
    Ok(BatchHeader { crc, view_count, sequence: Sequence(sequence) })
}

/// The CRC32C (Castagnoli) that belongs in front of a BATCH payload: over version (u16), producer (u128), then the
/// payload from its byte 4 on. The first 4 bytes of `payload` are not read.
pub fn batch_checksum(payload: &[u8], version: u16, producer: ProducerId) -> u32 {
    let mut prefix = [0; 18];
    prefix[..2].copy_from_slice(&version.to_le_bytes());
    prefix[2..].copy_from_slice(&producer.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&prefix), payload.get(4..).unwrap_or_default())
}

/// A batch borrowed from its payload, checked in structure but not yet against its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    header: BatchHeader,
    video_ids: StringColumn<'a>,
    timestamps: TimeColumn<'a>,
    users: StringColumn<'a>,
    regions: StringColumn<'a>,
    devices: StringColumn<'a>,
}

impl<'a> Batch<'a> {
    /// Reads the payload of a BATCH frame.
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        let header = batch_header(payload)?;
        let mut reader = Reader::of_frame(FrameKind::Batch, payload)?;
        reader.take(BATCH_HEADER_BYTES)?;
        let views = header.view_count as usize;
        let video_ids = StringColumn::decode(&mut reader, "video_id", views)?;
        video_ids.refuse_empty()?;
        let timestamps = TimeColumn::decode(&mut reader, "timestamp_ms", views)?;
        let users = StringColumn::decode(&mut reader, "user_id", views)?;
        let regions = StringColumn::decode(&mut reader, "region", views)?;
        let devices = StringColumn::decode(&mut reader, "device", views)?;
        reader.finish()?;
        let batch = Self { header, video_ids, timestamps, users, regions, devices };
        batch.refuse_too_large_as_plain()?;
        Ok(batch)
    }

    /// Refuses a batch whose plain form would be over the limit. The strings of dictionaries are only walked over where
    /// their longest entries do not settle it.
    fn refuse_too_large_as_plain(&self) -> Result<(), DecodeError> {
        let views = self.header.view_count as usize;
        let columns = [&self.video_ids, &self.users, &self.regions, &self.devices];
        let fixed = BATCH_HEADER_BYTES + COLUMNS * COLUMN_HEADER_BYTES + views * TIME_BYTES;
        if fixed + columns.iter().map(|column| column.plain_bytes_bound(views)).sum::<usize>() <= BATCH_BYTES_MAX {
            return Ok(());
        }
        let bytes = fixed + columns.iter().map(|column| column.plain_bytes(views)).sum::<usize>();
        in_range("batch payload with plain columns", bytes as u64, 0, BATCH_BYTES_MAX as u64)
    }

    /// Checks a payload against the checksum in its first 4 bytes; `version` and `producer` are those of the stream's
    /// hello.
    pub fn verify(payload: &[u8], version: u16, producer: ProducerId) -> Result<(), DecodeError> {
        let stated = batch_header(payload)?.crc;
        let computed = batch_checksum(payload, version, producer);
        if stated == computed { Ok(()) } else { Err(DecodeError::Checksum { stated, computed }) }
    }

    /// The batch's number.
    pub fn sequence(&self) -> Sequence {
        self.header.sequence
    }

    /// How many views it holds, 1 to [`BATCH_VIEWS_MAX`].
    pub fn view_count(&self) -> u32 {
        self.header.view_count
    }

    /// The checksum that it states.
    pub fn crc(&self) -> u32 {
        self.header.crc
    }

    /// The video of each view, in order.
    pub fn video_ids(&self) -> Strings<'a> {
        self.video_ids.iter()
    }

    /// The videos as a dictionary; `None` if their column came as a plain one.
    pub fn video_dictionary(&self) -> Option<Dictionary<'a>> {
        match self.video_ids {
            StringColumn::Plain(_) => None,
            StringColumn::Dictionary(dictionary) => Some(dictionary),
        }
    }

    /// The event time of each view in milliseconds, in order; any u64.
    pub fn timestamps(&self) -> Times<'a> {
        self.timestamps.iter()
    }

    /// The least and the greatest event time. Cost: one pass over the times, which vectorises; none where all are equal
    /// by their encoding.
    pub fn time_bounds(&self) -> (u64, u64) {
        self.timestamps.bounds()
    }

    /// The user of each view, in order.
    pub fn users(&self) -> Strings<'a> {
        self.users.iter()
    }

    /// The region of each view, in order.
    pub fn regions(&self) -> Strings<'a> {
        self.regions.iter()
    }

    /// The device of each view, in order.
    pub fn devices(&self) -> Strings<'a> {
        self.devices.iter()
    }

    /// Every view with all fields, in order.
    pub fn views(&self) -> Views<'a> {
        Views {
            video_ids: self.video_ids(),
            timestamps: self.timestamps(),
            users: self.users(),
            regions: self.regions(),
            devices: self.devices(),
        }
    }
}

/// The views of a batch, in order.
#[derive(Clone, Debug)]
pub struct Views<'a> {
    video_ids: Strings<'a>,
    timestamps: Times<'a>,
    users: Strings<'a>,
    regions: Strings<'a>,
    devices: Strings<'a>,
}

impl<'a> Iterator for Views<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        Some(View {
            video_id: self.video_ids.next()?,
            timestamp_ms: self.timestamps.next()?,
            user_id: self.users.next()?,
            region: self.regions.next()?,
            device: self.devices.next()?,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.video_ids.size_hint()
    }
}

impl ExactSizeIterator for Views<'_> {}
