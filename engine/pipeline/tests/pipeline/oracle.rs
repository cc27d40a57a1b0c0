//! The naive truth: every accepted view, counted anew for every snapshot.

use crate::engine::Setup;
use crate::ledger::BatchKey;
use crate::world::rows_of;
use highwater_proto::{LISTS, Period, Snapshot, VideoCounts, Window};
use highwater_ranking::{CalendarPeriod, Minute, WindowLengths};
use highwater_storage::{History, StorageError};
use std::collections::BTreeMap;
use std::ops::Range;

/// An accepted view.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    batch: BatchKey,
    video: usize,
    minute: Minute,
    arrival_ms: u64,
    visible_epoch: u64,
}

/// All accepted views.
#[derive(Clone)]
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

    pub(crate) fn accept(
        &mut self,
        batch: BatchKey,
        video: usize,
        timestamp_ms: u64,
        arrival_ms: u64,
        visible_epoch: u64,
    ) {
        let minute = Minute::of_ms(timestamp_ms);
        self.views.push(Accepted { batch, video, minute, arrival_ms, visible_epoch });
    }

    /// A batch is lost.
    pub(crate) fn forget(&mut self, batch: BatchKey) {
        self.views.retain(|view| view.batch != batch);
    }

    /// Whether a view of the video is in the snapshots from `epoch` on.
    pub(crate) fn knows(&self, video: usize, epoch: u64) -> bool {
        self.views.iter().any(|view| view.video == video && view.visible_epoch <= epoch)
    }

    /// Compares every list of a snapshot in full.
    pub(crate) fn check(&self, snapshot: &Snapshot, k: usize) {
        let minute = Minute::of_ms(snapshot.as_of_ms);
        for of in LISTS {
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

    /// Compares a look-up that was made when the views visible in an epoch were counted, and others perhaps.
    pub(crate) fn check_look_up(&self, found: &VideoCounts, epoch: u64) {
        let minute = Minute::of_ms(found.as_of_ms);
        let video = self.ids.iter().position(|id| **id == *found.video_id).expect("one of the videos");
        for of in LISTS {
            let counted = self.counts(of, minute, epoch)[video]..=self.counts(of, minute, u64::MAX)[video];
            let count = found.counts.iter().find(|count| (count.period, count.window) == of);
            let count = count.map_or(0, |count| count.view_count);
            assert!(counted.contains(&count), "{count} is not in {counted:?}: {of:?} of {found:?}");
        }
    }

    /// Compares all lists of closed periods, and which there are: of every period with a view that came in time.
    pub(crate) fn check_history(&self, history: &History, k: usize) -> Result<(), StorageError> {
        CalendarPeriod::ALL.iter().try_for_each(|kind| self.check_closed(*kind, history, k))
    }

    /// Compares those of one kind.
    fn check_closed(&self, kind: CalendarPeriod, history: &History, k: usize) -> Result<(), StorageError> {
        let closed_up_to = history.closed_up_to(kind)?.unwrap_or_default();
        let mut expected: BTreeMap<Minute, Vec<u64>> = BTreeMap::new();
        for view in self.views.iter().filter(|view| self.is_in_time(view, kind)) {
            let period = self.windows.calendar.period_at(kind, view.minute);
            if period.end <= closed_up_to {
                expected.entry(period.start).or_insert_with(|| vec![0; self.ids.len()])[view.video] += 1;
            }
        }
        let found = history.periods(kind, None, usize::MAX)?;
        // A list is written before the period is said to be closed.
        let is_said = |start: &Minute| self.windows.calendar.period_at(kind, *start).end <= closed_up_to;
        let found: Vec<Minute> = found.iter().rev().map(|period| period.start).filter(is_said).collect();
        assert_eq!(found, expected.keys().copied().collect::<Vec<_>>(), "periods of kind {kind:?} that are closed");
        for (start, counts) in expected {
            let list = history.list(kind, start)?.expect("it is closed");
            let (views, videos) = (counts.iter().sum::<u64>(), counts.iter().filter(|count| **count > 0).count());
            assert_eq!((list.total_views, list.videos), (views, videos as u64), "{kind:?} from {start:?}");
            let rows: Vec<_> = list.rows.iter().map(|(id, count)| (id.to_string(), *count)).collect();
            assert_eq!(rows, self.ranked(counts, k), "{kind:?} from {start:?}");
        }
        Ok(())
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
