//! What the files of roll-ups are called.
//!
//! Not what they hold. Invariant: a name parses back to what it was made of.

use crate::container::{FileKind, SectionFile};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::DirectoryId;
use crate::tables::Grain;

/// Directory of the roll-ups, relative to the data directory.
pub(crate) const ROLLUPS_DIR: &str = "rollups";

/// Which roll-up: the views of the cuts `first` to `last`, both included, by periods of a grain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunName {
    pub(crate) grain: Grain,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl RunName {
    /// Path, relative to the data directory.
    pub(crate) fn path(&self) -> String {
        format!("{ROLLUPS_DIR}/{}-{:010}-{:010}.run", self.grain.word(), self.first, self.last)
    }

    /// What a file name made by [`path`](Self::path) stands for.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (word, numbers) = name.strip_suffix(".run")?.split_once('-')?;
        let grain = Grain::ALL.into_iter().find(|grain| grain.word() == word)?;
        let (first, last) = numbers.split_once('-')?;
        Some(Self { grain, first: first.parse().ok()?, last: last.parse().ok()? })
    }

    /// Opens the file and checks its header and footer.
    pub(crate) fn open(&self, disk: &dyn Disk, directory: DirectoryId) -> Result<SectionFile, StorageError> {
        SectionFile::open(disk, directory, FileKind::Run(self.grain), self.path(), self.first..=self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for grain in Grain::ALL {
            let name = RunName { grain, first: 61, last: 120 };
            assert_eq!(RunName::parse(name.path().strip_prefix("rollups/").unwrap()), Some(name));
        }
        let name = RunName { grain: Grain::Hour, first: 1, last: 60 };
        assert_eq!(name.path(), "rollups/hour-0000000001-0000000060.run");
    }
}
