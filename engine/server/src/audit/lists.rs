//! The final lists of closed hours, days and months against the counts of their periods.
//!
//! Invariants: only lists are compared whose periods are kept; a list is lacking only where an older one of its kind is
//! there, because retention removes the oldest first.

use super::report::{Compared, Difference, Report, time_text};
use highwater_ranking::{CalendarPeriod, Minute};
use highwater_storage::{
    CLOSED_ROWS_MAX, ClosedList, ClosedPeriod, Disk, Grain, History, StorageError, Tables, close_period,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Compares every list that can be.
///
/// # Errors
/// When a file cannot be read or does not verify.
pub(super) fn compare(disk: &Arc<dyn Disk>, tables: &Tables, report: &mut Report) -> Result<(), StorageError> {
    let history = History::read_only(disk.clone(), tables.directory().id);
    let mut compared = Compared { what: "history with periods", ..Compared::default() };
    let mut gone: Vec<Minute> = Vec::new();
    for kind in CalendarPeriod::ALL {
        let closed_up_to = history.closed_up_to(kind)?.unwrap_or_default();
        let periods = history.periods(kind, None, usize::MAX)?;
        find_lacking(&history, tables, kind, &periods, closed_up_to, report)?;
        for period in periods {
            if !is_kept(tables, &period) {
                gone.push(period.start);
                continue;
            }
            // Removed meanwhile.
            let Some(list) = history.list(kind, period.start)? else { continue };
            compared.files += 1;
            compared.periods += 1;
            compared.counts += list.rows.len() as u64;
            compared.views += list.total_views;
            let expected = close_period(tables, kind, period.start..period.end, CLOSED_ROWS_MAX)?;
            compare_list(&list, expected.as_ref(), report);
        }
    }
    report.compared(compared);
    if !gone.is_empty() {
        report.not_compared(format!("history with periods: {} lists, whose periods are no longer kept", gone.len()));
    }
    Ok(())
}

/// Periods that are closed and were viewed, but have no list.
fn find_lacking(
    history: &History,
    tables: &Tables,
    kind: CalendarPeriod,
    found: &[ClosedPeriod],
    closed_up_to: Minute,
    report: &mut Report,
) -> Result<(), StorageError> {
    let Some(oldest) = found.last() else { return Ok(()) };
    let calendar = tables.calendar();
    let starts = tables.periods(grain(kind), oldest.end..closed_up_to);
    let mut viewed: Vec<_> = starts.into_iter().map(|start| calendar.period_at(kind, start)).collect();
    viewed.dedup();
    for period in viewed {
        if found.iter().any(|list| list.start == period.start) || period.start < tables.complete_from(grain(kind)) {
            continue;
        }
        let Some(expected) = close_period(tables, kind, period, CLOSED_ROWS_MAX)? else { continue };
        // Removed meanwhile, with all that are older.
        if history.oldest(kind)?.is_none_or(|oldest| expected.start < oldest) {
            continue;
        }
        report.difference(Difference {
            video_id: String::new(),
            period: word(kind).to_owned(),
            start_time: Some(time_text(expected.start)),
            class: None,
            stored: 0,
            recomputed: expected.total_views.to_string(),
            file: path(kind, expected.start),
        });
    }
    Ok(())
}

fn is_kept(tables: &Tables, period: &ClosedPeriod) -> bool {
    period.start >= tables.complete_from(grain(period.kind))
}

/// The grain that the lists of a kind are counted from.
const fn grain(kind: CalendarPeriod) -> Grain {
    match kind {
        CalendarPeriod::Hour => Grain::Hour,
        CalendarPeriod::Day | CalendarPeriod::Month => Grain::Day,
    }
}

fn path(kind: CalendarPeriod, start: Minute) -> String {
    format!("history/{}-{:010}.top", word(kind), start.0)
}

const fn word(kind: CalendarPeriod) -> &'static str {
    match kind {
        CalendarPeriod::Hour => "hour",
        CalendarPeriod::Day => "day",
        CalendarPeriod::Month => "month",
    }
}

fn compare_list(list: &ClosedList, expected: Option<&ClosedList>, report: &mut Report) {
    let file = path(list.kind, list.start);
    let mut tell = |video_id: &str, stored: u64, recomputed: String| {
        report.difference(Difference {
            video_id: video_id.to_owned(),
            period: word(list.kind).to_owned(),
            start_time: Some(time_text(list.start)),
            class: None,
            stored,
            recomputed,
            file: file.clone(),
        });
    };
    let total = expected.map_or(0, |expected| expected.total_views);
    if list.total_views != total {
        tell("", list.total_views, total.to_string());
    }
    let rows = |list: &ClosedList| list.rows.iter().map(|(id, count)| (id.to_string(), *count)).collect();
    let stored: BTreeMap<String, u64> = rows(list);
    let expected: BTreeMap<String, u64> = expected.map(rows).unwrap_or_default();
    for (id, count) in &stored {
        match expected.get(id) {
            Some(right) if right == count => {}
            Some(right) => tell(id, *count, right.to_string()),
            None => tell(id, *count, "not in the list".to_owned()),
        }
    }
    for (id, count) in expected.iter().filter(|(id, _)| !stored.contains_key(*id)) {
        tell(id, 0, count.to_string());
    }
}
