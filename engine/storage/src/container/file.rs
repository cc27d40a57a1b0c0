//! Reading files of sections: header, footer and index at once, sections when they are asked for.
//!
//! Not the order of files. Invariant: a section is handed out only after its checksum was found right.

use std::ops::{Range, RangeInclusive};

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use super::format::{
    CutHeader, FOOTER_BYTES, FileHeader, FileKind, Footer, HEADER_BYTES, HeaderFault, SECTION_HEADER_BYTES,
    SectionHeader, VERSION, kind,
};
use super::payload::{Block, parse_counts, parse_ids, parse_index, parse_positions, parse_producers};
use super::runs::{Piece, Pieces};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::producers::ProducerImage;

/// One verified part of a cut file or base.
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
    /// All-time counts of a shard in slot order, of views whose runs are not handed out.
    AllTime {
        /// The shard.
        shard: u16,
        /// Slot of the first.
        first_slot: u32,
        /// The counts.
        counts: &'a [u64],
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

/// A section of runs in memory, for those who ask for one minute after the other.
#[derive(Debug, Default)]
pub(crate) struct RunSection {
    shard: u16,
    /// Minute, class and entries of each piece, in order of minute and class.
    pieces: Vec<(Minute, FinalityClass, Range<usize>)>,
    entries: Vec<SlotCount>,
}

impl RunSection {
    /// Hands out the pieces of a range of minutes whose classes are wanted.
    pub(crate) fn visit(
        &self,
        minutes: &Range<Minute>,
        classes: &RangeInclusive<FinalityClass>,
        mut visit: impl FnMut(u16, &[SlotCount]),
    ) {
        let first = self.pieces.partition_point(|(minute, ..)| *minute < minutes.start);
        let within = self.pieces[first..].iter().take_while(|(minute, ..)| *minute < minutes.end);
        for (_, _, entries) in within.filter(|(_, class, _)| classes.contains(class)) {
            visit(self.shard, &self.entries[entries.clone()]);
        }
    }
}

/// A file of sections, open for reading.
pub(crate) struct SectionFile {
    header: FileHeader,
    version: u32,
    path: String,
    file: Box<dyn DiskFile>,
    footer: Footer,
}

impl SectionFile {
    /// Opens a file and checks its header and footer: it must be of this directory and kind and hold these cuts.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: DirectoryId,
        kind: FileKind,
        path: String,
        numbers: RangeInclusive<u64>,
    ) -> Result<Self, StorageError> {
        let file = disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
        let len_min = (HEADER_BYTES + SECTION_HEADER_BYTES + FOOTER_BYTES) as u64;
        if len < len_min {
            return Err(StorageError::damaged(&path, len, format!("{len} bytes, the least are {len_min}")));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0).map_err(|error| StorageError::io("read", &path, error))?;
        let (version, header) = match FileHeader::decode(&head, kind) {
            Ok(decoded) => decoded,
            Err(HeaderFault::Newer(found)) => {
                return Err(StorageError::NewerVersion { file: path, found, supported: VERSION });
            }
            Err(HeaderFault::Damaged) => return Err(StorageError::damaged(&path, 0, "the header does not verify")),
        };
        if header.cut.directory != directory {
            let (found, expected) = (header.cut.directory.to_string(), directory.to_string());
            return Err(StorageError::ForeignFile { file: path, found, expected });
        }
        if (header.first, header.cut.number) != (*numbers.start(), *numbers.end()) {
            let what = match kind {
                FileKind::Cut => format!("the file says that it is number {}", header.cut.number),
                _ => format!("the file says that it holds cuts {} to {}", header.first, header.cut.number),
            };
            return Err(StorageError::damaged(&path, 0, what));
        }
        let footer_at = len - FOOTER_BYTES as u64;
        let mut tail = [0; FOOTER_BYTES];
        file.read_at(&mut tail, footer_at).map_err(|error| StorageError::io("read", &path, error))?;
        let footer = Footer::decode(&tail, kind)
            .filter(|footer| footer.file_len == len && footer.index_offset < footer_at)
            .ok_or_else(|| StorageError::damaged(&path, footer_at, "the footer does not verify"))?;
        Ok(Self { header, version, path, file, footer })
    }

    /// What the file says of itself.
    pub(crate) const fn header(&self) -> &FileHeader {
        &self.header
    }

    /// The cut that it holds, or the last one.
    pub(crate) const fn cut(&self) -> &CutHeader {
        &self.header.cut
    }

    /// The path, relative to the data directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Length in bytes.
    pub(crate) const fn len(&self) -> u64 {
        self.footer.file_len
    }

    /// Reads the index.
    pub(crate) fn index(&self) -> Result<Vec<Block>, StorageError> {
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

    /// Reads what the file rests on, which is the second section of a base.
    pub(crate) fn manifest(&self) -> Result<Vec<u8>, StorageError> {
        let first = HEADER_BYTES as u64;
        let mut payload = Vec::new();
        let header = self.section(first, &mut payload)?;
        let offset = first + SECTION_HEADER_BYTES as u64 + header.payload_len;
        let header = self.section(offset, &mut payload)?;
        if header.kind == kind::MANIFEST { Ok(payload) } else { Err(self.senseless(offset)) }
    }

    /// Reads all sections in order.
    ///
    /// # Errors
    /// When one does not verify, or `visit` fails.
    pub(crate) fn sections<E: From<StorageError>>(
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
        visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sections_where(|header| header.kind == kind::IDS && header.shard == u32::from(shard), visit)
    }

    /// Reads the producers.
    pub(crate) fn producers(&self) -> Result<Vec<ProducerImage>, StorageError> {
        let mut producers = Vec::new();
        self.sections_where::<StorageError>(
            |header| header.kind == kind::PRODUCERS,
            |section| {
                if let CutSection::Producers(some) = section {
                    producers.extend(some);
                }
                Ok(())
            },
        )?;
        Ok(producers)
    }

    /// Reads the sections that are wanted; of others only where they end.
    fn sections_where<E: From<StorageError>>(
        &self,
        wanted: impl Fn(&SectionHeader) -> bool,
        mut visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let mut offset = HEADER_BYTES as u64;
        let mut payload = Vec::new();
        while offset < end {
            let mut header = self.section_header(offset)?;
            if wanted(&header) {
                header = self.section(offset, &mut payload)?;
                self.visit_section(offset, &header, &payload, &mut visit)?;
            }
            offset += SECTION_HEADER_BYTES as u64 + header.payload_len;
        }
        Ok(())
    }

    /// Reads the sections of one shard that the index names.
    pub(crate) fn sections_of<E: From<StorageError>>(
        &self,
        blocks: &[Block],
        shard: u16,
        mut visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut payload = Vec::new();
        for block in blocks.iter().filter(|block| block.shard == shard) {
            let header = self.section(block.offset, &mut payload)?;
            self.visit_section(block.offset, &header, &payload, &mut visit)?;
        }
        Ok(())
    }

    /// Reads one runs section as a whole.
    pub(crate) fn run_section(&self, offset: u64) -> Result<RunSection, StorageError> {
        let mut section = RunSection::default();
        self.pieces(offset, |shard, piece| {
            let start = section.entries.len();
            section.shard = shard;
            section.entries.extend_from_slice(piece.entries);
            section.pieces.push((piece.minute, piece.class, start..section.entries.len()));
        })?;
        Ok(section)
    }

    /// Reads one runs section and hands out the pieces of the minutes and classes that `wanted` accepts.
    pub(crate) fn block(
        &self,
        offset: u64,
        wanted: impl Fn(Minute, FinalityClass) -> bool,
        mut visit: impl FnMut(u16, &[SlotCount]),
    ) -> Result<(), StorageError> {
        self.pieces(offset, |shard, piece| {
            if wanted(piece.minute, piece.class) {
                visit(shard, piece.entries);
            }
        })
    }

    /// Reads one runs section piece by piece.
    fn pieces(&self, offset: u64, mut visit: impl FnMut(u16, &Piece<'_>)) -> Result<(), StorageError> {
        let mut payload = Vec::new();
        let header = self.section(offset, &mut payload)?;
        let shard = self.shard(offset, &header)?;
        if header.kind != kind::RUNS {
            return Err(self.senseless(offset));
        }
        let mut pieces = Pieces::default();
        while let Some(piece) = pieces.next(&payload).map_err(|_| self.senseless(offset))? {
            visit(shard, &piece);
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
                let producers = parse_producers(payload, self.version).ok_or_else(|| self.senseless(offset))?;
                visit(CutSection::Producers(producers))
            }
            kind::IDS => {
                let first_slot = u32::try_from(header.first).map_err(|_| self.senseless(offset))?;
                let (lens, bytes) = parse_ids(payload).ok_or_else(|| self.senseless(offset))?;
                visit(CutSection::Ids { shard, first_slot, lens, bytes })
            }
            kind::RUNS => {
                let mut pieces = Pieces::default();
                while let Some(piece) = pieces.next(payload).map_err(|_| self.senseless(offset))? {
                    let Piece { minute, class, entries } = piece;
                    visit(CutSection::Run { shard, minute, class, entries })?;
                }
                Ok(())
            }
            kind::COUNTS => {
                let first_slot = u32::try_from(header.first).map_err(|_| self.senseless(offset))?;
                let counts = parse_counts(payload).ok_or_else(|| self.senseless(offset))?;
                visit(CutSection::AllTime { shard, first_slot, counts: &counts })
            }
            kind::INDEX | kind::MANIFEST => Ok(()),
            _ => Err(self.senseless(offset).into()),
        }
    }

    /// Reads the header at `offset`, which is not verified without its payload.
    fn section_header(&self, offset: u64) -> Result<SectionHeader, StorageError> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let payload_at = offset.checked_add(SECTION_HEADER_BYTES as u64);
        let room = payload_at.and_then(|at| end.checked_sub(at)).ok_or_else(|| self.unverified(offset))?;
        let mut head = [0; SECTION_HEADER_BYTES];
        self.file.read_at(&mut head, offset).map_err(|error| StorageError::io("read", &self.path, error))?;
        SectionHeader::decode(&head).filter(|header| header.payload_len <= room).ok_or_else(|| self.unverified(offset))
    }

    /// Reads and verifies the section whose header is at `offset`.
    pub(super) fn section(&self, offset: u64, payload: &mut Vec<u8>) -> Result<SectionHeader, StorageError> {
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
        StorageError::damaged(
            &self.path,
            offset,
            format!("a section of the {} does not verify", self.header.kind.noun()),
        )
    }

    pub(crate) fn senseless(&self, offset: u64) -> StorageError {
        let what = "the section's checksum is right but its contents make no sense";
        StorageError::damaged(&self.path, offset, what)
    }
}
