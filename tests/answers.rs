//! What the sidecar of a real engine answers over HTTP: lists, health, metrics.
//!
//! What it is not: refusals, which are in `rude`, nor the sidecar's own tests.

use crate::support::views::{NEWEST_MS, video_id, write_csv};
use crate::support::{Engine, Load, wait_for};
use highwater_proto::Period;
use std::time::{Duration, Instant};

#[test]
fn k_cuts_the_list_and_ranks_are_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    // Video n has 150 − n views, but the last two have as many as each other.
    let views_of = |video: u64| if video == 149 { 2 } else { 150 - video };
    let rows: Vec<_> =
        (0..150).flat_map(|video| (0..views_of(video)).map(move |view| (video_id(video), NEWEST_MS - view))).collect();
    let file = write_csv(folder.path(), &rows);
    Load::verified(&engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish().assert_verified();
    let list = |query: &str| engine.ask(&format!("/v1/videos/top?period=day{query}")).json()["top_videos"].clone();
    let lens = ["", "&k=1", "&k=149", "&k=1000", "&window=sliding"].map(|query| list(query).as_array().unwrap().len());
    assert_eq!(lens, [100, 1, 149, 150, 100]);
    let full = list("&k=1000");
    assert_eq!(full[0], serde_json::json!({"rank": 1, "video_id": video_id(0), "view_count": 150}));
    let rows = full.as_array().unwrap();
    for (index, pair) in rows.windows(2).enumerate() {
        let key = |row: &serde_json::Value| {
            (std::cmp::Reverse(row["view_count"].as_u64().unwrap()), row["video_id"].as_str().unwrap().to_owned())
        };
        assert!(key(&pair[0]) < key(&pair[1]), "{pair:?}");
        assert_eq!(pair[1]["rank"], index + 2);
    }
}

#[test]
fn min_epoch_waits_for_what_comes_and_gives_up_on_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let epoch = engine.top(Period::Hour, 1)["epoch"].as_u64().unwrap();
    let next = engine.ask(&format!("/v1/videos/top?period=hour&min_epoch={}", epoch + 1));
    assert_eq!(next.status, 200, "{next:?}");
    assert!(next.json()["epoch"].as_u64().unwrap() > epoch);
    let asked = Instant::now();
    let never = engine.ask(&format!("/v1/videos/top?period=hour&min_epoch={}", u64::MAX));
    assert_eq!((never.status, &*never.content_type), (503, "application/problem+json"), "{never:?}");
    assert!(never.retry_after.is_some(), "{never:?}");
    assert!(asked.elapsed() >= Duration::from_millis(1900), "it waited only {:?}", asked.elapsed());
}

#[test]
fn epochs_follow_each_other_about_every_second() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let first = engine.top(Period::AllTime, 1);
    let epoch = first["epoch"].as_u64().unwrap();
    let later = engine.top(Period::AllTime, epoch + 3);
    assert_eq!(first["top_videos"].as_array().unwrap().len(), 0);
    assert!(later["as_of"].as_str() > first["as_of"].as_str(), "{first} {later}");
}

#[test]
fn health_readiness_and_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    assert_eq!((engine.ask("/healthz").status, &*engine.ask("/healthz").body), (200, "ok\n"));
    wait_for("readiness", || (engine.ask("/readyz").status == 200).then_some(()));
    let load = ["run", "--rate=10000", "--duration=300ms", "--videos=500", "--batch=250"];
    Load::verified(&engine, &load).finish().assert_verified();
    let page = engine.ask("/metrics");
    assert!(page.status == 200 && page.content_type.starts_with("text/plain"), "{page:?}");
    let metric = |name| crate::support::http::metric(&page.body, name);
    let parts = ["views_counted_total", "views_duplicate_total", "views_refused_total"].map(metric);
    assert_eq!((metric("views_received_total"), parts), (3000, [3000, 0, 0]));
    assert!(metric("epoch") >= 1 && metric("videos") <= 500 && metric("log_bytes_total") > 3000 * 20);
    let has_help = |name: &str| page.body.contains(&format!("# HELP highwater_{name}"));
    assert!(has_help("loop_turn_us_max") && has_help("snapshot_age_ms"), "{}", page.body);
}
