//! The archive: compressed copies of the logs' accepted batches, kept after their segments are used again.
//!
//! Not needed by any start: what it lacks, or what of it is damaged, keeps no engine from starting. Invariants: under
//! its name an archive file is whole and durable; it holds every batch of its segment, and nothing that no cut covers.
//!
//! ```text
//! ├── 64 ──┼──── 96 ────┼── up to about 4 MiB ──┼─────┼── 160 ──┤
//!  header   block header  zstd of whole batches   …     footer
//! ```
//!
//! Within a block, for each batch: arrival_ms u64, position behind it u64, producer u128, sequence u64, wire version
//! u16, refused ranges u32, batch bytes u32, then the ranges as in a record, and the batch as it came.

mod batch;
mod catalog;
mod file;
mod format;
mod job;
mod reader;
mod writer;

pub use batch::{AcceptedViews, ArchivedBatch};
pub use catalog::{ArchiveRetention, ArchiveShed};
pub use job::{ArchiveDone, ArchiveJob, ArchiveOutcome};
pub use reader::{ArchivePart, ArchiveRange, ArchiveReader};

pub(crate) use catalog::{ArchiveCatalog, SegmentKey};
pub(crate) use file::verify_archive_file;
pub(crate) use format::{ARCHIVE_DIR, archive_path, parse_archive_name};
