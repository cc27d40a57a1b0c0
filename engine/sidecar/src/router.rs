//! The routes: which path answers what.
//!
//! Invariant: every answer but a list, a health word and metrics is a [`Problem`]; no answer may be given out by caches
//! unasked, because of most a second later it is not the answer any more. A [`Body`] says which one it is, so that who
//! asks again need not get it again; the others are as of the moment they are asked, and not to be stored.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::answer::{Bodies, views_body};
use crate::body::Body;
use crate::counts::Counts;
use crate::history::{Lists, current_start, not_begun, periods_body};
use crate::problem::Problem;
use crate::query::{MIN_EPOCH_WAIT, PeriodsQuery, TopQuery, parse_video_id};
use crate::source::SnapshotSource;

const TOP: &str = "/v1/videos/top";
const VIEWS: &str = "/v1/videos/views";
const PERIODS: &str = "/v1/periods";
pub(crate) const HEALTH: &str = "/healthz";
pub(crate) const READY: &str = "/readyz";
const METRICS: &str = "/metrics";
const PATHS: [&str; 6] = [TOP, VIEWS, PERIODS, HEALTH, READY, METRICS];

const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What all requests share.
pub(crate) struct Shared<S> {
    source: Arc<S>,
    bodies: Bodies,
    lists: Lists,
    pub(crate) counts: Arc<Counts>,
}

impl<S> Shared<S> {
    pub(crate) fn new(source: Arc<S>) -> Arc<Self> {
        Arc::new(Self { source, bodies: Bodies::default(), lists: Lists::default(), counts: Arc::default() })
    }
}

/// The sidecar's routes over a source, to be served by [`crate::serve`] or inside of another service.
pub fn router<S: SnapshotSource>(source: Arc<S>) -> Router {
    routes(Shared::new(source))
}

pub(crate) fn routes<S: SnapshotSource>(shared: Arc<Shared<S>>) -> Router {
    Router::new()
        .route(TOP, get(top::<S>).fallback(wrong_method::<S>))
        .route(VIEWS, get(views::<S>).fallback(wrong_method::<S>))
        .route(PERIODS, get(periods::<S>).fallback(wrong_method::<S>))
        .route(HEALTH, get(health::<S>).fallback(wrong_method::<S>))
        .route(READY, get(ready::<S>).fallback(wrong_method::<S>))
        .route(METRICS, get(metrics::<S>).fallback(wrong_method::<S>))
        .fallback(nothing::<S>)
        .with_state(shared)
}

async fn top<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>, request: Request) -> Response {
    let (asked, _) = request.into_parts();
    let answer = match top_body(&shared, &asked.uri).await {
        Ok(body) => body.answer(&asked.headers),
        Err(problem) => problem.into_response(),
    };
    shared.counts.answer("top", answer)
}

async fn top_body<S: SnapshotSource>(shared: &Shared<S>, uri: &Uri) -> Result<Arc<Body>, Problem> {
    let query = TopQuery::parse(uri)?;
    let mut latest = shared.source.latest();
    if let Some(wanted) = query.min_epoch {
        let reached = |snapshot: &Option<Arc<highwater_proto::Snapshot>>| {
            snapshot.as_ref().is_some_and(|snapshot| snapshot.epoch >= wanted)
        };
        if !reached(&latest) {
            shared.source.wait_for(wanted, MIN_EPOCH_WAIT).await;
            latest = shared.source.latest();
        }
        if !reached(&latest) {
            return Err(Problem::epoch_not_reached(wanted.0, latest.map(|snapshot| snapshot.epoch.0)));
        }
    }
    let snapshot = latest.ok_or_else(no_snapshot)?;
    if let Some(asked) = &query.asked {
        let current_ms = current_start(&snapshot, asked);
        if asked.start_ms > current_ms {
            return Err(not_begun(&snapshot, asked));
        }
        if asked.start_ms < current_ms {
            return shared.lists.body(&*shared.source, &snapshot, asked, query.k).await;
        }
    }
    shared.bodies.body(&snapshot, query.period, query.window, query.k).ok_or_else(|| {
        let (epoch, period, window) = (snapshot.epoch, query.period, query.window);
        Problem::unavailable(format!("epoch {epoch} holds no list of period {period}, window {window}"))
    })
}

fn no_snapshot() -> Problem {
    Problem::unavailable("no snapshot has been published yet; try again".into())
}

async fn periods<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>, uri: Uri) -> Response {
    let answer = match listed_periods(&shared, &uri).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(problem) => problem.into_response(),
    };
    shared.counts.answer("periods", answer)
}

async fn listed_periods<S: SnapshotSource>(shared: &Shared<S>, uri: &Uri) -> Result<bytes::Bytes, Problem> {
    let query = PeriodsQuery::parse(uri)?;
    let snapshot = shared.source.latest().ok_or_else(no_snapshot)?;
    periods_body(&*shared.source, &snapshot, &query).await
}

async fn views<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>, uri: Uri) -> Response {
    let answer = match looked_up(&shared, &uri).await {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(problem) => problem.into_response(),
    };
    shared.counts.answer("views", answer)
}

async fn looked_up<S: SnapshotSource>(shared: &Shared<S>, uri: &Uri) -> Result<bytes::Bytes, Problem> {
    let video_id = parse_video_id(uri)?;
    let counts = shared.source.lookup(&video_id).await;
    counts.map(|counts| views_body(&counts)).map_err(|error| Problem::unavailable(error.to_string()))
}

/// The process lives and answers; whether it should be asked is [`ready`].
async fn health<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>) -> Response {
    shared.counts.answer("healthz", "ok\n".into_response())
}

async fn ready<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>) -> Response {
    let status = shared.source.status();
    let answer = if status.ready {
        "ready\n".into_response()
    } else {
        Problem::unavailable(status.reason.into_owned()).into_response()
    };
    shared.counts.answer("readyz", answer)
}

async fn metrics<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>) -> Response {
    let text = shared.counts.append_to(shared.source.metrics());
    shared.counts.answer("metrics", ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response())
}

async fn wrong_method<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>, method: Method) -> Response {
    let mut answer = Problem::method_not_allowed(method.as_str()).into_response();
    answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
    shared.counts.answer("other", answer)
}

async fn nothing<S: SnapshotSource>(State(shared): State<Arc<Shared<S>>>, uri: Uri) -> Response {
    shared.counts.answer("other", Problem::not_found(uri.path(), &PATHS).into_response())
}
