//! The naive truth: every accepted view, counted anew for every snapshot.

use crate::engine::Setup;
use crate::world::rows_of;
use highwater_proto::{Period, Snapshot, VideoCounts, Window};
use highwater_ranking::{CalendarPeriod, Minute, WindowLengths};
use std::ops::Range;

/// Every period and window that a snapshot lists.
pub(crate) const BOARDS: [(Period, Window); 7] = [
    (Period::AllTime, Window::Sliding),
    (Period::Hour, Window::Sliding),
    (Period::Day, Window::Sliding),
    (Period::Month, Window::Sliding),
    (Period::Hour, Window::Tumbling),
    (Period::Day, Window::Tumbling),
    (Period::Month, Window::Tumbling),
];

/// An accepted view.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    video: usize,
    minute: Minute,
    arrival_ms: u64,
    visible_epoch: u64,
}

/// All accepted views.
pub(crate) struct Oracle {
    ids: Vec<String>,
    windows: WindowLengths,
    lateness_max_ms: u64,
    views: Vec<Accepted>,
}

impl Oracle {
    pub(crate) fn new(ids: Vec<String>, setup: &Setup) -> Self {
        Self { ids, windows: setup.windows, lateness_max_ms: setup.lateness_max_ms, views: Vec::new() }
    }

    pub(crate) fn accept(&mut self, video: usize, timestamp_ms: u64, arrival_ms: u64, visible_epoch: u64) {
        self.views.push(Accepted { video, minute: Minute::of_ms(timestamp_ms), arrival_ms, visible_epoch });
    }

    /// Whether a view of the video is in the snapshots from `epoch` on.
    pub(crate) fn knows(&self, video: usize, epoch: u64) -> bool {
        self.views.iter().any(|view| view.video == video && view.visible_epoch <= epoch)
    }

    /// Compares every list of a snapshot in full.
    pub(crate) fn check(&self, snapshot: &Snapshot, k: usize) {
        let minute = Minute::of_ms(snapshot.as_of_ms);
        for of in BOARDS {
            let counts = self.counts(of, minute, snapshot.epoch.0);
            let total_views: u64 = counts.iter().sum();
            let (expected, epoch) = (self.ranked(counts, k), snapshot.epoch.0);
            assert_eq!(rows_of(snapshot, of), expected, "{of:?} of epoch {epoch}");
            let board = snapshot.board(of.0, of.1).expect("every board is there");
            assert_eq!(board.total_views, total_views, "{of:?} of epoch {epoch}");
            let (minutes, _) = self.bounds(of, minute);
            let start_ms = (of.0 != Period::AllTime).then(|| minutes.start.start_ms());
            assert_eq!(board.start_ms, start_ms, "{of:?} of epoch {epoch}");
            if of.1 == Window::Tumbling {
                assert_eq!(board.end_ms, minutes.end.start_ms(), "{of:?} of epoch {epoch}");
            }
        }
    }

    /// Compares a look-up that was made when all views were counted.
    pub(crate) fn check_look_up(&self, found: &VideoCounts) {
        let minute = Minute::of_ms(found.as_of_ms);
        let video = self.ids.iter().position(|id| **id == *found.video_id).expect("one of the videos");
        for of in BOARDS {
            let expected = self.counts(of, minute, u64::MAX)[video];
            let count = found.counts.iter().find(|count| (count.period, count.window) == of);
            assert_eq!(count.map_or(0, |count| count.view_count), expected, "{of:?} of {}", found.video_id);
        }
    }

    /// The count of every video, of the views visible in an epoch.
    fn counts(&self, of: (Period, Window), minute: Minute, epoch: u64) -> Vec<u64> {
        let (minutes, kind) = self.bounds(of, minute);
        let mut counts = vec![0; self.ids.len()];
        for view in self.views.iter().filter(|view| view.visible_epoch <= epoch && minutes.contains(&view.minute)) {
            counts[view.video] += u64::from(kind.is_none_or(|kind| self.is_in_time(view, kind)));
        }
        counts
    }

    /// Whether a view came before the finality of its period.
    fn is_in_time(&self, view: &Accepted, kind: CalendarPeriod) -> bool {
        let end = self.windows.calendar.period_at(kind, view.minute).end;
        view.arrival_ms < end.start_ms() + self.lateness_max_ms
    }

    /// The minutes of a window at an engine minute, and the calendar's kind for a tumbling one.
    fn bounds(&self, (period, window): (Period, Window), minute: Minute) -> (Range<Minute>, Option<CalendarPeriod>) {
        let WindowLengths { hour, day, month, calendar } = self.windows;
        let kind = match period {
            Period::AllTime => return (Minute(0)..Minute(u32::MAX), None),
            Period::Hour => CalendarPeriod::Hour,
            Period::Day => CalendarPeriod::Day,
            Period::Month => CalendarPeriod::Month,
        };
        if window == Window::Tumbling {
            return (calendar.period_at(kind, minute), Some(kind));
        }
        let start = match kind {
            CalendarPeriod::Hour => minute.minus(hour),
            CalendarPeriod::Day => minute.minus(day),
            CalendarPeriod::Month => calendar.period_at(CalendarPeriod::Hour, minute.minus(month)).start,
        };
        (start..Minute(u32::MAX), None)
    }

    /// The top rows of counts by video.
    fn ranked(&self, counts: Vec<u64>, k: usize) -> Vec<(String, u64)> {
        let mut rows: Vec<(String, u64)> =
            self.ids.iter().cloned().zip(counts).filter(|(_, count)| *count > 0).collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_bytes().cmp(b.0.as_bytes())));
        rows.truncate(k);
        rows
    }
}
