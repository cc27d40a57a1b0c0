//! Names, header, block header and footer of an archive file.
//!
//! Not the batches. Invariant: each parses back to what was written or to nothing.

use super::catalog::SegmentKey;
use crate::codec::{PutLe, TakeLe};
use crate::position::{DirectoryId, LogNumber, SegmentNumber};

/// Directory of the archive, relative to the data directory.
pub(crate) const ARCHIVE_DIR: &str = "archive";
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const BLOCK_HEADER_BYTES: usize = 96;
pub(super) const FOOTER_BYTES: usize = 160;
/// Files of version 1 hold batches with plain columns only.
pub(super) const ARCHIVE_VERSION: u32 = 2;
/// A block is closed when its batches reach this.
pub(super) const BLOCK_RAW_BYTES: usize = 4 << 20;
/// What precedes each batch in a block.
pub(super) const BATCH_HEAD_BYTES: usize = 50;
/// The most that a block can hold: the last batch may reach beyond the limit.
pub(super) const BLOCK_RAW_BYTES_MAX: usize = BLOCK_RAW_BYTES + BATCH_HEAD_BYTES + crate::record::RECORD_BYTES_MAX;

const MAGIC: &[u8; 8] = b"HWARCHIV";
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"HwA\x01");
const FOOTER_MAGIC: &[u8; 8] = b"HWARCEND";

/// Path of the archive file of a segment, relative to the data directory.
pub(crate) fn archive_path(key: SegmentKey) -> String {
    let SegmentKey { generation, segment, log } = key;
    format!("{ARCHIVE_DIR}/views-{:03}-{generation:010}-{:010}.hwa", log.0, segment.0)
}

/// The segment of a file name made by [`archive_path`].
pub(crate) fn parse_archive_name(name: &str) -> Option<SegmentKey> {
    let mut parts = name.strip_prefix("views-")?.strip_suffix(".hwa")?.split('-');
    let log = LogNumber(parts.next()?.parse().ok()?);
    let generation = parts.next()?.parse().ok()?;
    let segment = SegmentNumber(parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(SegmentKey { generation, segment, log })
}

/// Smallest and largest of some times in ms UTC; of none, the largest and smallest there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeSpan {
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
}

impl TimeSpan {
    pub(super) const NONE: Self = Self { min_ms: u64::MAX, max_ms: 0 };

    pub(super) fn add(&mut self, time_ms: u64) {
        self.min_ms = self.min_ms.min(time_ms);
        self.max_ms = self.max_ms.max(time_ms);
    }

    pub(super) fn join(&mut self, other: Self) {
        self.min_ms = self.min_ms.min(other.min_ms);
        self.max_ms = self.max_ms.max(other.max_ms);
    }

    /// Whether any time of the span may lie in the range.
    pub(super) fn meets(&self, range: &std::ops::Range<u64>) -> bool {
        self.min_ms <= self.max_ms && self.min_ms < range.end && self.max_ms >= range.start
    }

    fn put(self, out: &mut Vec<u8>) {
        out.put_u64(self.min_ms);
        out.put_u64(self.max_ms);
    }

    fn take(reader: &mut TakeLe<'_>) -> Option<Self> {
        Some(Self { min_ms: reader.u64()?, max_ms: reader.u64()? })
    }
}

/// Which segment a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArchiveHeader {
    pub(super) directory: DirectoryId,
    pub(super) key: SegmentKey,
    pub(super) segment_bytes: u64,
}

/// What is wrong with a header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    Damaged,
    Newer(u32),
}

impl ArchiveHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.put_u32(ARCHIVE_VERSION);
        out.put_u32(self.key.log.0);
        out.put_u128(self.directory.0);
        out.put_u32(self.key.generation);
        out.put_u32(0);
        out.put_u64(self.key.segment.0);
        out.put_u64(self.segment_bytes);
        seal(out, HEADER_BYTES)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (version, header) = Self::parse(bytes).ok_or(HeaderFault::Damaged)?;
        if version > ARCHIVE_VERSION { Err(HeaderFault::Newer(version)) } else { Ok(header) }
    }

    fn parse(bytes: &[u8]) -> Option<(u32, Self)> {
        let mut reader = unseal(bytes, HEADER_BYTES)?;
        if reader.take(8)? != MAGIC {
            return None;
        }
        let version = reader.u32()?;
        let log = LogNumber(reader.u32()?);
        let directory = DirectoryId(reader.u128()?);
        let generation = reader.u32()?;
        reader.u32()?;
        let key = SegmentKey { generation, segment: SegmentNumber(reader.u64()?), log };
        Some((version, Self { directory, key, segment_bytes: reader.u64()? }))
    }
}

/// What stands before the compressed batches of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) key: SegmentKey,
    /// Logical end of the record before the first batch.
    pub(super) after: u64,
    /// Behind the last batch.
    pub(super) up_to: u64,
    pub(super) batches: u32,
    /// Accepted views.
    pub(super) views: u32,
    pub(super) events: TimeSpan,
    pub(super) arrivals: TimeSpan,
    pub(super) raw_len: u32,
    pub(super) stored_len: u32,
    /// CRC32C of the stored bytes.
    pub(super) stored_crc: u32,
}

impl BlockHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK_HEADER_BYTES);
        out.put_u32(BLOCK_MAGIC);
        out.put_u32(self.key.log.0);
        out.put_u32(self.key.generation);
        out.put_u32(self.batches);
        out.put_u32(self.views);
        out.put_u64(self.after);
        out.put_u64(self.up_to);
        self.events.put(&mut out);
        self.arrivals.put(&mut out);
        out.put_u32(self.raw_len);
        out.put_u32(self.stored_len);
        out.put_u32(self.stored_crc);
        out.put_u32(self.key.segment.0 as u32);
        seal(out, BLOCK_HEADER_BYTES)
    }

    /// The header, if it verifies as one of the segment `of`.
    pub(super) fn decode(bytes: &[u8], of: SegmentKey) -> Option<Self> {
        let mut reader = unseal(bytes, BLOCK_HEADER_BYTES)?;
        let is_block = reader.u32()? == BLOCK_MAGIC;
        let is_of_segment = (reader.u32()?, reader.u32()?) == (of.log.0, of.generation);
        let (batches, views) = (reader.u32()?, reader.u32()?);
        let header = Self {
            key: of,
            after: reader.u64()?,
            up_to: reader.u64()?,
            batches,
            views,
            events: TimeSpan::take(&mut reader)?,
            arrivals: TimeSpan::take(&mut reader)?,
            raw_len: reader.u32()?,
            stored_len: reader.u32()?,
            stored_crc: reader.u32()?,
        };
        let fits = header.raw_len as usize <= BLOCK_RAW_BYTES_MAX && reader.u32()? == of.segment.0 as u32;
        (is_block && is_of_segment && fits).then_some(header)
    }
}

/// The sums of a file, at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ArchiveFooter {
    /// Logical end of the record before the segment's first one.
    pub(super) after: u64,
    /// Behind the segment's last record.
    pub(super) up_to: u64,
    /// Whether the generation has no records behind this segment.
    pub(super) ends_generation: bool,
    pub(super) blocks: u32,
    pub(super) batches: u64,
    /// Accepted views.
    pub(super) views: u64,
    pub(super) events: TimeSpan,
    pub(super) arrivals: TimeSpan,
    pub(super) raw_bytes: u64,
    pub(super) file_len: u64,
}

impl ArchiveFooter {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = FOOTER_MAGIC.to_vec();
        out.put_u64(self.after);
        out.put_u64(self.up_to);
        out.put_u32(u32::from(self.ends_generation));
        out.put_u32(self.blocks);
        out.put_u64(self.batches);
        out.put_u64(self.views);
        self.events.put(&mut out);
        self.arrivals.put(&mut out);
        out.put_u64(self.raw_bytes);
        out.put_u64(self.file_len);
        seal(out, FOOTER_BYTES)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = unseal(bytes, FOOTER_BYTES)?;
        if reader.take(8)? != FOOTER_MAGIC {
            return None;
        }
        Some(Self {
            after: reader.u64()?,
            up_to: reader.u64()?,
            ends_generation: reader.u32()? == 1,
            blocks: reader.u32()?,
            batches: reader.u64()?,
            views: reader.u64()?,
            events: TimeSpan::take(&mut reader)?,
            arrivals: TimeSpan::take(&mut reader)?,
            raw_bytes: reader.u64()?,
            file_len: reader.u64()?,
        })
    }
}

/// Fills with zeros up to the checksum that ends a part of fixed length.
fn seal(mut out: Vec<u8>, len: usize) -> Vec<u8> {
    assert!(out.len() <= len - 4, "{} bytes of {len}", out.len());
    out.resize(len - 4, 0);
    let crc = crc32c::crc32c(&out);
    out.put_u32(crc);
    out
}

fn unseal(bytes: &[u8], len: usize) -> Option<TakeLe<'_>> {
    let (body, crc) = bytes.split_at_checked(len - 4)?;
    (crc == crc32c::crc32c(body).to_le_bytes()).then(|| TakeLe::new(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SegmentKey = SegmentKey { generation: 7, segment: SegmentNumber(12), log: LogNumber(3) };

    #[test]
    fn names_round_trip() {
        let path = archive_path(KEY);
        assert_eq!(path, "archive/views-003-0000000007-0000000012.hwa");
        let name = path.split_once('/').unwrap().1;
        assert_eq!(parse_archive_name(name), Some(KEY));
        assert_eq!(parse_archive_name(&format!("{name}.tmp")), None);
        assert_eq!(parse_archive_name("views-003-0000000007.hwa"), None);
    }

    #[test]
    fn every_part_round_trips_and_no_flipped_bit_does() {
        let header = ArchiveHeader { directory: DirectoryId(9), key: KEY, segment_bytes: 64 << 20 };
        let times = TimeSpan { min_ms: 5, max_ms: 9 };
        let block = BlockHeader {
            key: KEY,
            after: 3,
            up_to: 70,
            batches: 2,
            views: 11,
            events: times,
            arrivals: TimeSpan::NONE,
            raw_len: 100,
            stored_len: 40,
            stored_crc: 0xdead_beef,
        };
        let footer = ArchiveFooter {
            after: 3,
            up_to: 80,
            ends_generation: true,
            blocks: 1,
            batches: 2,
            views: 11,
            events: times,
            arrivals: times,
            raw_bytes: 100,
            file_len: 360,
        };
        assert_eq!(ArchiveHeader::decode(&header.encode()), Ok(header));
        assert_eq!(BlockHeader::decode(&block.encode(), KEY), Some(block));
        assert_eq!(ArchiveFooter::decode(&footer.encode()), Some(footer));
        assert_eq!(BlockHeader::decode(&block.encode(), SegmentKey { generation: 8, ..KEY }), None);
        for bit in 0..8 * HEADER_BYTES {
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ArchiveHeader::decode(&bytes), Err(HeaderFault::Damaged), "bit {bit}");
        }
        for bit in 0..8 * BLOCK_HEADER_BYTES {
            let mut bytes = block.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BlockHeader::decode(&bytes, KEY), None, "bit {bit}");
        }
        for bit in 0..8 * FOOTER_BYTES {
            let mut bytes = footer.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ArchiveFooter::decode(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_by_its_number() {
        let header = ArchiveHeader { directory: DirectoryId(9), key: KEY, segment_bytes: 64 << 20 };
        let mut bytes = header.encode();
        bytes[8] = 3;
        bytes.truncate(HEADER_BYTES - 4);
        assert_eq!(ArchiveHeader::decode(&seal(bytes, HEADER_BYTES)), Err(HeaderFault::Newer(3)));
    }
}
