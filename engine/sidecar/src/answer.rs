//! The bodies of top lists and of a video's counts, and a small cache of those of the newest snapshot.
//!
//! Invariant: a body is a pure function of (snapshot, period, window, k) or of (final list, k), so a cached one is as
//! good as a new one; the cache holds bodies of one snapshot only, at most [`BODIES_MAX`] and [`BODIES_BYTES_MAX`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_proto::{Board, BoardRow, ClosedList, Period, Snapshot, VideoCounts, Window};
use serde::Serialize;

use crate::body::{Body, Shelf};
use crate::json;
use crate::time::{rfc3339, rfc3339_ms};

/// Bodies kept for one snapshot: readers mostly ask for the same few `k`.
const BODIES_MAX: usize = 32;
/// Plain bytes of them. One of 1000 rows has 57 KB with ids of 11 characters, 300 KB with the longest, and 1.6 MB if
/// all of these have to be escaped.
const BODIES_BYTES_MAX: usize = 16 << 20;

#[derive(Serialize)]
struct Top<'a> {
    period: &'static str,
    window: &'static str,
    start_time: Option<String>,
    end_time: String,
    /// Whether a tumbling period's list is its last; a sliding one never has a last.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#final: Option<bool>,
    /// Of a snapshot's list; a final one is as of no time.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    total_views: u64,
    other_views: u64,
    top_videos: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    rank: usize,
    video_id: &'a str,
    view_count: u64,
}

#[derive(Serialize)]
struct Views<'a> {
    video_id: &'a str,
    as_of: String,
    epoch: u64,
    views: Vec<PeriodViews>,
}

#[derive(Serialize)]
struct PeriodViews {
    period: &'static str,
    window: &'static str,
    view_count: u64,
    rank: Option<u32>,
}

/// Every period and window, shortest first; all-time has one window.
const VIEWS_OF: [(Period, Window); 7] = [
    (Period::Hour, Window::Sliding),
    (Period::Hour, Window::Tumbling),
    (Period::Day, Window::Sliding),
    (Period::Day, Window::Tumbling),
    (Period::Month, Window::Sliding),
    (Period::Month, Window::Tumbling),
    (Period::AllTime, Window::Sliding),
];

/// The body for one video: every period and window, also those of which nothing is known.
pub(crate) fn views_body(counts: &VideoCounts) -> Bytes {
    let of_window = |(period, window): (Period, Window)| {
        let count = counts.counts.iter().find(|count| (count.period, count.window) == (period, window));
        PeriodViews {
            period: period.as_str(),
            window: window.as_str(),
            view_count: count.map_or(0, |count| count.view_count),
            rank: count.and_then(|count| count.rank),
        }
    };
    let views = Views {
        video_id: &counts.video_id,
        as_of: rfc3339_ms(counts.as_of_ms),
        epoch: counts.epoch.0,
        views: VIEWS_OF.map(of_window).into(),
    };
    json::to_vec(&views).into()
}

/// The body for the first `k` rows of a board.
fn body(snapshot: &Snapshot, board: &Board, k: usize) -> Body {
    let (top_videos, other_views) = listed(&board.rows, k, board.total_views);
    let top = Top {
        period: board.period.as_str(),
        window: board.window.as_str(),
        start_time: board.start_ms.map(rfc3339),
        end_time: rfc3339(board.end_ms),
        r#final: (board.window == Window::Tumbling).then_some(false),
        as_of: Some(rfc3339_ms(snapshot.as_of_ms)),
        epoch: Some(snapshot.epoch.0),
        total_views: board.total_views,
        other_views,
        top_videos,
    };
    Body::new(json::to_vec(&top))
}

/// The body for the first `k` rows of a final list.
pub(crate) fn closed_body(list: &ClosedList, k: usize) -> Body {
    let (top_videos, other_views) = listed(&list.rows, k, list.total_views);
    let top = Top {
        period: list.period.as_str(),
        window: Window::Tumbling.as_str(),
        start_time: Some(rfc3339(list.start_ms)),
        end_time: rfc3339(list.end_ms),
        r#final: Some(true),
        as_of: None,
        epoch: None,
        total_views: list.total_views,
        other_views,
        top_videos,
    };
    Body::new(json::to_vec(&top))
}

/// The first `k` rows, and the views that are not of their videos.
fn listed(rows: &[BoardRow], k: usize, total_views: u64) -> (Vec<Row<'_>>, u64) {
    let rows = &rows[..k.min(rows.len())];
    let other_views = rows.iter().fold(total_views, |left, row| left.saturating_sub(row.view_count));
    let ranked = (1..).zip(rows);
    (ranked.map(|(rank, row)| Row { rank, video_id: &row.video_id, view_count: row.view_count }).collect(), other_views)
}

/// Period, window and rows of a body.
type BodyKey = (Period, Window, usize);

/// Bodies already made for the snapshot that is the newest.
#[derive(Default)]
pub(crate) struct Bodies {
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    snapshot: Arc<Snapshot>,
    bodies: Shelf<BodyKey>,
}

impl Bodies {
    /// The body for (snapshot, period, window, k); `None` if the snapshot has no such board.
    pub(crate) fn body(&self, snapshot: &Arc<Snapshot>, period: Period, window: Window, k: usize) -> Option<Arc<Body>> {
        let board = snapshot.board(period, window)?;
        let key = (period, window, k.min(board.rows.len()));
        let kept = self.find(snapshot, key);
        Some(kept.unwrap_or_else(|| self.keep(snapshot, key, body(snapshot, board, k))))
    }

    fn find(&self, snapshot: &Arc<Snapshot>, key: BodyKey) -> Option<Arc<Body>> {
        let kept = self.kept();
        kept.as_ref().filter(|kept| Arc::ptr_eq(&kept.snapshot, snapshot))?.bodies.find(&key)
    }

    fn keep(&self, snapshot: &Arc<Snapshot>, key: BodyKey, body: Body) -> Arc<Body> {
        let mut kept = self.kept();
        // A request that was overtaken by a newer snapshot must not throw the newer one's bodies away.
        let is_overtaken = |one: &Snapshot| one.instance == snapshot.instance && one.epoch > snapshot.epoch;
        match &mut *kept {
            Some(kept) if Arc::ptr_eq(&kept.snapshot, snapshot) => kept.bodies.put(key, body),
            Some(kept) if is_overtaken(&kept.snapshot) => Arc::new(body.forgo_gzip()),
            older => {
                let mut bodies = Shelf::new(BODIES_MAX, BODIES_BYTES_MAX);
                let body = bodies.put(key, body);
                *older = Some(Kept { snapshot: snapshot.clone(), bodies });
                body
            }
        }
    }

    /// What is kept; a panic elsewhere leaves it whole, because what is put in is whole before.
    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
