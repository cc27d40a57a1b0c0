//! Reading cut files: header, footer and index at once, sections when they are asked for.
//!
//! Not the order of files. Invariant: a section is handed out only after its checksum was found right.

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use super::format::{
    CUT_VERSION, CutHeader, FOOTER_BYTES, Footer, HEADER_BYTES, HeaderFault, SECTION_HEADER_BYTES, SectionHeader,
    cut_path, kind,
};
use super::runs::{Piece, Pieces};
use super::writer::RunBlock;
use crate::codec::TakeLe;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::producers::ProducerImage;

/// One verified part of a cut file.
#[derive(Debug)]
pub enum CutSection<'a> {
    /// The log positions that this and all earlier files cover together.
    Positions(Vec<(LogNumber, LogPosition)>),
    /// Some of the producers.
    Producers(Vec<ProducerImage>),
    /// Ids of a shard in slot order.
    Ids {
        /// The shard.
        shard: u16,
        /// Slot of the first.
        first_slot: u32,
        /// Length of each in bytes.
        lens: &'a [u8],
        /// The ids, one after the other.
        bytes: &'a [u8],
    },
    /// A run, or a piece of one.
    Run {
        /// The shard.
        shard: u16,
        /// Event minute.
        minute: Minute,
        /// Finality class.
        class: FinalityClass,
        /// Slots in ascending order.
        entries: &'a [SlotCount],
    },
}

/// A cut file, open for reading.
pub struct CutFile {
    header: CutHeader,
    path: String,
    file: Box<dyn DiskFile>,
    footer: Footer,
}

impl CutFile {
    /// Opens a file and checks its header and footer.
    ///
    /// # Errors
    /// When the file is missing, damaged, of another directory or of a newer version.
    pub fn open(disk: &dyn Disk, directory: DirectoryId, number: u64) -> Result<Self, StorageError> {
        let path = cut_path(number);
        let file = disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
        let len_min = (HEADER_BYTES + SECTION_HEADER_BYTES + FOOTER_BYTES) as u64;
        if len < len_min {
            return Err(StorageError::damaged(&path, len, format!("{len} bytes, the least are {len_min}")));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0).map_err(|error| StorageError::io("read", &path, error))?;
        let header = match CutHeader::decode(&head) {
            Ok(header) => header,
            Err(HeaderFault::Newer(found)) => {
                return Err(StorageError::NewerVersion { file: path, found, supported: CUT_VERSION });
            }
            Err(HeaderFault::Damaged) => return Err(StorageError::damaged(&path, 0, "the header does not verify")),
        };
        if header.directory != directory {
            let (found, expected) = (header.directory.to_string(), directory.to_string());
            return Err(StorageError::ForeignFile { file: path, found, expected });
        }
        if header.number != number {
            return Err(StorageError::damaged(&path, 0, format!("the file says that it is number {}", header.number)));
        }
        let footer_at = len - FOOTER_BYTES as u64;
        let mut tail = [0; FOOTER_BYTES];
        file.read_at(&mut tail, footer_at).map_err(|error| StorageError::io("read", &path, error))?;
        let footer = Footer::decode(&tail)
            .filter(|footer| footer.file_len == len && footer.index_offset < footer_at)
            .ok_or_else(|| StorageError::damaged(&path, footer_at, "the footer does not verify"))?;
        Ok(Self { header, path, file, footer })
    }

    /// Which cut this is.
    #[must_use]
    pub const fn header(&self) -> &CutHeader {
        &self.header
    }

    /// The path, relative to the data directory.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the index of runs.
    pub(crate) fn index(&self) -> Result<Vec<RunBlock>, StorageError> {
        let mut payload = Vec::new();
        let header = self.section(self.footer.index_offset, &mut payload)?;
        let blocks = parse_index(&payload);
        blocks.filter(|_| header.kind == kind::INDEX).ok_or_else(|| self.senseless(self.footer.index_offset))
    }

    /// Reads the covered log positions, which are the first section.
    pub(crate) fn positions(&self) -> Result<Vec<(LogNumber, LogPosition)>, StorageError> {
        let offset = HEADER_BYTES as u64;
        let mut payload = Vec::new();
        let header = self.section(offset, &mut payload)?;
        let positions = parse_positions(&payload).filter(|_| header.kind == kind::POSITIONS);
        positions.ok_or_else(|| self.senseless(offset))
    }

    /// Reads all sections in order.
    ///
    /// # Errors
    /// When one does not verify, or `visit` fails.
    pub fn sections<E: From<StorageError>>(
        &self,
        mut visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let mut offset = HEADER_BYTES as u64;
        let mut payload = Vec::new();
        let mut sections = 0;
        while offset < end {
            let header = self.section(offset, &mut payload)?;
            self.visit_section(offset, &header, &payload, &mut visit)?;
            offset += SECTION_HEADER_BYTES as u64 + header.payload_len;
            sections += 1;
        }
        if sections != self.footer.sections {
            let what = format!("{sections} sections, the footer says {}", self.footer.sections);
            return Err(StorageError::damaged(&self.path, end, what).into());
        }
        Ok(())
    }

    /// Reads the ids of one shard; of other sections only where they end.
    pub(crate) fn ids_of<E: From<StorageError>>(
        &self,
        shard: u16,
        mut visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let mut offset = HEADER_BYTES as u64;
        let mut payload = Vec::new();
        while offset < end {
            let mut header = self.section_header(offset)?;
            if header.kind == kind::IDS && header.shard == u32::from(shard) {
                header = self.section(offset, &mut payload)?;
                self.visit_section(offset, &header, &payload, &mut visit)?;
            }
            offset += SECTION_HEADER_BYTES as u64 + header.payload_len;
        }
        Ok(())
    }

    /// Reads one runs section and hands out the pieces of the minutes and classes that `wanted` accepts.
    pub(crate) fn block(
        &self,
        offset: u64,
        wanted: impl Fn(Minute, FinalityClass) -> bool,
        mut visit: impl FnMut(u16, &[SlotCount]),
    ) -> Result<(), StorageError> {
        let mut payload = Vec::new();
        let header = self.section(offset, &mut payload)?;
        let shard = self.shard(offset, &header)?;
        if header.kind != kind::RUNS {
            return Err(self.senseless(offset));
        }
        let mut pieces = Pieces::new(&payload);
        while let Some(piece) = pieces.next().map_err(|_| self.senseless(offset))? {
            if wanted(piece.minute, piece.class) {
                visit(shard, piece.entries);
            }
        }
        Ok(())
    }

    fn visit_section<E: From<StorageError>>(
        &self,
        offset: u64,
        header: &SectionHeader,
        payload: &[u8],
        visit: &mut impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let shard = self.shard(offset, header)?;
        match header.kind {
            kind::POSITIONS => {
                visit(CutSection::Positions(parse_positions(payload).ok_or_else(|| self.senseless(offset))?))
            }
            kind::PRODUCERS => {
                visit(CutSection::Producers(parse_producers(payload).ok_or_else(|| self.senseless(offset))?))
            }
            kind::IDS => {
                let first_slot = u32::try_from(header.first).map_err(|_| self.senseless(offset))?;
                let (lens, bytes) = parse_ids(payload).ok_or_else(|| self.senseless(offset))?;
                visit(CutSection::Ids { shard, first_slot, lens, bytes })
            }
            kind::RUNS => {
                let mut pieces = Pieces::new(payload);
                while let Some(piece) = pieces.next().map_err(|_| self.senseless(offset))? {
                    let Piece { minute, class, entries } = piece;
                    visit(CutSection::Run { shard, minute, class, entries })?;
                }
                Ok(())
            }
            kind::INDEX => Ok(()),
            _ => Err(self.senseless(offset).into()),
        }
    }

    /// Reads the header at `offset`, which is not verified without its payload.
    fn section_header(&self, offset: u64) -> Result<SectionHeader, StorageError> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let room = end.checked_sub(offset + SECTION_HEADER_BYTES as u64).ok_or_else(|| self.unverified(offset))?;
        let mut head = [0; SECTION_HEADER_BYTES];
        self.file.read_at(&mut head, offset).map_err(|error| StorageError::io("read", &self.path, error))?;
        SectionHeader::decode(&head).filter(|header| header.payload_len <= room).ok_or_else(|| self.unverified(offset))
    }

    /// Reads and verifies the section whose header is at `offset`.
    fn section(&self, offset: u64, payload: &mut Vec<u8>) -> Result<SectionHeader, StorageError> {
        let header = self.section_header(offset)?;
        payload.resize(header.payload_len as usize, 0);
        self.file
            .read_at(payload, offset + SECTION_HEADER_BYTES as u64)
            .map_err(|error| StorageError::io("read", &self.path, error))?;
        if header.checksum(payload) != header.crc {
            return Err(self.unverified(offset));
        }
        Ok(header)
    }

    fn shard(&self, offset: u64, header: &SectionHeader) -> Result<u16, StorageError> {
        u16::try_from(header.shard).map_err(|_| self.senseless(offset))
    }

    fn unverified(&self, offset: u64) -> StorageError {
        StorageError::damaged(&self.path, offset, "a section of the cut file does not verify")
    }

    fn senseless(&self, offset: u64) -> StorageError {
        let what = "the section's checksum is right but its contents make no sense";
        StorageError::damaged(&self.path, offset, what)
    }
}

fn parse_positions(payload: &[u8]) -> Option<Vec<(LogNumber, LogPosition)>> {
    let mut reader = TakeLe::new(payload);
    let mut positions = Vec::new();
    while !reader.is_empty() {
        let log = LogNumber(reader.u32()?);
        positions.push((log, LogPosition { generation: reader.u32()?, position: reader.u64()? }));
    }
    Some(positions)
}

fn parse_producers(payload: &[u8]) -> Option<Vec<ProducerImage>> {
    let mut reader = TakeLe::new(payload);
    let mut producers = Vec::new();
    while !reader.is_empty() {
        producers.push(ProducerImage::decode(&mut reader)?);
    }
    Some(producers)
}

fn parse_ids(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = TakeLe::new(payload);
    let count = reader.u32()? as usize;
    let lens = reader.take(count)?;
    let bytes = reader.take(reader.left())?;
    let total: usize = lens.iter().map(|len| usize::from(*len)).sum();
    (total == bytes.len()).then_some((lens, bytes))
}

fn parse_index(payload: &[u8]) -> Option<Vec<RunBlock>> {
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
        blocks.push(RunBlock { shard, offset, minutes });
    }
    Some(blocks)
}
