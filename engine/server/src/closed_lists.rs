//! The closed lists that the history helper answers from: those of the data directory.
//!
//! It reads and remembers only where history begins. Invariant: what is not closed when the bounds are asked for is not
//! told as closed, whatever is written meanwhile.

use crate::history::ClosedLists;
use highwater_proto::{BoardRow, ClosedList, ClosedPeriod, HistoryBounds, Period};
use highwater_ranking::{CALENDAR_PERIODS, CalendarPeriod, Minute};
use highwater_storage::{History, StorageError};
use std::cell::Cell;

/// The history of a data directory.
pub struct StoredLists {
    history: History,
    lateness_max_ms: u64,
    /// By kind.
    oldest: [Cell<Option<Oldest>>; CALENDAR_PERIODS],
}

/// Where the lists of a kind begin, as it was when the kind was closed up to a minute.
#[derive(Clone, Copy)]
struct Oldest {
    closed: Minute,
    start: Option<Minute>,
}

impl StoredLists {
    /// The lists of a history whose periods are final so long after their end.
    pub fn new(history: History, lateness_max_ms: u64) -> Self {
        Self { history, lateness_max_ms, oldest: Default::default() }
    }

    /// The start of the oldest period that has a list. Found anew when more was closed, since only then some are
    /// removed.
    fn oldest(&self, kind: CalendarPeriod, closed: Minute) -> Result<Option<Minute>, StorageError> {
        let kept = &self.oldest[kind as usize];
        if let Some(oldest) = kept.get().filter(|oldest| oldest.closed == closed) {
            return Ok(oldest.start);
        }
        let start = self.history.oldest(kind)?;
        kept.set(Some(Oldest { closed, start }));
        Ok(start)
    }
}

impl ClosedLists for StoredLists {
    fn bounds(&self, period: Period) -> Result<HistoryBounds, StorageError> {
        let lateness_max_ms = self.lateness_max_ms;
        let Some(kind) = kind_of(period) else { return Ok(HistoryBounds { lateness_max_ms, ..Default::default() }) };
        let closed = self.history.closed_up_to(kind)?.unwrap_or_default();
        let oldest = self.oldest(kind, closed)?;
        Ok(HistoryBounds {
            closed_until_ms: closed.start_ms(),
            oldest_start_ms: oldest.map(Minute::start_ms),
            lateness_max_ms,
        })
    }

    fn list(&self, period: Period, start_ms: u64) -> Result<Option<ClosedList>, StorageError> {
        let (Some(kind), start) = (kind_of(period), Minute::of_ms(start_ms)) else { return Ok(None) };
        if start.start_ms() != start_ms {
            return Ok(None);
        }
        let row = |(video_id, view_count)| BoardRow { video_id, view_count };
        Ok(self.history.list(kind, start)?.map(|list| ClosedList {
            period,
            start_ms,
            end_ms: list.end.start_ms(),
            total_views: list.total_views,
            rows: list.rows.into_iter().map(row).collect(),
        }))
    }

    fn periods(&self, period: Period, before_ms: u64, limit: usize) -> Result<Vec<ClosedPeriod>, StorageError> {
        let Some(kind) = kind_of(period) else { return Ok(Vec::new()) };
        // A time within a minute is after that minute's start.
        let before = Minute::of_ms(before_ms.saturating_add(59_999));
        let of = |one: highwater_storage::ClosedPeriod| ClosedPeriod {
            start_ms: one.start.start_ms(),
            end_ms: one.end.start_ms(),
            total_views: one.total_views,
        };
        Ok(self.history.periods(kind, Some(before), limit)?.into_iter().map(of).collect())
    }
}

fn kind_of(period: Period) -> Option<CalendarPeriod> {
    match period {
        Period::Hour => Some(CalendarPeriod::Hour),
        Period::Day => Some(CalendarPeriod::Day),
        Period::Month => Some(CalendarPeriod::Month),
        Period::AllTime => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_storage::{DirectoryId, MemoryDisk};
    use std::sync::Arc;

    fn list(start: u32, views: u64) -> highwater_storage::ClosedList {
        let rows = vec![("a".into(), views)];
        let (start, end) = (Minute(start), Minute(start + 60));
        highwater_storage::ClosedList {
            kind: CalendarPeriod::Hour,
            start,
            end,
            final_ms: end.start_ms() + 600_000,
            total_views: views,
            videos: 1,
            rows,
        }
    }

    #[test]
    fn lists_are_those_of_the_directory_and_bounds_grow_with_it() {
        let disk: Arc<MemoryDisk> = Arc::new(MemoryDisk::new());
        let writer = History::open(disk.clone(), DirectoryId(1)).unwrap();
        let lists = StoredLists::new(History::read_only(disk, DirectoryId(1)), 600_000);
        let none = HistoryBounds { closed_until_ms: 0, oldest_start_ms: None, lateness_max_ms: 600_000 };
        assert_eq!(lists.bounds(Period::Hour).unwrap(), none);
        for start in [600, 720] {
            writer.write(&list(start, u64::from(start))).unwrap();
        }
        writer.set_closed(CalendarPeriod::Hour, Minute(780)).unwrap();
        let bounds = lists.bounds(Period::Hour).unwrap();
        assert_eq!((bounds.closed_until_ms, bounds.oldest_start_ms), (780 * 60_000, Some(600 * 60_000)));
        let found = lists.list(Period::Hour, 720 * 60_000).unwrap().unwrap();
        assert_eq!((found.total_views, found.end_ms, found.rows[0].view_count), (720, 780 * 60_000, 720));
        assert_eq!(lists.list(Period::Hour, 660 * 60_000).unwrap(), None);
        assert_eq!(lists.list(Period::Hour, 720 * 60_000 + 1).unwrap(), None);
        assert_eq!(lists.list(Period::AllTime, 0).unwrap(), None);
        let starts = |before_ms, limit| {
            let periods = lists.periods(Period::Hour, before_ms, limit).unwrap();
            periods.iter().map(|one| one.start_ms / 60_000).collect::<Vec<_>>()
        };
        assert_eq!(starts(u64::MAX, 10), [720, 600]);
        assert_eq!(starts(u64::MAX, 1), [720]);
        assert_eq!(starts(720 * 60_000, 10), [600]);
        assert_eq!(starts(720 * 60_000 + 1, 10), [720, 600]);
    }
}
