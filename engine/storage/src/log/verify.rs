//! Verifying segments one by one, also those that no start reads any more, and looking behind the end of a log.
//!
//! Not recovery, whose judgement of what a start needs is [`scan_generation`](super::scan_generation)'s. Invariant: a
//! record is told to be missing only if something says that it was there: the record behind it, a later one's durable
//! prefix, a recorded end, or a cut that covers it.

use super::scan::{GenerationReader, SegmentScan, SegmentScanned, scan_segment};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::LogIdentity;
use crate::record::RecordKind;

/// What is known of a generation besides its segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentOwed {
    /// Where the generation ends, if that was recorded or found; behind it nothing counts.
    pub(crate) end: Option<u64>,
    /// Up to where a cut covers it: all records before that were there.
    pub(crate) covered: u64,
}

/// What is in a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentFacts {
    /// Records that verify.
    pub(crate) records: u64,
    /// Views of their batches.
    pub(crate) views: u64,
}

/// Reads every record that begins in a segment, and refuses it when some are missing.
pub(crate) fn verify_segment(
    disk: &dyn Disk,
    scan: &SegmentScan,
    owed: &SegmentOwed,
) -> Result<SegmentFacts, StorageError> {
    let mut facts = SegmentFacts::default();
    let scanned = scan_segment::<StorageError>(disk, scan, |record| {
        facts.records += 1;
        if record.header.kind == RecordKind::Batch {
            facts.views += u64::from(record.header.view_count);
        }
        Ok(())
    })?;
    refuse_lost(disk, scan, scanned, owed)?;
    Ok(facts)
}

fn refuse_lost(
    disk: &dyn Disk,
    scan: &SegmentScan,
    scanned: Option<SegmentScanned>,
    owed: &SegmentOwed,
) -> Result<(), StorageError> {
    let mut reader = GenerationReader::over(disk, scan.identity, scan.segment_bytes)?;
    let start = scan.segment.0 * scan.segment_bytes;
    let limit = start + scan.segment_bytes;
    let end = scanned.map_or(start, |scanned| scanned.end);
    if owed.end.is_some_and(|of_generation| end >= of_generation) {
        return Ok(());
    }
    let stated = match scanned {
        Some(scanned) => scanned.stated_end,
        None => reader.header(&reader.place_of(limit))?.map(|next| next.previous_end).filter(|stated| *stated > start),
    };
    match stated {
        Some(stated) if stated == end => Ok(()),
        Some(stated) if owed.end.is_some_and(|of_generation| stated <= of_generation) || stated <= owed.covered => {
            Err(reader.ends_early(end, stated))
        }
        // The next segment's group may be all that was written of a few that were under way.
        Some(_) => reader.refuse_hole(end),
        None => {
            let is_lacking = |required: &u64| (end + 1..=limit).contains(required);
            if let Some(of_generation) = owed.end.filter(is_lacking) {
                return Err(reader.ends_early(end, of_generation));
            }
            if is_lacking(&owed.covered) {
                let place = reader.place_of(end);
                let what = format!("no valid record, but cut files cover the log to logical byte {}", owed.covered);
                return Err(StorageError::damaged(&reader.path(place.segment), place.offset, what));
            }
            reader.segments.retain(|segment| *segment == scan.segment);
            reader.refuse_hole(end)
        }
    }
}

/// Where a record lies behind the end of a generation that was written in part: none where the log simply ends. Such a
/// tail was never acknowledged.
pub(crate) fn torn_tail(
    disk: &dyn Disk,
    identity: LogIdentity,
    segment_bytes: u64,
    end: u64,
) -> Result<Option<(String, u64)>, StorageError> {
    let mut reader = GenerationReader::over(disk, identity, segment_bytes)?;
    let place = match reader.next_place(end)? {
        // Its header verifies, so its body does not, or it would not lie behind the end.
        Some(place) => Some(place),
        None => reader.later_header(end, |_| true)?.map(|(place, _)| place),
    };
    Ok(place.map(|place| (reader.path(place.segment), place.offset)))
}
