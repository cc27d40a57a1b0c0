//! Records, logs, cut files and recovery over a [`Disk`] trait: what makes an acknowledged view last.
//!
//! Not the system calls (`highwater-disk`) and not the decision what is accepted (`highwater-pipeline`). Invariants:
//! nothing unverified is believed; what a power cut can leave is repaired silently, what it cannot is refused with
//! file, offset and remedy.
#![forbid(unsafe_code)]

mod archive;
mod base;
mod chains;
mod check;
mod codec;
mod container;
mod cut;
mod directory;
mod disk;
mod error;
mod history;
mod log;
mod memory_disk;
mod position;
mod producers;
mod record;
mod rollup;
mod sealed;
mod state;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use archive::{
    AcceptedViews, ArchiveDone, ArchiveJob, ArchiveOutcome, ArchivePart, ArchiveRange, ArchiveReader, ArchiveRetention,
    ArchiveShed, ArchivedBatch,
};
pub use check::{CheckFinding, CheckReport, CheckedFiles, CheckedKind, check};
pub use container::{CutHeader, CutSection};
pub use directory::Directory;
pub use disk::{Access, Disk, DiskFile};
pub use error::{StorageError, remedy};
pub use history::{
    CLOSED_ROWS_MAX, ClosedList, ClosedPeriod, History, HistoryClosed, HistoryFigures, HistoryJob, HistoryNeeds,
    close_period,
};
pub use log::{
    AppendRoom, DurableRecord, GenerationScan, GroupWrite, GroupWritten, LogDevice, LogEnd, LogLimits, LogWriter,
    PreparedSegment, SegmentHandle, scan_generation,
};
pub use memory_disk::{DiskFaults, MemoryDisk, MemoryLogDevice};
pub use position::{
    BLOCK_BYTES, DirectoryId, LogIdentity, LogNumber, LogPosition, RecordPlace, SEGMENT_BYTES_DEFAULT, SegmentNumber,
    log_directory, segment_path,
};
pub use producers::{
    BatchVerdict, KEPT_BATCHES_MAX, KEPT_RANGES_MAX, OWNER_BYTES, OwnerId, ProducerImage, ProducerTableImage,
};
pub use record::{
    RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordMeta, VERDICT_BYTES, VERDICTS_BYTES_MAX,
    Verdicts,
};
pub use rollup::{Retention, RollupDone, RollupPlan, RollupRule, RollupStop, run_rollup};
pub use state::{ClosedGeneration, StoreState};
pub use store::{
    ArchiveFigures, ArchivePlan, CUT_RESERVE_BYTES, CorePart, CutsReplayed, FileFigures, OpenOptions, PreparedCut,
    SegmentMaker, Store, StoreFigures, stranger,
};
pub use tables::{BaseFacts, Grain, ShardIdList, SlotSums, TableFile, Tables};
