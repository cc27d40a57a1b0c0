//! The engine's roll-ups, in steps that the test chooses: planned, done beside the store, taken over.
//!
//! A step that meets a failed disk ends this life, as the process would end.

use crate::engine::{Died, Engine};
use highwater_storage::{RollupDone, RollupPlan, RollupStop, run_rollup};

/// How far the roll-up at hand has come.
#[derive(Debug, Default)]
pub(crate) enum Rolling {
    #[default]
    Idle,
    Planned(RollupPlan),
    Done(RollupDone),
}

impl Engine {
    /// One step of a roll-up, which is told to stop after so many sections. Whether one was done.
    pub(crate) fn roll(&mut self, patience: u64) -> Result<bool, Died> {
        match std::mem::take(&mut self.rolling) {
            Rolling::Idle => match self.history().and_then(|history| self.store.plan_rollup(&history.needs()?)) {
                Ok(plan) => self.rolling = plan.map_or(Rolling::Idle, Rolling::Planned),
                Err(error) if error.is_no_space() => {}
                Err(error) => return Err(error.into()),
            },
            Rolling::Planned(plan) => {
                let mut left = patience;
                let mut should_stop = || {
                    left = left.saturating_sub(1);
                    left == 0
                };
                match run_rollup(self.store.disk(), &plan, &mut should_stop) {
                    Ok(done) => self.rolling = Rolling::Done(done),
                    Err(RollupStop::Stopped | RollupStop::NoSpace(_)) => {}
                    Err(RollupStop::Failed(error)) => return Err(error.into()),
                }
            }
            Rolling::Done(done) => {
                self.store.finish_rollup(&done)?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
