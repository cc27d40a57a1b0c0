//! Closing what is due: one run of a helper's job, from the closed files to lists and back to what is still needed.
//!
//! Not a thread and not a schedule. Invariants: periods of a kind are closed in order of time; a run that stops or
//! fails anywhere leaves nothing that the next run does not make good; whatever the runs, the lists are the same.

use std::ops::Range;

use highwater_ranking::{Calendar, CalendarPeriod, Minute};

use super::close::close_periods;
use super::format::{CLOSED_ROWS_MAX, ClosedPeriod};
use super::{ClosedList, History};
use crate::error::StorageError;
use crate::tables::{Grain, Tables};

/// Periods that are counted together, and so the lists that are held in memory at a time.
const TOGETHER_MAX: usize = 32;

/// Closes all periods that are due, as of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryJob {
    /// Every view that arrived before this time (ms UTC) is in the closed files: `arrivals_from_ms` of the newest cut,
    /// or of a later one that would have held nothing.
    pub horizon_ms: u64,
    /// How long after its end a period becomes final, in ms.
    pub lateness_max_ms: u64,
    /// How minutes fall into periods.
    pub calendar: Calendar,
    /// Rows of a list at most, 1 to 1000.
    pub rows_max: usize,
    /// Periods that one run looks at, at most.
    pub periods_max: usize,
    /// Lists of periods that ended so many minutes before the horizon are removed.
    pub retention_minutes: u32,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryClosed {
    /// Periods closed with a list, hours first, each kind in order of time.
    pub lists: Vec<ClosedPeriod>,
    /// Lists removed because they were older than is kept.
    pub removed: usize,
    /// Whether periods are still due: run again.
    pub is_more_due: bool,
}

/// The periods of one kind that are due.
struct Due {
    kind: CalendarPeriod,
    /// Those that may have views, in order of time.
    periods: Vec<Range<Minute>>,
    /// Up to where the kind is closed when they are.
    closed_up_to: Minute,
    is_more_due: bool,
}

impl HistoryJob {
    /// A job with full lists, up to 1024 periods a run, and lists kept for ten years.
    #[must_use]
    pub fn new(horizon_ms: u64, lateness_max_ms: u64, calendar: Calendar) -> Self {
        let rows_max = CLOSED_ROWS_MAX;
        let retention_minutes = 3650 * 24 * 60;
        Self { horizon_ms, lateness_max_ms, calendar, rows_max, periods_max: 1024, retention_minutes }
    }

    /// The minute up to which all periods of a kind are final.
    #[must_use]
    pub fn final_up_to(&self, kind: CalendarPeriod) -> Minute {
        let ended = Minute::of_ms(self.horizon_ms.saturating_sub(self.lateness_max_ms));
        self.calendar.period_at(kind, ended).start
    }

    /// Whether a period has become final since the last run: cheap, so that closed files are opened only then.
    ///
    /// # Errors
    /// When the file that says what is closed cannot be read or does not verify.
    pub fn is_due(&self, history: &History) -> Result<bool, StorageError> {
        for kind in CalendarPeriod::ALL {
            if history.closed_up_to(kind)?.unwrap_or_default() < self.final_up_to(kind) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says of a new data directory that nothing was viewed in periods that were final at the horizon already, so that
    /// the first run need not look for them. Changes nothing where a kind was closed before.
    ///
    /// # Errors
    /// As of [`History::set_closed`].
    pub fn begin(&self, history: &History) -> Result<(), StorageError> {
        for kind in CalendarPeriod::ALL {
            if history.closed_up_to(kind)?.is_none() {
                history.set_closed(kind, self.final_up_to(kind))?;
            }
        }
        Ok(())
    }

    /// Closes what is due, by files opened after the horizon was known. Stops without a trace of the periods in hand
    /// when `should_stop` says so.
    ///
    /// # Errors
    /// When a file does not verify or the disk refuses. With [`StorageError::is_no_space`] what was closed stays
    /// closed: run again later.
    pub fn run(
        &self,
        history: &History,
        tables: &Tables,
        should_stop: impl Fn() -> bool,
    ) -> Result<HistoryClosed, StorageError> {
        let mut done = HistoryClosed::default();
        let mut periods_left = self.periods_max;
        loop {
            let due = self.due(history, tables, periods_left.min(TOGETHER_MAX))?;
            let periods: Vec<_> = due.iter().flat_map(Due::named_periods).collect();
            let Some(lists) = close_periods(tables, &periods, self.rows_max, &should_stop)? else {
                done.is_more_due = true;
                return Ok(done);
            };
            for list in &lists {
                history.write(list)?;
            }
            for due in &due {
                history.set_closed(due.kind, due.closed_up_to)?;
            }
            done.lists.extend(lists.iter().map(ClosedList::period));
            periods_left -= periods.len();
            done.is_more_due = due.iter().any(|due| due.is_more_due);
            if !done.is_more_due || periods_left == 0 {
                break;
            }
        }
        done.removed = self.forget(history, &should_stop)?;
        Ok(done)
    }

    /// What is due of all kinds, `room` periods at most.
    fn due(&self, history: &History, tables: &Tables, mut room: usize) -> Result<Vec<Due>, StorageError> {
        let mut all = Vec::new();
        for kind in CalendarPeriod::ALL {
            let (from, to) = (history.closed_up_to(kind)?.unwrap_or_default(), self.final_up_to(kind));
            if from >= to {
                continue;
            }
            let grain = if kind == CalendarPeriod::Hour { Grain::Hour } else { Grain::Day };
            let starts = tables.periods(grain, from..to);
            let mut periods: Vec<Range<Minute>> =
                starts.into_iter().map(|start| self.calendar.period_at(kind, start)).collect();
            periods.dedup();
            // Only where history was lost, or had not begun, is what is not closed yet not whole any more.
            periods.retain(|period| period.start >= tables.complete_from(grain));
            let is_more_due = periods.len() > room;
            periods.truncate(room);
            room -= periods.len();
            let last_end = periods.last().map_or(from, |last| last.end);
            let closed_up_to = if is_more_due { last_end } else { to };
            all.push(Due { kind, periods, closed_up_to, is_more_due });
        }
        Ok(all)
    }

    /// Removes the lists of periods that are over for longer than they are kept.
    fn forget(&self, history: &History, should_stop: impl Fn() -> bool) -> Result<usize, StorageError> {
        let oldest = Minute::of_ms(self.horizon_ms).minus(self.retention_minutes);
        let mut removed = 0;
        for kind in CalendarPeriod::ALL {
            // A period that is over only in part stays.
            let oldest = self.calendar.period_at(kind, oldest).start;
            while !should_stop() {
                match history.apply_retention(kind, oldest)? {
                    0 => break,
                    some => removed += some,
                }
            }
        }
        Ok(removed)
    }
}

impl Due {
    fn named_periods(&self) -> impl Iterator<Item = (CalendarPeriod, Range<Minute>)> + '_ {
        self.periods.iter().map(|period| (self.kind, period.clone()))
    }
}
