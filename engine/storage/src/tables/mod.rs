//! Reading the closed files of a data directory as tables: views by shard, slot, period and finality class.
//!
//! Not the live counters and not the logs: what is in no cut file yet is not here. Invariants: nothing on the disk is
//! ever changed; one [`Tables`] sees the files as of one moment, and each view in them exactly once.

mod ids;
mod sums;

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use highwater_ranking::{Calendar, CalendarPeriod, FinalityClass, Minute};

pub use ids::ShardIdList;
pub use sums::SlotSums;

use crate::cut::{CUTS_DIR, CutFile, CutHeader, CutSection, RunBlock, cut_path, parse_cut_name};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition};

/// How often the files are listed anew when one of them vanished before it was open.
const OPENING_TRIES_MAX: u32 = 16;

/// The length of a row's period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grain {
    /// An event minute.
    Minute,
    /// The calendar's hour.
    Hour,
    /// The calendar's day.
    Day,
}

impl Grain {
    /// The period of this grain that a minute lies in.
    #[must_use]
    pub fn period_at(self, calendar: &Calendar, minute: Minute) -> Range<Minute> {
        match self {
            Self::Minute => minute..Minute(minute.0.saturating_add(1)),
            Self::Hour => calendar.period_at(CalendarPeriod::Hour, minute),
            Self::Day => calendar.period_at(CalendarPeriod::Day, minute),
        }
    }
}

/// Read-only view of the closed files of a data directory, as of one moment. Files stay open, so a running engine may
/// remove them meanwhile.
pub struct Tables {
    directory: Directory,
    calendar: Calendar,
    newest: Option<CutHeader>,
    positions: Vec<(LogNumber, LogPosition)>,
    /// By number.
    cuts: Vec<(CutFile, Vec<RunBlock>)>,
}

impl Tables {
    /// Opens the files. Needs no lock: another process may be writing new ones and removing old ones.
    ///
    /// # Errors
    /// When there is no data directory, files are missing, damaged, foreign or newer, or the disk refuses.
    pub fn open(disk: Arc<dyn Disk>, calendar: Calendar) -> Result<Self, StorageError> {
        let mut tries = 1;
        loop {
            match Self::open_once(&*disk, calendar) {
                Err(error) if tries < OPENING_TRIES_MAX && error.is_vanished_file() => tries += 1,
                opened => return opened,
            }
        }
    }

    fn open_once(disk: &dyn Disk, calendar: Calendar) -> Result<Self, StorageError> {
        let Some(directory) = Directory::read(disk)? else {
            let why = "every data directory has it; is this the right directory?".to_owned();
            return Err(StorageError::Missing { file: Directory::PATH.to_owned(), why });
        };
        let mut numbers: Vec<u64> =
            crate::store::list(disk, CUTS_DIR)?.iter().filter_map(|name| parse_cut_name(name)).collect();
        numbers.sort_unstable();
        let mut cuts = Vec::new();
        for (expected, number) in (1..).zip(numbers) {
            if number != expected {
                let why = format!("cut file {number} is there, and each holds views of its own");
                return Err(StorageError::Missing { file: cut_path(expected), why });
            }
            let file = CutFile::open(disk, directory.id, number)?;
            let blocks = file.index()?;
            cuts.push((file, blocks));
        }
        let newest = cuts.last().map(|(file, _)| file);
        let positions = newest.map_or(Ok(Vec::new()), CutFile::positions)?;
        let newest = newest.map(|file| *file.header());
        Ok(Self { directory, calendar, newest, positions, cuts })
    }

    /// What is fixed for the data directory.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The calendar that the tables were opened with.
    #[must_use]
    pub const fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    /// The newest cut, if there is one: exactly the views of the cuts up to it are in these tables.
    #[must_use]
    pub const fn newest(&self) -> Option<&CutHeader> {
        self.newest.as_ref()
    }

    /// Up to where the newest cut covers each log.
    #[must_use]
    pub fn positions(&self) -> &[(LogNumber, LogPosition)] {
        &self.positions
    }

    /// The event minute from which rows of this grain are whole. Before it, rows of a longer grain may still be there.
    #[must_use]
    pub const fn complete_from(&self, _grain: Grain) -> Minute {
        Minute(0)
    }

    /// Starts of the periods of this grain that touch `minutes` and may have rows, ascending.
    #[must_use]
    pub fn periods(&self, grain: Grain, minutes: Range<Minute>) -> Vec<Minute> {
        let held = self.cuts.iter().flat_map(|(_, blocks)| blocks).flat_map(|block| &block.minutes);
        let period = |minute: &Minute| grain.period_at(&self.calendar, *minute);
        let touching = held.map(period).filter(|period| period.start < minutes.end && period.end > minutes.start);
        let starts: BTreeSet<Minute> = touching.map(|period| period.start).collect();
        starts.into_iter().collect()
    }

    /// Adds the views of one shard in event minutes and classes to `sums`, each once.
    ///
    /// Both ends of `minutes` must be bounds of a grain that is complete there: see [`Self::complete_from`].
    ///
    /// # Errors
    /// When a file is damaged, or the disk refuses.
    pub fn sums(
        &self,
        shard: u16,
        minutes: Range<Minute>,
        classes: RangeInclusive<FinalityClass>,
        sums: &mut SlotSums,
    ) -> Result<(), StorageError> {
        let wanted = |minute: Minute, class: FinalityClass| minutes.contains(&minute) && classes.contains(&class);
        for (file, blocks) in &self.cuts {
            let holds =
                |block: &&RunBlock| block.shard == shard && block.minutes.iter().any(|minute| minutes.contains(minute));
            for block in blocks.iter().filter(holds) {
                file.block(block.offset, wanted, |_, entries| sums.add(entries))?;
            }
        }
        Ok(())
    }

    /// Adds every view of one shard, of any minute and class, to `sums`.
    ///
    /// # Errors
    /// When a file is damaged, or the disk refuses.
    pub fn all_time(&self, shard: u16, sums: &mut SlotSums) -> Result<(), StorageError> {
        for (file, blocks) in &self.cuts {
            for block in blocks.iter().filter(|block| block.shard == shard) {
                file.block(block.offset, |_, _| true, |_, entries| sums.add(entries))?;
            }
        }
        Ok(())
    }

    /// All ids of one shard, by slot.
    ///
    /// # Errors
    /// When a file is damaged, or the disk refuses.
    pub fn ids(&self, shard: u16) -> Result<ShardIdList, StorageError> {
        let mut list = ShardIdList::default();
        for (file, _) in &self.cuts {
            file.ids_of(shard, |section| {
                let CutSection::Ids { first_slot, lens, bytes, .. } = section else { return Ok(()) };
                if first_slot as usize != list.len() || !list.push(lens, bytes) {
                    let what =
                        format!("ids of shard {shard} from slot {first_slot} do not follow {} others", list.len());
                    return Err(StorageError::damaged(file.path(), 0, what));
                }
                Ok(())
            })?;
        }
        Ok(list)
    }
}
