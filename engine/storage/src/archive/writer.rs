//! Writing one archive file: batches into blocks, blocks in paced writes, a name only at the end.
//!
//! Not the choice of batches. Invariant: until [`ArchiveWriter::finish`] the file bears a temporary name, and a start
//! removes it.

use std::io;

use super::catalog::SegmentKey;
use super::format::{
    ARCHIVE_DIR, ArchiveFooter, ArchiveHeader, BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES, BlockHeader, FOOTER_BYTES,
    TimeSpan, archive_path,
};
use crate::codec::PutLe;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::log::{DurableRecord, SegmentScanned};
use crate::position::DirectoryId;

/// Bytes written and synced at once: many dirty pages, flushed together, would hold up the log's own writes.
const PACE_BYTES: usize = 1 << 20;

/// Level of compression: the fastest that is not a special mode.
const LEVEL: i32 = 1;

pub(super) struct ArchiveWriter<'d> {
    disk: &'d dyn Disk,
    key: SegmentKey,
    temporary: String,
    file: Box<dyn DiskFile>,
    /// Bytes not written yet.
    waiting: Vec<u8>,
    offset: u64,
    compressor: zstd::bulk::Compressor<'static>,
    /// Batches of the block that is being filled.
    raw: Vec<u8>,
    block: BlockHeader,
    footer: ArchiveFooter,
}

/// Where a file that is being written has its bytes.
pub(super) fn temporary_path(key: SegmentKey) -> String {
    format!("{}.tmp", archive_path(key))
}

impl<'d> ArchiveWriter<'d> {
    pub(super) fn create(
        disk: &'d dyn Disk,
        directory: DirectoryId,
        key: SegmentKey,
        segment_bytes: u64,
    ) -> Result<Self, StorageError> {
        let temporary = temporary_path(key);
        crate::container::remove_if_there(disk, &temporary)?;
        let file =
            disk.open(&temporary, Access::CreateNew).map_err(|error| StorageError::io("create", &temporary, error))?;
        let compressor = zstd::bulk::Compressor::new(LEVEL)
            .map_err(|error| StorageError::io("prepare the compression of", &temporary, error))?;
        let footer = ArchiveFooter {
            after: 0,
            up_to: 0,
            ends_generation: false,
            blocks: 0,
            batches: 0,
            views: 0,
            events: TimeSpan::NONE,
            arrivals: TimeSpan::NONE,
            raw_bytes: 0,
            file_len: 0,
        };
        let waiting = ArchiveHeader { directory, key, segment_bytes }.encode();
        let block = empty_block(key);
        Ok(Self { disk, key, temporary, file, waiting, offset: 0, compressor, raw: Vec::new(), block, footer })
    }

    /// Adds a batch with its verdicts.
    pub(super) fn add(&mut self, record: &DurableRecord<'_>) -> Result<(), StorageError> {
        let header = &record.header;
        if self.raw.is_empty() {
            self.block.after = header.previous_end;
        }
        self.raw.put_u64(header.arrival_ms);
        self.raw.put_u64(record.end.position);
        self.raw.put_u128(header.producer.0);
        self.raw.put_u64(header.sequence.0);
        self.raw.put_u16(header.wire_version);
        self.raw.put_u32(record.verdicts.len() as u32);
        self.raw.put_u32(header.batch_len);
        self.raw.extend_from_slice(record.verdicts.as_bytes());
        self.raw.extend_from_slice(record.batch);
        self.block.up_to = record.end.position;
        self.block.batches += 1;
        self.block.views += header.view_count - header.refused_count;
        self.block.arrivals.add(header.arrival_ms);
        let batch = highwater_proto::Batch::decode(record.batch).expect("the log hands out batches that were checked");
        batch.timestamps().for_each(|time_ms| self.block.events.add(time_ms));
        if self.raw.len() >= BLOCK_RAW_BYTES { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<(), StorageError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let stored = self
            .compressor
            .compress(&self.raw)
            .map_err(|error| StorageError::io("compress into", &self.temporary, error))?;
        self.block.raw_len = self.raw.len() as u32;
        self.block.stored_len = stored.len() as u32;
        self.block.stored_crc = crc32c::crc32c(&stored);
        let header = self.block.encode();
        debug_assert_eq!(header.len(), BLOCK_HEADER_BYTES);
        self.footer.blocks += 1;
        self.footer.batches += u64::from(self.block.batches);
        self.footer.views += u64::from(self.block.views);
        self.footer.events.join(self.block.events);
        self.footer.arrivals.join(self.block.arrivals);
        self.footer.raw_bytes += self.raw.len() as u64;
        self.waiting.extend_from_slice(&header);
        self.waiting.extend_from_slice(&stored);
        self.raw.clear();
        self.block = empty_block(self.key);
        while self.waiting.len() >= PACE_BYTES {
            self.write(PACE_BYTES)?;
        }
        Ok(())
    }

    /// Writes and syncs the first `len` bytes that wait.
    fn write(&mut self, len: usize) -> Result<(), StorageError> {
        let failed = |operation, error: io::Error| StorageError::io(operation, &self.temporary, error);
        self.file.write_at(&self.waiting[..len], self.offset).map_err(|error| failed("write", error))?;
        self.file.sync().map_err(|error| failed("sync", error))?;
        self.offset += len as u64;
        self.waiting.drain(..len);
        Ok(())
    }

    /// Writes the rest and gives the file its name, durably. Returns its length and sums.
    pub(super) fn finish(
        mut self,
        scanned: &SegmentScanned,
        ends_generation: bool,
    ) -> Result<ArchiveFooter, StorageError> {
        self.close_block()?;
        self.footer.after = scanned.after;
        self.footer.up_to = scanned.end;
        self.footer.ends_generation = ends_generation;
        self.footer.file_len = self.offset + (self.waiting.len() + FOOTER_BYTES) as u64;
        self.waiting.extend_from_slice(&self.footer.encode());
        while !self.waiting.is_empty() {
            self.write(self.waiting.len().min(PACE_BYTES))?;
        }
        let path = archive_path(self.key);
        self.disk.rename(&self.temporary, &path).map_err(|error| StorageError::io("rename to", &path, error))?;
        self.disk.sync_dir(ARCHIVE_DIR).map_err(|error| StorageError::io("sync directory", ARCHIVE_DIR, error))?;
        Ok(self.footer)
    }
}

fn empty_block(key: SegmentKey) -> BlockHeader {
    BlockHeader {
        key,
        after: 0,
        up_to: 0,
        batches: 0,
        views: 0,
        events: TimeSpan::NONE,
        arrivals: TimeSpan::NONE,
        raw_len: 0,
        stored_len: 0,
        stored_crc: 0,
    }
}
