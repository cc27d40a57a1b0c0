//! The final lists of closed hours, days and months: a small file for each, kept for years.
//!
//! Not the current periods, whose counts are with the cores. Invariants: a list is written once its period is final and
//! says the same whenever and however often it is made; under its name it is whole; `closed.hw` says that a period is
//! closed only after its list is durable. One writer; any number of readers, in this process and others, at any time.

mod close;
mod format;
mod job;

use std::io;
use std::sync::Arc;

use highwater_ranking::{CalendarPeriod, Minute};

use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::position::DirectoryId;
use crate::sealed;
use crate::tables::Grain;
use format::{CLOSED, ClosedUpTo, HEAD_BYTES, HeadFault, decode_closed, encode_closed, list_kind, list_path};

pub use close::close_period;
pub(crate) use format::{CLOSED_PATH, HISTORY_DIR, parse_list_name};
pub use format::{CLOSED_ROWS_MAX, ClosedList, ClosedPeriod};
pub use job::{HistoryClosed, HistoryJob};

/// Lists that one call of [`History::apply_retention`] removes at most.
const REMOVED_MAX: usize = 1024;

/// How much history there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryFigures {
    /// Lists.
    pub files: u64,
    /// Their length together.
    pub bytes: u64,
}

/// From which event minutes on roll-ups are still needed to close periods. Those by minute are not: whole hours are
/// counted from roll-ups by hour, and days and months from those by day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryNeeds {
    /// First minute of the oldest hour that is not closed.
    pub hours_from: Minute,
    /// First minute of the oldest day or month that is not closed.
    pub days_from: Minute,
}

impl HistoryNeeds {
    /// Nobody closes periods.
    pub const NOTHING: Self = Self { hours_from: Minute(u32::MAX), days_from: Minute(u32::MAX) };

    /// From when on roll-ups of a grain are needed.
    pub(crate) const fn kept_from(&self, grain: Grain) -> Minute {
        match grain {
            Grain::Minute => Minute(u32::MAX),
            Grain::Hour => self.hours_from,
            Grain::Day => self.days_from,
        }
    }
}

/// The history of a data directory. It holds nothing in memory: what it answers is what is on disk by then.
#[derive(Clone)]
pub struct History {
    disk: Arc<dyn Disk>,
    directory: DirectoryId,
}

impl History {
    /// Opens the history for its one writer: makes its directory where there is none, and removes what a crash left
    /// half made.
    ///
    /// # Errors
    /// When the disk refuses, or `closed.hw` is missing while there are lists, damaged, foreign or newer. With
    /// [`StorageError::is_no_space`] nothing has changed: call again later.
    pub fn open(disk: Arc<dyn Disk>, directory: DirectoryId) -> Result<Self, StorageError> {
        let history = Self { disk, directory };
        let disk = &history.disk;
        disk.create_dir(HISTORY_DIR).map_err(|error| StorageError::io("create directory", HISTORY_DIR, error))?;
        for dir in [HISTORY_DIR, ""] {
            disk.sync_dir(dir).map_err(|error| StorageError::io("sync directory", dir, error))?;
        }
        let names = history.names()?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            history.remove(&format!("{HISTORY_DIR}/{name}"))?;
        }
        if history.read_closed()?.is_none() {
            if let Some(name) = names.iter().find(|name| parse_list_name(name).is_some()) {
                let why = format!("{HISTORY_DIR}/{name} is there, and is made only after it");
                return Err(StorageError::Missing { file: CLOSED.path.to_owned(), why });
            }
            history.write_closed(&ClosedUpTo::default())?;
        }
        Ok(history)
    }

    /// Opens the history for reading, at any time and beside its writer. Changes nothing on disk.
    #[must_use]
    pub const fn read_only(disk: Arc<dyn Disk>, directory: DirectoryId) -> Self {
        Self { disk, directory }
    }

    /// The final list of the period that starts at `start`; none where it is not closed, had no view, or is no longer
    /// kept.
    ///
    /// # Errors
    /// When the file cannot be read or does not verify.
    pub fn list(&self, kind: CalendarPeriod, start: Minute) -> Result<Option<ClosedList>, StorageError> {
        let path = list_path(kind, start);
        let sealed_kind = list_kind(&path);
        let Some(body) = sealed::read(&*self.disk, &sealed_kind)? else { return Ok(None) };
        let (found, list) = ClosedList::decode(&body).ok_or_else(|| sealed::senseless(&sealed_kind))?;
        self.check(&path, found, (kind, start), &list.period())?;
        Ok(Some(list))
    }

    /// The closed periods of a kind that start before `before` (any where there is none) and had a view, newest first,
    /// at most `limit`. Lists the directory and reads the head of each file returned.
    ///
    /// # Errors
    /// When a file cannot be read or does not verify.
    pub fn periods(
        &self,
        kind: CalendarPeriod,
        before: Option<Minute>,
        limit: usize,
    ) -> Result<Vec<ClosedPeriod>, StorageError> {
        let mut periods = Vec::new();
        for start in self.starts(kind)?.into_iter().rev().filter(|start| before.is_none_or(|before| *start < before)) {
            if periods.len() == limit {
                break;
            }
            periods.extend(self.head(kind, start)?);
        }
        Ok(periods)
    }

    /// The start of the oldest period of a kind that has a list; none where no period has one.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn oldest(&self, kind: CalendarPeriod) -> Result<Option<Minute>, StorageError> {
        Ok(self.starts(kind)?.first().copied())
    }

    /// The minute up to which all periods of a kind are closed; none before the first.
    ///
    /// # Errors
    /// When the file that says so cannot be read or does not verify.
    pub fn closed_up_to(&self, kind: CalendarPeriod) -> Result<Option<Minute>, StorageError> {
        Ok(self.read_closed()?.unwrap_or_default()[kind as usize])
    }

    /// What the periods that are not closed yet still need: everything before the first run of the job.
    ///
    /// # Errors
    /// As of [`closed_up_to`](Self::closed_up_to).
    pub fn needs(&self) -> Result<HistoryNeeds, StorageError> {
        let [hours, days, months] = self.read_closed()?.unwrap_or_default().map(Option::unwrap_or_default);
        Ok(HistoryNeeds { hours_from: hours, days_from: days.min(months) })
    }

    /// Makes a list durable. One of the same period is replaced; it says the same.
    ///
    /// # Errors
    /// When the disk refuses. With [`StorageError::is_no_space`] nothing has changed: call again later.
    ///
    /// # Panics
    /// When the list is not in order or does not add up.
    pub fn write(&self, list: &ClosedList) -> Result<(), StorageError> {
        assert!(list.is_sound(), "a list is in order and adds up: {:?}", list.period());
        sealed::replace(&*self.disk, &list_kind(&list_path(list.kind, list.start)), &list.encode(self.directory))
    }

    /// Durably says that all periods of a kind up to `minute` are closed. A minute that is not later changes nothing.
    ///
    /// # Errors
    /// As of [`write`](Self::write).
    pub fn set_closed(&self, kind: CalendarPeriod, minute: Minute) -> Result<(), StorageError> {
        let mut closed = self.read_closed()?.unwrap_or_default();
        if closed[kind as usize].is_some_and(|before| before >= minute) {
            return Ok(());
        }
        closed[kind as usize] = Some(minute);
        self.write_closed(&closed)
    }

    /// Removes the lists of a kind that start before `oldest`, the oldest first; at most 1024, so call again until it
    /// returns 0. Returns how many.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn apply_retention(&self, kind: CalendarPeriod, oldest: Minute) -> Result<usize, StorageError> {
        let starts = self.starts(kind)?;
        let old = starts.into_iter().take_while(|start| *start < oldest).take(REMOVED_MAX);
        let mut removed = 0;
        for start in old {
            self.remove(&list_path(kind, start))?;
            removed += 1;
        }
        if removed > 0 {
            self.disk.sync_dir(HISTORY_DIR).map_err(|error| StorageError::io("sync directory", HISTORY_DIR, error))?;
        }
        Ok(removed)
    }

    /// Counts and measures all lists, by opening each: for a helper, once.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn figures(&self) -> Result<HistoryFigures, StorageError> {
        let mut figures = HistoryFigures::default();
        for name in self.names()?.iter().filter(|name| parse_list_name(name).is_some()) {
            let path = format!("{HISTORY_DIR}/{name}");
            let file = match self.disk.open(&path, Access::Read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(|error| StorageError::io("open", &path, error))?,
            };
            figures.files += 1;
            figures.bytes += file.len().map_err(|error| StorageError::io("measure", &path, error))?;
        }
        Ok(figures)
    }

    /// Starts of the periods of a kind that have a list, ascending.
    fn starts(&self, kind: CalendarPeriod) -> Result<Vec<Minute>, StorageError> {
        let names = self.names()?;
        let mut starts: Vec<Minute> =
            names.iter().filter_map(|name| parse_list_name(name)).filter(|of| of.0 == kind).map(|of| of.1).collect();
        starts.sort_unstable();
        Ok(starts)
    }

    /// The head of a list; none when it was removed meanwhile.
    fn head(&self, kind: CalendarPeriod, start: Minute) -> Result<Option<ClosedPeriod>, StorageError> {
        let path = list_path(kind, start);
        let file = match self.disk.open(&path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|error| StorageError::io("open", &path, error))?,
        };
        let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
        if len < HEAD_BYTES as u64 {
            return Err(StorageError::damaged(&path, len, format!("{len} bytes, the head alone has {HEAD_BYTES}")));
        }
        let mut bytes = [0; HEAD_BYTES];
        file.read_at(&mut bytes, 0).map_err(|error| StorageError::io("read", &path, error))?;
        match ClosedPeriod::decode_file_head(&bytes) {
            Ok((found, period)) => {
                self.check(&path, found, (kind, start), &period)?;
                Ok(Some(period))
            }
            Err(HeadFault::Damaged) => Err(StorageError::damaged(&path, 0, "the head does not verify")),
            Err(HeadFault::Newer(found)) => {
                let supported = list_kind(&path).version;
                Err(StorageError::NewerVersion { file: path, found, supported })
            }
        }
    }

    /// Refuses a list of another data directory or under another's name.
    fn check(
        &self,
        path: &str,
        found: DirectoryId,
        named: (CalendarPeriod, Minute),
        period: &ClosedPeriod,
    ) -> Result<(), StorageError> {
        self.check_directory(path, found)?;
        if (period.kind, period.start) == named {
            return Ok(());
        }
        let what = format!("the file says that it is of the {:?} from minute {}", period.kind, period.start.0);
        Err(StorageError::damaged(path, 0, what))
    }

    fn check_directory(&self, path: &str, found: DirectoryId) -> Result<(), StorageError> {
        if found == self.directory {
            return Ok(());
        }
        let (found, expected) = (found.to_string(), self.directory.to_string());
        Err(StorageError::ForeignFile { file: path.to_owned(), found, expected })
    }

    fn read_closed(&self) -> Result<Option<ClosedUpTo>, StorageError> {
        let Some(body) = sealed::read(&*self.disk, &CLOSED)? else { return Ok(None) };
        let (found, closed) = decode_closed(&body).ok_or_else(|| sealed::senseless(&CLOSED))?;
        self.check_directory(CLOSED.path, found)?;
        Ok(Some(closed))
    }

    fn write_closed(&self, closed: &ClosedUpTo) -> Result<(), StorageError> {
        sealed::replace(&*self.disk, &CLOSED, &encode_closed(self.directory, closed))
    }

    /// Names in the directory; none where there is no history yet.
    fn names(&self) -> Result<Vec<String>, StorageError> {
        match self.disk.list(HISTORY_DIR) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed.map_err(|error| StorageError::io("list", HISTORY_DIR, error)),
        }
    }

    fn remove(&self, path: &str) -> Result<(), StorageError> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StorageError::io("remove", path, error)),
            _ => Ok(()),
        }
    }
}
