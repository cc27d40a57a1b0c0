//! Copying one log segment into the archive: files to files, for a helper thread of low priority.
//!
//! Not the choice of the segment and not its recycling, which are the store's. Invariant: a file gets its name only
//! when it was seen that no record of the segment is missing in it.

use super::catalog::SegmentKey;
use super::format::ArchiveFooter;
use super::writer::{ArchiveWriter, temporary_path};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::log::{SegmentScan, SegmentScanned, refuse_lost_records, scan_segment};
use crate::position::{DirectoryId, LogIdentity};
use crate::record::RecordKind;

/// One segment to be copied. All of it is covered by a durable cut file, and nobody writes it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveJob {
    pub(crate) directory: DirectoryId,
    pub(crate) key: SegmentKey,
    pub(crate) segment_bytes: u64,
    /// How far the generation is known to hold records, if it is.
    pub(crate) known_end: Option<u64>,
    /// Whether the generation is written no more.
    pub(crate) is_closed: bool,
}

/// What has become of a job.
#[derive(Debug)]
pub struct ArchiveDone {
    pub(crate) key: SegmentKey,
    /// How it ended.
    pub outcome: Result<ArchiveOutcome, StorageError>,
}

/// How a job ended that met no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveOutcome {
    /// The file is durable.
    Written {
        /// Accepted views in it.
        views: u64,
        /// Bytes before compression.
        raw_bytes: u64,
        /// Length of the file.
        file_bytes: u64,
        /// The latest arrival of a batch in it, in ms UTC; 0 when it holds none.
        arrival_ms_max: u64,
    },
    /// The segment was prepared and never used: there is nothing to keep.
    Empty,
    /// It was told to stop, and left nothing behind.
    Stopped,
}

/// Why a scan ended before its end.
enum Interrupted {
    Stopped,
    Failed(StorageError),
}

impl From<StorageError> for Interrupted {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

impl ArchiveJob {
    /// Copies the segment. Reads it whole and compresses it: takes its time. `should_stop` is asked at each batch.
    ///
    /// Whatever its outcome is goes to [`Store::archive_done`](crate::Store::archive_done).
    #[must_use]
    pub fn run(&self, disk: &dyn Disk, should_stop: impl Fn() -> bool) -> ArchiveDone {
        let outcome = match self.copy(disk, should_stop) {
            Ok(outcome) => Ok(outcome),
            Err(interrupted) => {
                // What was written so far would only take room; if it cannot go now, it goes at the next start.
                let removed = crate::container::remove_if_there(disk, &temporary_path(self.key));
                match interrupted {
                    Interrupted::Stopped => removed.map(|()| ArchiveOutcome::Stopped),
                    Interrupted::Failed(error) => Err(error),
                }
            }
        };
        ArchiveDone { key: self.key, outcome }
    }

    fn copy(&self, disk: &dyn Disk, should_stop: impl Fn() -> bool) -> Result<ArchiveOutcome, Interrupted> {
        let scan = self.scan();
        let mut writer: Option<ArchiveWriter<'_>> = None;
        let scanned = scan_segment(disk, &scan, |record| {
            if should_stop() {
                return Err(Interrupted::Stopped);
            }
            if writer.is_none() {
                writer = Some(ArchiveWriter::create(disk, self.directory, self.key, self.segment_bytes)?);
            }
            match (&mut writer, record.header.kind) {
                (Some(writer), RecordKind::Batch) => Ok(writer.add(&record)?),
                _ => Ok(()),
            }
        })?;
        let start = self.key.segment.0 * self.segment_bytes;
        let nothing = SegmentScanned { after: start, end: start, stated_end: None };
        let known_end = self.known_end.filter(|end| *end > start || scanned.is_some());
        let is_known_empty = self.known_end.is_some_and(|end| end <= start);
        if scanned.is_some() || !is_known_empty {
            refuse_lost_records(disk, &scan, &scanned.unwrap_or(nothing), known_end)?;
        }
        let (Some(scanned), Some(writer)) = (scanned, writer) else { return Ok(ArchiveOutcome::Empty) };
        let footer = writer.finish(&scanned, self.is_closed && scanned.stated_end.is_none())?;
        Ok(written(&footer))
    }

    fn scan(&self) -> SegmentScan {
        let SegmentKey { generation, segment, log } = self.key;
        let identity = LogIdentity { directory: self.directory, log, generation };
        SegmentScan { identity, segment_bytes: self.segment_bytes, segment }
    }
}

fn written(footer: &ArchiveFooter) -> ArchiveOutcome {
    ArchiveOutcome::Written {
        views: footer.views,
        raw_bytes: footer.raw_bytes,
        file_bytes: footer.file_len,
        arrival_ms_max: footer.arrivals.max_ms,
    }
}
