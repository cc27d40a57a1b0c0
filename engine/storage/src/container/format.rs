//! Header, section header and footer of the files of sections: cut files, roll-ups and bases.
//!
//! Not the payloads. Invariant: each parses back to what was written or to nothing.

use highwater_proto::Epoch;
use highwater_ranking::Minute;

use crate::codec::{PutLe, TakeLe};
use crate::position::DirectoryId;
use crate::tables::Grain;

pub(crate) const HEADER_BYTES: usize = 128;
pub(crate) const SECTION_HEADER_BYTES: usize = 32;
pub(crate) const FOOTER_BYTES: usize = 32;
/// The newest version of every kind of file. Version 1 had no owners of producers; all else is the same.
pub(crate) const VERSION: u32 = 2;

/// Kinds of sections.
pub(crate) mod kind {
    pub(crate) const POSITIONS: u32 = 1;
    pub(crate) const PRODUCERS: u32 = 2;
    pub(crate) const IDS: u32 = 3;
    pub(crate) const RUNS: u32 = 4;
    pub(crate) const INDEX: u32 = 5;
    pub(crate) const COUNTS: u32 = 6;
    pub(crate) const MANIFEST: u32 = 7;
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// What one cut added.
    Cut,
    /// The runs of several cuts, merged by periods of a grain.
    Run(Grain),
    /// Ids and all-time counts as of a cut.
    Base,
}

impl FileKind {
    const fn magic(self) -> &'static [u8; 8] {
        match self {
            Self::Cut => b"HWCUT\0\0\x01",
            Self::Run(Grain::Minute) => b"HWRUN\0M\x01",
            Self::Run(Grain::Hour) => b"HWRUN\0H\x01",
            Self::Run(Grain::Day) => b"HWRUN\0D\x01",
            Self::Base => b"HWBASE\0\x01",
        }
    }

    const fn magic_at_end(self) -> &'static [u8; 8] {
        match self {
            Self::Cut => b"HWCUTEND",
            Self::Run(_) => b"HWRUNEND",
            Self::Base => b"HWBASEND",
        }
    }

    /// How the texts of errors call it.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Cut => "cut file",
            Self::Run(_) => "roll-up",
            Self::Base => "base",
        }
    }
}

/// Which cut a file holds, or which is the last that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutHeader {
    /// The data directory.
    pub directory: DirectoryId,
    /// Number of the cut, from 1 without gaps.
    pub number: u64,
    /// Epoch of the marker that froze the shards.
    pub epoch: Epoch,
    /// Engine time of that marker in ms UTC.
    pub time_ms: u64,
    /// The engine minute that was in force until that marker.
    pub minute: Minute,
    /// Every view that arrived before this time (ms UTC) is in this cut or an earlier one.
    pub arrivals_from_ms: u64,
}

/// The header of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) kind: FileKind,
    /// The last cut whose views are in it.
    pub(crate) cut: CutHeader,
    /// Number of the first cut whose views are in it; 0 in a cut file, which holds one.
    pub(crate) first: u64,
    /// Minutes of the periods of a roll-up; 0 in other files.
    pub(crate) period_minutes: u32,
}

/// What is wrong with a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Newer(u32),
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(self.kind.magic());
        out.put_u32(VERSION);
        out.put_u32(0);
        out.put_u128(self.cut.directory.0);
        out.put_u64(self.cut.number);
        out.put_u64(self.cut.epoch.0);
        out.put_u64(self.cut.time_ms);
        out.put_u32(self.cut.minute.0);
        out.put_u64(self.cut.arrivals_from_ms);
        out.put_u64(self.first);
        out.put_u32(self.period_minutes);
        out.resize(HEADER_BYTES - 4, 0);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    /// The version of a file, and what its header says.
    pub(crate) fn decode(bytes: &[u8], kind: FileKind) -> Result<(u32, Self), HeaderFault> {
        let parsed = Self::parse(bytes, kind).ok_or(HeaderFault::Damaged)?;
        if parsed.0 > VERSION {
            return Err(HeaderFault::Newer(parsed.0));
        }
        Ok(parsed)
    }

    fn parse(bytes: &[u8], kind: FileKind) -> Option<(u32, Self)> {
        let (body, crc) = bytes.split_at_checked(HEADER_BYTES - 4)?;
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let mut reader = TakeLe::new(body);
        if reader.take(8)? != kind.magic() {
            return None;
        }
        let version = reader.u32()?;
        reader.u32()?;
        let cut = CutHeader {
            directory: DirectoryId(reader.u128()?),
            number: reader.u64()?,
            epoch: Epoch(reader.u64()?),
            time_ms: reader.u64()?,
            minute: Minute(reader.u32()?),
            arrivals_from_ms: reader.u64()?,
        };
        Some((version, Self { kind, cut, first: reader.u64()?, period_minutes: reader.u32()? }))
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

/// The end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) index_offset: u64,
    pub(crate) file_len: u64,
    pub(crate) sections: u32,
}

impl Footer {
    pub(crate) fn encode(&self, kind: FileKind) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(kind.magic_at_end());
        out.put_u64(self.index_offset);
        out.put_u64(self.file_len);
        out.put_u32(self.sections);
        let crc = crc32c::crc32c(&out);
        out.put_u32(crc);
        out
    }

    pub(crate) fn decode(bytes: &[u8], kind: FileKind) -> Option<Self> {
        let (body, crc) = bytes.split_at_checked(FOOTER_BYTES - 4)?;
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return None;
        }
        let mut reader = TakeLe::new(body);
        if reader.take(8)? != kind.magic_at_end() {
            return None;
        }
        Some(Self { index_offset: reader.u64()?, file_len: reader.u64()?, sections: reader.u32()? })
    }
}
