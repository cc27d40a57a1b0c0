//! The bodies of a top list and of a video's counts, and a small cache of the former.
//!
//! Invariant: a body is a pure function of (snapshot, period, k), so a cached one is as good as a new one; the cache
//! holds bodies of one snapshot only, at most [`BODIES_MAX`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_proto::{Board, Period, Snapshot, VideoCounts, Window};
use jiff::Timestamp;
use serde::Serialize;

use crate::json;

/// Bodies kept for one snapshot: readers mostly ask for the same few `k`.
const BODIES_MAX: usize = 32;

#[derive(Serialize)]
struct Top<'a> {
    period: &'static str,
    window: &'static str,
    start_time: Option<String>,
    end_time: String,
    as_of: String,
    epoch: u64,
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

/// The body for one video: every period, shortest first, also those of which nothing is known.
pub(crate) fn views_body(counts: &VideoCounts) -> Bytes {
    let window = Window::Sliding;
    let of_period = |period: Period| {
        let count = counts.counts.iter().find(|count| count.period == period && count.window == window);
        PeriodViews {
            period: period.as_str(),
            window: window.as_str(),
            view_count: count.map_or(0, |count| count.view_count),
            rank: count.and_then(|count| count.rank),
        }
    };
    let views = Views {
        video_id: &counts.video_id,
        as_of: format!("{:.3}", timestamp(counts.as_of_ms)),
        epoch: counts.epoch.0,
        views: Period::ALL.map(of_period).into(),
    };
    json::to_vec(&views).into()
}

/// The body for the first `k` rows of a board.
fn body(snapshot: &Snapshot, board: &Board, k: usize) -> Bytes {
    let rows = board.rows.iter().take(k).enumerate();
    let top = Top {
        period: board.period.as_str(),
        window: board.window.as_str(),
        start_time: board.start_ms.map(rfc3339),
        end_time: rfc3339(board.end_ms),
        as_of: format!("{:.3}", timestamp(snapshot.as_of_ms)),
        epoch: snapshot.epoch.0,
        top_videos: rows
            .map(|(index, row)| Row { rank: index + 1, video_id: &row.video_id, view_count: row.view_count })
            .collect(),
    };
    json::to_vec(&top).into()
}

/// RFC 3339 in UTC, with milliseconds only where there are any.
fn rfc3339(time_ms: u64) -> String {
    let time = timestamp(time_ms);
    if time_ms.is_multiple_of(1000) { format!("{time:.0}") } else { format!("{time:.3}") }
}

/// Times beyond what can be written are written as the last that can.
fn timestamp(time_ms: u64) -> Timestamp {
    i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

/// Bodies already made for the snapshot that is the newest.
#[derive(Default)]
pub(crate) struct Bodies {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    snapshot: Option<Arc<Snapshot>>,
    bodies: HashMap<(Period, usize), Bytes>,
}

impl Bodies {
    /// The body for (snapshot, period, k); `None` if the snapshot has no such board.
    pub(crate) fn body(&self, snapshot: &Arc<Snapshot>, period: Period, k: usize) -> Option<Bytes> {
        let board = snapshot.board(period, Window::Sliding)?;
        let k = k.min(board.rows.len());
        if let Some(body) = self.find(snapshot, period, k) {
            return Some(body);
        }
        let body = body(snapshot, board, k);
        self.keep(snapshot, period, k, body.clone());
        Some(body)
    }

    fn find(&self, snapshot: &Arc<Snapshot>, period: Period, k: usize) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = kept.snapshot.as_ref().is_some_and(|one| Arc::ptr_eq(one, snapshot));
        same.then(|| kept.bodies.get(&(period, k)).cloned()).flatten()
    }

    fn keep(&self, snapshot: &Arc<Snapshot>, period: Period, k: usize, body: Bytes) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &kept.snapshot {
            Some(one) if Arc::ptr_eq(one, snapshot) => {}
            // A request that was overtaken by a newer snapshot must not throw the newer one's bodies away.
            Some(one) if one.instance == snapshot.instance && one.epoch > snapshot.epoch => return,
            _ => {
                kept.bodies.clear();
                kept.snapshot = Some(snapshot.clone());
            }
        }
        if kept.bodies.len() < BODIES_MAX {
            kept.bodies.insert((period, k), body);
        }
    }
}
