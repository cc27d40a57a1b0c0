//! One closed file with its index.
//!
//! Not which files there are. Invariant: the index is that of the file, which never changes under its name.

use std::ops::{Deref, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};

use highwater_ranking::Minute;

use crate::container::{Block, FileKind, RunSection, SectionFile};
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
    /// The section that was read last, of a file that stays open: who asks for one minute after the other asks for it
    /// again and again.
    section: Mutex<Option<(u64, Arc<RunSection>)>>,
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
            section: Mutex::new(None),
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

    /// A section of runs of a file that stays open; none of another.
    pub(crate) fn kept_section(&self, offset: u64) -> Result<Option<Arc<RunSection>>, StorageError> {
        let Some(file) = &self.file else { return Ok(None) };
        // Nothing that holds the lock can panic.
        let mut kept = self.section.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, section)) = kept.as_ref().filter(|(of, _)| *of == offset) {
            return Ok(Some(section.clone()));
        }
        let section = Arc::new(file.run_section(offset)?);
        *kept = Some((offset, section.clone()));
        Ok(Some(section))
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
