//! The naive truth: every accepted view, counted anew for every snapshot.

use crate::world::rows;
use highwater_proto::{Period, Snapshot};
use highwater_ranking::{Minute, WindowLengths};

/// An accepted view.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    video: usize,
    minute: Minute,
    visible_epoch: u64,
}

/// All accepted views.
pub(crate) struct Oracle {
    ids: Vec<String>,
    windows: WindowLengths,
    views: Vec<Accepted>,
}

impl Oracle {
    pub(crate) fn new(ids: Vec<String>, windows: WindowLengths) -> Self {
        Self { ids, windows, views: Vec::new() }
    }

    pub(crate) fn accept(&mut self, video: usize, timestamp_ms: u64, visible_epoch: u64) {
        self.views.push(Accepted { video, minute: Minute::of_ms(timestamp_ms), visible_epoch });
    }

    /// Whether a view of the video is in the snapshots from `epoch` on.
    pub(crate) fn knows(&self, video: usize, epoch: u64) -> bool {
        self.views.iter().any(|view| view.video == video && view.visible_epoch <= epoch)
    }

    /// Compares every list of a snapshot in full.
    pub(crate) fn check(&self, snapshot: &Snapshot, k: usize) {
        let minute = Minute::of_ms(snapshot.as_of_ms);
        for period in Period::ALL {
            let start = match period {
                Period::AllTime => Minute(0),
                Period::Hour => minute.minus(self.windows.hour),
                Period::Day => minute.minus(self.windows.day),
                Period::Month => minute.minus(self.windows.month),
            };
            let mut counts = vec![0_u64; self.ids.len()];
            for view in &self.views {
                counts[view.video] += u64::from(view.visible_epoch <= snapshot.epoch.0 && view.minute >= start);
            }
            let mut expected: Vec<(String, u64)> =
                self.ids.iter().cloned().zip(counts).filter(|(_, count)| *count > 0).collect();
            expected.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_bytes().cmp(b.0.as_bytes())));
            expected.truncate(k);
            assert_eq!(rows(snapshot, period), expected, "{period:?} of epoch {}", snapshot.epoch.0);
        }
    }
}
