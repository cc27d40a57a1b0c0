//! Writing one cut file: section by section into a temporary file, which takes its name when it is durable.
//!
//! Not the decision what goes in. Invariant: under its final name a cut file is whole.

use highwater_ranking::{Minute, Run, ShardIds, SlotCount};

use super::format::{CUTS_DIR, CutHeader, FOOTER_BYTES, Footer, SECTION_HEADER_BYTES, SectionHeader, cut_path, kind};
use super::runs::{PIECE_ENTRIES_MAX, put_piece};
use crate::codec::PutLe;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition};
use crate::producers::ProducerImage;

/// Payload at which a section of producers or runs is closed; ids are cut into such lengths too.
const SECTION_PAYLOAD_BYTES: usize = 256 << 10;
const FLUSH_BYTES: usize = 1 << 20;

/// Where the runs of which minutes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunBlock {
    pub(crate) shard: u16,
    /// Byte of the section's header within the file.
    pub(crate) offset: u64,
    /// Ascending, each once.
    pub(crate) minutes: Vec<Minute>,
}

/// Writes one cut file. Dropped before [`finish`](Self::finish) it leaves a temporary file that the next start removes.
pub struct CutWriter<'d> {
    disk: &'d dyn Disk,
    file: Box<dyn DiskFile>,
    number: u64,
    temporary: String,
    /// Bytes not yet written, which start at `flushed`.
    buffer: Vec<u8>,
    flushed: u64,
    sections: u32,
    blocks: Vec<RunBlock>,
}

impl<'d> CutWriter<'d> {
    /// Begins the file.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn create(disk: &'d dyn Disk, header: &CutHeader) -> Result<Self, StorageError> {
        let temporary = Self::temporary_path(header.number);
        let file =
            disk.open(&temporary, Access::CreateNew).map_err(|error| StorageError::io("create", &temporary, error))?;
        let buffer = header.encode();
        let number = header.number;
        Ok(Self { disk, file, number, temporary, buffer, flushed: 0, sections: 0, blocks: Vec::new() })
    }

    /// Where the file of a number is written before it has its name.
    pub(crate) fn temporary_path(number: u64) -> String {
        format!("{}.tmp", cut_path(number))
    }

    /// Adds the log positions that this and all earlier cut files cover together.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn positions(&mut self, positions: &[(LogNumber, LogPosition)]) -> Result<(), StorageError> {
        let mut payload = Vec::new();
        for (log, position) in positions {
            payload.put_u32(log.0);
            payload.put_u32(position.generation);
            payload.put_u64(position.position);
        }
        self.section(kind::POSITIONS, 0, 0, &payload)
    }

    /// Adds producers.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn producers<'p>(&mut self, producers: impl Iterator<Item = &'p ProducerImage>) -> Result<(), StorageError> {
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

    /// Adds a shard's new ids.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn ids(&mut self, ids: &ShardIds) -> Result<(), StorageError> {
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
            let mut payload = Vec::with_capacity(4 + count + chunk_bytes);
            payload.put_u32(count as u32);
            payload.extend_from_slice(chunk_lens);
            payload.extend_from_slice(chunk);
            self.section(kind::IDS, ids.shard, first_slot, &payload)?;
            first_slot += count as u64;
            (lens, bytes) = (lens_rest, bytes_rest);
        }
        assert!(bytes.is_empty(), "ids of shard {} have as many bytes as their lengths say", ids.shard);
        Ok(())
    }

    /// Adds a shard's runs, which are in order of (minute, class).
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn runs(&mut self, shard: u16, runs: &[Run]) -> Result<(), StorageError> {
        let mut block = BlockBuilder::default();
        for run in runs {
            for entries in run.entries.chunks(PIECE_ENTRIES_MAX) {
                block.push(run, entries);
                if block.payload.len() >= SECTION_PAYLOAD_BYTES {
                    self.block(shard, std::mem::take(&mut block))?;
                }
            }
        }
        if block.payload.is_empty() { Ok(()) } else { self.block(shard, block) }
    }

    fn block(&mut self, shard: u16, block: BlockBuilder) -> Result<(), StorageError> {
        let offset = self.offset();
        self.section(kind::RUNS, shard, 0, &block.payload)?;
        self.blocks.push(RunBlock { shard, offset, minutes: block.minutes });
        Ok(())
    }

    /// Ends the file, makes it durable and gives it its name.
    pub(crate) fn finish(mut self) -> Result<Vec<RunBlock>, StorageError> {
        let index_offset = self.offset();
        let mut index = Vec::new();
        for block in &self.blocks {
            index.put_varint(u64::from(block.shard));
            index.put_varint(block.offset);
            index.put_varint(block.minutes.len() as u64);
            let mut before = 0;
            for minute in &block.minutes {
                index.put_varint(u64::from(minute.0 - before));
                before = minute.0;
            }
        }
        self.section(kind::INDEX, 0, 0, &index)?;
        let file_len = self.offset() + FOOTER_BYTES as u64;
        let footer = Footer { index_offset, file_len, sections: self.sections };
        self.buffer.extend_from_slice(&footer.encode());
        self.flush()?;
        let path = cut_path(self.number);
        self.file.sync().map_err(|error| StorageError::io("sync", &self.temporary, error))?;
        self.disk.rename(&self.temporary, &path).map_err(|error| StorageError::io("rename to", &path, error))?;
        self.disk.sync_dir(CUTS_DIR).map_err(|error| StorageError::io("sync directory", CUTS_DIR, error))?;
        Ok(self.blocks)
    }

    fn offset(&self) -> u64 {
        self.flushed + self.buffer.len() as u64
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
        self.file
            .write_at(&self.buffer, self.flushed)
            .map_err(|error| StorageError::io("write", &self.temporary, error))?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A runs section in the making.
#[derive(Default)]
struct BlockBuilder {
    payload: Vec<u8>,
    minutes: Vec<Minute>,
}

impl BlockBuilder {
    fn push(&mut self, run: &Run, entries: &[SlotCount]) {
        let before = self.minutes.last().copied().unwrap_or_default();
        assert!(run.minute >= before, "runs come in order of their minutes");
        put_piece(&mut self.payload, before, run.minute, run.class, entries);
        if self.minutes.last() != Some(&run.minute) {
            self.minutes.push(run.minute);
        }
    }
}
