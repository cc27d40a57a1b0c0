//! What HTTP headers say of a list, through the routes: which coding is taken, and which list the client has.
//!
//! Input: lines, each with the header first, by its first byte, then its value, in which `%` is the list's tag. The
//! answer must be the same list in every coding, and none only for those who named it.

use std::io::Read;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use flate2::read::GzDecoder;

use crate::bounds::bounded;
use crate::served::asked;

/// Long enough to be compressed.
const LIST: &str = "/v1/videos/top?period=hour";
const HEADERS: [HeaderName; 2] = [header::ACCEPT_ENCODING, header::IF_NONE_MATCH];

pub(crate) fn run(data: &[u8]) {
    let whole = asked(LIST, HeaderMap::new()).expect("the path stands in a URI");
    let (tag, gzip) = (whole.header("etag"), HeaderValue::from_static("gzip"));
    // Once for all: what it takes to compress is not what is measured below.
    let packed = asked(LIST, HeaderMap::from_iter([(header::ACCEPT_ENCODING, gzip)])).expect("it stands there");
    assert_eq!(
        (packed.status, packed.header("content-encoding"), packed.header("etag")),
        (StatusCode::OK, "gzip", tag)
    );
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let Some((name, value)) = line.split_first() else { continue };
        let value = value.split(|byte| *byte == b'%').collect::<Vec<_>>().join(tag.as_bytes());
        let Ok(value) = HeaderValue::from_bytes(&value) else { return };
        headers.append(&HEADERS[usize::from(*name) % HEADERS.len()], value);
    }
    let bytes = headers.values().map(HeaderValue::len).sum();
    let answer = bounded(bytes, 16, 64 << 10, || asked(LIST, headers.clone())).expect("the path stands in a URI");
    assert_eq!(["etag", "vary", "cache-control"].map(|name| answer.header(name)), [tag, "accept-encoding", "no-cache"]);
    let tags = values(&headers, header::IF_NONE_MATCH);
    let opaque = tag.trim_start_matches("W/");
    match answer.status {
        StatusCode::NOT_MODIFIED => {
            let is_named = tags.iter().any(|one| one.contains(opaque)) || tags == ["*"];
            assert!(answer.body.is_empty() && is_named, "{tags:?} does not name {tag}");
        }
        StatusCode::OK => {
            let is_named = tags.iter().any(|one| one.trim() == tag || one.trim() == opaque);
            assert!(!is_named, "{tags:?} is {tag}");
            let plain = match answer.header("content-encoding") {
                "" => answer.body,
                "gzip" => {
                    assert!(may_be_gzip(&values(&headers, header::ACCEPT_ENCODING)), "{headers:?} do not take gzip");
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
    // Whatever else is said, who names the tag has the list.
    headers.append(header::IF_NONE_MATCH, HeaderValue::from_str(tag).expect("a tag is a header's"));
    let named = asked(LIST, headers).expect("the path stands in a URI");
    assert_eq!(named.status, StatusCode::NOT_MODIFIED, "{tags:?}");
}

fn values(headers: &HeaderMap, name: HeaderName) -> Vec<String> {
    let values = headers.get_all(name).into_iter();
    values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

/// Whether a coding is named that means gzip, and is not refused.
fn may_be_gzip(lines: &[String]) -> bool {
    let codings =
        lines.iter().flat_map(|line| line.split(',')).map(|one| one.to_ascii_lowercase().replace([' ', '\t'], ""));
    let means_gzip = |one: &str| matches!(one.split(';').next(), Some("gzip" | "x-gzip" | "*"));
    codings.filter(|one| means_gzip(one)).any(|one| !one.ends_with(";q=0"))
}
