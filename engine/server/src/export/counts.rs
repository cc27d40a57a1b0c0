//! The tables of counts: the views of each video in each minute, hour or day.
//!
//! All classes count: a view is in the period of its event time however late it came. Invariant: what is in memory is
//! the ids of one shard and its counts of one period; rows come shard by shard, in order of time.

use super::Told;
use super::rows::{Batches, Value};
use super::table::Table;
use crate::units::time_text;
use anyhow::{Context, Result, ensure};
use highwater_ranking::{FinalityClass, Minute};
use highwater_storage::{Grain, SlotSums, Tables};
use std::ops::Range;

/// Minutes of a UTC hour, and hours of a day.
const HOUR_MINUTES: u32 = 60;
const DAY_HOURS: u32 = 24;

/// The counts of a range of whole periods.
pub(crate) struct Counts {
    tables: Tables,
    grain: Grain,
    minutes: Range<Minute>,
}

impl Counts {
    /// Holds what is asked for against what there is.
    ///
    /// # Errors
    /// When the range begins before the table is whole, or ends there.
    pub(crate) fn new(tables: Tables, table: Table, from_ms: Option<u64>, to_ms: Option<u64>) -> Result<Self> {
        let grain = table.grain().context("a table of counts has a grain")?;
        let whole_from = whole_from(&tables, grain);
        let from = from_ms.map_or(whole_from, Minute::of_ms);
        let to = to_ms.map_or(Minute(u32::MAX), Minute::of_ms);
        let told = |minute: Minute| time_text(minute.start_ms());
        let whole = || format!("table {table} is whole from {} on; older rows are no longer kept", told(whole_from));
        ensure!(from >= whole_from, "--from={} is too early: {}", told(from), whole());
        ensure!(to > from, "--to={} is too early: {}", told(to), whole());
        Ok(Self { tables, grain, minutes: from..to })
    }

    /// Sends the rows.
    pub(crate) fn send(&self, batches: &mut Batches<'_>) -> Result<Told> {
        let tables = &self.tables;
        let periods = tables.periods(self.grain, self.minutes.clone());
        let mut sums = SlotSums::new();
        let (mut views, mut end) = (0, None);
        for shard in 0..tables.directory().shards {
            let ids = tables.ids(shard)?;
            for start in &periods {
                let period = self.grain.period_at(tables.calendar(), *start);
                sums.clear();
                tables.sums(shard, period.clone(), FinalityClass::IN_HOUR..=FinalityClass::MAX, &mut sums)?;
                if !sums.is_empty() {
                    end = end.max(Some(period.end));
                }
                for (slot, count) in sums.iter() {
                    let id = ids.get(slot);
                    let id = id.with_context(|| format!("shard {shard} counts slot {slot}, which has no id"))?;
                    self.push(batches, id, *start, count)?;
                    views += count;
                }
            }
        }
        let newest = tables.newest();
        Ok(Told {
            views: Some(views),
            from_ms: Some(self.minutes.start.start_ms()),
            to_ms: end.map(Minute::start_ms),
            as_of_ms: newest.map(|cut| cut.time_ms),
            epoch: newest.map(|cut| cut.epoch.0),
        })
    }

    fn push(&self, batches: &mut Batches<'_>, id: &str, start: Minute, count: u64) -> Result<()> {
        let hour_minute = Value::Small(start.0 % HOUR_MINUTES);
        let hour = Value::Small(start.0 / HOUR_MINUTES % DAY_HOURS);
        let (id, count) = (Value::Text(id), Value::Count(count));
        let (date, time) = (Value::DateOf(start.start_ms()), Value::Time(start.start_ms()));
        match self.grain {
            Grain::Minute => batches.push([id, date, hour, hour_minute, count, time]),
            Grain::Hour => batches.push([id, date, hour, count, time]),
            Grain::Day => batches.push([id, date, count, time]),
        }
    }
}

/// The start of the first period of which everything is there.
fn whole_from(tables: &Tables, grain: Grain) -> Minute {
    let minute = tables.complete_from(grain);
    let period = grain.period_at(tables.calendar(), minute);
    if period.start == minute { minute } else { period.end }
}
