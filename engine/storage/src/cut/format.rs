//! Header, section header and footer of a cut file.
//!
//! Not the payloads. Invariant: each parses back to what was written or to nothing.

use highwater_proto::Epoch;
use highwater_ranking::Minute;

use crate::codec::{PutLe, TakeLe};
use crate::position::DirectoryId;

pub(crate) const HEADER_BYTES: usize = 128;
pub(crate) const SECTION_HEADER_BYTES: usize = 32;
pub(crate) const FOOTER_BYTES: usize = 32;
pub(crate) const CUT_VERSION: u32 = 1;
/// Directory of the cut files, relative to the data directory.
pub(crate) const CUTS_DIR: &str = "cuts";

const HEADER_MAGIC: &[u8; 8] = b"HWCUT\0\0\x01";
const FOOTER_MAGIC: &[u8; 8] = b"HWCUTEND";

/// Kinds of sections.
pub(crate) mod kind {
    pub(crate) const POSITIONS: u32 = 1;
    pub(crate) const PRODUCERS: u32 = 2;
    pub(crate) const IDS: u32 = 3;
    pub(crate) const RUNS: u32 = 4;
    pub(crate) const INDEX: u32 = 5;
}

/// Which cut a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutHeader {
    /// The data directory.
    pub directory: DirectoryId,
    /// Number of the file, from 1 without gaps.
    pub number: u64,
    /// Epoch of the marker that froze the shards.
    pub epoch: Epoch,
    /// Engine time of that marker in ms UTC.
    pub time_ms: u64,
    /// The engine minute that was in force until that marker.
    pub minute: Minute,
    /// Every view that arrived before this time (ms UTC) is in this file or an earlier one.
    pub arrivals_from_ms: u64,
}

/// Path of a cut file, relative to the data directory.
pub(crate) fn cut_path(number: u64) -> String {
    format!("{CUTS_DIR}/cut-{number:010}.cut")
}

/// Number of a file name made by [`cut_path`].
pub(crate) fn parse_cut_name(name: &str) -> Option<u64> {
    name.strip_prefix("cut-")?.strip_suffix(".cut")?.parse().ok()
}

/// What is wrong with a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Newer(u32),
}

impl CutHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(HEADER_MAGIC);
        out.put_u32(CUT_VERSION);
        out.put_u32(0);
        out.put_u128(self.directory.0);
        out.put_u64(self.number);
        out.put_u64(self.epoch.0);
        out.put_u64(self.time_ms);
        out.put_u32(self.minute.0);
        out.put_u64(self.arrivals_from_ms);
        out.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let parsed = Self::parse(bytes).ok_or(HeaderFault::Damaged)?;
        if parsed.0 > CUT_VERSION {
            return Err(HeaderFault::Newer(parsed.0));
        }
        Ok(parsed.1)
    }

    fn parse(bytes: &[u8]) -> Option<(u32, Self)> {
        let (body, crc) = bytes.split_at_checked(HEADER_BYTES - 4)?;
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let mut reader = TakeLe::new(body);
        if reader.take(8)? != HEADER_MAGIC {
            return None;
        }
        let version = reader.u32()?;
        reader.u32()?;
        let header = Self {
            directory: DirectoryId(reader.u128()?),
            number: reader.u64()?,
            epoch: Epoch(reader.u64()?),
            time_ms: reader.u64()?,
            minute: Minute(reader.u32()?),
            arrivals_from_ms: reader.u64()?,
        };
        Some((version, header))
    }
}

/// The header of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SectionHeader {
    pub(crate) kind: u32,
    pub(crate) shard: u32,
    pub(crate) first: u64,
    pub(crate) payload_len: u64,
    pub(crate) crc: u32,
}

impl SectionHeader {
    pub(crate) fn new(kind: u32, shard: u16, first: u64, payload: &[u8]) -> Self {
        let mut header = Self { kind, shard: u32::from(shard), first, payload_len: payload.len() as u64, crc: 0 };
        header.crc = header.checksum(payload);
        header
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.covered();
        out.put_u32(self.crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = TakeLe::new(bytes);
        let header = Self {
            kind: reader.u32()?,
            shard: reader.u32()?,
            first: reader.u64()?,
            payload_len: reader.u64()?,
            crc: {
                let zero = reader.u32()?;
                if zero != 0 {
                    return None;
                }
                reader.u32()?
            },
        };
        Some(header)
    }

    /// Checksum over the header without its checksum, and the payload.
    pub(crate) fn checksum(&self, payload: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.covered()), payload)
    }

    fn covered(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SECTION_HEADER_BYTES);
        out.put_u32(self.kind);
        out.put_u32(self.shard);
        out.put_u64(self.first);
        out.put_u64(self.payload_len);
        out.put_u32(0);
        out
    }
}

/// The end of a cut file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) index_offset: u64,
    pub(crate) file_len: u64,
    pub(crate) sections: u32,
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(FOOTER_MAGIC);
        out.put_u64(self.index_offset);
        out.put_u64(self.file_len);
        out.put_u32(self.sections);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(FOOTER_BYTES - 4)?;
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let mut reader = TakeLe::new(body);
        if reader.take(8)? != FOOTER_MAGIC {
            return None;
        }
        Some(Self { index_offset: reader.u64()?, file_len: reader.u64()?, sections: reader.u32()? })
    }
}
