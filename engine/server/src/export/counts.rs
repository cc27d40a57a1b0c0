//! The tables of counts: the views of each video in each minute, hour or day.
//!
//! All classes count: a view is in the period of its event time however late it came. Invariant: what is in memory is
//! the ids of one shard and its counts of one period; rows come shard by shard, in order of time.

use super::rows::{Batches, Value};
use super::table::Table;
use anyhow::{Context, Result, bail};
use highwater_ranking::{Calendar, CalendarPeriod, FinalityClass, Minute};
use highwater_storage::{Grain, SlotSums, Tables};
use std::ops::Range;

/// What was asked for, within what there is.
///
/// # Errors
/// When the range begins before the table is whole, or ends there.
pub(crate) fn range(tables: &Tables, grain: Grain, from: Option<u64>, to: Option<u64>) -> Result<Range<Minute>> {
    let whole_from = whole_from(tables, grain);
    let told = |minute: Minute| crate::units::time_text(minute.start_ms());
    let remedy = "older ones were removed by the engine's retention, in part or in whole";
    let from = from.map(Minute::of_ms).unwrap_or(whole_from);
    if from < whole_from {
        bail!("--from={} is too early: {grain:?}s are whole from {} on; {remedy}", told(from), told(whole_from));
    }
    let to = to.map_or(Minute(u32::MAX), Minute::of_ms);
    if to <= from {
        bail!("--to={} is too early: {grain:?}s are whole from {} on; {remedy}", told(to), told(whole_from));
    }
    Ok(from..to)
}

/// The first period of which everything is there.
fn whole_from(tables: &Tables, grain: Grain) -> Minute {
    let minute = tables.complete_from(grain);
    let period = period_at(grain, minute);
    if period.start == minute { minute } else { period.end }
}

/// Sends the rows of a range; returns the start of its last period that has any, and how many views they are.
pub(crate) fn send(tables: &Tables, table: Table, range: Range<Minute>, batches: &mut Batches<'_>) -> Result<Sent> {
    let grain = table.grain().context("a table of counts has a grain")?;
    let periods = tables.periods(grain, range);
    let mut sums = SlotSums::new();
    let mut sent = Sent::default();
    for shard in 0..tables.directory().shards {
        let ids = tables.ids(shard)?;
        for start in &periods {
            let period = period_at(grain, *start);
            sums.clear();
            tables.sums(shard, period.clone(), FinalityClass::IN_HOUR..=FinalityClass::MAX, &mut sums)?;
            for (slot, count) in sums.iter() {
                let id = ids.get(slot).with_context(|| format!("shard {shard} counts slot {slot}, which has no id"))?;
                push(batches, table, id, *start, count)?;
                sent.views += count;
                sent.end = sent.end.max(Some(period.end));
            }
        }
    }
    Ok(sent)
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Views counted.
    pub(crate) views: u64,
    /// End of the newest period that has any.
    pub(crate) end: Option<Minute>,
}

fn push(batches: &mut Batches<'_>, table: Table, id: &str, start: Minute, count: u64) -> Result<()> {
    let start_ms = start.start_ms();
    let minute_of_day = start.0 % (24 * 60);
    let (hour, minute) = (Value::Small(minute_of_day / 60), Value::Small(minute_of_day % 60));
    let (id, date, time, count) =
        (Value::Text(id), Value::DateOf(start_ms), Value::Time(start_ms), Value::Count(count));
    match table {
        Table::Minute => batches.push([id, date, hour, minute, count, time]),
        Table::Hour => batches.push([id, date, hour, count, time]),
        Table::Day => batches.push([id, date, count, time]),
        Table::Top | Table::Views => unreachable!("{table} is no table of counts"),
    }
}

/// The period that a minute lies in.
fn period_at(grain: Grain, minute: Minute) -> Range<Minute> {
    match grain {
        Grain::Minute => minute..Minute(minute.0.saturating_add(1)),
        Grain::Hour => Calendar::default().period_at(CalendarPeriod::Hour, minute),
        Grain::Day => Calendar::default().period_at(CalendarPeriod::Day, minute),
    }
}
