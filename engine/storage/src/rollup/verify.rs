//! Reading back what a roll-up wrote, before anything is given up for it.
//!
//! Invariant: a file that passes verifies in every section and sums up, shard by shard, to what went in.

use super::job::JobError;
use crate::container::{CutSection, FileKind, SealedFile, SectionFile};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::DirectoryId;
use std::ops::RangeInclusive;

/// What one shard of a file must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardTotals {
    /// Ids, in a base.
    pub(super) ids: u64,
    /// Views: in runs, or in the all-time counts of a base.
    pub(super) views: u64,
}

/// Reads a file that has no name yet, whole.
pub(super) fn verify(
    disk: &dyn Disk,
    directory: DirectoryId,
    (kind, numbers): (FileKind, RangeInclusive<u64>),
    sealed: &SealedFile,
    expected: &[ShardTotals],
    should_stop: &mut dyn FnMut() -> bool,
) -> Result<(), JobError> {
    let file = SectionFile::open(disk, directory, kind, sealed.temporary.clone(), numbers)?;
    if file.index()? != sealed.blocks || file.len() != sealed.len {
        return Err(unlike(&file, "its index is not what was written").into());
    }
    let mut found = vec![ShardTotals::default(); expected.len()];
    let mut counted = vec![0u64; expected.len()];
    file.sections::<JobError>(|section| {
        if should_stop() {
            return Err(JobError::Stopped);
        }
        match section {
            CutSection::Ids { shard, lens, .. } => found[usize::from(shard)].ids += lens.len() as u64,
            CutSection::AllTime { shard, counts, .. } => {
                found[usize::from(shard)].views += counts.iter().sum::<u64>();
                counted[usize::from(shard)] += counts.len() as u64;
            }
            CutSection::Run { shard, entries, .. } => {
                found[usize::from(shard)].views += entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>();
            }
            CutSection::Positions(_) | CutSection::Producers(_) => {}
        }
        Ok(())
    })?;
    if found != expected {
        return Err(unlike(&file, "its sums are not those of its sources").into());
    }
    if kind == FileKind::Base && found.iter().zip(&counted).any(|(found, counted)| found.ids != *counted) {
        return Err(unlike(&file, "it has not one count for each id").into());
    }
    Ok(())
}

fn unlike(file: &SectionFile, what: &str) -> StorageError {
    StorageError::damaged(file.path(), 0, format!("{what}, though it was just written"))
}
