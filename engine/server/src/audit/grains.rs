//! Roll-ups against the finer ones that they were made of, and all-time counts against both.
//!
//! Not against the accepted views. Invariant: only periods are compared of which both sides are whole.

use super::report::{Compared, Difference, Report, time_text};
use highwater_ranking::{FinalityClass, Minute};
use highwater_storage::{Grain, SlotSums, StorageError, TableFile, Tables};
use std::collections::BTreeSet;
use std::ops::Range;

/// Finality classes.
const CLASSES: usize = FinalityClass::MAX.0 as usize + 1;

/// Counts of one period of one shard, by class.
type ByClass = [SlotSums; CLASSES];

/// Coarse files, and the finer ones that hold the same cuts.
struct Sides<'t> {
    tables: &'t Tables,
    coarse: Grain,
    coarse_files: Vec<TableFile<'t>>,
    fine_files: Vec<TableFile<'t>>,
    what: &'static str,
}

/// Compares hours with minutes.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare_hours(tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let Some(base) = tables.base() else {
        report.not_compared("hours with minutes: there are no roll-ups yet");
        return Ok(());
    };
    let files = |grain| files(tables, grain, base.number);
    let (coarse_files, fine_files) = (files(Grain::Hour), files(Grain::Minute));
    Sides { tables, coarse: Grain::Hour, coarse_files, fine_files, what: "hours with minutes" }.compare(report)
}

/// Compares days with hours.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare_days(tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let merged_to = tables.base().map_or(0, |base| base.merged_to);
    if merged_to == 0 {
        report.not_compared("days with hours: there are no roll-ups by day yet");
        return Ok(());
    }
    let files = |grain| files(tables, grain, merged_to);
    let (coarse_files, fine_files) = (files(Grain::Day), files(Grain::Hour));
    Sides { tables, coarse: Grain::Day, coarse_files, fine_files, what: "days with hours" }.compare(report)
}

/// Roll-ups of a grain that hold no cut beyond `last`.
fn files(tables: &Tables, grain: Grain, last: u64) -> Vec<TableFile<'_>> {
    tables.files().filter(|file| file.grain() == grain && *file.cuts().end() <= last).collect()
}

impl Sides<'_> {
    fn compare(&self, report: &mut Report) -> Result<(), StorageError> {
        let tables = self.tables;
        let fine_grain = if self.coarse == Grain::Day { Grain::Hour } else { Grain::Minute };
        let whole_from = tables.complete_from(self.coarse).max(tables.complete_from(fine_grain));
        let period_at = |minute| self.coarse.period_at(tables.calendar(), minute);
        let held = self.coarse_files.iter().chain(&self.fine_files).flat_map(TableFile::periods);
        let (whole, cut_off): (BTreeSet<Minute>, BTreeSet<Minute>) =
            held.map(|minute| period_at(minute).start).partition(|start| *start >= whole_from);
        let mut compared = Compared {
            what: self.what,
            files: (self.coarse_files.len() + self.fine_files.len()) as u64,
            periods: whole.len() as u64,
            ..Compared::default()
        };
        let (mut coarse, mut fine) = (ByClass::default(), ByClass::default());
        for shard in 0..tables.directory().shards {
            for start in &whole {
                let period = period_at(*start);
                add(&self.coarse_files, shard, &(*start..Minute(start.0 + 1)), &mut coarse)?;
                add(&self.fine_files, shard, &period, &mut fine)?;
                for (class, (stored, recomputed)) in (0..).zip(coarse.iter().zip(&fine)) {
                    compared.counts += stored.iter().count() as u64;
                    compared.views += stored.total();
                    let wrong = unequal(stored, recomputed);
                    self.tell(shard, *start, class, &wrong, report)?;
                }
                coarse.iter_mut().chain(&mut fine).for_each(SlotSums::clear);
            }
        }
        report.compared(compared);
        if let (Some(first), Some(last)) = (cut_off.first(), cut_off.last()) {
            let (what, count, first, last) = (self.what, cut_off.len(), time_text(*first), time_text(*last));
            report.not_compared(format!("{what}: {count} periods from {first} to {last}, no longer whole in both"));
        }
        Ok(())
    }

    fn tell(
        &self,
        shard: u16,
        start: Minute,
        class: u8,
        wrong: &[(u32, u64, u64)],
        report: &mut Report,
    ) -> Result<(), StorageError> {
        for (slot, stored, recomputed) in wrong {
            let file = self.file_of(shard, start, class, *slot)?;
            let time = Some(time_text(start));
            let figures = Figures { shard, slot: *slot, stored: *stored, recomputed: recomputed.to_string() };
            figures.tell(self.tables, self.coarse.word(), time, Some(class), file, report)?;
        }
        Ok(())
    }

    /// The coarse files that count the video in the period; where none does, all that may.
    fn file_of(&self, shard: u16, start: Minute, class: u8, slot: u32) -> Result<String, StorageError> {
        let mut found = Vec::new();
        for file in &self.coarse_files {
            let mut is_in = false;
            file.runs(shard, &(start..Minute(start.0 + 1)), |_, of, entries| {
                is_in |= of.0 == class && entries.iter().any(|entry| entry.slot == slot);
            })?;
            if is_in {
                found.push(file.path());
            }
        }
        let all = || self.coarse_files.iter().map(TableFile::path).collect();
        Ok(if found.is_empty() { all() } else { found }.join(","))
    }
}

/// One wrong count of a slot.
struct Figures {
    shard: u16,
    slot: u32,
    stored: u64,
    recomputed: String,
}

impl Figures {
    fn tell(
        self,
        tables: &Tables,
        period: &str,
        start_time: Option<String>,
        class: Option<u8>,
        file: String,
        report: &mut Report,
    ) -> Result<(), StorageError> {
        let ids = if report.is_listing() { Some(tables.ids(self.shard)?) } else { None };
        let id = ids.as_ref().and_then(|ids| ids.get(self.slot)).unwrap_or_default();
        report.difference(Difference {
            video_id: id.to_owned(),
            period: period.to_owned(),
            start_time,
            class,
            stored: self.stored,
            recomputed: self.recomputed,
            file,
        });
        Ok(())
    }
}

fn add(files: &[TableFile<'_>], shard: u16, minutes: &Range<Minute>, sums: &mut ByClass) -> Result<(), StorageError> {
    files
        .iter()
        .try_for_each(|file| file.runs(shard, minutes, |_, class, entries| sums[usize::from(class.0)].add(entries)))
}

/// Slots whose counts differ, with both.
fn unequal(stored: &SlotSums, recomputed: &SlotSums) -> Vec<(u32, u64, u64)> {
    let wrong = stored.iter().filter(|(slot, count)| recomputed.get(*slot) != *count);
    let mut found: Vec<_> = wrong.map(|(slot, count)| (slot, count, recomputed.get(slot))).collect();
    let lacking = recomputed.iter().filter(|(slot, _)| stored.get(*slot) == 0);
    found.extend(lacking.map(|(slot, count)| (slot, 0, count)));
    found.sort_unstable();
    found
}

/// Compares the all-time counts of the base with all periods that are kept: equal while nothing was given up by age,
/// never below.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare_all_time(tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let Some(base) = tables.base() else {
        report.not_compared("all-time with periods: there is no base yet, so both are the same cut files");
        return Ok(());
    };
    let is_day = |file: &TableFile<'_>| file.grain() == Grain::Day;
    let is_later_hour = |file: &TableFile<'_>| file.grain() == Grain::Hour && *file.cuts().start() > base.merged_to;
    let files: Vec<TableFile<'_>> = tables.files().filter(|file| is_day(file) || is_later_hour(file)).collect();
    let holds_all = [Grain::Hour, Grain::Day].iter().all(|grain| tables.complete_from(*grain) == Minute(0))
        || base.merged_to > 0 && tables.complete_from(Grain::Day) == Minute(0);
    let mut compared = Compared { what: "all-time with periods", files: files.len() as u64, ..Compared::default() };
    for shard in 0..tables.directory().shards {
        let (mut stored, mut kept) = (SlotSums::new(), ByClass::default());
        tables.base_counts(shard, &mut stored)?;
        add(&files, shard, &(Minute(0)..Minute(u32::MAX)), &mut kept)?;
        let mut sum = SlotSums::new();
        kept.iter().for_each(|class| class.iter().for_each(|(slot, count)| sum.add_one(slot, count)));
        compared.counts += stored.iter().count() as u64;
        compared.views += stored.total();
        let wrong = unequal(&stored, &sum).into_iter().filter(|(_, stored, kept)| holds_all || stored < kept);
        for (slot, stored, kept) in wrong {
            let recomputed = if holds_all { kept.to_string() } else { format!("at least {kept}") };
            let figures = Figures { shard, slot, stored, recomputed };
            figures.tell(tables, "all-time", None, None, base.path.clone(), report)?;
        }
    }
    report.compared(compared);
    if !holds_all {
        report.not_compared("all-time with periods exactly: older periods were given up, so it must not be below them");
    }
    Ok(())
}
