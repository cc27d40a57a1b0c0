//! Reading one archive file: header and footer at once, blocks in order.
//!
//! Not the order of files. Invariant: a batch is handed out only after the checksums of its block were found right.

use std::ops::Range;

use highwater_proto::{Batch, ProducerId, Sequence};

use super::batch::ArchivedBatch;
use super::catalog::SegmentKey;
use super::format::{
    ARCHIVE_VERSION, ArchiveFooter, ArchiveHeader, BLOCK_HEADER_BYTES, BlockHeader, FOOTER_BYTES, HEADER_BYTES,
    HeaderFault, archive_path,
};
use crate::codec::TakeLe;
use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::position::{DirectoryId, LogPosition};
use crate::record::{VERDICT_BYTES, Verdicts};

/// An archive file, open for reading.
pub(super) struct ArchiveFile {
    key: SegmentKey,
    path: String,
    file: Box<dyn DiskFile>,
    footer: ArchiveFooter,
}

/// Which blocks of a file are of interest.
pub(super) struct BlocksWanted {
    /// Logical positions: only blocks that reach beyond the start and begin before the end.
    pub(super) positions: Range<u64>,
    /// Arrival times.
    pub(super) arrivals: Range<u64>,
}

/// Reads a whole file, and every batch by the checksum of its producer. Returns batches and accepted views.
pub(crate) fn verify_archive_file(
    disk: &dyn Disk,
    directory: DirectoryId,
    key: SegmentKey,
) -> Result<(u64, u64), StorageError> {
    let file = ArchiveFile::open(disk, directory, key)?;
    let (mut batches, mut views) = (0, 0);
    let all = BlocksWanted { positions: 0..u64::MAX, arrivals: 0..u64::MAX };
    file.batches::<StorageError>(&all, |batch| {
        if Batch::verify(batch.bytes, batch.wire_version, batch.producer).is_err() {
            let what = format!("batch {} of producer {:032x} does not verify", batch.sequence.0, batch.producer.0);
            return Err(StorageError::damaged(&file.path, HEADER_BYTES as u64, what));
        }
        batches += 1;
        views += u64::from(batch.accepted_count());
        Ok(())
    })?;
    let footer = file.footer();
    if (batches, views) != (footer.batches, footer.views) {
        let (stated_batches, stated_views) = (footer.batches, footer.views);
        let what = format!(
            "{batches} batches with {views} accepted views, the footer says {stated_batches} with {stated_views}"
        );
        return Err(StorageError::damaged(&file.path, footer.file_len - FOOTER_BYTES as u64, what));
    }
    Ok((batches, views))
}

impl ArchiveFile {
    pub(super) fn open(disk: &dyn Disk, directory: DirectoryId, key: SegmentKey) -> Result<Self, StorageError> {
        let path = archive_path(key);
        let file = disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
        let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
        let len_min = (HEADER_BYTES + FOOTER_BYTES) as u64;
        if len < len_min {
            return Err(StorageError::damaged(&path, len, format!("{len} bytes, the least are {len_min}")));
        }
        let mut head = [0; HEADER_BYTES];
        file.read_at(&mut head, 0).map_err(|error| StorageError::io("read", &path, error))?;
        let header = match ArchiveHeader::decode(&head) {
            Ok(header) => header,
            Err(HeaderFault::Newer(found)) => {
                return Err(StorageError::NewerVersion { file: path, found, supported: ARCHIVE_VERSION });
            }
            Err(HeaderFault::Damaged) => return Err(StorageError::damaged(&path, 0, "the header does not verify")),
        };
        if header.directory != directory {
            let (found, expected) = (header.directory.to_string(), directory.to_string());
            return Err(StorageError::ForeignFile { file: path, found, expected });
        }
        if header.key != key {
            return Err(StorageError::damaged(&path, 0, format!("the file says that it holds {:?}", header.key)));
        }
        let footer_at = len - FOOTER_BYTES as u64;
        let mut tail = [0; FOOTER_BYTES];
        file.read_at(&mut tail, footer_at).map_err(|error| StorageError::io("read", &path, error))?;
        let footer = ArchiveFooter::decode(&tail)
            .filter(|footer| footer.file_len == len)
            .ok_or_else(|| StorageError::damaged(&path, footer_at, "the footer does not verify"))?;
        Ok(Self { key, path, file, footer })
    }

    pub(super) const fn footer(&self) -> &ArchiveFooter {
        &self.footer
    }

    /// Hands out the batches of the blocks wanted, in order; of such a block all.
    pub(super) fn batches<E: From<StorageError>>(
        &self,
        wanted: &BlocksWanted,
        mut visit: impl FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.footer.file_len - FOOTER_BYTES as u64;
        let mut offset = HEADER_BYTES as u64;
        let mut blocks = 0;
        let mut stored = Vec::new();
        while offset < end {
            let header = self.block_header(offset, end)?;
            let meets = header.up_to > wanted.positions.start && header.after < wanted.positions.end;
            if meets && header.arrivals.meets(&wanted.arrivals) {
                let raw = self.block(offset, &header, &mut stored)?;
                let mut reader = TakeLe::new(&raw);
                for _ in 0..header.batches {
                    let batch = self.batch(&mut reader).ok_or_else(|| self.senseless(offset))?;
                    visit(&batch)?;
                }
                if !reader.is_empty() {
                    return Err(self.senseless(offset).into());
                }
            }
            offset += BLOCK_HEADER_BYTES as u64 + u64::from(header.stored_len);
            blocks += 1;
        }
        if blocks != self.footer.blocks {
            let what = format!("{blocks} blocks, the footer says {}", self.footer.blocks);
            return Err(StorageError::damaged(&self.path, end, what).into());
        }
        Ok(())
    }

    fn block_header(&self, offset: u64, end: u64) -> Result<BlockHeader, StorageError> {
        let damaged = || StorageError::damaged(&self.path, offset, "a block of the archive does not verify");
        let room = end.checked_sub(offset + BLOCK_HEADER_BYTES as u64).ok_or_else(damaged)?;
        let mut head = [0; BLOCK_HEADER_BYTES];
        self.file.read_at(&mut head, offset).map_err(|error| StorageError::io("read", &self.path, error))?;
        BlockHeader::decode(&head, self.key).filter(|header| u64::from(header.stored_len) <= room).ok_or_else(damaged)
    }

    /// The batches of a block, uncompressed.
    fn block(&self, offset: u64, header: &BlockHeader, stored: &mut Vec<u8>) -> Result<Vec<u8>, StorageError> {
        stored.resize(header.stored_len as usize, 0);
        self.file
            .read_at(stored, offset + BLOCK_HEADER_BYTES as u64)
            .map_err(|error| StorageError::io("read", &self.path, error))?;
        if crc32c::crc32c(stored) != header.stored_crc {
            return Err(StorageError::damaged(&self.path, offset, "a block of the archive does not verify"));
        }
        let raw = zstd::bulk::decompress(stored, header.raw_len as usize);
        raw.ok().filter(|raw| raw.len() == header.raw_len as usize).ok_or_else(|| self.senseless(offset))
    }

    fn batch<'a>(&self, reader: &mut TakeLe<'a>) -> Option<ArchivedBatch<'a>> {
        let arrival_ms = reader.u64()?;
        let position = LogPosition { generation: self.key.generation, position: reader.u64()? };
        let producer = ProducerId(reader.u128()?);
        let sequence = Sequence(reader.u64()?);
        let wire_version = reader.u16()?;
        let ranges = reader.u32()? as usize;
        let batch_len = reader.u32()? as usize;
        let verdicts = reader.take(ranges.checked_mul(VERDICT_BYTES)?)?;
        let bytes = reader.take(batch_len)?;
        let batch = Batch::decode(bytes).ok()?;
        let verdicts = Verdicts::parse(verdicts, batch.view_count())?;
        Some(ArchivedBatch {
            log: self.key.log,
            position,
            arrival_ms,
            producer,
            sequence,
            wire_version,
            batch,
            bytes,
            verdicts,
        })
    }

    fn senseless(&self, offset: u64) -> StorageError {
        StorageError::damaged(&self.path, offset, "the block's checksum is right but its contents make no sense")
    }
}
