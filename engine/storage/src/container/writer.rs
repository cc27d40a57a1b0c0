//! Writing one file of sections: section by section into a temporary file, which takes its name when it is durable.
//!
//! Not the decision what goes in. Invariant: under its final name a file is whole.

use std::io;

use highwater_ranking::{FinalityClass, Minute, Run, ShardIds, SlotCount};

use super::format::{FOOTER_BYTES, FileHeader, FileKind, Footer, SECTION_HEADER_BYTES, SectionHeader, kind};
use super::payload::{Block, put_counts, put_ids, put_index, put_positions};
use super::runs::{PIECE_ENTRIES_MAX, put_piece};
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition};
use crate::producers::ProducerImage;

/// Payload at which a section of producers or runs is closed; ids and counts are cut into such lengths too.
pub(crate) const SECTION_PAYLOAD_BYTES: usize = 256 << 10;
const FLUSH_BYTES: usize = 1 << 20;

/// How a file is brought to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pacing {
    /// Synced when all is written: for a file that is waited for.
    AtEnd,
    /// Synced a little at a time, so that nobody's writes wait long behind it, and given up before so many bytes are no
    /// longer free: for a file of a background job.
    Gently {
        /// What is kept for cut files.
        reserve_bytes: u64,
    },
}

/// Writes one file. Dropped before it has its name it leaves a temporary file that the next start removes.
pub(crate) struct FileWriter<'d> {
    disk: &'d dyn Disk,
    file: Box<dyn DiskFile>,
    kind: FileKind,
    path: String,
    temporary: String,
    pacing: Pacing,
    /// Bytes not yet written, which start at `flushed`.
    buffer: Vec<u8>,
    flushed: u64,
    sections: u32,
    blocks: Vec<Block>,
    runs: RunsBuilder,
}

/// A file that is whole and durable, and has no name yet.
pub(crate) struct SealedFile {
    pub(crate) path: String,
    pub(crate) temporary: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) len: u64,
}

/// Where a file is written before it has its name.
pub(crate) fn temporary_path(path: &str) -> String {
    format!("{path}.tmp")
}

impl<'d> FileWriter<'d> {
    /// Begins the file. One of its temporary name is removed: it could not be when the disk was full.
    pub(crate) fn create(
        disk: &'d dyn Disk,
        path: String,
        header: &FileHeader,
        pacing: Pacing,
    ) -> Result<Self, StorageError> {
        let temporary = temporary_path(&path);
        remove_if_there(disk, &temporary)?;
        let file =
            disk.open(&temporary, Access::CreateNew).map_err(|error| StorageError::io("create", &temporary, error))?;
        Ok(Self {
            disk,
            file,
            kind: header.kind,
            path,
            temporary,
            pacing,
            buffer: header.encode(),
            flushed: 0,
            sections: 0,
            blocks: Vec::new(),
            runs: RunsBuilder::default(),
        })
    }

    /// Adds the log positions that the cuts up to the last of this file cover together; the first section.
    pub(crate) fn positions(&mut self, positions: &[(LogNumber, LogPosition)]) -> Result<(), StorageError> {
        self.section(kind::POSITIONS, 0, 0, &put_positions(positions))
    }

    /// Adds what a base rests on; its second section.
    pub(crate) fn manifest(&mut self, payload: &[u8]) -> Result<(), StorageError> {
        self.section(kind::MANIFEST, 0, 0, payload)
    }

    /// Adds producers.
    pub(crate) fn producers<'p>(
        &mut self,
        producers: impl Iterator<Item = &'p ProducerImage>,
    ) -> Result<(), StorageError> {
        let mut payload = Vec::new();
        for producer in producers {
            producer.encode(&mut payload);
            if payload.len() >= SECTION_PAYLOAD_BYTES {
                self.section(kind::PRODUCERS, 0, 0, &payload)?;
                payload.clear();
            }
        }
        if payload.is_empty() { Ok(()) } else { self.section(kind::PRODUCERS, 0, 0, &payload) }
    }

    /// Adds ids of a shard, in slot order.
    pub(crate) fn ids(&mut self, ids: &ShardIds) -> Result<(), StorageError> {
        let mut first_slot = u64::from(ids.first_slot);
        let mut bytes = ids.id_bytes.as_slice();
        let mut lens = ids.id_lens.as_slice();
        while !lens.is_empty() {
            let mut chunk_bytes = 0;
            let mut count = 0;
            while count < lens.len() && chunk_bytes < SECTION_PAYLOAD_BYTES {
                chunk_bytes += usize::from(lens[count]);
                count += 1;
            }
            let (chunk_lens, lens_rest) = lens.split_at(count);
            let (chunk, bytes_rest) = bytes.split_at(chunk_bytes);
            self.base_block(ids.shard);
            self.section(kind::IDS, ids.shard, first_slot, &put_ids(chunk_lens, chunk))?;
            first_slot += count as u64;
            (lens, bytes) = (lens_rest, bytes_rest);
        }
        assert!(bytes.is_empty(), "ids of shard {} have as many bytes as their lengths say", ids.shard);
        Ok(())
    }

    /// Adds all-time counts of a shard, in slot order: few enough for one section.
    pub(crate) fn counts(&mut self, shard: u16, first_slot: u32, counts: &[u64]) -> Result<(), StorageError> {
        self.base_block(shard);
        self.section(kind::COUNTS, shard, u64::from(first_slot), &put_counts(counts))
    }

    /// Adds a shard's runs, which are in order of (minute, class).
    pub(crate) fn runs(&mut self, shard: u16, runs: &[Run]) -> Result<(), StorageError> {
        for run in runs {
            self.run(shard, run.minute, run.class, &run.entries)?;
        }
        self.end_runs(shard)
    }

    /// Adds a run, or a piece of one; they come in order of (minute, class), and [`Self::end_runs`] comes after a
    /// shard's last.
    pub(crate) fn run(
        &mut self,
        shard: u16,
        minute: Minute,
        class: FinalityClass,
        entries: &[SlotCount],
    ) -> Result<(), StorageError> {
        for piece in entries.chunks(PIECE_ENTRIES_MAX) {
            self.runs.push(minute, class, piece);
            if self.runs.payload.len() >= SECTION_PAYLOAD_BYTES {
                self.end_runs(shard)?;
            }
        }
        Ok(())
    }

    /// Closes the section of runs, if one is begun.
    pub(crate) fn end_runs(&mut self, shard: u16) -> Result<(), StorageError> {
        let RunsBuilder { payload, minutes } = std::mem::take(&mut self.runs);
        if payload.is_empty() {
            return Ok(());
        }
        self.blocks.push(Block { shard, offset: self.offset(), minutes });
        self.section(kind::RUNS, shard, 0, &payload)
    }

    /// Ends the file and makes it durable, still without its name.
    pub(crate) fn seal(mut self) -> Result<SealedFile, StorageError> {
        assert!(self.runs.payload.is_empty(), "the last runs of {} are ended", self.path);
        let index_offset = self.offset();
        let index = put_index(&self.blocks);
        self.section(kind::INDEX, 0, 0, &index)?;
        let len = self.offset() + FOOTER_BYTES as u64;
        let footer = Footer { index_offset, file_len: len, sections: self.sections };
        self.buffer.extend_from_slice(&footer.encode(self.kind));
        self.flush()?;
        self.file.sync().map_err(|error| StorageError::io("sync", &self.temporary, error))?;
        Ok(SealedFile { path: self.path, temporary: self.temporary, blocks: self.blocks, len })
    }

    fn offset(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
    }

    /// In a base the index finds ids and counts.
    fn base_block(&mut self, shard: u16) {
        if self.kind == FileKind::Base {
            self.blocks.push(Block { shard, offset: self.offset(), minutes: Vec::new() });
        }
    }

    fn section(&mut self, kind: u32, shard: u16, first: u64, payload: &[u8]) -> Result<(), StorageError> {
        let header = SectionHeader::new(kind, shard, first, payload).encode();
        debug_assert_eq!(header.len(), SECTION_HEADER_BYTES);
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        self.sections += 1;
        if self.buffer.len() >= FLUSH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if let Pacing::Gently { reserve_bytes } = self.pacing {
            let free_bytes =
                self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
            let needed_bytes = self.buffer.len() as u64;
            if free_bytes < needed_bytes.saturating_add(reserve_bytes) {
                let file = self.path.clone();
                return Err(StorageError::NoSpace { file, needed_bytes, reserve_bytes, free_bytes });
            }
        }
        self.file
            .write_at(&self.buffer, self.flushed)
            .map_err(|error| StorageError::io("write", &self.temporary, error))?;
        if self.pacing != Pacing::AtEnd {
            self.file.sync().map_err(|error| StorageError::io("sync", &self.temporary, error))?;
        }
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl SealedFile {
    /// Gives the file its name; durable with the directory's next sync.
    pub(crate) fn name(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        disk.rename(&self.temporary, &self.path).map_err(|error| StorageError::io("rename to", &self.path, error))
    }
}

/// A section of runs in the making.
#[derive(Default)]
struct RunsBuilder {
    payload: Vec<u8>,
    minutes: Vec<Minute>,
}

impl RunsBuilder {
    fn push(&mut self, minute: Minute, class: FinalityClass, entries: &[SlotCount]) {
        let before = self.minutes.last().copied().unwrap_or_default();
        assert!(minute >= before, "runs come in order of their minutes");
        put_piece(&mut self.payload, before, minute, class, entries);
        if self.minutes.last() != Some(&minute) {
            self.minutes.push(minute);
        }
    }
}

pub(crate) fn remove_if_there(disk: &dyn Disk, path: &str) -> Result<(), StorageError> {
    match disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, error)),
        _ => Ok(()),
    }
}
