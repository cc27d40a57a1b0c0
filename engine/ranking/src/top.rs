//! Each core's frozen lists of one epoch, and their merge into the snapshot that is published.
//!
//! Cores own whole shards, so a video is in the lists of one core only and no counts are added
//! here. Invariant: a global top K consists of rows of the cores' own top Ks, so merging lists
//! that are exact up to K is exact up to K; order is count descending, then id ascending by
//! bytes, which is total, so equal state gives equal snapshots.

use highwater_proto::{Board, BoardRow, Epoch, InstanceId, Period, Snapshot, Window};

use crate::config::WindowLengths;
use crate::line::COUNT_MAX;
use crate::shard::{Edges, FIRST_WINDOW};
use crate::time::Minute;

/// One core's lists at the end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreTop {
    /// The epoch.
    pub epoch: Epoch,
    /// Its engine time, in ms UTC.
    pub time_ms: u64,
    /// The latest event minute that the core has counted.
    pub minute_max: Minute,
    /// The lists, in the same order on every core.
    pub boards: Vec<CoreBoard>,
}

/// One core's list of one period and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreBoard {
    /// The period.
    pub period: Period,
    /// The kind of window.
    pub window: Window,
    /// Views of all the core's videos in the window.
    pub total_views: u64,
    /// The core's top K, best first: id and count, counts at least 1.
    pub rows: Vec<(Box<str>, u64)>,
}

impl CoreTop {
    /// A video that has three quarters of all views that can be counted for one: its list, and its row. Nothing more
    /// should be applied until it has fewer.
    #[must_use]
    pub fn nearly_full(&self) -> Option<(&CoreBoard, &(Box<str>, u64))> {
        let first =
            self.boards.iter().zip(COUNT_MAX).filter_map(|(board, most)| Some((board, board.rows.first()?, most)));
        first.into_iter().find(|(_, row, most)| row.1 > most / 4 * 3).map(|(board, row, _)| (board, row))
    }
}

/// The snapshot of one epoch from the lists of all cores.
///
/// A sliding board starts at the minute of engine time less the window's length, the month's at the hour that minute
/// lies in; it ends with the later of the engine's minute and the latest minute counted by any core. A tumbling board
/// has the bounds of the calendar's period.
///
/// # Panics
/// When `cores` is empty or the lists are not of one epoch and shape: merging parts of different
/// cuts is a bug.
#[must_use]
pub fn merge(instance: InstanceId, cores: &[CoreTop], k: usize, windows: &WindowLengths) -> Snapshot {
    let first = cores.first().expect("a merge needs the lists of at least one core");
    for core in cores {
        assert!(
            core.epoch == first.epoch && core.time_ms == first.time_ms && core.boards.len() == first.boards.len(),
            "lists of epochs {:?} and {:?} were merged",
            first.epoch,
            core.epoch
        );
    }
    let minute = Minute::of_ms(first.time_ms);
    let minute_max = cores.iter().map(|core| core.minute_max).fold(minute, Minute::max);
    let edges = Edges::at(minute, windows);
    let boards = (0..first.boards.len()).map(|index| {
        let CoreBoard { period, window, .. } = first.boards[index];
        let bounds = index.checked_sub(FIRST_WINDOW);
        let end = bounds.filter(|_| window == Window::Tumbling).map(|bounds| edges.ends[bounds].start_ms());
        Board {
            period,
            window,
            start_ms: bounds.map(|bounds| edges.starts[bounds].start_ms()),
            end_ms: end.unwrap_or(minute_max.end_ms()),
            total_views: cores.iter().map(|core| core.boards[index].total_views).sum(),
            rows: merge_rows(cores, index, k),
        }
    });
    Snapshot { instance, epoch: first.epoch, as_of_ms: first.time_ms, boards: boards.collect() }
}

/// The first `k` rows over all cores.
fn merge_rows(cores: &[CoreTop], index: usize, k: usize) -> Vec<BoardRow> {
    let expected = (cores[0].boards[index].period, cores[0].boards[index].window);
    let mut rows: Vec<&(Box<str>, u64)> = Vec::new();
    for core in cores {
        let board = &core.boards[index];
        assert!((board.period, board.window) == expected, "cores list their boards in different orders");
        rows.extend(&board.rows);
    }
    rows.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_bytes().cmp(b.0.as_bytes())));
    rows.truncate(k);
    rows.into_iter().map(|(id, count)| BoardRow { video_id: id.clone(), view_count: *count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(rows: &[(&str, u64)], minute_max: u32) -> CoreTop {
        let rows: Vec<(Box<str>, u64)> = rows.iter().map(|&(id, count)| (id.into(), count)).collect();
        let board = |period| CoreBoard { period, window: Window::Sliding, total_views: 20, rows: rows.clone() };
        CoreTop {
            epoch: Epoch(5),
            time_ms: 100 * 60_000 + 30_000,
            minute_max: Minute(minute_max),
            boards: vec![board(Period::AllTime), board(Period::Hour)],
        }
    }

    #[test]
    fn a_count_near_its_most_is_told_before_it_is_reached() {
        let most = COUNT_MAX[1];
        assert_eq!(core(&[("a", most / 4 * 3)], 90).nearly_full(), None);
        assert_eq!(core(&[], 90).nearly_full(), None);
        let full = core(&[("a", most / 4 * 3 + 1), ("b", 1)], 90);
        let (board, row) = full.nearly_full().unwrap();
        assert_eq!((board.period, &*row.0), (Period::Hour, "a"), "all-time has room for more");
    }

    #[test]
    fn rows_merge_in_total_order_and_bounds_follow_time() {
        let cores = [core(&[("b", 9), ("a", 1)], 90), core(&[("c", 9), ("aa", 1)], 101)];
        let snapshot = merge(InstanceId(1), &cores, 3, &WindowLengths::default());
        assert_eq!((snapshot.epoch, snapshot.as_of_ms), (Epoch(5), 6_030_000));
        let hour = snapshot.board(Period::Hour, Window::Sliding).unwrap();
        assert_eq!((hour.start_ms, hour.end_ms, hour.total_views), (Some(40 * 60_000), 102 * 60_000, 40));
        let rows: Vec<_> = hour.rows.iter().map(|row| (&*row.video_id, row.view_count)).collect();
        assert_eq!(rows, [("b", 9), ("c", 9), ("a", 1)]);
        assert_eq!(snapshot.board(Period::AllTime, Window::Sliding).unwrap().start_ms, None);
    }

    #[test]
    #[should_panic(expected = "were merged")]
    fn lists_of_two_epochs_never_merge() {
        let mut cores = [core(&[], 0), core(&[], 0)];
        cores[1].epoch = Epoch(6);
        let _ = merge(InstanceId(1), &cores, 3, &WindowLengths::default());
    }
}
