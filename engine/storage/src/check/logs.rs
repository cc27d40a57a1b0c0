//! Checking the logs: what the next start replays, as it does, and every segment that is kept besides.
//!
//! Invariant: what [`scan_generation`] accepts is no damage, whatever lies behind its end.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, RESTORE, known, measure};
use crate::check::report::{CheckReport, CheckedFiles, CheckedKind};
use crate::error::StorageError;
use crate::log::{GenerationScan, SegmentOwed, SegmentScan, scan_generation, torn_tail, verify_segment};
use crate::position::{
    LogIdentity, LogNumber, LogPosition, SegmentNumber, log_directory, parse_segment_name, segment_path,
};
use crate::record::RecordKind;
use crate::store::log_directories;

const KIND: CheckedKind = CheckedKind::Log;
const COVERED_REMEDY: &str = "no start reads this place any more, only exports of views and audits do: look for faults \
                              of the disk in the kernel's log";

/// What a name in a log's directory stands for.
enum Name {
    Segment(u32, SegmentNumber),
    Spare,
}

/// One generation of one log.
struct Generation<'c> {
    context: &'c Context,
    identity: LogIdentity,
    segment_bytes: u64,
    /// What a start replays of it; none when it replays nothing, or nobody knows.
    replayed: Option<Replayed>,
    covered: u64,
}

/// What a start replays of a generation.
struct Replayed {
    from: u64,
    expected_end: Option<u64>,
}

/// What was replayed.
struct Beyond {
    /// Where the generation ends.
    end: u64,
    batches: u64,
    views: u64,
}

/// Checks all logs; `covered` is up to where the newest cut covers them, none when that cannot be read.
pub(super) fn check_logs(context: &Context, covered: Option<&[(LogNumber, LogPosition)]>, report: &mut CheckReport) {
    let mut there: BTreeMap<(LogNumber, u32), BTreeSet<SegmentNumber>> = BTreeMap::new();
    for dir in report.take(KIND, log_directories(&*context.disk), RESTORE).unwrap_or_default() {
        let Some(log) = dir.strip_prefix("log-").and_then(|number| number.parse().ok()).map(LogNumber) else {
            continue;
        };
        for (path, name) in known(context, KIND, &dir, |name| parse(log, &dir, name), report) {
            measure(&*context.disk, KIND, &path, report);
            if let Name::Segment(generation, segment) = name {
                there.entry((log, generation)).or_default().insert(segment);
            }
        }
    }
    // What must be there, too, although it has no segment.
    for (log, generation) in context.state.iter().flat_map(uncovered) {
        there.entry((log, generation)).or_default();
    }
    if there.is_empty() {
        return;
    }
    let Some(segment_bytes) = context.segment_bytes else {
        report.note("logs were not checked: nothing says how long a segment is");
        return;
    };
    if covered.is_none() || context.state.is_none() {
        report.note("what the next start replays was not checked: the newest cut file or state.hw cannot be read");
    }
    for ((log, generation), segments) in there {
        let identity = LogIdentity { directory: context.id, log, generation };
        let covered_to = covered.map(|covered| {
            let known = covered.iter().find(|(of, _)| *of == log);
            known.map_or(LogPosition::start_of(0), |(_, position)| *position)
        });
        let one = Generation {
            context,
            identity,
            segment_bytes,
            replayed: covered_to.and_then(|covered| replayed(context, log, generation, covered)),
            covered: covered_to.filter(|to| to.generation == generation).map_or(0, |to| to.position),
        };
        one.check(&segments, report);
    }
}

fn parse(log: LogNumber, dir: &str, name: &str) -> Option<Name> {
    if name.starts_with("spare-") && name.ends_with(".seg") {
        return Some(Name::Spare);
    }
    let (generation, segment) = parse_segment_name(name)?;
    (segment_path(log, generation, segment) == format!("{dir}/{name}")).then_some(Name::Segment(generation, segment))
}

/// The generations that the state names.
fn uncovered(state: &crate::state::StoreState) -> impl Iterator<Item = (LogNumber, u32)> + '_ {
    state.closed.iter().map(|closed| (closed.log, closed.end.generation))
}

/// What a start would replay of a generation: see `Store::replay_logs`.
fn replayed(context: &Context, log: LogNumber, generation: u32, covered: LogPosition) -> Option<Replayed> {
    let state = context.state.as_ref()?;
    let from = if covered.generation == generation { covered.position } else { 0 };
    if generation == state.generation && log.0 < state.logs_open {
        return Some(Replayed { from, expected_end: None });
    }
    let mut closed = state.closed.iter().filter(|closed| closed.log == log && closed.end.generation == generation);
    let end = closed.next().map(|closed| closed.end).filter(|end| *end > covered)?;
    Some(Replayed { from, expected_end: Some(end.position) })
}

impl Generation<'_> {
    fn check(&self, segments: &BTreeSet<SegmentNumber>, report: &mut CheckReport) {
        let recorded = self.replayed.as_ref().and_then(|replayed| replayed.expected_end);
        let mut owed = SegmentOwed { end: recorded, covered: self.covered };
        if let Some(replayed) = &self.replayed
            && let Some(beyond) = report.take(KIND, self.replay(replayed), RESTORE)
        {
            owed.end = Some(beyond.end);
            self.tell_replayed(replayed, &beyond, report);
        }
        for segment in segments {
            let scan = SegmentScan { identity: self.identity, segment_bytes: self.segment_bytes, segment: *segment };
            let limit = (segment.0 + 1) * self.segment_bytes;
            let is_replayed = self.replayed.as_ref().is_some_and(|replayed| limit > replayed.from);
            let facts = verify_segment(&*self.context.disk, &scan, &owed);
            if let Some(facts) = report.take(KIND, facts, if is_replayed { RESTORE } else { COVERED_REMEDY }) {
                let read = CheckedFiles { records: facts.records, views: facts.views, ..CheckedFiles::default() };
                report.add(KIND, read);
            }
        }
    }

    fn replay(&self, replayed: &Replayed) -> Result<Beyond, StorageError> {
        let Replayed { from, expected_end } = *replayed;
        let (identity, segment_bytes) = (self.identity, self.segment_bytes);
        let scan = GenerationScan { identity, segment_bytes, from, expected_end };
        let (mut batches, mut views) = (0, 0);
        let end = scan_generation::<StorageError>(&*self.context.disk, &scan, |record| {
            if record.header.kind == RecordKind::Batch {
                batches += 1;
                views += u64::from(record.header.view_count);
            }
            Ok(())
        })?;
        Ok(Beyond { end: end.end.position, batches, views })
    }

    fn tell_replayed(&self, replayed: &Replayed, beyond: &Beyond, report: &mut CheckReport) {
        let (dir, generation) = (log_directory(self.identity.log), self.identity.generation);
        let Beyond { end, batches, views } = *beyond;
        if batches > 0 {
            report.note(format!(
                "{dir}: {batches} batches with {views} views of generation {generation} lie beyond the newest cut \
                 file: the next start replays them"
            ));
        }
        if replayed.expected_end.is_some() {
            return;
        }
        let tail = torn_tail(&*self.context.disk, self.identity, self.segment_bytes, end);
        if let Some(Some((file, offset))) = report.take(KIND, tail, RESTORE) {
            report.note(format!(
                "{file} at byte {offset}: a torn tail, of which nothing was acknowledged: the next start leaves it out"
            ));
        }
    }
}
