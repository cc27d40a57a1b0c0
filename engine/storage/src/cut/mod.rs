//! Cut files: what the shards hold beyond the last one, with the log positions that it covers.
//!
//! Not the freezing of the shards, which is the ranking's, and not the order of files, which is the store's. Invariant:
//! under its final name a cut file is whole. Sections: positions, producers, then ids and runs shard by shard, index.

use crate::container::{CutHeader, FileHeader, FileKind, FileWriter, Pacing, SectionFile};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::DirectoryId;

/// Directory of the cut files, relative to the data directory.
pub(crate) const CUTS_DIR: &str = "cuts";

/// Path of a cut file, relative to the data directory.
pub(crate) fn cut_path(number: u64) -> String {
    format!("{CUTS_DIR}/cut-{number:010}.cut")
}

/// Number of a file name made by [`cut_path`].
pub(crate) fn parse_cut_name(name: &str) -> Option<u64> {
    name.strip_prefix("cut-")?.strip_suffix(".cut")?.parse().ok()
}

/// Opens a cut file and checks its header and footer.
pub(crate) fn open_cut(disk: &dyn Disk, directory: DirectoryId, number: u64) -> Result<SectionFile, StorageError> {
    SectionFile::open(disk, directory, FileKind::Cut, cut_path(number), 0..=number)
}

/// Begins a cut file.
pub(crate) fn create_cut<'d>(disk: &'d dyn Disk, header: &CutHeader) -> Result<FileWriter<'d>, StorageError> {
    let header = FileHeader { kind: FileKind::Cut, cut: *header, first: 0, period_minutes: 0 };
    FileWriter::create(disk, cut_path(header.cut.number), &header, Pacing::AtEnd)
}
