//! What a check found: how much of each kind was read, what is damaged and what else is to be known.
//!
//! Not the checking. Invariants: all damage is counted, of it and of the notes the first 1000 are kept; one place of
//! one file is told once.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{StorageError, remedy};
use crate::tables::Grain;

/// Findings, and notes, that are kept.
const LISTED_MAX: usize = 1000;

/// A kind of file in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckedKind {
    /// What is fixed for the directory.
    Directory,
    /// What must be durable before it is used.
    State,
    /// Segments of the logs.
    Log,
    /// Cut files.
    Cut,
    /// Roll-ups of a grain.
    Rollup(Grain),
    /// Bases.
    Base,
    /// Lists of closed periods, and the file that says which are closed.
    History,
    /// Accepted batches of segments that were used again.
    Archive,
}

impl CheckedKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Directory,
        Self::State,
        Self::Log,
        Self::Cut,
        Self::Rollup(Grain::Minute),
        Self::Rollup(Grain::Hour),
        Self::Rollup(Grain::Day),
        Self::Base,
        Self::History,
        Self::Archive,
    ];

    /// Its name for programs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::State => "state",
            Self::Log => "log",
            Self::Cut => "cut",
            Self::Rollup(grain) => grain.word(),
            Self::Base => "base",
            Self::History => "history",
            Self::Archive => "archive",
        }
    }
}

/// How much of one kind was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedFiles {
    /// Files that are there, damaged ones too.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records of logs, new ids of cut files, ids of bases, rows of lists, batches of the archive.
    pub records: u64,
    /// Views of batches, runs or counts; refused ones are among those of logs only.
    pub views: u64,
    /// What is wrong with files of this kind, or missing.
    pub damage: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckFinding {
    /// Of which kind the file is.
    pub kind: CheckedKind,
    /// The file, relative to the data directory.
    pub file: String,
    /// Byte within the file, where it is one.
    pub offset: Option<u64>,
    /// What was found, and what was expected.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for CheckFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, what, remedy, .. } = self;
        match self.offset {
            Some(offset) => write!(f, "{file} at byte {offset}: {what}; {remedy}"),
            None => write!(f, "{file}: {what}; {remedy}"),
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    kinds: BTreeMap<CheckedKind, CheckedFiles>,
    damage: Vec<CheckFinding>,
    damage_total: u64,
    notes: Vec<String>,
    notes_total: u64,
}

impl CheckReport {
    /// How much of a kind was read.
    #[must_use]
    pub fn files(&self, kind: CheckedKind) -> CheckedFiles {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// What is wrong: the first 1000.
    #[must_use]
    pub fn damage(&self) -> &[CheckFinding] {
        &self.damage
    }

    /// How much is wrong.
    #[must_use]
    pub const fn damage_total(&self) -> u64 {
        self.damage_total
    }

    /// What else is to be known, though nothing is wrong: the first 1000.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How many notes there are.
    #[must_use]
    pub const fn notes_total(&self) -> u64 {
        self.notes_total
    }

    pub(super) fn add(&mut self, kind: CheckedKind, read: CheckedFiles) {
        let sum = self.kinds.entry(kind).or_default();
        sum.files += read.files;
        sum.bytes += read.bytes;
        sum.records += read.records;
        sum.views += read.views;
    }

    /// Notes something.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes_total += 1;
        if self.notes.len() < LISTED_MAX {
            self.notes.push(text.into());
        }
    }

    /// Notes damage, unless that place is told of already.
    pub(super) fn finding(&mut self, finding: CheckFinding) {
        let is_known = |known: &CheckFinding| (&known.file, known.offset) == (&finding.file, finding.offset);
        if self.damage.iter().any(is_known) {
            return;
        }
        self.kinds.entry(finding.kind).or_default().damage += 1;
        self.damage_total += 1;
        if self.damage.len() < LISTED_MAX {
            self.damage.push(finding);
        }
    }

    /// Notes an error; `against_damage` is what to do if the file's bytes are not what they were.
    pub(super) fn error(&mut self, kind: CheckedKind, error: StorageError, against_damage: &str) {
        self.finding(finding(kind, error, against_damage));
    }

    /// Takes over what a step returned, and notes what went wrong.
    pub(super) fn take<T>(
        &mut self,
        kind: CheckedKind,
        result: Result<T, StorageError>,
        against_damage: &str,
    ) -> Option<T> {
        result.map_err(|error| self.error(kind, error, against_damage)).ok()
    }
}

fn finding(kind: CheckedKind, error: StorageError, against_damage: &str) -> CheckFinding {
    let against_damage = against_damage.to_owned();
    let (file, offset, what, remedy) = match error {
        StorageError::Damaged { file, offset, what } => (file, Some(offset), what, against_damage),
        StorageError::LogHole { file, offset, witness_file, witness_offset, stated_prefix } => {
            let what = format!(
                "no valid record, but the record in {witness_file} at byte {witness_offset} states that the log was \
                 durable to logical byte {stated_prefix}"
            );
            (file, Some(offset), what, against_damage)
        }
        StorageError::Missing { file, why } => (file, None, format!("it is missing: {why}"), against_damage),
        StorageError::NewerVersion { file, found, supported } => {
            let what = format!("format version {found}, this engine reads up to {supported}");
            (file, None, what, "use the newer engine that wrote it".to_owned())
        }
        StorageError::ForeignFile { file, found, expected } => {
            let what = format!("it belongs to data directory {found}, this one is {expected}");
            (file, None, what, "remove the foreign file or restore the right one".to_owned())
        }
        StorageError::Io { operation, file, source } => {
            let what = format!("cannot {operation} it: {source}");
            (file, None, what, remedy(&source).to_owned())
        }
        error @ (StorageError::NoSpace { .. } | StorageError::FixedSetting { .. } | StorageError::Setting { .. }) => {
            (crate::directory::Directory::PATH.to_owned(), None, error.to_string(), against_damage)
        }
    };
    CheckFinding { kind, file, offset, what, remedy }
}
