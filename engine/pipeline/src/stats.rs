//! What a core counts about itself. Plain numbers with one writer; the shell publishes a copy with each snapshot.
//!
//! Invariant, checked by the tests: `views_received = views_counted + views_duplicate + refused views`, by reason.

use highwater_proto::{BatchRefusal, CloseReason, ViewRefusal};

/// Counters of one core since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Views of all batches that were answered.
    pub views_received: u64,
    /// Views counted.
    pub views_counted: u64,
    /// Views of batches that had been counted before.
    pub views_duplicate: u64,
    /// Views refused one by one, by reason code.
    pub views_refused: [u64; ViewRefusal::ALL.len()],
    /// Views of batches refused as a whole, by reason code.
    pub views_refused_with_batch: [u64; BatchRefusal::ALL.len()],
    /// Batches made durable and counted.
    pub batches_counted: u64,
    /// Batches answered as duplicates.
    pub batches_duplicate: u64,
    /// Batches refused as a whole, by reason.
    pub batches_refused: [u64; BatchRefusal::ALL.len()],
    /// Sessions closed by the engine, by close code.
    pub sessions_closed: [u64; CloseReason::ALL.len()],
    /// Hellos answered with a welcome.
    pub welcomes: u64,
    /// Hellos answered with a redirect to the home core.
    pub redirects: u64,
    /// Times that intake waited for room in the log or in a lane.
    pub intake_waits: u64,
    /// Views that came after the finality of their hour, and were counted.
    pub views_late: u64,
    /// Markers issued.
    pub markers: u64,
    /// Cut files written.
    pub cuts: u64,
    /// Bytes appended to the log, headers and padding not included.
    pub log_bytes: u64,
    /// Producers known.
    pub producers: u64,
    /// Cells waiting in the lanes into this core.
    pub lane_cells_waiting: u64,
    /// Distinct videos in the table.
    pub videos: u64,
    /// Distinct videos that the table can hold.
    pub videos_max: u64,
}

impl Stats {
    pub(crate) fn refuse_view(&mut self, reason: ViewRefusal, count: u32) {
        self.views_refused[ViewRefusal::ALL.iter().position(|one| *one == reason).unwrap_or(0)] += u64::from(count);
    }

    pub(crate) fn refuse_batch(&mut self, reason: BatchRefusal, views: u32) {
        let index = BatchRefusal::ALL.iter().position(|one| *one == reason).unwrap_or(0);
        self.batches_refused[index] += 1;
        self.views_refused_with_batch[index] += u64::from(views);
        self.views_received += u64::from(views);
    }

    pub(crate) fn close_session(&mut self, reason: CloseReason) {
        self.sessions_closed[CloseReason::ALL.iter().position(|one| *one == reason).unwrap_or(0)] += 1;
    }
}
