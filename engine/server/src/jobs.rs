//! The helper for long work from files to files, beside the one that owns the data directory: roll-ups and
//! closing periods.
//!
//! It runs at the lowest priority and writes gently, so that it takes only what nobody else wants. It is handed one job
//! at a time, decides nothing, and removes nothing but what it has not finished itself and lists that are too old.
//! Invariant: it is told to stop before the process waits for it, and then ends between two sections of a file, or two
//! shards of a period.

use crate::helpers::{NICE_MAX, give_way};
use crate::historian::Historian;
use crossbeam_channel::{Receiver, Sender, bounded};
use highwater_storage::{Disk, HistoryClosed, RollupDone, RollupPlan, RollupStop, StorageError, run_rollup};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What is to be done.
#[derive(Debug)]
pub enum Job {
    /// A roll-up.
    Rollup(Box<RollupPlan>),
    /// Closing the calendar periods that are final when every view which arrived before this time (ms UTC) is in the
    /// closed files.
    ClosePeriods(u64),
}

/// What came of a job.
#[derive(Debug)]
pub enum JobOutcome {
    /// Of a roll-up, and how long it took.
    Rollup(Result<RollupDone, RollupStop>, Duration),
    /// Of closing periods.
    ClosePeriods(Result<HistoryClosed, StorageError>),
}

/// The end of whoever hands out jobs.
pub struct JobDesk {
    jobs: Sender<Job>,
    outcomes: Receiver<JobOutcome>,
    /// Whether a job is being done.
    is_busy: bool,
}

/// The helper.
pub struct JobHelper {
    disk: Arc<dyn Disk>,
    historian: Historian,
    jobs: Receiver<Job>,
    outcomes: Sender<JobOutcome>,
    stop: Arc<AtomicBool>,
}

/// A helper that works on `disk` until the desk is gone, and gives up its job once `stop` is set.
pub fn job_helper(disk: Arc<dyn Disk>, historian: Historian, stop: Arc<AtomicBool>) -> (JobDesk, JobHelper) {
    let (jobs, received) = bounded(1);
    let (sender, outcomes) = bounded(1);
    (JobDesk { jobs, outcomes, is_busy: false }, JobHelper { disk, historian, jobs: received, outcomes: sender, stop })
}

impl JobDesk {
    /// Whether a job is being done, so that none can be handed out and no file it reads may go.
    pub const fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Hands out a job.
    ///
    /// # Panics
    /// When one is being done.
    pub fn hand_out(&mut self, job: Job) {
        assert!(!self.is_busy, "one job is done at a time");
        // A helper that is gone has ended with the process, or by a panic that ends it.
        self.is_busy = self.jobs.send(job).is_ok();
    }

    /// Where outcomes come; [`Self::put_back`] is told of each.
    pub const fn outcomes(&self) -> &Receiver<JobOutcome> {
        &self.outcomes
    }

    /// The job is done or given up, and its outcome was taken.
    pub const fn put_back(&mut self) {
        self.is_busy = false;
    }
}

impl JobHelper {
    /// Does jobs until the desk is gone.
    pub fn run(mut self) {
        if let Err(error) = give_way(NICE_MAX) {
            tracing::warn!("roll-ups and closing periods run at the priority of the other helpers: {error}");
        }
        while let Ok(job) = self.jobs.recv() {
            let started = Instant::now();
            let outcome = match job {
                Job::Rollup(plan) => {
                    let mut should_stop = || self.stop.load(Ordering::Relaxed);
                    JobOutcome::Rollup(run_rollup(&*self.disk, &plan, &mut should_stop), started.elapsed())
                }
                Job::ClosePeriods(horizon_ms) => JobOutcome::ClosePeriods(self.historian.close(horizon_ms, &self.stop)),
            };
            // Without a desk nobody needs to know: the next start finds what was committed.
            let _ = self.outcomes.send(outcome);
        }
    }
}
