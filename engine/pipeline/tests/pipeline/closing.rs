//! The engine's closing of calendar periods, by its closed files, when the test chooses.
//!
//! A run that meets a failed disk ends this life, as the process would end.

use crate::engine::{Died, Engine};
use highwater_storage::{History, HistoryClosed, HistoryJob, StorageError, Tables};
use std::cell::Cell;
use std::sync::Arc;

impl Engine {
    /// The lists of closed periods.
    pub(crate) fn history(&self) -> Result<History, StorageError> {
        History::open(Arc::new(self.store.disk().clone()), self.store.directory().id)
    }

    /// Closes what is final as of the last cut, at most `periods_max` periods; told to stop after so many questions.
    pub(crate) fn close_periods(&mut self, periods_max: usize, patience: u64) -> Result<HistoryClosed, Died> {
        let left = Cell::new(patience);
        let should_stop = || {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        };
        let closed = self.history().and_then(|history| {
            let tables = Tables::open(Arc::new(self.store.disk().clone()), self.windows.calendar)?;
            let job = HistoryJob {
                rows_max: self.top_k,
                periods_max,
                retention_minutes: u32::MAX,
                ..HistoryJob::new(self.horizon_ms, self.store.directory().lateness_max_ms, self.windows.calendar)
            };
            job.run(&history, &tables, should_stop)
        });
        match closed {
            Err(error) if error.is_no_space() => Ok(HistoryClosed::default()),
            closed => Ok(closed?),
        }
    }
}
