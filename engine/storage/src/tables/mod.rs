//! Reading the closed files of a data directory as tables: views by shard, slot, period and finality class.
//!
//! Not the live counters and not the logs: what is in no cut file yet is not here. Invariants: nothing on the disk is
//! ever changed; one [`Tables`] sees the files as of one moment, and each view in them exactly once.

mod files;
mod ids;
mod sums;

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use highwater_ranking::{Calendar, CalendarPeriod, FinalityClass, Minute};

pub use files::{BaseFacts, TableFile};
pub use ids::ShardIdList;
pub use sums::SlotSums;

use crate::chains::{Chains, Keep, Question, Scope};
use crate::container::{CutHeader, CutSection};
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
    /// Every grain, finest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// Its name in the names of files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Minutes of a period of this grain.
    pub(crate) fn minutes_max(self, calendar: &Calendar) -> u32 {
        match self {
            Self::Minute => 1,
            Self::Hour => calendar.minutes_max(CalendarPeriod::Hour),
            Self::Day => calendar.minutes_max(CalendarPeriod::Day),
        }
    }

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
    disk: Arc<dyn Disk>,
    directory: Directory,
    chains: Chains,
}

impl Tables {
    /// Opens the files. Needs no lock: another process may be writing new ones and removing old ones.
    ///
    /// # Errors
    /// When there is no data directory, files are missing, damaged, foreign or newer, or the disk refuses.
    pub fn open(disk: Arc<dyn Disk>, calendar: Calendar) -> Result<Self, StorageError> {
        let mut tries = 1;
        loop {
            match Self::open_once(&disk, calendar) {
                Err(error) if tries < OPENING_TRIES_MAX && error.is_vanished_file() => tries += 1,
                opened => return opened,
            }
        }
    }

    fn open_once(disk: &Arc<dyn Disk>, calendar: Calendar) -> Result<Self, StorageError> {
        let Some(directory) = Directory::read(&**disk)? else {
            let why = "every data directory has it; is this the right directory?".to_owned();
            return Err(StorageError::Missing { file: Directory::PATH.to_owned(), why });
        };
        let chains = Chains::open(&**disk, directory.id, calendar, Keep::Open, 0)?;
        Ok(Self { disk: disk.clone(), directory, chains })
    }

    /// What is fixed for the data directory.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The calendar that the tables were opened with.
    #[must_use]
    pub const fn calendar(&self) -> &Calendar {
        &self.chains.calendar
    }

    /// The newest cut, if there is one: exactly the views of the cuts up to it are in these tables.
    #[must_use]
    pub const fn newest(&self) -> Option<&CutHeader> {
        self.chains.last()
    }

    /// Up to where the newest cut covers each log.
    #[must_use]
    pub fn positions(&self) -> &[(LogNumber, LogPosition)] {
        self.chains.positions()
    }

    /// The event minute from which rows of this grain are whole. Before it there are whole rows of a longer grain only,
    /// and before those of days all-time counts only.
    #[must_use]
    pub fn complete_from(&self, grain: Grain) -> Minute {
        self.chains.complete_from(grain)
    }

    /// Starts of the periods of this grain that touch `minutes` and may have rows, ascending; none before
    /// [`Self::complete_from`].
    #[must_use]
    pub fn periods(&self, grain: Grain, minutes: Range<Minute>) -> Vec<Minute> {
        self.chains.periods(grain, &minutes).into_iter().collect()
    }

    /// Adds the views of one shard in event minutes and classes to `sums`, each once.
    ///
    /// # Errors
    /// When a file is damaged, or the disk refuses.
    ///
    /// # Panics
    /// When `minutes` begin or end within a period of which only the whole is kept: of the whole days in `minutes` each
    /// must be at or after [`Self::complete_from`] of days, of the whole hours before and after them each at or after
    /// that of hours, and the minutes left over at or after that of minutes.
    pub fn sums(
        &self,
        shard: u16,
        minutes: Range<Minute>,
        classes: RangeInclusive<FinalityClass>,
        sums: &mut SlotSums,
    ) -> Result<(), StorageError> {
        let question = Question { minutes, classes, shard: Some(shard), scope: Scope::All };
        self.chains.visit(&*self.disk, &question, |_, entries| sums.add(entries))
    }

    /// Adds every view of one shard, of any minute and class, to `sums`.
    ///
    /// # Errors
    /// When a file is damaged, or the disk refuses.
    pub fn all_time(&self, shard: u16, sums: &mut SlotSums) -> Result<(), StorageError> {
        self.base_counts(shard, sums)?;
        for cut in self.chains.cuts() {
            let file = cut.open(&*self.disk, self.directory.id)?;
            for block in cut.blocks.iter().filter(|block| block.shard == shard) {
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
        let mut add = |path: &str, section: CutSection<'_>| {
            let CutSection::Ids { first_slot, lens, bytes, .. } = section else { return Ok(()) };
            if first_slot as usize != list.len() || !list.push(lens, bytes) {
                let what = format!("ids of shard {shard} from slot {first_slot} do not follow {} others", list.len());
                return Err(StorageError::damaged(path, 0, what));
            }
            Ok(())
        };
        if let Some(base) = self.chains.base() {
            let file = base.source.open(&*self.disk, self.directory.id)?;
            file.sections_of(&base.source.blocks, shard, |section| add(file.path(), section))?;
        }
        for cut in self.chains.cuts() {
            let file = cut.open(&*self.disk, self.directory.id)?;
            file.ids_of(shard, |section| add(file.path(), section))?;
        }
        Ok(list)
    }
}
