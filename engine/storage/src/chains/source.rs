//! One closed file with its index.
//!
//! Not which files there are. Invariant: the index is that of the file, which never changes under its name.

use std::ops::{Deref, RangeInclusive};

use highwater_ranking::Minute;

use crate::container::{Block, FileKind, SectionFile};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::DirectoryId;

/// Whether files stay open between reads: so that they can be removed meanwhile, or so that they take no descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Open,
    Closed,
}

/// A cut file or a roll-up.
pub(crate) struct Source {
    pub(crate) kind: FileKind,
    /// First and last cut in it; the first of a cut file is 0, as in its header.
    pub(crate) numbers: RangeInclusive<u64>,
    pub(crate) len: u64,
    pub(crate) blocks: Vec<Block>,
    path: String,
    /// The newest period in it.
    newest: Option<Minute>,
    file: Option<SectionFile>,
}

/// A file, open for as long as it is read.
pub(crate) enum Opened<'s> {
    Kept(&'s SectionFile),
    Anew(SectionFile),
}

impl Deref for Opened<'_> {
    type Target = SectionFile;

    fn deref(&self) -> &SectionFile {
        match self {
            Self::Kept(file) => file,
            Self::Anew(file) => file,
        }
    }
}

impl Source {
    /// Reads the index of a file.
    pub(crate) fn new(file: SectionFile, keep: Keep) -> Result<Self, StorageError> {
        let blocks = file.index()?;
        Ok(Self::indexed(file, blocks, keep))
    }

    /// With an index that is known.
    pub(crate) fn indexed(file: SectionFile, blocks: Vec<Block>, keep: Keep) -> Self {
        let header = file.header();
        Self {
            kind: header.kind,
            numbers: header.first..=header.cut.number,
            len: file.len(),
            newest: blocks.iter().filter_map(|block| block.minutes.last()).max().copied(),
            blocks,
            path: file.path().to_owned(),
            file: (keep == Keep::Open).then_some(file),
        }
    }

    /// The path, relative to the data directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The last cut in it.
    pub(crate) const fn last(&self) -> u64 {
        *self.numbers.end()
    }

    /// First minute of the newest period that has views.
    pub(crate) const fn newest(&self) -> Option<Minute> {
        self.newest
    }

    /// First minutes of the periods that have views, with repetitions.
    pub(crate) fn minutes(&self) -> impl Iterator<Item = Minute> + '_ {
        self.blocks.iter().flat_map(|block| block.minutes.iter().copied())
    }

    /// The file, for reading.
    pub(crate) fn open(&self, disk: &dyn Disk, directory: DirectoryId) -> Result<Opened<'_>, StorageError> {
        match &self.file {
            Some(file) => Ok(Opened::Kept(file)),
            None => {
                let path = self.path.clone();
                Ok(Opened::Anew(SectionFile::open(disk, directory, self.kind, path, self.numbers.clone())?))
            }
        }
    }
}
