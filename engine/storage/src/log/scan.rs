//! Reading one generation of a log back, and telling a torn tail from a hole.
//!
//! Not the order of generations, which is recovery's. Invariants: a record follows another only when it names that
//! one's end, so none can be skipped; a bad record ends the log only if no later record states a durable prefix
//! beyond it and no end was recorded beyond it.

use crate::disk::{Access, Disk, DiskFile};
use crate::error::StorageError;
use crate::log::DurableRecord;
use crate::position::{
    BLOCK_BYTES, LogIdentity, LogPosition, RecordPlace, SegmentNumber, block_ceil, log_directory, parse_segment_name,
    segment_path,
};
use crate::record::{RECORD_HEADER_BYTES, RecordHeader};

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationScan {
    /// Log and generation.
    pub identity: LogIdentity,
    /// Length of every segment.
    pub segment_bytes: u64,
    /// Logical byte to start from: 0 or the end of a record.
    pub from: u64,
    /// Where the generation ends, if that was recorded; otherwise it ends at the first record that is not valid.
    pub expected_end: Option<u64>,
}

/// Where a generation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnd {
    /// Behind the last valid record.
    pub end: LogPosition,
    /// Records read.
    pub records: u64,
}

/// Reads the records of one generation in order.
///
/// # Errors
/// A hole, damage before a recorded end, a segment of the wrong length, or an error of the disk or of `visit`.
pub fn scan_generation<E: From<StorageError>>(
    disk: &dyn Disk,
    scan: &GenerationScan,
    mut visit: impl FnMut(DurableRecord<'_>) -> Result<(), E>,
) -> Result<LogEnd, E> {
    let mut reader = GenerationReader::open(disk, scan)?;
    let mut end = scan.from;
    let mut records = 0;
    while scan.expected_end != Some(end) {
        let Some(place) = reader.next_place(end)? else { break };
        let (header, record) = reader.record(&place)?;
        if !header.body_is_valid(record) {
            break;
        }
        end = place.segment.0 * scan.segment_bytes + place.offset + u64::from(header.length);
        let position = LogPosition { generation: scan.identity.generation, position: end };
        let batch = header.batch(record);
        visit(DurableRecord { header, batch, verdicts: header.verdicts(record), end: position })?;
        records += 1;
    }
    match scan.expected_end {
        Some(expected) if expected != end => return Err(reader.ends_early(end, expected).into()),
        Some(_) => {}
        None => reader.refuse_hole(end)?,
    }
    Ok(LogEnd { end: LogPosition { generation: scan.identity.generation, position: end }, records })
}

/// One segment that is to be read for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentScan {
    pub(crate) identity: LogIdentity,
    pub(crate) segment_bytes: u64,
    pub(crate) segment: SegmentNumber,
}

/// What the records of one segment say of it and its neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentScanned {
    /// Logical end of the record before its first one.
    pub(crate) after: u64,
    /// Behind its last valid record.
    pub(crate) end: u64,
    /// Where the first record of the next segment says that this one ends; none where there is no such record.
    pub(crate) stated_end: Option<u64>,
}

/// Reads the records that begin in one segment, in order, up to the first that does not verify; `None` when there is
/// none. Whether more ought to be there is for the caller to judge: see [`refuse_lost_records`].
pub(crate) fn scan_segment<E: From<StorageError>>(
    disk: &dyn Disk,
    scan: &SegmentScan,
    mut visit: impl FnMut(DurableRecord<'_>) -> Result<(), E>,
) -> Result<Option<SegmentScanned>, E> {
    let mut reader = GenerationReader::over(disk, scan.identity, scan.segment_bytes)?;
    let start = scan.segment.0 * scan.segment_bytes;
    let limit = start + scan.segment_bytes;
    let Some(first) = reader.header(&reader.place_of(start))? else { return Ok(None) };
    let after = first.previous_end;
    let mut end = after;
    while end < limit {
        let behind = [end.max(start), block_ceil(end.max(start))];
        let Some(place) = reader.place_behind(end, behind.into_iter().filter(|at| *at < limit))? else { break };
        let (header, record) = reader.record(&place)?;
        if !header.body_is_valid(record) {
            break;
        }
        end = start + place.offset + u64::from(header.length);
        let position = LogPosition { generation: scan.identity.generation, position: end };
        visit(DurableRecord { header, batch: header.batch(record), verdicts: header.verdicts(record), end: position })?;
    }
    if end == after {
        return Ok(None);
    }
    let stated_end = reader.header(&reader.place_of(limit))?.map(|next| next.previous_end);
    Ok(Some(SegmentScanned { after, end, stated_end }))
}

/// Refuses a segment from which records are missing behind those that were read: by what the next segment says, by
/// the generation's recorded end where it is known, or by what later records of the same segment say.
pub(crate) fn refuse_lost_records(
    disk: &dyn Disk,
    scan: &SegmentScan,
    scanned: &SegmentScanned,
    recorded_end: Option<u64>,
) -> Result<(), StorageError> {
    let mut reader = GenerationReader::over(disk, scan.identity, scan.segment_bytes)?;
    match scanned.stated_end.or(recorded_end) {
        Some(expected) if expected != scanned.end => Err(reader.ends_early(scanned.end, expected)),
        Some(_) => Ok(()),
        None => {
            reader.segments.retain(|segment| *segment == scan.segment);
            reader.refuse_hole(scanned.end)
        }
    }
}

/// Random access to the segments of one generation, through one window.
pub(super) struct GenerationReader<'d> {
    disk: &'d dyn Disk,
    identity: LogIdentity,
    segment_bytes: u64,
    /// Segments that are there, ascending.
    pub(super) segments: Vec<SegmentNumber>,
    open: Option<(SegmentNumber, Box<dyn DiskFile>)>,
    window: Vec<u8>,
    window_offset: u64,
}

impl<'d> GenerationReader<'d> {
    fn open(disk: &'d dyn Disk, scan: &GenerationScan) -> Result<Self, StorageError> {
        let reader = Self::over(disk, scan.identity, scan.segment_bytes)?;
        if scan.expected_end.is_none() {
            reader.refuse_gap(SegmentNumber(scan.from / scan.segment_bytes))?;
        }
        Ok(reader)
    }

    pub(super) fn over(disk: &'d dyn Disk, identity: LogIdentity, segment_bytes: u64) -> Result<Self, StorageError> {
        let dir = log_directory(identity.log);
        let names = match disk.exists(&dir) {
            Ok(true) => disk.list(&dir).map_err(|error| StorageError::io("list", &dir, error))?,
            Ok(false) => Vec::new(),
            Err(error) => return Err(StorageError::io("look for", &dir, error)),
        };
        let mut segments: Vec<SegmentNumber> = names
            .iter()
            .filter_map(|name| parse_segment_name(name))
            .filter(|(generation, _)| *generation == identity.generation)
            .map(|(_, segment)| segment)
            .collect();
        segments.sort_unstable();
        Ok(Self { disk, identity, segment_bytes, segments, open: None, window: Vec::new(), window_offset: 0 })
    }

    /// Segments are made in order and durable by name before use, so from the first that may hold something on none
    /// may be missing before another.
    fn refuse_gap(&self, first: SegmentNumber) -> Result<(), StorageError> {
        let there = self.segments.iter().filter(|segment| **segment >= first);
        for (segment, expected) in there.zip(first.0..) {
            if segment.0 != expected {
                let why = format!("{} is there, and segments are made in order", self.path(*segment));
                return Err(StorageError::Missing { file: self.path(SegmentNumber(expected)), why });
            }
        }
        Ok(())
    }

    /// Where the record behind `end` lies: at once, at the next block, or at the start of the next segment.
    pub(super) fn next_place(&mut self, end: u64) -> Result<Option<RecordPlace>, StorageError> {
        let next_segment = (end / self.segment_bytes + 1) * self.segment_bytes;
        self.place_behind(end, [end, block_ceil(end), next_segment].into_iter())
    }

    /// The first of these positions that holds a record which names `end` as the end of the one before it.
    fn place_behind(
        &mut self,
        end: u64,
        positions: impl Iterator<Item = u64>,
    ) -> Result<Option<RecordPlace>, StorageError> {
        for position in positions {
            let place = self.place_of(position);
            let follows = self.header(&place)?.is_some_and(|header| header.previous_end == end);
            if follows {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    pub(super) fn place_of(&self, position: u64) -> RecordPlace {
        RecordPlace {
            identity: self.identity,
            segment: SegmentNumber(position / self.segment_bytes),
            offset: position % self.segment_bytes,
        }
    }

    pub(super) fn path(&self, segment: SegmentNumber) -> String {
        segment_path(self.identity.log, self.identity.generation, segment)
    }

    /// The header at `place`, if one is there that verifies and whose record ends within the segment.
    pub(super) fn header(&mut self, place: &RecordPlace) -> Result<Option<RecordHeader>, StorageError> {
        let room = self.segment_bytes - place.offset;
        if room < RECORD_HEADER_BYTES as u64 || self.segments.binary_search(&place.segment).is_err() {
            return Ok(None);
        }
        let bytes = self.bytes(place.segment, place.offset, RECORD_HEADER_BYTES)?;
        let Some(bytes) = bytes.first_chunk() else { return Ok(None) };
        // Not the end of the log, which would lose what is there, but what only a newer engine can read.
        if let Some((found, supported)) = RecordHeader::newer(bytes, place) {
            return Err(StorageError::NewerVersion { file: self.path(place.segment), found, supported });
        }
        let header = RecordHeader::verify(bytes, place);
        Ok(header.filter(|header| u64::from(header.length) <= room))
    }

    /// The whole record at a place whose header verifies.
    fn record(&mut self, place: &RecordPlace) -> Result<(RecordHeader, &[u8]), StorageError> {
        let header = self.header(place)?.expect("the header was just verified");
        let record = self.bytes(place.segment, place.offset, header.length as usize)?;
        Ok((header, record))
    }

    /// `len` bytes of a segment that is there; they lie within its length.
    fn bytes(&mut self, segment: SegmentNumber, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != segment) {
            let path = self.path(segment);
            let file = self.disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
            let file_len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
            if file_len != self.segment_bytes {
                let what = format!("a segment of {file_len} bytes instead of {}", self.segment_bytes);
                return Err(StorageError::damaged(&path, file_len.min(self.segment_bytes), what));
            }
            self.open = Some((segment, file));
            self.window.clear();
        }
        let window_end = self.window_offset + self.window.len() as u64;
        let inside = offset >= self.window_offset && offset + len as u64 <= window_end;
        if !inside {
            let start = offset - offset % BLOCK_BYTES as u64;
            let window_len = (WINDOW_BYTES.max(len + BLOCK_BYTES) as u64).min(self.segment_bytes - start);
            self.window.resize(window_len as usize, 0);
            self.window_offset = start;
            let (_, file) = self.open.as_ref().expect("opened above");
            let read = file.read_at(&mut self.window, start);
            read.map_err(|error| StorageError::io("read", &self.path(segment), error))?;
        }
        let at = (offset - self.window_offset) as usize;
        Ok(&self.window[at..at + len])
    }

    /// Refuses a log in which a later record states that the place behind `end` was durable.
    pub(super) fn refuse_hole(&mut self, end: u64) -> Result<(), StorageError> {
        let Some((place, stated_prefix)) = self.later_header(end, |later| later.durable_prefix > end)? else {
            return Ok(());
        };
        let bad = self.place_of(end);
        Err(StorageError::LogHole {
            file: self.path(bad.segment),
            offset: bad.offset,
            witness_file: self.path(place.segment),
            witness_offset: place.offset,
            stated_prefix,
        })
    }

    /// The first header at a block behind `end` that verifies and is wanted: its place, and the prefix that it states.
    pub(super) fn later_header(
        &mut self,
        end: u64,
        wanted: impl Fn(&RecordHeader) -> bool,
    ) -> Result<Option<(RecordPlace, u64)>, StorageError> {
        let bad = self.place_of(end);
        for segment in self.segments.clone() {
            if segment < bad.segment {
                continue;
            }
            let first = if segment == bad.segment { block_ceil(bad.offset) } else { 0 };
            for offset in (first..self.segment_bytes).step_by(BLOCK_BYTES) {
                let place = RecordPlace { identity: self.identity, segment, offset };
                let Some(later) = self.header(&place)? else { continue };
                if wanted(&later) {
                    return Ok(Some((place, later.durable_prefix)));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn ends_early(&self, end: u64, expected: u64) -> StorageError {
        let place = self.place_of(end);
        let path = self.path(place.segment);
        if self.segments.binary_search(&place.segment).is_err() {
            let why = format!("the log was recorded to end at logical byte {expected}, and this segment holds {end}");
            return StorageError::Missing { file: path, why };
        }
        let what = format!("no valid record, but the log was recorded to end at logical byte {expected}, not {end}");
        StorageError::damaged(&path, place.offset, what)
    }
}
