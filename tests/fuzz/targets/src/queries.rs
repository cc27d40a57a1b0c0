//! The queries of HTTP, through the routes: an answer or a problem that names its parameter, and the same one when
//! every byte of the query is escaped.
//!
//! Input: the route, by its first byte, then the query as it stands behind the question mark.

use std::fmt::Write as _;

use axum::http::{HeaderMap, StatusCode};
use highwater_sidecar::{K_MAX, PROBLEM_CONTENT_TYPE};
use serde_json::Value;

use crate::bounds::bounded;
use crate::served::{Answer, asked};

const PATHS: [&str; 3] = ["/v1/videos/top", "/v1/videos/views", "/v1/periods"];
const QUERY_BYTES_MAX: usize = 8 << 10;

pub(crate) fn run(data: &[u8]) {
    let Some((path, query)) = data.split_first() else { return };
    let path = PATHS[usize::from(*path) % PATHS.len()];
    let Ok(query) = std::str::from_utf8(query) else { return };
    if query.len() > QUERY_BYTES_MAX || query.contains('#') {
        return;
    }
    let answer = bounded(query.len(), 64, 256 << 10, || asked(&format!("{path}?{query}"), HeaderMap::new()));
    let Some(answer) = answer else { return };
    let (status, kind, body) = (answer.status, answer.header("content-type"), json(&answer));
    match status {
        StatusCode::OK => {
            assert_eq!(kind, "application/json");
            if let Some(rows) = body["top_videos"].as_array() {
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
        let again = asked(&format!("{path}?{escaped}"), HeaderMap::new()).expect("it stands in every URI");
        assert_eq!((again.status, json(&again)), (status, body), "{query} is not the same as {escaped}");
    }
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).expect("every answer is JSON")
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
