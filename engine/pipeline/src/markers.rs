//! Epochs and engine time: when the next marker is due, and with which number.
//!
//! Only core 0 has one of these. Invariants: epochs only grow, and none is used before it is leased durably; a marker
//! of a new minute is issued only when that minute is durable; the marker of e+1 only when e is published.

use crate::limits::{EPOCHS_LEFT_MIN, EPOCHS_PER_LEASE, MARKER_INTERVAL_MS};
use crate::messages::StoreRequest;
use highwater_proto::Epoch;
use highwater_ranking::Minute;

/// The state of the marker issuer.
#[derive(Debug)]
pub(crate) struct Markers {
    issued: Epoch,
    published: Epoch,
    lease_end: Epoch,
    lease_asked: bool,
    time_ms: u64,
    minute_durable: Minute,
    minute_asked: Minute,
    due_ms: u64,
}

impl Markers {
    /// `issued` is the last epoch that may have been used before; `lease_end` the last that may be used now.
    pub(crate) fn new(issued: Epoch, lease_end: Epoch, time_ms: u64) -> Self {
        let minute = Minute::of_ms(time_ms);
        Self {
            issued,
            published: issued,
            lease_end,
            lease_asked: false,
            time_ms,
            minute_durable: minute,
            minute_asked: minute,
            due_ms: time_ms,
        }
    }

    /// When the next marker is due, in engine time.
    pub(crate) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Whether the last marker's snapshot is out.
    pub(crate) fn is_published(&self) -> bool {
        self.published == self.issued
    }

    pub(crate) fn handle_published(&mut self, epoch: Epoch) {
        assert_eq!(epoch, self.issued, "the epoch that was issued last is published next");
        self.published = epoch;
    }

    pub(crate) fn handle_leased(&mut self, end: Epoch) {
        self.lease_end = end;
        self.lease_asked = false;
    }

    pub(crate) fn handle_minute(&mut self, minute: Minute) {
        self.minute_durable = minute;
    }

    /// The errands that must be done before the marker that is due at `now_ms`, each asked for once.
    pub(crate) fn poll_errand(&mut self, now_ms: u64) -> Option<StoreRequest> {
        if !self.lease_asked && self.lease_end.0 - self.issued.0 < EPOCHS_LEFT_MIN {
            self.lease_asked = true;
            return Some(StoreRequest::LeaseEpochs { count: EPOCHS_PER_LEASE });
        }
        let minute = Minute::of_ms(now_ms);
        if minute > self.minute_asked && now_ms >= self.due_ms {
            self.minute_asked = minute;
            return Some(StoreRequest::RecordMinute(minute));
        }
        None
    }

    /// Issues the marker that is due, or that is `wanted` at once: its epoch and engine time.
    pub(crate) fn poll_marker(&mut self, now_ms: u64, wanted: bool) -> Option<(Epoch, u64)> {
        let ready = self.is_published() && self.issued.0 < self.lease_end.0;
        if !ready || (now_ms < self.due_ms && !wanted) {
            return None;
        }
        let minute_end_ms = (u64::from(self.minute_durable.0) + 1) * 60_000;
        // Until the new minute is durable, only its predecessor may be stated; that is not worth a marker.
        if now_ms >= minute_end_ms {
            return None;
        }
        self.time_ms = self.time_ms.max(now_ms);
        self.issued = self.issued.next();
        self.due_ms = (now_ms / MARKER_INTERVAL_MS + 1) * MARKER_INTERVAL_MS;
        Some((self.issued, self.time_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START_MS: u64 = 60_000 * 1000;

    #[test]
    fn the_next_marker_waits_for_its_second_and_for_the_snapshot_before_it() {
        let mut markers = Markers::new(Epoch(5), Epoch(500), START_MS);
        assert_eq!(markers.poll_marker(START_MS, false), Some((Epoch(6), START_MS)));
        assert_eq!(markers.poll_marker(START_MS + 5000, false), None, "epoch 6 is not published");
        markers.handle_published(Epoch(6));
        assert_eq!(markers.poll_marker(START_MS + 999, false), None);
        assert_eq!(markers.poll_marker(START_MS + 1000, false), Some((Epoch(7), START_MS + 1000)));
    }

    #[test]
    fn a_new_minute_is_durable_before_its_first_marker() {
        let mut markers = Markers::new(Epoch(0), Epoch(500), START_MS);
        let next_ms = START_MS + 60_000;
        assert_eq!(markers.poll_marker(next_ms, false), None);
        assert!(matches!(markers.poll_errand(next_ms), Some(StoreRequest::RecordMinute(Minute(1001)))));
        assert!(markers.poll_errand(next_ms).is_none(), "asked once");
        assert_eq!(markers.poll_marker(next_ms, true), None);
        markers.handle_minute(Minute(1001));
        assert_eq!(markers.poll_marker(next_ms, false), Some((Epoch(1), next_ms)));
    }

    #[test]
    fn epochs_are_leased_before_they_are_used() {
        let mut markers = Markers::new(Epoch(0), Epoch(1), START_MS);
        assert!(matches!(markers.poll_errand(START_MS), Some(StoreRequest::LeaseEpochs { .. })));
        assert!(markers.poll_errand(START_MS).is_none(), "asked once");
        assert!(markers.poll_marker(START_MS, false).is_some());
        markers.handle_published(Epoch(1));
        assert_eq!(markers.poll_marker(START_MS + 1000, false), None);
        markers.handle_leased(Epoch(4097));
        assert_eq!(markers.poll_marker(START_MS + 1000, false), Some((Epoch(2), START_MS + 1000)));
    }
}
