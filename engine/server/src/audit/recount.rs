//! Minute counts of cut files and roll-ups against the accepted views in archive and log.
//!
//! Not whether the other grains agree. Invariant: a file is compared only when every log position between the cut
//! before its first and its last can be read, so that no view that it counts is lacking.

use super::names::Slots;
use super::report::{Compared, Difference, Report, time_text};
use highwater_ranking::{FinalityClass, IdHash, Minute, shard_of};
use highwater_storage::{
    ArchivePart, ArchiveRange, ArchiveReader, Disk, Grain, LogNumber, LogPosition, StorageError, TableFile, Tables,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

/// Counts, and ids, of as many shards as keep below this are compared in one pass over the views; at least one shard's.
const PASS_COUNTS: u64 = 1 << 22;

/// A count takes at least so many bytes in a file, nearly always.
const COUNT_BYTES: u64 = 2;

const ALL_MINUTES: Range<Minute> = Minute(0)..Minute(u32::MAX);

/// Up to where a cut covers the logs.
#[derive(Clone, Debug, Default)]
struct Mark {
    told: BTreeMap<LogNumber, LogPosition>,
    /// Of the logs that were open.
    generation: u32,
}

impl Mark {
    fn new(positions: Vec<(LogNumber, LogPosition)>) -> Self {
        let generation = positions.iter().map(|(_, position)| position.generation).max().unwrap_or_default();
        Self { told: positions.into_iter().collect(), generation }
    }

    /// A log that is not told has no view beyond: what earlier generations held of it is covered.
    fn of(&self, log: LogNumber) -> LogPosition {
        self.told.get(&log).copied().unwrap_or(LogPosition::start_of(self.generation))
    }
}

/// What lies between two cuts in one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    log: LogNumber,
    after: LogPosition,
    up_to: LogPosition,
}

/// Stored and recomputed count of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    stored: u64,
    recomputed: u64,
}

/// Minute, class, shard and slot.
type Key = (u32, u8, u16, u32);

/// Compares every file that can be.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare(disk: &Arc<dyn Disk>, tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let reader = ArchiveReader::open(disk.clone())?;
    // Of arrivals that never were: the parts alone.
    let parts = reader.visit::<StorageError>(&ArchiveRange::Arrivals(u64::MAX..u64::MAX), |_| Ok(()))?;
    let mut compared = Compared { what: "minutes with the accepted views", ..Compared::default() };
    let mut left_out: Vec<String> = Vec::new();
    let mut slots = Slots::default();
    let mut before: Option<(u64, Mark)> = Some((0, Mark::default()));
    let mut files: Vec<TableFile<'_>> = tables.files().filter(|file| file.grain() == Grain::Minute).collect();
    files.sort_by_key(|file| *file.cuts().start());
    for file in files {
        let mark = Mark::new(file.positions()?);
        let last = (*file.cuts().end(), mark.clone());
        let known = before.replace(last).filter(|(number, _)| number + 1 == *file.cuts().start());
        let stretches = known.map(|(_, before)| stretches(&before, &mark, &parts));
        match stretches.filter(|stretches| stretches.iter().all(|one| is_covered(&parts, one))) {
            Some(stretches) => recount(tables, &reader, &file, &stretches, &mut slots, &mut compared, report)?,
            None => left_out.push(file.path().to_owned()),
        }
    }
    report.compared(compared);
    if let (Some(first), Some(last)) = (left_out.first(), left_out.last()) {
        let count = left_out.len();
        report.not_compared(format!(
            "with the accepted views: {count} files from {first} to {last}, of which archive and log no longer hold \
             every view"
        ));
    }
    Ok(())
}

/// What lies between two marks, of every log that may hold something.
fn stretches(before: &Mark, mark: &Mark, parts: &[ArchivePart]) -> Vec<Stretch> {
    let told = before.told.keys().chain(mark.told.keys()).copied();
    let held = parts.iter().map(|part| part.log);
    let mut logs: Vec<LogNumber> = told.chain(held).collect();
    logs.sort_unstable();
    logs.dedup();
    let mut stretches = Vec::new();
    for log in logs {
        let (after, up_to) = (before.of(log), mark.of(log));
        let is_told = before.told.contains_key(&log) || mark.told.contains_key(&log);
        let holds_some = parts.iter().any(|part| part.log == log && part.up_to > after && part.after < up_to);
        if after < up_to && (is_told || holds_some) {
            stretches.push(Stretch { log, after, up_to });
        }
    }
    stretches
}

/// Whether every record of the stretch can be read.
fn is_covered(parts: &[ArchivePart], stretch: &Stretch) -> bool {
    let Stretch { log, after, up_to } = *stretch;
    let of_generation =
        |generation: u32| parts.iter().filter(move |part| part.log == log && part.after.generation == generation);
    let holds = |generation: u32, from: u64, to: Option<u64>| {
        of_generation(generation).any(|part| {
            let reaches = to.map_or(part.ends_generation, |to| part.up_to.position >= to);
            part.after.position <= from && reaches
        })
    };
    if after.generation == up_to.generation {
        return holds(after.generation, after.position, Some(up_to.position));
    }
    // Before the first generation there is nothing.
    let begins = after.generation == 0 || holds(after.generation, after.position, None);
    let between = (after.generation + 1..up_to.generation).all(|generation| holds(generation, 0, None));
    let ends = up_to.position == 0 || holds(up_to.generation, 0, Some(up_to.position));
    begins && between && ends
}

/// Compares one file.
fn recount(
    tables: &Tables,
    reader: &ArchiveReader,
    file: &TableFile<'_>,
    stretches: &[Stretch],
    slots: &mut Slots,
    compared: &mut Compared,
    report: &mut Report,
) -> Result<(), StorageError> {
    let directory = tables.directory();
    let shards_of_pass = shards_of_pass(tables, file);
    let mut minutes: Vec<Minute> = file.periods().collect();
    minutes.sort_unstable();
    minutes.dedup();
    compared.files += 1;
    compared.periods += minutes.len() as u64;
    for first in (0..directory.shards).step_by(usize::from(shards_of_pass)) {
        let shards = first..directory.shards.min(first.saturating_add(shards_of_pass));
        slots.load(tables, shards.clone())?;
        let mut counts: HashMap<Key, Pair> = HashMap::new();
        for shard in shards.clone() {
            file.runs(shard, &ALL_MINUTES, |minute, class, entries| {
                for entry in entries {
                    let key = (minute.0, class.0, shard, entry.slot);
                    counts.entry(key).or_default().stored += u64::from(entry.count);
                }
            })?;
        }
        let mut unknown: BTreeMap<(Minute, FinalityClass, String), u64> = BTreeMap::new();
        add_views(tables, reader, stretches, &shards, |shard, minute, class, id| match slots.get(shard, id) {
            Some(slot) => counts.entry((minute.0, class.0, shard, slot)).or_default().recomputed += 1,
            None => {
                let key = (minute, class, id.to_owned());
                if unknown.len() < super::report::LISTED_MAX || unknown.contains_key(&key) {
                    *unknown.entry(key).or_default() += 1;
                }
            }
        })?;
        compared.counts += counts.len() as u64;
        compared.views += counts.values().map(|pair| pair.recomputed).sum::<u64>();
        let mut wrong: Vec<(Key, Pair)> =
            counts.into_iter().filter(|(_, pair)| pair.stored != pair.recomputed).collect();
        wrong.sort_unstable_by_key(|(key, _)| *key);
        for ((minute, class, shard, slot), pair) in wrong {
            let ids = if report.is_listing() { Some(tables.ids(shard)?) } else { None };
            let id = ids.as_ref().and_then(|ids| ids.get(slot)).unwrap_or_default();
            report.difference(difference(id, Minute(minute), class, pair, file.path()));
        }
        for ((minute, class, id), recomputed) in unknown {
            report.difference(difference(&id, minute, class.0, Pair { stored: 0, recomputed }, file.path()));
        }
    }
    Ok(())
}

fn difference(id: &str, minute: Minute, class: u8, pair: Pair, file: &str) -> Difference {
    Difference {
        video_id: id.to_owned(),
        period: "minute".to_owned(),
        start_time: Some(time_text(minute)),
        class: Some(class),
        stored: pair.stored,
        recomputed: pair.recomputed.to_string(),
        file: file.to_owned(),
    }
}

/// How many shards are compared at once.
fn shards_of_pass(tables: &Tables, file: &TableFile<'_>) -> u16 {
    let shards = u64::from(tables.directory().shards);
    let counts = file.bytes() / COUNT_BYTES + tables.base().map_or(0, |base| base.bytes / COUNT_BYTES / 4);
    (PASS_COUNTS * shards / counts.max(1)).clamp(1, shards) as u16
}

/// Hands out shard, minute, class and id of each accepted view of some shards.
fn add_views(
    tables: &Tables,
    reader: &ArchiveReader,
    stretches: &[Stretch],
    shards: &Range<u16>,
    mut add: impl FnMut(u16, Minute, FinalityClass, &str),
) -> Result<(), StorageError> {
    let directory = tables.directory();
    let hash = IdHash::new(directory.hash_seed);
    for Stretch { log, after, up_to } in stretches.iter().copied() {
        let range = ArchiveRange::Positions { log, after, up_to };
        reader.visit::<StorageError>(&range, |batch| {
            for view in batch.accepted() {
                let shard = shard_of(hash.hash(view.video_id), directory.shards);
                if shards.contains(&shard) {
                    let lateness_max_ms = directory.lateness_max_ms;
                    let class = tables.calendar().class_of(view.timestamp_ms, batch.arrival_ms, lateness_max_ms);
                    add(shard, Minute::of_ms(view.timestamp_ms), class, view.video_id);
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogNumber = LogNumber(0);

    fn at(generation: u32, position: u64) -> LogPosition {
        LogPosition { generation, position }
    }

    fn part(generation: u32, after: u64, up_to: u64, ends_generation: bool) -> ArchivePart {
        ArchivePart { log: LOG, after: at(generation, after), up_to: at(generation, up_to), ends_generation }
    }

    fn covered(parts: &[ArchivePart], after: LogPosition, up_to: LogPosition) -> bool {
        is_covered(parts, &Stretch { log: LOG, after, up_to })
    }

    #[test]
    fn a_stretch_is_covered_only_without_any_gap() {
        let parts = [part(1, 100, 500, true), part(2, 0, 300, true), part(3, 0, 200, false), part(3, 250, 400, false)];
        assert!(covered(&parts, at(1, 100), at(1, 500)));
        assert!(!covered(&parts, at(1, 99), at(1, 500)), "it begins too late");
        assert!(!covered(&parts, at(1, 100), at(1, 501)));
        assert!(covered(&parts, at(1, 200), at(3, 200)), "over whole generations");
        assert!(!covered(&parts, at(1, 200), at(3, 201)));
        assert!(!covered(&parts, at(3, 100), at(3, 300)), "a gap");
        assert!(!covered(&parts[..1], at(1, 200), at(3, 0)), "a generation is lacking");
        assert!(!covered(&parts, at(0, 0), at(1, 500)), "the first generation is not whole");
        assert!(covered(&parts[1..], at(1, 300), at(3, 0)).eq(&false), "what ends a generation is lacking");
    }

    #[test]
    fn a_log_that_a_cut_no_longer_tells_is_covered_up_to_its_generation() {
        let before = Mark::new(vec![(LOG, at(1, 100)), (LogNumber(1), at(1, 50))]);
        let mark = Mark::new(vec![(LOG, at(2, 10))]);
        let parts = [part(1, 0, 500, true)];
        let found = stretches(&before, &mark, &parts);
        let expected = [
            Stretch { log: LOG, after: at(1, 100), up_to: at(2, 10) },
            Stretch { log: LogNumber(1), after: at(1, 50), up_to: at(2, 0) },
        ];
        assert_eq!(found, expected);
    }
}
