//! Rankings as they are published: snapshots, boards, and one video's counts.
//!
//! What it is not: the counting; see the ranking crate. Invariant: rows of a board are ordered by `view_count`
//! descending, then `video_id` ascending by bytes, and none has a count of 0.

use super::{Epoch, InstanceId, Period, Window};

/// A consistent cut: every board as of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The data directory it came from.
    pub instance: InstanceId,
    /// Holds exactly the batches with a visible epoch up to this one.
    pub epoch: Epoch,
    /// Engine time of the cut, milliseconds since 1970 (UTC).
    pub as_of_ms: u64,
    /// At most one board per period and window.
    pub boards: Vec<Board>,
}

/// The ranking of one period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// What length of time it covers.
    pub period: Period,
    /// How that moves; sliding for all-time.
    pub window: Window,
    /// Start of the window in event time, inclusive; none for all-time.
    pub start_ms: Option<u64>,
    /// End of the window in event time, exclusive.
    pub end_ms: u64,
    /// The views of all videos in the window, listed or not; at least the sum of the rows.
    pub total_views: u64,
    /// The top rows; the rank of a row is its index plus 1.
    pub rows: Vec<BoardRow>,
}

/// One ranked video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardRow {
    /// The video.
    pub video_id: Box<str>,
    /// Its views in the window, at least 1.
    pub view_count: u64,
}

/// One video's counts in every period; the answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VideoCounts {
    /// The data directory it came from.
    pub instance: InstanceId,
    /// The video asked for.
    pub video_id: Box<str>,
    /// The last epoch applied where the video is counted.
    pub epoch: Epoch,
    /// Engine time of that epoch, milliseconds since 1970 (UTC).
    pub as_of_ms: u64,
    /// One per period and window; a missing one means 0 views.
    pub counts: Vec<PeriodCount>,
}

/// One video's views in one period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodCount {
    /// The period.
    pub period: Period,
    /// Its window; sliding for all-time.
    pub window: Window,
    /// Views in it.
    pub view_count: u64,
    /// The rank from 1 where the video is in the published list, else none.
    pub rank: Option<u32>,
}

impl Snapshot {
    /// The board of that period and window, if the engine keeps it. All-time has one board, whatever the window asked
    /// for.
    pub fn board(&self, period: Period, window: Window) -> Option<&Board> {
        self.boards.iter().find(|board| board.period == period && (board.window == window || period == Period::AllTime))
    }
}

impl Board {
    /// The views of the listed videos.
    pub fn listed_views(&self) -> u64 {
        self.rows.iter().fold(0, |sum, row| sum.saturating_add(row.view_count))
    }

    /// The rank of a video, from 1, if it is in the list. Cost: one comparison of ids for each row before it.
    pub fn rank(&self, video_id: &str) -> Option<u32> {
        let index = self.rows.iter().position(|row| *row.video_id == *video_id)?;
        u32::try_from(index + 1).ok()
    }
}

impl VideoCounts {
    /// Takes every rank from the lists of `snapshot`: what one core counts cannot tell where a video stands among those
    /// of all cores.
    pub fn rank_by(&mut self, snapshot: &Snapshot) {
        for count in &mut self.counts {
            let board = snapshot.board(count.period, count.window);
            count.rank = board.and_then(|board| board.rank(&self.video_id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_from_the_lists_of_the_snapshot() {
        let row = |video_id: &str| BoardRow { video_id: video_id.into(), view_count: 2 };
        let board = |period, ids: &[&str]| Board {
            period,
            window: Window::Sliding,
            start_ms: None,
            end_ms: 1,
            total_views: 9,
            rows: ids.iter().map(|id| row(id)).collect(),
        };
        let boards = vec![board(Period::Hour, &["a", "b"]), board(Period::Day, &["a"])];
        let snapshot = Snapshot { instance: InstanceId(1), epoch: Epoch(1), as_of_ms: 0, boards };
        let count = |period| PeriodCount { period, window: Window::Sliding, view_count: 2, rank: Some(9) };
        let counts = [Period::Hour, Period::Day, Period::Month].map(count).into();
        let mut counts =
            VideoCounts { instance: InstanceId(1), video_id: "b".into(), epoch: Epoch(1), as_of_ms: 0, counts };
        counts.rank_by(&snapshot);
        assert_eq!(counts.counts.iter().map(|count| count.rank).collect::<Vec<_>>(), [Some(2), None, None]);
    }

    #[test]
    fn boards_are_found_by_period_and_window() {
        let board =
            |period, window| Board { period, window, start_ms: None, end_ms: 1, total_views: 0, rows: Vec::new() };
        let boards = vec![board(Period::Hour, Window::Sliding), board(Period::AllTime, Window::Sliding)];
        let snapshot = Snapshot { instance: InstanceId(1), epoch: Epoch(1), as_of_ms: 0, boards };
        assert!(snapshot.board(Period::Hour, Window::Sliding).is_some());
        assert!(snapshot.board(Period::Hour, Window::Tumbling).is_none());
        assert!(snapshot.board(Period::AllTime, Window::Tumbling).is_some());
    }
}
