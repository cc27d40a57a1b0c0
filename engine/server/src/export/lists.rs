//! The table of final lists: the top 1000 of each closed hour, day and month.
//!
//! A list is written once and never changes, so it does not matter as of when it is read. Invariant: one list at a time
//! is in memory; rows come by kind of period, then by time, then by rank.

use super::Told;
use super::rows::{Batches, Value};
use anyhow::Result;
use highwater_ranking::{CalendarPeriod, Minute};
use highwater_storage::{ClosedPeriod, History};

/// The closed periods that lie within a range, those removed since by retention left out.
pub(crate) struct Lists {
    history: History,
    from: Option<Minute>,
    to: Option<Minute>,
}

impl Lists {
    pub(crate) fn new(history: History, from_ms: Option<u64>, to_ms: Option<u64>) -> Self {
        Self { history, from: from_ms.map(Minute::of_ms), to: to_ms.map(Minute::of_ms) }
    }

    /// Sends their rows.
    pub(crate) fn send(&self, batches: &mut Batches<'_>) -> Result<Told> {
        let (mut first, mut last) = (None::<Minute>, None::<Minute>);
        for kind in CalendarPeriod::ALL {
            let newest_first = self.history.periods(kind, self.to, usize::MAX)?;
            for period in newest_first.into_iter().rev().filter(|period| self.holds(period)) {
                self.send_list(&period, batches)?;
                first = Some(first.map_or(period.start, |first| first.min(period.start)));
                last = last.max(Some(period.end));
            }
        }
        Ok(Told {
            from_ms: self.from.or(first).map(Minute::start_ms),
            to_ms: self.to.or(last).map(Minute::start_ms),
            ..Told::default()
        })
    }

    /// Whether all of a period is within the range.
    fn holds(&self, period: &ClosedPeriod) -> bool {
        self.from.is_none_or(|from| period.start >= from) && self.to.is_none_or(|to| period.end <= to)
    }

    fn send_list(&self, period: &ClosedPeriod, batches: &mut Batches<'_>) -> Result<()> {
        let Some(list) = self.history.list(period.kind, period.start)? else { return Ok(()) };
        for (rank, (id, count)) in (1..).zip(&list.rows) {
            batches.push([
                Value::Text(name(list.kind)),
                Value::Time(list.start.start_ms()),
                Value::Time(list.end.start_ms()),
                Value::Text(id),
                Value::Count(*count),
                Value::Small(rank),
                Value::Count(list.total_views),
            ])?;
        }
        Ok(())
    }
}

const fn name(kind: CalendarPeriod) -> &'static str {
    match kind {
        CalendarPeriod::Hour => "hour",
        CalendarPeriod::Day => "day",
        CalendarPeriod::Month => "month",
    }
}
