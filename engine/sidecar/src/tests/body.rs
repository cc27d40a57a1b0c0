//! Lists in gzip, and those that the client has already.

use std::io::Read;

use flate2::read::GzDecoder;

use super::history::with_days;
use super::*;
use crate::SnapshotSource;
use crate::answer::Bodies;
use crate::history::Lists;
use crate::query::TopQuery;

const GZIP: &str = "Accept-Encoding: gzip, deflate, br\r\n";

async fn get_with(served: &Served, path: &str, headers: &str) -> Answer {
    ask_with(served.address, "GET", path, headers).await
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(&answer.body[..]).read_to_end(&mut plain).unwrap();
    plain
}

/// What each answer of a list says, whole or not.
fn assert_kept_by_tag(answer: &Answer, tag: &str) {
    let told = ["etag", "vary", "cache-control"].map(|name| answer.header(name));
    assert_eq!(told, [Some(tag), Some("accept-encoding"), Some("no-cache")], "{answer:?}");
}

#[tokio::test]
async fn a_list_in_gzip_is_the_same_list() {
    let served = start(Some(snapshot(1, 1000)), HttpLimits::default()).await;
    for k in [100, 1000] {
        let path = format!("/v1/videos/top?period=hour&k={k}");
        let plain = get(&served, &path).await;
        let tag = plain.header("etag").unwrap().to_owned();
        assert_eq!(plain.header("content-encoding"), None);
        for _ in 0..2 {
            let gzip = get_with(&served, &path, GZIP).await;
            assert_eq!((gzip.status, gzip.header("content-encoding")), (200, Some("gzip")));
            assert_eq!(gzip.header("content-type"), Some("application/json"));
            assert_eq!(gzip.header("content-length"), Some(gzip.body.len().to_string().as_str()));
            assert!(gzip.body.len() * 3 < plain.body.len(), "{} of {}", gzip.body.len(), plain.body.len());
            assert_eq!(unpacked(&gzip), plain.body);
            assert_kept_by_tag(&gzip, &tag);
        }
        let head = ask_with(served.address, "HEAD", &path, GZIP).await;
        let gzip = get_with(&served, &path, GZIP).await;
        assert_eq!((head.status, head.body.len(), head.header("content-encoding")), (200, 0, Some("gzip")));
        assert_eq!(head.header("content-length"), gzip.header("content-length"));
        assert_kept_by_tag(&plain, &tag);
        assert_kept_by_tag(&head, &tag);
    }
    let small = get_with(&served, "/v1/videos/top?period=hour&k=2", GZIP).await;
    assert_eq!((small.status, small.header("content-encoding")), (200, None));
    assert_eq!(small.json()["top_videos"].as_array().unwrap().len(), 2);
    let refused = get_with(&served, "/v1/videos/top?period=hour&k=1000", "Accept-Encoding: gzip;q=0, *\r\n").await;
    assert_eq!(refused.header("content-encoding"), None);
}

#[tokio::test]
async fn a_list_that_the_client_has_is_not_sent_again_until_it_is_another() {
    let served = start(Some(snapshot(1, 1000)), HttpLimits::default()).await;
    let path = "/v1/videos/top?period=hour";
    let first = get(&served, path).await;
    let tag = first.header("etag").unwrap();
    let condition = format!("If-None-Match: \"other\", {tag}\r\n");
    for (method, headers) in [("GET", ""), ("HEAD", ""), ("GET", GZIP)] {
        let again = ask_with(served.address, method, path, &format!("{condition}{headers}")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{method} {headers}");
        let of_the_body = ["content-type", "content-encoding", "content-length"].map(|name| again.header(name));
        assert_eq!(of_the_body, [None; 3], "{method} {headers}");
        assert_kept_by_tag(&again, tag);
    }
    let lines = format!("If-None-Match: \"other\"\r\nIf-None-Match: {tag}\r\n");
    assert_eq!(get_with(&served, path, &lines).await.status, 304);
    let strong = get_with(&served, path, &format!("If-Match: {tag}\r\n{condition}")).await;
    assert_eq!((strong.status, strong.header("etag"), strong.header("cache-control")), (412, None, Some("no-store")));
    assert_eq!(strong.json()["type"], "urn:highwater:problem:precondition-failed");
    // Another k or window is another list; what is wrong is said, whatever the client has.
    let other = get_with(&served, "/v1/videos/top?period=hour&k=99", &condition).await;
    assert_eq!((other.status, other.json()["top_videos"].as_array().unwrap().len()), (200, 99));
    let day = get_with(&served, "/v1/videos/top?period=day", &condition).await;
    assert_eq!((day.status, day.json()["period"].as_str()), (200, Some("day")));
    let wrong = get_with(&served, "/v1/videos/top?period=week", "If-None-Match: *\r\n").await;
    assert_eq!((wrong.status, wrong.header("etag"), wrong.header("cache-control")), (400, None, Some("no-store")));
    let early = get_with(&served, &format!("{path}&min_epoch=2"), "If-None-Match: *\r\n").await;
    assert_eq!((early.status, early.header("etag")), (503, None));
    // The next snapshot is of another epoch and time, even with the same rows.
    served.source.latest.send_replace(Some(snapshot(2, 1000)));
    let next = get_with(&served, path, &condition).await;
    assert_eq!((next.status, next.json()["epoch"].as_u64()), (200, Some(2)));
    assert_ne!(next.header("etag"), Some(tag));
    let metrics = get(&served, "/metrics").await;
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"top\",status=\"304\"} 4\n"));
}

#[tokio::test]
async fn equal_lists_have_equal_tags_wherever_they_are_served() {
    let (one, other) = (
        start(Some(snapshot(7, 300)), HttpLimits::default()).await,
        start(Some(snapshot(7, 300)), HttpLimits::default()).await,
    );
    let path = "/v1/videos/top?period=all-time&k=200";
    let tag = get(&one, path).await.header("etag").unwrap().to_owned();
    assert_eq!(get_with(&other, path, GZIP).await.header("etag"), Some(tag.as_str()));
    assert_eq!(get_with(&other, path, &format!("If-None-Match: {tag}\r\n")).await.status, 304);
}

#[tokio::test]
async fn a_final_list_keeps_its_tag_through_snapshots() {
    let served = with_days(&[1]).await;
    let path = "/v1/videos/top?period=day&window=tumbling&start=2024-07-14Z";
    let first = get(&served, path).await;
    let tag = first.header("etag").unwrap();
    assert_kept_by_tag(&first, tag);
    let epoch = served.source.latest.borrow().as_ref().unwrap().epoch.0;
    served.source.latest.send_replace(Some(snapshot(epoch + 1, 3)));
    let again = get_with(&served, path, &format!("If-None-Match: {tag}\r\n")).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    // More rows than the list has are the same list; fewer are another.
    assert_eq!(get(&served, &format!("{path}&k=1000")).await.header("etag"), Some(tag));
    assert_ne!(get(&served, &format!("{path}&k=1")).await.header("etag"), Some(tag));
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 1, "all of it from what is kept");
}

#[tokio::test]
async fn answers_of_one_moment_are_neither_tagged_nor_stored() {
    let served = start(Some(snapshot(1, 1)), HttpLimits::default()).await;
    for path in ["/v1/videos/views?video_id=a", "/v1/periods?period=hour", "/healthz", "/readyz", "/metrics", "/none"] {
        let answer = get_with(&served, path, &format!("{GZIP}If-None-Match: *\r\n")).await;
        assert_ne!(answer.status, 304, "{path}");
        let told = ["etag", "content-encoding", "cache-control"].map(|name| answer.header(name));
        assert_eq!(told, [None, None, Some("no-store")], "{path}");
    }
}

#[test]
fn a_body_is_made_once_for_each_snapshot_and_the_newest_one_is_kept() {
    let (bodies, first, second) = (Bodies::default(), snapshot(1, 300), snapshot(2, 300));
    let hour = |snapshot, k| bodies.body(snapshot, Period::Hour, Window::Sliding, k).unwrap();
    let body = hour(&first, 300);
    assert!(Arc::ptr_eq(&body, &hour(&first, 300)) && Arc::ptr_eq(&body, &hour(&first, 1000)), "it has 300 rows");
    assert!(!Arc::ptr_eq(&body, &hour(&first, 299)));
    assert!(!Arc::ptr_eq(&body, &bodies.body(&first, Period::Day, Window::Sliding, 300).unwrap()));
    assert!(bodies.body(&first, Period::Month, Window::Sliding, 300).is_none());
    let newer = hour(&second, 300);
    assert!(!Arc::ptr_eq(&body, &newer));
    // Who asked before and is answered now leaves what is kept alone.
    assert!(!Arc::ptr_eq(&body, &hour(&first, 300)));
    assert!(Arc::ptr_eq(&newer, &hour(&second, 300)));
}

#[tokio::test]
async fn the_first_bodies_of_a_final_list_are_kept() {
    let served = with_days(&[1]).await;
    let (lists, source) = (Lists::default(), &*served.source);
    let (snapshot, query) = (source.latest().unwrap(), "/v1/videos/top?period=day&window=tumbling&start=2024-07-14Z");
    let asked = TopQuery::parse(&query.parse().unwrap()).unwrap().asked.unwrap();
    let body = async |k| lists.body(source, &snapshot, &asked, k).await.unwrap();
    let whole = body(3).await;
    assert!(Arc::ptr_eq(&whole, &body(1000).await) && !Arc::ptr_eq(&whole, &body(2).await));
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 1);
}
