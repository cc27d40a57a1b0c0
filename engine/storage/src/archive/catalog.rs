//! Which segments are in the archive, how much room they take, and which of them go first.
//!
//! Not their contents. Invariants: one segment at a time is being copied; what is told to be in the archive is a
//! durable file, or was an unused segment.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::file::ArchiveFile;
use super::format::{ARCHIVE_DIR, archive_path, parse_archive_name};
use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, SegmentNumber};

/// A segment, in the order in which segments are given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentKey {
    pub(crate) generation: u32,
    pub(crate) segment: SegmentNumber,
    pub(crate) log: LogNumber,
}

/// How much of the archive is kept: whichever is less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveRetention {
    /// Age of the newest arrival of a file, in ms, beyond which it is removed.
    pub age_ms: u64,
    /// Bytes of all files together.
    pub bytes: u64,
}

/// What was given up of the archive or for it, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveShed {
    /// Segments used again although they were in no archive yet.
    pub segments_given_up: u64,
    /// Archive files removed by age or size.
    pub files_removed: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    bytes: u64,
    /// The latest arrival in the file.
    arrival_ms_max: u64,
}

#[derive(Debug)]
pub(crate) struct ArchiveCatalog {
    retention: ArchiveRetention,
    entries: BTreeMap<SegmentKey, Entry>,
    bytes: u64,
    /// Segments that are done with and not yet used again: copied, prepared and never used, or not to be verified.
    settled: BTreeSet<SegmentKey>,
    running: Option<SegmentKey>,
    pub(crate) shed: ArchiveShed,
}

impl ArchiveCatalog {
    /// Knows what is there by its names. A file that does not verify is counted by its length, and for as old as the
    /// one before it of the same log; it is told by whoever reads it.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: DirectoryId,
        retention: ArchiveRetention,
    ) -> Result<Self, StorageError> {
        let mut catalog = Self {
            retention,
            entries: BTreeMap::new(),
            bytes: 0,
            settled: BTreeSet::new(),
            running: None,
            shed: ArchiveShed::default(),
        };
        let mut latest: BTreeMap<LogNumber, u64> = BTreeMap::new();
        let mut keys: Vec<SegmentKey> =
            crate::store::list(disk, ARCHIVE_DIR)?.iter().filter_map(|name| parse_archive_name(name)).collect();
        keys.sort_unstable();
        for key in keys {
            let newest = latest.entry(key.log).or_default();
            let entry = match ArchiveFile::open(disk, directory, key) {
                Ok(file) => Entry { bytes: file.footer().file_len, arrival_ms_max: file.footer().arrivals.max_ms },
                Err(StorageError::Damaged { file: path, .. }) => {
                    let file =
                        disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
                    let bytes = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
                    Entry { bytes, arrival_ms_max: *newest }
                }
                Err(error) => return Err(error),
            };
            // A file without batches, too, is as old as what came before it.
            let arrival_ms_max = entry.arrival_ms_max.max(*newest);
            *newest = arrival_ms_max;
            catalog.insert(key, Entry { arrival_ms_max, ..entry });
        }
        Ok(catalog)
    }

    fn insert(&mut self, key: SegmentKey, entry: Entry) {
        self.bytes += entry.bytes;
        self.entries.insert(key, entry);
    }

    /// Bytes of all files.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of files.
    pub(crate) fn files(&self) -> usize {
        self.entries.len()
    }

    /// Whether a segment need not be copied any more.
    pub(crate) fn is_settled(&self, key: SegmentKey) -> bool {
        self.entries.contains_key(&key) || self.settled.contains(&key)
    }

    pub(crate) const fn running(&self) -> Option<SegmentKey> {
        self.running
    }

    pub(crate) fn begin(&mut self, key: SegmentKey) {
        assert!(self.running.is_none(), "one segment at a time is archived, not {key:?} beside {:?}", self.running);
        self.running = Some(key);
    }

    pub(crate) fn end(&mut self, key: SegmentKey) {
        assert_eq!(self.running.take(), Some(key), "only what was begun is ended");
    }

    pub(crate) fn add_file(&mut self, key: SegmentKey, bytes: u64, arrival_ms_max: u64) {
        let before = self.entries.iter().rev().find(|(other, _)| other.log == key.log && **other < key);
        let arrival_ms_max = arrival_ms_max.max(before.map_or(0, |(_, entry)| entry.arrival_ms_max));
        self.insert(key, Entry { bytes, arrival_ms_max });
        self.settle(key);
    }

    /// Notes that a segment need not be copied, though there is no file of it.
    pub(crate) fn settle(&mut self, key: SegmentKey) {
        self.settled.insert(key);
    }

    /// Notes that a segment was used again or removed.
    pub(crate) fn forget_segment(&mut self, key: SegmentKey) {
        self.settled.remove(&key);
    }

    /// Removes what is too old at `now_ms`, and the oldest of what is too much.
    pub(crate) fn trim(&mut self, disk: &dyn Disk, now_ms: u64) -> Result<usize, StorageError> {
        let oldest_kept_ms = now_ms.saturating_sub(self.retention.age_ms);
        let mut by_age: Vec<(u64, SegmentKey)> =
            self.entries.iter().map(|(key, entry)| (entry.arrival_ms_max, *key)).collect();
        by_age.sort_unstable();
        let mut removed = 0;
        for (arrival_ms_max, key) in by_age {
            if arrival_ms_max >= oldest_kept_ms && self.bytes <= self.retention.bytes {
                break;
            }
            let path = archive_path(key);
            match disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StorageError::io("remove", &path, error));
                }
                _ => {}
            }
            let entry = self.entries.remove(&key).expect("the entries were just listed");
            self.bytes -= entry.bytes;
            removed += 1;
        }
        if removed > 0 {
            disk.sync_dir(ARCHIVE_DIR).map_err(|error| StorageError::io("sync directory", ARCHIVE_DIR, error))?;
            self.shed.files_removed += removed as u64;
        }
        Ok(removed)
    }
}
