//! Checking the closed files: bases, the roll-ups that they rest on, and cut files.
//!
//! Not whether their counts agree, which is an audit's. Invariants: every section of every file is read; ids, counts
//! and runs follow those of the files before as a start wants it, wherever those can be read.

use std::collections::{BTreeMap, BTreeSet};

use super::{Context, RESTORE, known, measure};
use crate::base::{BASES_DIR, Manifest, base_path, open_base, parse_base_name};
use crate::chains::{check_cuts, check_periods};
use crate::check::report::{CheckReport, CheckedFiles, CheckedKind};
use crate::container::{CutSection, SectionFile};
use crate::cut::{CUTS_DIR, cut_path, open_cut, parse_cut_name};
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition};
use crate::rollup::{ROLLUPS_DIR, RunName};
use crate::store::{Slots, refuse_older_state};

const SPARE_REMEDY: &str = "no start reads this file, and a later roll-up removes it: look for faults of the disk in \
                            the kernel's log";

/// Up to where a file covers the logs.
type Positions = Vec<(LogNumber, LogPosition)>;

/// What is known of the bases.
#[derive(Default)]
struct Bases {
    /// Number of the newest by its name, 0 without one.
    newest: u64,
    /// Ids and counts as of each that is sound.
    slots: BTreeMap<u64, Slots>,
    /// What each that is sound rests on.
    runs: BTreeMap<u64, BTreeSet<RunName>>,
    /// Of the newest, where it is sound.
    positions: Option<Positions>,
}

/// What a file was found to hold.
struct Contents {
    positions: Positions,
    ids: u64,
    views: u64,
}

/// Checks all closed files. Returns up to where the newest cut covers the logs; none when that cannot be read.
pub(super) fn check_closed(context: &Context, report: &mut CheckReport) -> Option<Positions> {
    let bases = check_bases(context, report);
    check_rollups(context, &bases, report);
    let covered = check_cut_files(context, &bases, report);
    if let Some(state) = &context.state {
        let older = refuse_older_state(&*context.disk, state, covered.as_deref().unwrap_or_default());
        report.take(CheckedKind::State, older, RESTORE);
    }
    covered
}

fn check_bases(context: &Context, report: &mut CheckReport) -> Bases {
    let kind = CheckedKind::Base;
    let parse = |name: &str| parse_base_name(name).filter(|number| base_path(*number) == format!("{BASES_DIR}/{name}"));
    let found = known(context, kind, BASES_DIR, parse, report);
    let mut bases = Bases { newest: found.last().map_or(0, |(_, number)| *number), ..Bases::default() };
    for (path, number) in found {
        measure(&*context.disk, kind, &path, report);
        let mut slots = Slots::new(context.shards);
        let read = open_base(&*context.disk, context.id, number).and_then(|file| {
            let manifest = Manifest::read(&file)?;
            let contents = read_whole(&file, Some(&mut slots))?;
            if !slots.are_counted() {
                return Err(StorageError::damaged(file.path(), 0, "it has not one count for each id"));
            }
            Ok((manifest, contents))
        });
        let is_newest = number == bases.newest;
        let Some((manifest, contents)) = report.take(kind, read, if is_newest { RESTORE } else { SPARE_REMEDY }) else {
            continue;
        };
        report.add(kind, contents.figures());
        bases.slots.insert(number, slots);
        bases.runs.insert(number, manifest.runs.into_iter().collect());
        if is_newest {
            bases.positions = Some(contents.positions);
        }
    }
    bases
}

fn check_rollups(context: &Context, bases: &Bases, report: &mut CheckReport) {
    let parse = |name: &str| RunName::parse(name).filter(|run| run.path() == format!("{ROLLUPS_DIR}/{name}"));
    // Which kind a name that cannot be listed would have been of is not known.
    let any = CheckedKind::Rollup(crate::tables::Grain::Minute);
    let found: BTreeSet<RunName> =
        known(context, any, ROLLUPS_DIR, parse, report).into_iter().map(|(_, run)| run).collect();
    let newest = bases.runs.get(&bases.newest);
    for run in &found {
        let (kind, path) = (CheckedKind::Rollup(run.grain), run.path());
        measure(&*context.disk, kind, &path, report);
        // Where the newest base cannot be read, it may rest on any.
        let is_needed = bases.newest > 0 && newest.is_none_or(|runs| runs.contains(run));
        if !is_needed && !bases.runs.values().any(|runs| runs.contains(run)) {
            report.note(format!("{path} is of no base: the next start removes it"));
        }
        // Slots never go away, so the newest base knows those of every roll-up under it.
        let mut slots = bases.slots.get(&bases.newest).filter(|_| run.last <= bases.newest).cloned();
        let read = run.open(&*context.disk, context.id).and_then(|file| {
            check_periods(&file, run, &context.calendar)?;
            read_whole(&file, slots.as_mut())
        });
        if let Some(contents) = report.take(kind, read, if is_needed { RESTORE } else { SPARE_REMEDY }) {
            report.add(kind, contents.figures());
        }
    }
    for run in newest.into_iter().flatten().filter(|run| !found.contains(run)) {
        let why = format!("{} rests on it", base_path(bases.newest));
        report.error(CheckedKind::Rollup(run.grain), StorageError::Missing { file: run.path(), why }, RESTORE);
    }
}

/// Checks the cut files; returns up to where the newest cut covers the logs.
fn check_cut_files(context: &Context, bases: &Bases, report: &mut CheckReport) -> Option<Positions> {
    let kind = CheckedKind::Cut;
    let parse = |name: &str| parse_cut_name(name).filter(|number| cut_path(*number) == format!("{CUTS_DIR}/{name}"));
    let found = known(context, kind, CUTS_DIR, parse, report);
    let beyond = found.iter().map(|(_, number)| *number).filter(|number| *number > bases.newest).collect();
    let cuts_known = context.state.as_ref().map_or(0, |state| state.cuts_known);
    report.take(kind, check_cuts(bases.newest, &beyond, cuts_known), RESTORE);
    // Up to where the newest cut covers the logs: the base's, until a cut beyond it is read.
    let mut covered = if bases.newest == 0 { Some(Positions::new()) } else { bases.positions.clone() };
    // The cut before, with its slots where they are known.
    let mut before = (0, (bases.newest == 0).then(|| Slots::new(context.shards)));
    let mut reached: Option<Positions> = None;
    for (path, number) in found {
        measure(&*context.disk, kind, &path, report);
        if before.0 + 1 != number {
            (before, reached) = ((number - 1, None), None);
        }
        let mut slots = bases.slots.get(&(number - 1)).cloned().or(before.1.take());
        let read = open_cut(&*context.disk, context.id, number).and_then(|file| {
            let contents = read_whole(&file, slots.as_mut())?;
            check_positions(&file, reached.as_ref(), &contents.positions)?;
            Ok(contents)
        });
        let is_beyond = number > bases.newest;
        let read = report.take(kind, read, if is_beyond { RESTORE } else { SPARE_REMEDY });
        before = (number, slots.filter(|_| read.is_some()));
        reached = read.as_ref().map(|contents| contents.positions.clone());
        if is_beyond {
            covered.clone_from(&reached);
        }
        if let Some(contents) = read {
            report.add(kind, contents.figures());
        }
    }
    covered
}

/// Refuses a cut that covers less of a log than the one before it.
fn check_positions(file: &SectionFile, before: Option<&Positions>, found: &Positions) -> Result<(), StorageError> {
    for (log, position) in before.into_iter().flatten() {
        let of_log = found.iter().find(|(of, _)| of == log);
        if let Some((_, now)) = of_log.filter(|(_, now)| now < position) {
            let what = format!("it covers log {} to {now}, the cut before it to {position}", log.0);
            return Err(StorageError::damaged(file.path(), 0, what));
        }
    }
    Ok(())
}

/// Reads every section; ids, counts and runs must follow those in `slots`, where it is known what came before.
fn read_whole(file: &SectionFile, mut slots: Option<&mut Slots>) -> Result<Contents, StorageError> {
    file.index()?;
    let mut contents = Contents { positions: file.positions()?, ids: 0, views: 0 };
    file.sections::<StorageError>(|section| {
        if let Some(slots) = &mut slots {
            slots.check(file.path(), &section)?;
        }
        match section {
            CutSection::Ids { lens, .. } => contents.ids += lens.len() as u64,
            CutSection::AllTime { counts, .. } => contents.views += counts.iter().sum::<u64>(),
            CutSection::Run { entries, .. } => {
                contents.views += entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>();
            }
            CutSection::Positions(_) | CutSection::Producers(_) => {}
        }
        Ok(())
    })?;
    Ok(contents)
}

impl Contents {
    const fn figures(&self) -> CheckedFiles {
        CheckedFiles { files: 0, bytes: 0, records: self.ids, views: self.views, damage: 0 }
    }
}
