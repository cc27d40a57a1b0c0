//! Questions over HTTP that cannot be answered.
//!
//! Invariant: each gets a status of the 400s, mostly with a problem document (RFC 9457), the same at the engine's own
//! door and at a sidecar apart; the next good question is answered.

use super::told;
use crate::support::{Engine, Sidecar, http, wait_for};
use highwater_proto::Period;

/// Path and query, status, and the words that must be said.
const QUESTIONS: [(&str, u16, &[&str]); 32] = [
    ("/v1/videos/top", 400, &["period is missing", "hour, day, month, all-time"]),
    ("/v1/videos/top?period=week", 400, &["period is", "week", "hour, day, month, all-time"]),
    ("/v1/videos/top?period=", 400, &["period is", "hour, day, month, all-time"]),
    ("/v1/videos/top?period=hour&k=0", 400, &["k is", "0", "1 to 1000"]),
    ("/v1/videos/top?period=hour&k=1001", 400, &["k is", "1001", "1 to 1000"]),
    ("/v1/videos/top?period=hour&k=abc", 400, &["k is", "abc", "1 to 1000"]),
    ("/v1/videos/top?period=hour&k=", 400, &["k is", "1 to 1000"]),
    ("/v1/videos/top?period=hour&k=1&k=2", 400, &["k stands more than once", "give it once"]),
    ("/v1/videos/top?period=hour&window=hopping", 400, &["window is", "hopping", "sliding", "tumbling"]),
    ("/v1/videos/top?period=all-time&window=tumbling", 400, &["all-time has one window only", "leave window out"]),
    ("/v1/videos/top?period=hour&start=2024-07-15T11:00:00Z", 400, &["needs window=tumbling", "add it"]),
    ("/v1/videos/top?period=all-time&start=2024-07-15Z", 400, &["all-time never ends", "hour, day or month"]),
    ("/v1/videos/top?period=day&window=tumbling&start=soon", 400, &["start is", "soon", "RFC 3339", "2024-07-15Z"]),
    (
        "/v1/videos/top?period=day&window=tumbling&start=2024-07-15T02:00:00Z",
        400,
        &["no day (UTC) starts", "2024-07-15T00:00:00Z and 2024-07-16T00:00:00Z"],
    ),
    ("/v1/videos/top?period=day&window=tumbling&start=9000-01-01Z", 404, &["has not begun", "9000-01-01"]),
    ("/v1/videos/top?period=day&window=tumbling&start=2024-07-15Z", 404, &["day"]),
    ("/v1/periods", 400, &["period is missing", "hour, day, month"]),
    ("/v1/periods?period=all-time", 400, &["period is", "all-time", "hour, day, month"]),
    ("/v1/periods?period=day&limit=1001", 400, &["limit is", "1001", "1 to 1000"]),
    ("/v1/periods?period=day&before=%1b[2J", 400, &["before is", "RFC 3339"]),
    ("/v1/periods?period=day&k=5", 400, &["is no parameter here", "period, limit, before"]),
    ("/v1/videos/top?period=hour&min_epoch=-1", 400, &["min_epoch is", "-1", "0 to 18446744073709551615"]),
    ("/v1/videos/top?period=hour&min_epoch=18446744073709551615", 503, &["min_epoch is", "try again"]),
    ("/v1/videos/top?period=hour&limit=5", 400, &["limit", "is no parameter here", "period, k, window, min_epoch"]),
    ("/v1/videos/top?period=hour&%1b[2J=5", 400, &["is no parameter here"]),
    ("/v1/videos/top?period=%1b[2J%c2%9b", 400, &["\\u001b[2J\\u009b", "hour, day, month, all-time"]),
    ("/v1/videos/views", 400, &["video_id is missing", "1 to 255 bytes of UTF-8"]),
    ("/v1/videos/views?video_id=", 400, &["video_id is", "1 to 255 bytes of UTF-8"]),
    ("/v1/videos/views?video_id=%ff", 400, &["video_id is", "%ff", "UTF-8"]),
    ("/v1/videos/views?video_id=a&period=hour", 400, &["period", "is no parameter here", "video_id"]),
    ("/v1/videos/top/", 404, &["there is nothing at /v1/videos/top/", "/v1/videos/top"]),
    ("/v2/videos/top?period=hour", 404, &["there is nothing at /v2/videos/top", "/v1/videos/top"]),
];

/// Bytes that are no good request, and the status that they get; none where the connection is only closed.
fn requests() -> Vec<(&'static str, Vec<u8>, Option<u16>)> {
    let request = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}\r\n").into_bytes()
    };
    let (long_id, long_header) =
        (format!("GET {VIEWS}{}", "x".repeat(256)), format!("x: {}\r\n", "x".repeat(17 << 10)));
    vec![
        ("POST in place of GET", request(&format!("POST {TOP}"), "content-length: 0\r\n"), Some(405)),
        ("DELETE in place of GET", request(&format!("DELETE {TOP}"), ""), Some(405)),
        ("an id of 256 bytes", request(&long_id, ""), Some(400)),
        ("a path upward", request("GET /../../etc/passwd", ""), Some(404)),
        ("a header of 17 KiB", request(&format!("GET {TOP}"), &long_header), Some(431)),
        ("65 headers", request(&format!("GET {TOP}"), &"x: y\r\n".repeat(63)), Some(431)),
        ("no HTTP at all", b"hello\r\n\r\n".to_vec(), Some(400)),
        ("a TLS client hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03], Some(400)),
        ("HTTP/2 without asking", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), None),
        ("a connection without a request", Vec::new(), None),
    ]
}

const TOP: &str = "/v1/videos/top?period=hour";
const VIEWS: &str = "/v1/videos/views?video_id=";

#[test]
fn questions_that_cannot_be_answered_are_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let sidecar = Sidecar::start(&engine, &[]);
    engine.top(Period::Hour, 1);
    wait_for("a snapshot at the sidecar", || (sidecar.ask("/readyz").status == 200).then_some(()));
    for (question, status, words) in QUESTIONS {
        let answers = [engine.ask(question), sidecar.ask(question)];
        for answer in &answers {
            assert_eq!((answer.status, &*answer.content_type), (status, "application/problem+json"), "{answer:?}");
            assert!(answer.body.chars().all(|one| !one.is_control()), "{answer:?}");
        }
        told(&format!("`GET {question}`"), &answers[0].body, format!("HTTP {status}"), words);
        if status == 400 {
            assert_eq!(answers[0].body, answers[1].body, "{question}");
        }
    }
    for (deed, bytes, status) in requests() {
        let answer = http::raw(&engine.url(), &bytes);
        assert_eq!(http::status(&answer), status, "{deed}: {answer}");
        let end = status.map_or("connection closed".to_owned(), |status| format!("HTTP {status}"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let told_as = if body.is_empty() { answer.lines().next().unwrap_or("(nothing)") } else { body };
        told(deed, told_as, end, &[]);
    }
    assert_eq!(engine.ask("/v1/videos/top?period=hour").status, 200);
    assert_eq!(engine.ask("/healthz").status, 200);
}
