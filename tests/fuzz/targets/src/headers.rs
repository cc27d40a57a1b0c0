//! What HTTP headers say of a list, through the routes: which coding is taken, and which list the client has.
//!
//! Input: lines, each with the header first, by its first byte, then its value. The answer must be the same list in
//! every coding, and none only for those who named it.

use std::io::Read;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use flate2::read::GzDecoder;

use crate::served::asked;

/// Long enough to be compressed.
const LIST: &str = "/v1/videos/top?period=hour";
const HEADERS: [header::HeaderName; 2] = [header::ACCEPT_ENCODING, header::IF_NONE_MATCH];

pub(crate) fn run(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some((name, value)) = line.split_first() else { continue };
        let Ok(value) = HeaderValue::from_bytes(value) else { return };
        headers.append(&HEADERS[usize::from(*name) % HEADERS.len()], value);
    }
    let said = |name: header::HeaderName| -> Vec<String> {
        let values = headers.get_all(name).into_iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase()).collect()
    };
    let (codings, tags) = (said(header::ACCEPT_ENCODING), said(header::IF_NONE_MATCH));
    let whole = asked(LIST, HeaderMap::new()).expect("the path stands in a URI");
    let answer = asked(LIST, headers.clone()).expect("the path stands in a URI");
    let tag = whole.header("etag");
    assert_eq!(["etag", "vary", "cache-control"].map(|name| answer.header(name)), [tag, "accept-encoding", "no-cache"]);
    let named = |one: &String| one.contains(tag.trim_start_matches("W/")) || one.contains('*');
    match answer.status {
        StatusCode::NOT_MODIFIED => {
            assert!(answer.body.is_empty() && tags.iter().any(named), "{tags:?} does not name {tag}");
        }
        StatusCode::OK => {
            assert!(!tags.iter().any(|one| one.trim() == tag.to_ascii_lowercase()), "{tags:?} is {tag}");
            let plain = match answer.header("content-encoding") {
                "" => answer.body,
                "gzip" => {
                    let asked_for = codings.iter().any(|one| one.contains("gzip") || one.contains('*'));
                    assert!(asked_for, "{codings:?} does not name gzip");
                    let mut plain = Vec::new();
                    GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).expect("it is whole");
                    plain
                }
                other => panic!("the list comes in {other}"),
            };
            assert_eq!(plain, whole.body);
        }
        other => panic!("{headers:?} are answered with {other}"),
    }
}
