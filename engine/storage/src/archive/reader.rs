//! Reading back every accepted view that is kept: the archive, and behind it the segments that are still there.
//!
//! For an engine that runs or stands, in its process or another: it takes no lock and changes nothing. Invariants: a
//! batch is handed out at most once, whole and verified; what is told to have been read has no gap within it.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use highwater_proto::Batch;

use super::batch::ArchivedBatch;
use super::catalog::SegmentKey;
use super::file::{ArchiveFile, BlocksWanted};
use super::format::{ARCHIVE_DIR, parse_archive_name};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::log::{DurableRecord, SegmentScan, SegmentScanned, refuse_lost_records, scan_segment};
use crate::position::{LogIdentity, LogNumber, LogPosition, SegmentNumber, parse_segment_name, segment_path};
use crate::record::RecordKind;
use crate::state::StoreState;

/// Which batches are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveRange {
    /// All that are kept.
    All,
    /// Those that arrived within these times, in ms UTC.
    Arrivals(Range<u64>),
    /// Those of one log behind `after`, up to and including one that ends at `up_to`: as cuts cover them.
    Positions {
        /// The log.
        log: LogNumber,
        /// Behind here.
        after: LogPosition,
        /// Up to here.
        up_to: LogPosition,
    },
}

/// A stretch of a generation without a gap, as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchivePart {
    /// The log.
    pub log: LogNumber,
    /// Behind here.
    pub after: LogPosition,
    /// Up to here.
    pub up_to: LogPosition,
    /// Whether the generation, which is written no more, has nothing behind it.
    pub ends_generation: bool,
}

/// Where a segment's records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Archive,
    Segment,
}

/// The kept batches of a data directory: those of the files that were there when it was opened. What is removed
/// meanwhile is left out, and missing in what [`visit`](Self::visit) tells.
pub struct ArchiveReader {
    disk: Arc<dyn Disk>,
    directory: Directory,
    state: StoreState,
    /// By generation, log, segment.
    sources: BTreeMap<(u32, LogNumber, SegmentNumber), Source>,
}

/// What ended a reading.
enum Failure<E> {
    Storage(StorageError),
    Visitor(E),
}

impl<E> From<StorageError> for Failure<E> {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl<E: From<StorageError>> Failure<E> {
    fn into_error(self) -> E {
        match self {
            Self::Storage(error) => error.into(),
            Self::Visitor(error) => error,
        }
    }
}

impl ArchiveReader {
    /// Looks at what there is.
    ///
    /// # Errors
    /// When it is no data directory, or the disk refuses.
    pub fn open(disk: Arc<dyn Disk>) -> Result<Self, StorageError> {
        let directory = Directory::read(&disk)?.ok_or_else(|| missing(Directory::PATH))?;
        let state = StoreState::read(&disk, directory.id)?.ok_or_else(|| missing(StoreState::PATH))?;
        let mut sources = BTreeMap::new();
        // Segments first: one that goes into the archive between the two looks is then found at both places.
        for dir in crate::store::log_directories(&disk)? {
            let Some(log) = dir.strip_prefix("log-").and_then(|number| number.parse().ok()).map(LogNumber) else {
                continue;
            };
            for (generation, segment) in
                crate::store::list(&disk, &dir)?.iter().filter_map(|name| parse_segment_name(name))
            {
                sources.insert((generation, log, segment), Source::Segment);
            }
        }
        if crate::store::exists(&disk, ARCHIVE_DIR)? {
            for name in crate::store::list(&disk, ARCHIVE_DIR)? {
                let Some(SegmentKey { generation, segment, log }) = parse_archive_name(&name) else { continue };
                sources.insert((generation, log, segment), Source::Archive);
            }
        }
        Ok(Self { disk, directory, state, sources })
    }

    /// What is fixed for this directory.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Logs of which there is something.
    #[must_use]
    pub fn logs(&self) -> Vec<LogNumber> {
        let mut logs: Vec<LogNumber> = self.sources.keys().map(|(_, log, _)| *log).collect();
        logs.sort_unstable();
        logs.dedup();
        logs
    }

    /// Hands out the batches wanted, by generation, then log, then position. Tells what it has read: by generation,
    /// then log, then position, each stretch as long as can be. What the range excludes is told as read where it is in
    /// a file or segment that had to be looked at.
    ///
    /// # Errors
    /// When a file does not verify, records are missing between others, the disk refuses, or `visit` fails.
    pub fn visit<E: From<StorageError>>(
        &self,
        wanted: &ArchiveRange,
        mut visit: impl FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    ) -> Result<Vec<ArchivePart>, E> {
        let mut parts: Vec<ArchivePart> = Vec::new();
        for (&(generation, log, segment), source) in &self.sources {
            let key = SegmentKey { generation, segment, log };
            if !self.may_hold(key, wanted) {
                continue;
            }
            let mut reading = Reading { wanted, reached: 0, visit: &mut visit };
            let part = match source {
                Source::Archive => self.read_archive(key, &mut reading),
                Source::Segment => self.read_segment(key, &mut reading),
            };
            let Some(part) = part.map_err(Failure::into_error)? else { continue };
            match parts.last_mut() {
                Some(last) if last.log == part.log && last.up_to == part.after => {
                    last.up_to = part.up_to;
                    last.ends_generation = part.ends_generation;
                }
                _ => parts.push(part),
            }
        }
        Ok(parts)
    }

    fn may_hold(&self, key: SegmentKey, wanted: &ArchiveRange) -> bool {
        let ArchiveRange::Positions { log, after, up_to } = wanted else { return true };
        let start = LogPosition { generation: key.generation, position: key.segment.0 * self.directory.segment_bytes };
        let limit = LogPosition { position: start.position + self.directory.segment_bytes, ..start };
        key.log == *log && limit >= *after && start < *up_to
    }

    /// Reads on from an archive file; `None` when it is no longer there.
    fn read_archive<E, V>(
        &self,
        key: SegmentKey,
        reading: &mut Reading<'_, V>,
    ) -> Result<Option<ArchivePart>, Failure<E>>
    where
        V: FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    {
        let file = match ArchiveFile::open(&self.disk, self.directory.id, key) {
            Err(error) if is_not_found(&error) => return Ok(None),
            opened => opened?,
        };
        let footer = file.footer();
        let arrivals = match reading.wanted {
            ArchiveRange::Arrivals(arrivals) => arrivals.clone(),
            _ => 0..u64::MAX,
        };
        let wanted = BlocksWanted { positions: reading.positions(key.generation), arrivals };
        if footer.arrivals.meets(&wanted.arrivals) {
            file.batches(&wanted, |batch| reading.hand_out(batch))?;
        }
        Ok(Some(part_of(key, footer.after, footer.up_to, footer.ends_generation)))
    }

    /// Reads a segment of a log; if it has gone into the archive meanwhile, reads on there.
    fn read_segment<E, V>(
        &self,
        key: SegmentKey,
        reading: &mut Reading<'_, V>,
    ) -> Result<Option<ArchivePart>, Failure<E>>
    where
        V: FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    {
        let identity = LogIdentity { directory: self.directory.id, log: key.log, generation: key.generation };
        let segment_bytes = self.directory.segment_bytes;
        let scan = SegmentScan { identity, segment_bytes, segment: key.segment };
        let mut has_looked_twice = false;
        loop {
            let scanned = scan_segment(&self.disk, &scan, |record| reading.hand_out_record(key.log, &record));
            let scanned = match scanned {
                Err(Failure::Storage(error)) if is_not_found(&error) => None,
                scanned => scanned?,
            };
            let is_whole = scanned.is_some_and(|scanned| scanned.stated_end == Some(scanned.end));
            if !is_whole && !crate::store::exists(&self.disk, &segment_path(key.log, key.generation, key.segment))? {
                // Used again while it was being read, so it is in the archive, or was given up.
                let part = self.read_archive(key, reading)?;
                return Ok(part.or(scanned.map(|scanned| part_of(key, scanned.after, scanned.end, false))));
            }
            let Some(scanned) = scanned else { return Ok(None) };
            let misses_some = scanned.stated_end.is_some_and(|stated| stated != scanned.end);
            if misses_some && !has_looked_twice {
                // Its end was looked at before it was written.
                has_looked_twice = true;
                continue;
            }
            let is_closed = self.is_closed(key);
            if misses_some || is_closed {
                refuse_lost_records(&self.disk, &scan, &scanned, self.recorded_end(key, &scanned))?;
            }
            let ends_generation = is_closed && scanned.stated_end.is_none();
            return Ok(Some(part_of(key, scanned.after, scanned.end, ends_generation)));
        }
    }

    /// Whether nobody writes the generation any more, as far as was known when this was opened.
    fn is_closed(&self, key: SegmentKey) -> bool {
        key.generation < self.state.generation
            || key.generation == self.state.generation && key.log.0 >= self.state.logs_open
    }

    fn recorded_end(&self, key: SegmentKey, scanned: &SegmentScanned) -> Option<u64> {
        let closed = self.state.closed.iter();
        let mut ends = closed.filter(|closed| closed.log == key.log && closed.end.generation == key.generation);
        ends.next().map(|closed| closed.end.position).filter(|end| *end >= scanned.end)
    }
}

/// A reading of one segment, which may go on at another place.
struct Reading<'r, V> {
    wanted: &'r ArchiveRange,
    /// Logical position up to which batches were handed out or passed over.
    reached: u64,
    visit: &'r mut V,
}

impl<V> Reading<'_, V> {
    /// The logical positions of a generation that are still wanted.
    fn positions(&self, generation: u32) -> Range<u64> {
        let mut positions = self.reached..u64::MAX;
        if let ArchiveRange::Positions { after, up_to, .. } = self.wanted {
            if after.generation == generation {
                positions.start = positions.start.max(after.position);
            }
            if up_to.generation == generation {
                positions.end = up_to.position;
            }
        }
        positions
    }

    fn hand_out<E>(&mut self, batch: &ArchivedBatch<'_>) -> Result<(), Failure<E>>
    where
        V: FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    {
        if batch.position.position <= self.reached {
            return Ok(());
        }
        self.reached = batch.position.position;
        let is_wanted = match self.wanted {
            ArchiveRange::All => true,
            ArchiveRange::Arrivals(arrivals) => arrivals.contains(&batch.arrival_ms),
            ArchiveRange::Positions { log, after, up_to } => {
                batch.log == *log && batch.position > *after && batch.position <= *up_to
            }
        };
        if is_wanted { (self.visit)(batch).map_err(Failure::Visitor) } else { Ok(()) }
    }

    fn hand_out_record<E>(&mut self, log: LogNumber, record: &DurableRecord<'_>) -> Result<(), Failure<E>>
    where
        V: FnMut(&ArchivedBatch<'_>) -> Result<(), E>,
    {
        if record.header.kind != RecordKind::Batch {
            return Ok(());
        }
        self.hand_out(&ArchivedBatch {
            log,
            position: record.end,
            arrival_ms: record.header.arrival_ms,
            producer: record.header.producer,
            sequence: record.header.sequence,
            wire_version: record.header.wire_version,
            batch: Batch::decode(record.batch).expect("the log hands out batches that were checked"),
            bytes: record.batch,
            verdicts: record.verdicts,
        })
    }
}

fn part_of(key: SegmentKey, after: u64, up_to: u64, ends_generation: bool) -> ArchivePart {
    let at = |position| LogPosition { generation: key.generation, position };
    ArchivePart { log: key.log, after: at(after), up_to: at(up_to), ends_generation }
}

fn is_not_found(error: &StorageError) -> bool {
    matches!(error, StorageError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

fn missing(file: &str) -> StorageError {
    let why = "every data directory has one; name the right directory".to_owned();
    StorageError::Missing { file: file.to_owned(), why }
}
