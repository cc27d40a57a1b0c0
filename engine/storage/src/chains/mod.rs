//! The closed files of a data directory: the newest base, the roll-ups that it rests on, and the cuts beyond it.
//!
//! Not how they are made or removed. Invariants: the cuts of all sources of one grain are a chain without gaps;
//! together they hold each view up to the newest cut exactly once, whatever question is asked.

mod query;
mod source;

use std::collections::BTreeSet;

use highwater_ranking::{Calendar, CalendarPeriod, Minute};

pub(crate) use query::{Question, Scope};
pub(crate) use source::{Keep, Source};

use crate::base::{BASES_DIR, Manifest, base_path, open_base, parse_base_name};
use crate::container::{Block, CutHeader, SectionFile};
use crate::cut::{CUTS_DIR, cut_path, open_cut, parse_cut_name};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::rollup::RunName;
use crate::tables::Grain;

/// A base, with what it rests on.
pub(crate) struct Base {
    pub(crate) source: Source,
    pub(crate) cut: CutHeader,
    pub(crate) positions: Vec<(LogNumber, LogPosition)>,
    pub(crate) manifest: Manifest,
}

/// The closed files, as of one moment.
pub(crate) struct Chains {
    pub(crate) directory: DirectoryId,
    pub(crate) calendar: Calendar,
    keep: Keep,
    base: Option<Base>,
    /// The roll-ups of the base, by grain and number.
    runs: Vec<Source>,
    /// The cuts beyond the base, by number.
    cuts: Vec<Source>,
    last: Option<CutHeader>,
    positions: Vec<(LogNumber, LogPosition)>,
}

impl Base {
    pub(crate) fn new(file: SectionFile, keep: Keep) -> Result<Self, StorageError> {
        let (cut, positions, manifest) = (*file.cut(), file.positions()?, Manifest::read(&file)?);
        Ok(Self { cut, positions, manifest, source: Source::new(file, keep)? })
    }
}

impl Chains {
    /// Opens all of them. Cut files up to `cuts_known` were there once.
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: DirectoryId,
        calendar: Calendar,
        keep: Keep,
        cuts_known: u64,
    ) -> Result<Self, StorageError> {
        let newest = numbers(disk, BASES_DIR, parse_base_name)?.pop_last();
        let base = newest.map(|number| Base::new(open_base(disk, directory, number)?, keep)).transpose()?;
        let base_number = base.as_ref().map_or(0, |base| base.cut.number);
        let mut chains = Self {
            directory,
            calendar,
            keep,
            last: base.as_ref().map(|base| base.cut),
            positions: base.as_ref().map_or(Vec::new(), |base| base.positions.clone()),
            runs: Vec::new(),
            cuts: Vec::new(),
            base: None,
        };
        let mut found = numbers(disk, CUTS_DIR, parse_cut_name)?;
        let found = found.split_off(&(base_number + 1));
        check_cuts(base_number, &found, cuts_known)?;
        let newest = found.last().copied();
        for number in found {
            let file = open_cut(disk, directory, number)?;
            if Some(number) == newest {
                (chains.last, chains.positions) = (Some(*file.cut()), file.positions()?);
            }
            chains.cuts.push(Source::new(file, keep)?);
        }
        if let Some(base) = base {
            chains.rest_on(disk, base)?;
        }
        Ok(chains)
    }

    /// Opens the roll-ups of a base and puts it in place of the older one.
    pub(crate) fn rest_on(&mut self, disk: &dyn Disk, base: Base) -> Result<(), StorageError> {
        let mut runs = Vec::new();
        for name in &base.manifest.runs {
            let path = name.path();
            let known =
                self.runs.iter().position(|run| run.grain() == name.grain && run.numbers == (name.first..=name.last));
            if let Some(known) = known {
                runs.push(self.runs.swap_remove(known));
                continue;
            }
            if !disk.exists(&path).map_err(|error| StorageError::io("look for", &path, error))? {
                let why = format!("{} rests on it", base_path(base.cut.number));
                return Err(StorageError::Missing { file: path, why });
            }
            let file = name.open(disk, self.directory)?;
            check_periods(&file, name, &self.calendar)?;
            runs.push(Source::new(file, self.keep)?);
        }
        self.cuts.retain(|cut| cut.last() > base.cut.number);
        self.runs = runs;
        self.base = Some(base);
        Ok(())
    }

    /// Adds the cut file that was just made durable.
    pub(crate) fn add_cut(&mut self, file: SectionFile, positions: Vec<(LogNumber, LogPosition)>, blocks: Vec<Block>) {
        (self.last, self.positions) = (Some(*file.cut()), positions);
        self.cuts.push(Source::indexed(file, blocks, self.keep));
    }

    /// The newest cut.
    pub(crate) const fn last(&self) -> Option<&CutHeader> {
        self.last.as_ref()
    }

    /// Up to where the newest cut covers the logs.
    pub(crate) fn positions(&self) -> &[(LogNumber, LogPosition)] {
        &self.positions
    }

    pub(crate) const fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Number of the base's cut, 0 without a base.
    pub(crate) fn base_number(&self) -> u64 {
        self.base.as_ref().map_or(0, |base| base.cut.number)
    }

    /// The roll-ups, by grain and number.
    pub(crate) fn runs(&self) -> &[Source] {
        &self.runs
    }

    /// The cuts beyond the base, by number.
    pub(crate) fn cuts(&self) -> &[Source] {
        &self.cuts
    }

    /// The event minute from which rows of a grain are whole.
    pub(crate) fn complete_from(&self, grain: Grain) -> Minute {
        self.base.as_ref().map_or(Minute(0), |base| base.manifest.complete_from[grain as usize])
    }

    /// The calendar's hour or day of a minute.
    fn period(&self, kind: CalendarPeriod, minute: Minute) -> std::ops::Range<Minute> {
        self.calendar.period_at(kind, minute)
    }
}

impl Source {
    /// The grain of its runs.
    pub(crate) const fn grain(&self) -> Grain {
        match self.kind {
            crate::container::FileKind::Run(grain) => grain,
            _ => Grain::Minute,
        }
    }
}

/// Refuses a roll-up whose periods are not those of the calendar.
pub(crate) fn check_periods(file: &SectionFile, name: &RunName, calendar: &Calendar) -> Result<(), StorageError> {
    let (found, expected) = (file.header().period_minutes, name.grain.minutes_max(calendar));
    if found == expected {
        return Ok(());
    }
    let what = format!("its periods have {found} minutes, the calendar's have {expected}");
    Err(StorageError::damaged(file.path(), 0, what))
}

/// The numbers of the files in a directory, which may not be there.
pub(crate) fn numbers(
    disk: &dyn Disk,
    dir: &str,
    parse: impl Fn(&str) -> Option<u64>,
) -> Result<BTreeSet<u64>, StorageError> {
    if !disk.exists(dir).map_err(|error| StorageError::io("look for", dir, error))? {
        return Ok(BTreeSet::new());
    }
    Ok(crate::store::list(disk, dir)?.iter().filter_map(|name| parse(name)).collect())
}

/// Refuses a gap in the numbers beyond the base.
pub(crate) fn check_cuts(base: u64, found: &BTreeSet<u64>, cuts_known: u64) -> Result<(), StorageError> {
    if let Some(first) = found.first().filter(|first| base == 0 && **first > 1) {
        let why = format!("cut files begin at number {first}, and a base held those before");
        return Err(StorageError::Missing { file: base_path(first - 1), why });
    }
    let last = found.last().copied().unwrap_or(base).max(cuts_known);
    let Some(missing) = (base + 1..=last).find(|number| !found.contains(number)) else { return Ok(()) };
    let beyond = if base == 0 { String::new() } else { format!(" beyond base {base}") };
    let why = format!("cut files{beyond} up to number {last} were made and each holds views of its own");
    Err(StorageError::Missing { file: cut_path(missing), why })
}
