//! The queries of HTTP, through the routes: an answer or a problem that names its parameter, and the same one when
//! every byte of the query is escaped.
//!
//! Input: the route, by its first byte, then the query as it stands behind the question mark.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use highwater_proto::{
    Board, BoardRow, ClosedPeriods, Epoch, HistoryAnswer, HistoryBounds, InstanceId, Period, PeriodsAnswer, Snapshot,
    VideoCounts, Window,
};
use highwater_sidecar::{K_MAX, LookupError, PROBLEM_CONTENT_TYPE, SnapshotSource, SourceStatus, router};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;

use crate::bounds::bounded;

const PATHS: [&str; 3] = ["/v1/videos/top", "/v1/videos/views", "/v1/periods"];
/// 2024-07-15T12:00:00Z.
const NOON_MS: u64 = 1_721_044_800_000;
const QUERY_BYTES_MAX: usize = 8 << 10;
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

/// Status, content type and body of an answer; none where the query stands in no URI.
fn asked(path: &str, query: &str) -> Option<(StatusCode, String, Vec<u8>)> {
    let request = Request::builder().uri(format!("{path}?{query}")).body(Body::empty()).ok()?;
    SERVED.with_borrow_mut(|served| {
        let answer = served.runtime.block_on(async {
            let answer = served.routes.call(request).await.expect("routes always answer");
            let (parts, body) = answer.into_parts();
            let kind = parts.headers.get("content-type").expect("an answer has a type").to_str().expect("it is text");
            let body = to_bytes(body, BODY_BYTES_MAX).await.expect("the answer is short");
            (parts.status, kind.to_owned(), body.to_vec())
        });
        Some(answer)
    })
}

pub(crate) fn run(data: &[u8]) {
    let Some((path, query)) = data.split_first() else { return };
    let path = PATHS[usize::from(*path) % PATHS.len()];
    let Ok(query) = std::str::from_utf8(query) else { return };
    if query.len() > QUERY_BYTES_MAX || query.contains('#') {
        return;
    }
    let Some((status, kind, body)) = bounded(query.len(), 64, 256 << 10, || asked(path, query)) else { return };
    let body: Value = serde_json::from_slice(&body).expect("every answer is JSON");
    match status {
        StatusCode::OK => {
            assert_eq!(kind, "application/json");
            if let Some(rows) = body["videos"].as_array() {
                assert!(rows.len() <= K_MAX);
            }
        }
        StatusCode::BAD_REQUEST => {
            assert_eq!(kind, PROBLEM_CONTENT_TYPE);
            assert!(body["parameter"].is_string() && body["detail"].as_str().is_some_and(|detail| detail.len() > 10));
        }
        StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE => assert_eq!(kind, PROBLEM_CONTENT_TYPE),
        other => panic!("{path}?{query} is answered with {other}"),
    }
    if let Some(escaped) = escaped(query) {
        let (again, _, same) = asked(path, &escaped).expect("an escaped query stands in every URI");
        let same: Value = serde_json::from_slice(&same).expect("every answer is JSON");
        assert_eq!((again, same), (status, body), "{query} is not the same as {escaped}");
    }
}

/// The same query with every byte of every name and value escaped; none where something in it cannot be unescaped.
fn escaped(query: &str) -> Option<String> {
    let mut escaped = String::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        escaped.push('&');
        escape(name, &mut escaped)?;
        escaped.push('=');
        escape(value, &mut escaped)?;
    }
    Some(escaped)
}

fn escape(text: &str, out: &mut String) -> Option<()> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(character) = rest.chars().next() {
        let taken = match character {
            '%' => {
                let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                3
            }
            '+' => {
                bytes.push(b' ');
                1
            }
            other => {
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    let text = String::from_utf8(bytes).ok()?;
    text.bytes().try_for_each(|byte| write!(out, "%{byte:02X}")).ok()
}
