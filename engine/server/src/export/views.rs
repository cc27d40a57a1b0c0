//! The table of views: each as it was accepted, with the time of its arrival.
//!
//! It ends where the newest cut file does, so that it holds exactly the views that the tables of counts hold, of those
//! that arrived within the range. Invariant: a range of which something is no longer kept, or is removed meanwhile, is
//! an error.

use super::Told;
use super::rows::{Batches, Value};
use crate::units::time_text;
use anyhow::{Result, ensure};
use highwater_storage::{ArchivePart, ArchiveRange, ArchiveReader, ArchivedBatch, StorageError, Tables};
use std::collections::BTreeMap;

/// The accepted views that arrived within a range, up to the newest cut.
pub(crate) struct Views {
    reader: ArchiveReader,
    tables: Tables,
    from_ms: u64,
    to_ms: Option<u64>,
}

impl Views {
    /// Holds what is asked for against what there is.
    ///
    /// # Errors
    /// When the range begins before everything is kept, or ends there, or what is kept cannot be read.
    pub(crate) fn new(reader: ArchiveReader, tables: Tables, from_ms: Option<u64>, to_ms: Option<u64>) -> Result<Self> {
        // Nothing arrives then: only how far each log is kept is told.
        let parts = reader.visit::<StorageError>(&ArchiveRange::Arrivals(u64::MAX..u64::MAX), |_| Ok(()))?;
        let whole_from_ms = whole_from_ms(&reader, &parts)?;
        let from_ms = from_ms.unwrap_or(whole_from_ms);
        let whole = || format!("views are kept whole from arrivals at {} on", time_text(whole_from_ms));
        ensure!(from_ms >= whole_from_ms, "--from={} is too early: {}", time_text(from_ms), whole());
        if let Some(to_ms) = to_ms {
            ensure!(to_ms > from_ms, "--to={} is too early: {}", time_text(to_ms), whole());
        }
        Ok(Self { reader, tables, from_ms, to_ms })
    }

    /// Sends the rows, by generation, log and place in it.
    pub(crate) fn send(&self, batches: &mut Batches<'_>) -> Result<Told> {
        let covered: BTreeMap<_, _> = self.tables.positions().iter().copied().collect();
        let arrivals = self.from_ms..self.to_ms.unwrap_or(u64::MAX);
        let (mut views, mut last_ms) = (0, None);
        let parts = self.reader.visit(&ArchiveRange::Arrivals(arrivals), |batch| {
            if covered.get(&batch.log).is_none_or(|covered| batch.position > *covered) {
                return Ok(());
            }
            last_ms = last_ms.max(Some(batch.arrival_ms));
            views += u64::from(batch.accepted_count());
            send_batch(batch, batches)
        })?;
        let whole_from_ms = whole_from_ms(&self.reader, &parts)?;
        ensure!(
            whole_from_ms <= self.from_ms,
            "the engine has removed views while they were read: they are kept whole from arrivals at {} on; begin there \
             by --from",
            time_text(whole_from_ms)
        );
        let newest = self.tables.newest();
        Ok(Told {
            views: Some(views),
            from_ms: Some(self.from_ms),
            to_ms: last_ms.map(|last_ms| last_ms + 1),
            as_of_ms: newest.map(|cut| cut.time_ms),
            epoch: newest.map(|cut| cut.epoch.0),
        })
    }
}

fn send_batch(batch: &ArchivedBatch<'_>, batches: &mut Batches<'_>) -> Result<()> {
    for view in batch.accepted() {
        batches.push([
            Value::Text(view.video_id),
            Value::Time(view.timestamp_ms),
            Value::Text(view.user_id),
            Value::Text(view.region),
            Value::Text(view.device),
            Value::Time(batch.arrival_ms),
        ])?;
    }
    Ok(())
}

/// The arrival time from which on everything is in these parts. Arrivals only grow along a log.
fn whole_from_ms(reader: &ArchiveReader, parts: &[ArchivePart]) -> Result<u64> {
    let first_generation = parts.iter().map(|part| part.after.generation).min();
    let mut before: BTreeMap<_, &ArchivePart> = BTreeMap::new();
    let mut whole_from_ms = 0;
    for part in parts {
        let begins_generation = part.after.position == 0;
        let follows = match before.insert(part.log, part) {
            Some(before) => before.ends_generation && begins_generation,
            // A log may be new, but generations are counted from 1, so the oldest that is kept has none before it.
            None => begins_generation && (part.after.generation <= 1 || Some(part.after.generation) > first_generation),
        };
        if follows {
            continue;
        }
        // What is missing arrived by then: in the middle of a generation perhaps in the same millisecond.
        let missing_until = first_arrival_ms(reader, part)?.map(|first| first + u64::from(!begins_generation));
        whole_from_ms = whole_from_ms.max(missing_until.unwrap_or(0));
    }
    Ok(whole_from_ms)
}

/// What ends a look for the first batch.
enum Found {
    Arrival(u64),
    Fault(StorageError),
}

impl From<StorageError> for Found {
    fn from(error: StorageError) -> Self {
        Self::Fault(error)
    }
}

/// When the first batch of a part arrived; none when it has none, or it was removed meanwhile.
fn first_arrival_ms(reader: &ArchiveReader, part: &ArchivePart) -> Result<Option<u64>> {
    let wanted = ArchiveRange::Positions { log: part.log, after: part.after, up_to: part.up_to };
    match reader.visit(&wanted, |batch| Err::<(), _>(Found::Arrival(batch.arrival_ms))) {
        Ok(_) => Ok(None),
        Err(Found::Arrival(arrival_ms)) => Ok(Some(arrival_ms)),
        Err(Found::Fault(error)) => Err(error.into()),
    }
}
