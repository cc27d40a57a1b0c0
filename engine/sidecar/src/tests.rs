//! The sidecar through a real loopback listener, spoken to in plain HTTP/1.1.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater_proto::{Board, BoardRow, Epoch, InstanceId, Period, PeriodCount, Snapshot, Window};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::{HttpLimits, HttpOptions, SourceStatus, serve};
use source::Source;

mod body;
mod door;
mod history;
mod source;

/// 2024-07-15T12:00:00Z.
const NOON_MS: u64 = 1_721_044_800_000;

fn snapshot(epoch: u64, rows: u64) -> Arc<Snapshot> {
    let board = |period, start_ms| Board {
        period,
        window: Window::Sliding,
        start_ms,
        end_ms: NOON_MS + 60_000,
        total_views: 1_000_000_000,
        rows: (0..rows)
            .map(|index| BoardRow { video_id: format!("video \"{index}\" é").into(), view_count: 2000 - index })
            .collect(),
    };
    Arc::new(Snapshot {
        instance: InstanceId(1),
        epoch: Epoch(epoch),
        as_of_ms: NOON_MS + 59_007,
        boards: vec![
            board(Period::Hour, Some(NOON_MS - 3_600_000)),
            board(Period::Day, Some(NOON_MS - 86_400_000)),
            board(Period::AllTime, None),
        ],
    })
}

struct Served {
    source: Arc<Source>,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

async fn start(first: Option<Arc<Snapshot>>, limits: HttpLimits) -> Served {
    start_with(first, HttpOptions { limits, ..HttpOptions::default() }).await
}

async fn start_with(first: Option<Arc<Snapshot>>, options: HttpOptions) -> Served {
    let source = Arc::new(Source {
        latest: watch::Sender::new(first),
        status: Mutex::new(SourceStatus::ready()),
        counts: Mutex::default(),
        history: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, source.clone(), options, async move {
        let _ = stopped.await;
    });
    Served { source, address, stop: Some(stop), task: tokio::spawn(serving) }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    ask_with(address, method, path, "").await
}

/// With lines of headers, each with its end.
async fn ask_with(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole header");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

async fn get(served: &Served, path: &str) -> Answer {
    ask(served.address, "GET", path).await
}

#[tokio::test]
async fn a_top_list_has_the_promised_shape() {
    let served = start(Some(snapshot(7, 2)), HttpLimits::default()).await;
    let answer = get(&served, "/v1/videos/top?period=hour&k=100").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let expected = concat!(
        r#"{"period":"hour","window":"sliding","start_time":"2024-07-15T11:00:00Z","end_time":"2024-07-15T12:01:00Z","#,
        r#""as_of":"2024-07-15T12:00:59.007Z","epoch":7,"total_views":1000000000,"other_views":999996001,"top_videos":["#,
        r#"{"rank":1,"video_id":"video \"0\" é","view_count":2000},"#,
        r#"{"rank":2,"video_id":"video \"1\" é","view_count":1999}]}"#
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(get(&served, "/v1/videos/top?k=100&window=sliding&period=hour").await.text(), expected);
}

#[tokio::test]
async fn all_time_has_no_start_and_an_empty_list_is_a_list() {
    let served = start(Some(snapshot(1, 0)), HttpLimits::default()).await;
    let answer = get(&served, "/v1/videos/top?period=all-time").await.json();
    assert_eq!((&answer["start_time"], &answer["top_videos"]), (&Value::Null, &json!([])));
    assert_eq!(answer["period"], "all-time");
}

#[tokio::test]
async fn k_cuts_the_list_and_newer_snapshots_replace_cached_bodies() {
    let served = start(Some(snapshot(1, 1000)), HttpLimits::default()).await;
    for (query, rows) in [("", 100), ("&k=1", 1), ("&k=999", 999), ("&k=1000", 1000), ("&k=0007", 7)] {
        let answer = get(&served, &format!("/v1/videos/top?period=day{query}")).await.json();
        assert_eq!(answer["top_videos"].as_array().unwrap().len(), rows, "{query}");
    }
    served.source.latest.send_replace(Some(snapshot(2, 3)));
    let answer = get(&served, "/v1/videos/top?period=day&k=999").await.json();
    assert_eq!((answer["epoch"].as_u64(), answer["top_videos"].as_array().unwrap().len()), (Some(2), 3));
}

#[tokio::test]
async fn every_wrong_query_is_named() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    let periods = json!(["hour", "day", "month", "all-time"]);
    let sliding = json!(["sliding"]);
    let windows = json!(["sliding", "tumbling"]);
    let parameters = json!(["period", "k", "window", "min_epoch", "start"]);
    let ks = json!(["1 to 1000"]);
    let epochs = json!(["0 to 18446744073709551615"]);
    let cases = [
        ("", "missing-parameter", "period", Value::Null, &periods),
        ("?k=10", "missing-parameter", "period", Value::Null, &periods),
        ("?period=week", "invalid-parameter", "period", json!("week"), &periods),
        ("?period=Hour", "invalid-parameter", "period", json!("Hour"), &periods),
        ("?period=", "invalid-parameter", "period", json!(""), &periods),
        ("?period=hour&k=0", "invalid-parameter", "k", json!("0"), &ks),
        ("?period=hour&k=1001", "invalid-parameter", "k", json!("1001"), &ks),
        ("?period=hour&k=-1", "invalid-parameter", "k", json!("-1"), &ks),
        ("?period=hour&k=%2B1", "invalid-parameter", "k", json!("+1"), &ks),
        ("?period=hour&k=", "invalid-parameter", "k", json!(""), &ks),
        ("?period=hour&k=99999999999999999999999", "invalid-parameter", "k", json!("99999999999999999999999"), &ks),
        ("?period=all-time&window=tumbling", "invalid-parameter", "window", json!("tumbling"), &sliding),
        ("?period=hour&window=hopping", "invalid-parameter", "window", json!("hopping"), &windows),
        ("?period=hour&min_epoch=x", "invalid-parameter", "min_epoch", json!("x"), &epochs),
        ("?period=hour&limit=5", "unknown-parameter", "limit", json!("5"), &parameters),
        ("?period=hour&Period=hour", "unknown-parameter", "Period", json!("hour"), &parameters),
    ];
    for (query, kind, parameter, value, allowed) in cases {
        let answer = get(&served, &format!("/v1/videos/top{query}")).await;
        let problem = answer.json();
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{query}");
        assert_eq!(problem["type"], format!("urn:highwater:problem:{kind}"), "{query}");
        assert_eq!(problem["status"], 400, "{query}");
        assert_eq!(problem["parameter"], parameter, "{query}");
        assert_eq!(problem["value"], value, "{query}");
        assert_eq!(&problem["allowed"], allowed, "{query}");
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{query}");
    }
    let problem = get(&served, "/v1/videos/top?period=hour&period=day").await.json();
    assert_eq!(
        (problem["type"].as_str(), problem["status"].as_u64()),
        (Some("urn:highwater:problem:repeated-parameter"), Some(400))
    );
}

#[tokio::test]
async fn one_videos_views_have_the_promised_shape() {
    let served = start(Some(snapshot(7, 2)), HttpLimits::default()).await;
    let count = |period, view_count, rank| PeriodCount { period, window: Window::Sliding, view_count, rank };
    let this_hour = PeriodCount { window: Window::Tumbling, ..count(Period::Hour, 7, None) };
    *served.source.counts.lock().unwrap() =
        vec![count(Period::AllTime, 30, None), count(Period::Day, 12, Some(3)), this_hour];
    let answer = get(&served, "/v1/videos/views?video_id=a%20%C3%A9%26%25+%2b").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let expected = concat!(
        r#"{"video_id":"a é&% +","as_of":"2024-07-15T12:00:00.007Z","epoch":7,"views":["#,
        r#"{"period":"hour","window":"sliding","view_count":0,"rank":null},"#,
        r#"{"period":"hour","window":"tumbling","view_count":7,"rank":null},"#,
        r#"{"period":"day","window":"sliding","view_count":12,"rank":3},"#,
        r#"{"period":"day","window":"tumbling","view_count":0,"rank":null},"#,
        r#"{"period":"month","window":"sliding","view_count":0,"rank":null},"#,
        r#"{"period":"month","window":"tumbling","view_count":0,"rank":null},"#,
        r#"{"period":"all-time","window":"sliding","view_count":30,"rank":null}]}"#
    );
    assert_eq!(answer.text(), expected);
    for id in ["x".repeat(255), "%F0%9F%8E%AC".to_owned(), "%00".to_owned()] {
        assert_eq!(get(&served, &format!("/v1/videos/views?video_id={id}")).await.status, 200, "{id}");
    }
    let busy = get(&served, "/v1/videos/views?video_id=busy").await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("1")));
    assert_eq!(busy.json()["type"], "urn:highwater:problem:not-ready");
    let metrics = get(&served, "/metrics").await;
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"views\",status=\"200\"} 4\n"));
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"views\",status=\"503\"} 1\n"));
}

#[tokio::test]
async fn every_wrong_question_about_a_video_is_named() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    let ids = json!(["1 to 255 bytes of UTF-8"]);
    let only = json!(["video_id"]);
    let utf8 = json!(["UTF-8, with %XX for bytes that a query cannot hold"]);
    let long = "é".repeat(128);
    let cases = [
        (String::new(), "missing-parameter", "video_id", Value::Null, &ids),
        ("?".to_owned(), "missing-parameter", "video_id", Value::Null, &ids),
        ("?video_id=".to_owned(), "invalid-parameter", "video_id", json!(""), &ids),
        ("?video_id".to_owned(), "invalid-parameter", "video_id", json!(""), &ids),
        (format!("?video_id={}", "%C3%A9".repeat(128)), "invalid-parameter", "video_id", json!(long[..200]), &ids),
        ("?video_id=a&video_id=a".to_owned(), "repeated-parameter", "video_id", json!("a"), &json!([])),
        ("?video_id=a&period=hour".to_owned(), "unknown-parameter", "period", json!("hour"), &only),
        ("?Video_id=a".to_owned(), "unknown-parameter", "Video_id", json!("a"), &only),
        ("?%ff=a".to_owned(), "unknown-parameter", "%ff", json!("a"), &only),
        ("?video_id=%FF".to_owned(), "invalid-parameter", "video_id", json!("%FF"), &utf8),
        ("?video_id=%C3".to_owned(), "invalid-parameter", "video_id", json!("%C3"), &utf8),
        ("?video_id=%".to_owned(), "invalid-parameter", "video_id", json!("%"), &utf8),
        ("?video_id=a%2".to_owned(), "invalid-parameter", "video_id", json!("a%2"), &utf8),
        ("?video_id=%+1".to_owned(), "invalid-parameter", "video_id", json!("%+1"), &utf8),
    ];
    for (query, kind, parameter, value, allowed) in cases {
        let answer = get(&served, &format!("/v1/videos/views{query}")).await;
        let problem = answer.json();
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{query}");
        assert_eq!(problem["type"], format!("urn:highwater:problem:{kind}"), "{query}");
        assert_eq!(problem["parameter"], parameter, "{query}");
        let (found, value) = (problem["value"].as_str(), value.as_str());
        assert_eq!(found.map(|found| found.trim_end_matches('…')), value, "{query}");
        assert_eq!(problem.get("allowed").unwrap_or(&json!([])), allowed, "{query}");
    }
    let answer = ask(served.address, "POST", "/v1/videos/views?video_id=a").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn a_long_value_is_echoed_short() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    let problem = get(&served, &format!("/v1/videos/top?period={}", "x".repeat(3000))).await.json();
    assert_eq!(problem["value"].as_str().unwrap().chars().count(), 101);
}

#[tokio::test]
async fn without_a_snapshot_or_a_list_readers_are_told_to_come_back() {
    let served = start(None, HttpLimits::default()).await;
    let answer = get(&served, "/v1/videos/top?period=hour").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["type"], "urn:highwater:problem:not-ready");
    served.source.latest.send_replace(Some(snapshot(1, 1)));
    let answer = get(&served, "/v1/videos/top?period=month").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("month"));
}

#[tokio::test]
async fn min_epoch_waits_for_its_snapshot_and_gives_up_after_two_seconds() {
    let served = start(Some(snapshot(4, 1)), HttpLimits::default()).await;
    assert_eq!(get(&served, "/v1/videos/top?period=hour&min_epoch=4").await.json()["epoch"], 4);
    let later = served.source.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        later.latest.send_replace(Some(snapshot(5, 1)));
        tokio::time::sleep(Duration::from_millis(300)).await;
        later.latest.send_replace(Some(snapshot(7, 1)));
    });
    let answer = get(&served, "/v1/videos/top?period=hour&min_epoch=6").await;
    assert_eq!((answer.status, answer.json()["epoch"].as_u64()), (200, Some(7)));
    let start = Instant::now();
    let answer = get(&served, "/v1/videos/top?period=hour&min_epoch=8").await;
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let problem = answer.json();
    assert_eq!(problem["type"], "urn:highwater:problem:epoch-not-reached");
    assert_eq!((&problem["parameter"], &problem["value"]), (&json!("min_epoch"), &json!("8")));
}

#[tokio::test]
async fn head_has_the_header_only_and_other_methods_are_refused() {
    let served = start(Some(snapshot(1, 5)), HttpLimits::default()).await;
    let whole = get(&served, "/v1/videos/top?period=hour").await;
    let head = ask(served.address, "HEAD", "/v1/videos/top?period=hour").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(whole.body.len().to_string().as_str()));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = ask(served.address, method, "/v1/videos/top?period=hour").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method}");
        assert_eq!(answer.json()["type"], "urn:highwater:problem:method-not-allowed");
    }
}

#[tokio::test]
async fn unknown_paths_are_problems_too() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    for path in ["/", "/v1/videos/top/", "/v1/videos", "/v2/videos/top"] {
        let answer = get(&served, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("/v1/videos/top"), "{detail}");
    }
}

#[tokio::test]
async fn health_readiness_and_metrics() {
    let served = start(None, HttpLimits::default()).await;
    let health = get(&served, "/healthz").await;
    assert_eq!((health.status, health.text()), (200, "ok\n"));
    assert_eq!(get(&served, "/readyz").await.status, 200);
    *served.source.status.lock().unwrap() = SourceStatus::not_ready("the latest snapshot is 11 s old");
    let ready = get(&served, "/readyz").await;
    assert_eq!((ready.status, ready.header("retry-after")), (503, Some("1")));
    assert_eq!(ready.json()["detail"], "the latest snapshot is 11 s old");
    let metrics = get(&served, "/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().starts_with("highwater_epoch 7\n"));
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"readyz\",status=\"503\"} 1\n"));
    assert!(metrics.text().contains("highwater_http_connections 1\n"));
}

#[tokio::test]
async fn a_stop_lets_running_answers_end() {
    let mut served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    let address = served.address;
    let idle = TcpStream::connect(address).await.unwrap();
    let waiting = tokio::spawn(async move { ask(address, "GET", "/v1/videos/top?period=hour&min_epoch=2").await });
    while served.source.latest.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    served.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    served.source.latest.send_replace(Some(snapshot(2, 1)));
    assert_eq!(waiting.await.unwrap().status, 200);
    let start = Instant::now();
    served.task.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4));
    drop(idle);
}
