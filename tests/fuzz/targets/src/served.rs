//! The routes of HTTP over a source that answers at once, always the same.
//!
//! Invariant: whatever stands in a request, there is an answer, and a short one.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use highwater_proto::{
    Board, BoardRow, ClosedPeriods, Epoch, HistoryAnswer, HistoryBounds, InstanceId, Period, PeriodsAnswer, Snapshot,
    VideoCounts, Window,
};
use highwater_sidecar::{LookupError, SnapshotSource, SourceStatus, router};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

/// 2024-07-15T12:00:00Z.
const NOON_MS: u64 = 1_721_044_800_000;
const BODY_BYTES_MAX: usize = 64 << 10;

/// Answers at once, always the same.
struct Source(Arc<Snapshot>);

impl SnapshotSource for Source {
    fn latest(&self) -> Option<Arc<Snapshot>> {
        Some(self.0.clone())
    }

    async fn wait_for(&self, epoch: Epoch, _timeout: Duration) -> bool {
        self.0.epoch >= epoch
    }

    async fn lookup(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        assert!((1..=255).contains(&video_id.len()), "an id of {} bytes is asked for", video_id.len());
        let (instance, epoch) = (self.0.instance, self.0.epoch);
        Ok(VideoCounts { instance, video_id: video_id.into(), epoch, as_of_ms: NOON_MS, counts: Vec::new() })
    }

    async fn closed_list(&self, period: Period, start_ms: u64) -> Result<HistoryAnswer, LookupError> {
        assert!(start_ms < NOON_MS && period != Period::AllTime, "only what has begun is asked for");
        Ok(HistoryAnswer { instance: self.0.instance, period, start_ms, bounds: bounds(), list: Ok(None) })
    }

    async fn closed_periods(
        &self,
        period: Period,
        _before_ms: Option<u64>,
        limit: u16,
    ) -> Result<PeriodsAnswer, LookupError> {
        assert!((1..=1000).contains(&limit) && period != Period::AllTime, "{limit} periods are asked for");
        let periods = Ok(ClosedPeriods::default());
        Ok(PeriodsAnswer { instance: self.0.instance, period, bounds: bounds(), periods })
    }

    fn status(&self) -> SourceStatus {
        SourceStatus::ready()
    }

    fn metrics(&self) -> String {
        String::new()
    }
}

const fn bounds() -> HistoryBounds {
    HistoryBounds { closed_until_ms: NOON_MS - 3_600_000, oldest_start_ms: None, lateness_max_ms: 600_000 }
}

fn snapshot() -> Arc<Snapshot> {
    let rows: Vec<BoardRow> =
        (0..20).map(|index| BoardRow { video_id: format!("video-{index}").into(), view_count: 100 - index }).collect();
    let mut boards = Vec::new();
    for period in Period::ALL {
        for window in Window::ALL.into_iter().take(if period == Period::AllTime { 1 } else { 2 }) {
            let start_ms = (period != Period::AllTime).then_some(NOON_MS - 3_600_000);
            let rows = rows.clone();
            boards.push(Board { period, window, start_ms, end_ms: NOON_MS, total_views: 5000, rows });
        }
    }
    Arc::new(Snapshot { instance: InstanceId(1), epoch: Epoch(7), as_of_ms: NOON_MS, boards })
}

/// The routes, and what runs them.
struct Served {
    runtime: tokio::runtime::Runtime,
    routes: TowerToHyperService<Router>,
}

thread_local! {
    static SERVED: RefCell<Served> = RefCell::new(Served {
        runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime can be made"),
        routes: TowerToHyperService::new(router(Arc::new(Source(snapshot())))),
    });
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("it is text"))
    }
}

/// The answer to a request with these headers; none where the path and query are no URI.
pub(crate) fn asked(path_and_query: &str, headers: HeaderMap) -> Option<Answer> {
    let mut request = Request::builder().uri(path_and_query).body(Body::empty()).ok()?;
    *request.headers_mut() = headers;
    SERVED.with_borrow_mut(|served| {
        let answer = served.runtime.block_on(async {
            let answer = served.routes.call(request).await.expect("routes always answer");
            let (parts, body) = answer.into_parts();
            let body = to_bytes(body, BODY_BYTES_MAX).await.expect("the answer is short").to_vec();
            Answer { status: parts.status, headers: parts.headers, body }
        });
        Some(answer)
    })
}
