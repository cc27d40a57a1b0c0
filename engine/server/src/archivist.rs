//! The helper that copies log segments into the archive, and the storekeeper's end of it.
//!
//! Not the choice of what is copied, removed or given up, which is the store's. Invariant: one job at a time, on a
//! thread that yields to everything else; the log never waits for it.

use crate::helpers::{NICE_MAX, give_way};
use crossbeam_channel::{Receiver, Sender, bounded};
use highwater_storage::{ArchiveDone, ArchiveJob, ArchiveOutcome, ArchivePlan, Disk, StorageError, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How the archive stands, for the metrics. Written by the storekeeper.
#[derive(Debug, Default)]
pub struct ArchiveGauges {
    /// Archive files.
    pub files: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Segments that wait to be copied.
    pub waiting: AtomicU64,
    /// Segments copied since the start.
    pub copied: AtomicU64,
    /// Segments used again without having been copied, since the start.
    pub given_up: AtomicU64,
    /// Files removed by age or size, since the start.
    pub removed: AtomicU64,
    /// 1 while there is too little room for a file.
    pub paused: AtomicU64,
}

/// The storekeeper's end.
#[derive(Debug)]
pub struct ArchiveDesk {
    jobs: Sender<ArchiveJob>,
    /// Outcomes of jobs.
    pub done: Receiver<ArchiveDone>,
    gauges: Arc<ArchiveGauges>,
    is_paused: bool,
    has_warned: bool,
}

/// The helper's end.
pub struct Archivist<D> {
    disk: D,
    jobs: Receiver<ArchiveJob>,
    done: Sender<ArchiveDone>,
    stop: Arc<AtomicBool>,
}

/// Both ends. Once `stop` is set a job is broken off.
pub fn archive_desk<D: Disk>(
    disk: D,
    gauges: Arc<ArchiveGauges>,
    stop: Arc<AtomicBool>,
) -> (ArchiveDesk, Archivist<D>) {
    let (job_sender, jobs) = bounded(1);
    let (done_sender, done) = bounded(1);
    let desk = ArchiveDesk { jobs: job_sender, done, gauges, is_paused: false, has_warned: false };
    (desk, Archivist { disk, jobs, done: done_sender, stop })
}

impl<D: Disk> Archivist<D> {
    /// Does jobs until the storekeeper hangs up.
    pub fn run(self) {
        if let Err(error) = give_way(NICE_MAX) {
            tracing::warn!(%error, "the archive's helper keeps its priority, and may take time from others");
        }
        for job in &self.jobs {
            let done = job.run(&self.disk, || self.stop.load(Ordering::Relaxed));
            if self.done.send(done).is_err() {
                // The storekeeper has ended; what was made is found by its name at the next start.
                return;
            }
        }
    }
}

impl ArchiveDesk {
    /// Takes the outcome of a job.
    ///
    /// # Errors
    /// When the disk refused; only a full one is met with a pause.
    pub fn take<D: Disk>(&mut self, store: &mut Store<D>, done: ArchiveDone) -> Result<(), StorageError> {
        if let Ok(ArchiveOutcome::Written { views, raw_bytes, file_bytes, .. }) = &done.outcome {
            tracing::debug!(views, raw_bytes, file_bytes, "log segment archived");
            self.gauges.copied.fetch_add(1, Ordering::Relaxed);
        }
        match store.archive_done(done) {
            Ok(None) => {}
            Ok(Some(damage)) => tracing::error!("a log segment cannot be archived: {damage}"),
            Err(error) if error.is_no_space() => self.pause(&error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes what is kept no longer, and sets the helper to work on the next segment that waits.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn go_on<D: Disk>(&mut self, store: &mut Store<D>, log_retention_bytes: u64) -> Result<(), StorageError> {
        store.trim_archive()?;
        match store.plan_archive(log_retention_bytes)? {
            ArchivePlan::Nothing => {}
            ArchivePlan::NoRoom { free_bytes, needed_bytes } => {
                self.pause(&format!("{free_bytes} bytes are free, {needed_bytes} must be for its next file"));
            }
            ArchivePlan::Copy(job) => {
                if std::mem::take(&mut self.is_paused) {
                    tracing::info!("the archive goes on");
                }
                // The helper ends after the storekeeper, and had no other job.
                let _ = self.jobs.send(job);
            }
        }
        self.show(store, log_retention_bytes)
    }

    fn pause(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_paused, true) {
            tracing::warn!(
                "the archive pauses: {why}; free space on the data directory's file system, or lower --archive-retention"
            );
        }
    }

    fn show<D: Disk>(&mut self, store: &Store<D>, log_retention_bytes: u64) -> Result<(), StorageError> {
        let figures = store.archive_figures();
        let set = |gauge: &AtomicU64, value| gauge.store(value, Ordering::Relaxed);
        set(&self.gauges.files, figures.files);
        set(&self.gauges.bytes, figures.bytes);
        set(&self.gauges.waiting, store.archive_waiting(log_retention_bytes)?);
        set(&self.gauges.given_up, figures.shed.segments_given_up);
        set(&self.gauges.removed, figures.shed.files_removed);
        set(&self.gauges.paused, u64::from(self.is_paused));
        if figures.shed.segments_given_up > 0 && !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(
                "log segments were used again before they were archived, so the archive has gaps; further ones are \
                 counted by highwater_archive_segments_given_up_total: raise --log-retention, or see why the disk is \
                 slow or full"
            );
        }
        Ok(())
    }
}
