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
    /// Hellos and look-ups answered with a redirect to another core.
    pub redirects: u64,
    /// Times that intake waited for room in the log, in a lane or in a table.
    pub intake_waits: u64,
    /// Batches for which cores were asked which ids they know, because a table is nearly full.
    pub questions: u64,
    /// Views that came after the finality of their hour, and were counted.
    pub views_late: u64,
    /// Markers pushed; the same on every core, but for the one under way.
    pub markers: u64,
    /// Cut files written; counted by core 0.
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
    /// Adds what another core counts.
    pub fn add(&mut self, other: &Self) {
        fn add_all<const N: usize>(sums: &mut [u64; N], others: &[u64; N]) {
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
        }
        add_all(&mut self.views_refused, &other.views_refused);
        add_all(&mut self.views_refused_with_batch, &other.views_refused_with_batch);
        add_all(&mut self.batches_refused, &other.batches_refused);
        add_all(&mut self.sessions_closed, &other.sessions_closed);
        self.views_received += other.views_received;
        self.views_counted += other.views_counted;
        self.views_duplicate += other.views_duplicate;
        self.batches_counted += other.batches_counted;
        self.batches_duplicate += other.batches_duplicate;
        self.welcomes += other.welcomes;
        self.redirects += other.redirects;
        self.intake_waits += other.intake_waits;
        self.questions += other.questions;
        self.views_late += other.views_late;
        self.markers = self.markers.max(other.markers);
        self.cuts += other.cuts;
        self.log_bytes += other.log_bytes;
        self.producers += other.producers;
        self.lane_cells_waiting += other.lane_cells_waiting;
        self.videos += other.videos;
        self.videos_max += other.videos_max;
    }

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
