//! Planning roll-ups, and taking over what they wrote.
//!
//! Not their work, which is done beside the store by [`run_rollup`](crate::run_rollup). Invariant: files go only after
//! the base that makes them needless was committed and believed, and only while no roll-up runs.

use highwater_ranking::Minute;

use super::Store;
use super::catalog::{HeldBase, sweep};
use crate::base::open_base;
use crate::chains::{Base, Keep, Source};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::history::HistoryNeeds;
use crate::rollup::{RollupDone, RollupPlan};
use crate::tables::Grain;

/// Number and length of files of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFigures {
    /// How many.
    pub files: u64,
    /// Their length in bytes.
    pub bytes: u64,
}

/// How much the closed files are; a base and what only the one before it rests on are not counted twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreFigures {
    /// Cut files beyond the base.
    pub cuts: FileFigures,
    /// Roll-ups by minute.
    pub minutes: FileFigures,
    /// Roll-ups by hour.
    pub hours: FileFigures,
    /// Roll-ups by day.
    pub days: FileFigures,
    /// The newest base.
    pub base: FileFigures,
    /// Number of its last cut, 0 without a base.
    pub base_number: u64,
    /// Number of the newest cut, 0 without one.
    pub cut_number: u64,
}

impl FileFigures {
    fn of<'s>(sources: impl Iterator<Item = &'s Source>) -> Self {
        sources.fold(Self::default(), |sum, source| Self { files: sum.files + 1, bytes: sum.bytes + source.len })
    }
}

impl<D: Disk> Store<D> {
    /// The next roll-up, when one is due: to be done by [`run_rollup`](crate::run_rollup), beside the store, and one at
    /// a time. What history still needs to close calendar periods is kept whatever its age.
    ///
    /// # Errors
    /// [`StorageError::is_no_space`] when it would find no room beside the reserve for cut files.
    pub fn plan_rollup(&self, needs: &HistoryNeeds) -> Result<Option<RollupPlan>, StorageError> {
        let rules = (&self.options.rollup, &self.options.retention);
        let reserve_bytes = self.options.cut_reserve_bytes;
        let plan = RollupPlan::for_chains(&self.chains, self.directory.shards, rules, needs, reserve_bytes);
        let Some(plan) = plan else { return Ok(None) };
        let free_bytes = self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
        let needed_bytes = plan.source_bytes;
        if free_bytes < needed_bytes.saturating_add(reserve_bytes) {
            let file = crate::base::base_path(plan.last);
            return Err(StorageError::NoSpace { file, needed_bytes, reserve_bytes, free_bytes });
        }
        Ok(Some(plan))
    }

    /// Goes by a base that was just committed, and removes what is needed no more: what the base before the last one
    /// rested on.
    ///
    /// # Errors
    /// When a file cannot be read or removed; the process must end then.
    ///
    /// # Panics
    /// When the base is not newer than the last.
    pub fn finish_rollup(&mut self, done: &RollupDone) -> Result<(), StorageError> {
        assert!(done.base > self.chains.base_number(), "base {} is newer than the last", done.base);
        let held = self.chains.base().map(|base| HeldBase::of(base.cut.number, &base.manifest));
        let base = Base::new(open_base(&self.disk, self.directory.id, done.base)?, Keep::Closed)?;
        self.chains.rest_on(&self.disk, base)?;
        sweep(&self.disk, &self.chains, held.as_ref())
    }

    /// The newest event minute of any view that the base holds; `None` without a base.
    #[must_use]
    pub fn base_minute_newest(&self) -> Option<Minute> {
        self.chains.base().map(|base| base.manifest.newest_minute)
    }

    /// How much the closed files are.
    #[must_use]
    pub fn figures(&self) -> StoreFigures {
        let by = |grain| FileFigures::of(self.chains.runs().iter().filter(move |run| run.grain() == grain));
        StoreFigures {
            cuts: FileFigures::of(self.chains.cuts().iter()),
            minutes: by(Grain::Minute),
            hours: by(Grain::Hour),
            days: by(Grain::Day),
            base: FileFigures::of(self.chains.base().map(|base| &base.source).into_iter()),
            base_number: self.chains.base_number(),
            cut_number: self.last_cut().map_or(0, |cut| cut.number),
        }
    }
}
