//! A source apart from its engine, against a small engine in the same process.
//!
//! Invariant: every test waits for a state, never for a time, except where a time limit is what is tested.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

#[allow(dead_code, reason = "producers and redirects are the client's tests")]
#[path = "../../../proto/client/tests/engine/mod.rs"]
mod engine;

use std::time::{Duration, Instant};

use engine::Engine;
use highwater_client::ClientConfig;
use highwater_proto::{BoardRow, ClosedList, Epoch, Period};
use highwater_sidecar::{LookupError, RemoteSnapshots, SnapshotSource};

const LONG: Duration = Duration::from_secs(20);

fn follow(engine: &Engine, stale_after: Duration) -> RemoteSnapshots {
    let config = ClientConfig { idle_timeout: Duration::from_millis(600), ..engine.config() };
    RemoteSnapshots::start(config, stale_after).unwrap()
}

fn publish(engine: &Engine, epoch: u64) {
    engine.book.lock().unwrap().epoch = epoch;
}

/// Waits until the source's status is as asked for; returns its reason.
async fn reason(source: &RemoteSnapshots, what: impl Fn(&str) -> bool) -> String {
    let started = Instant::now();
    loop {
        let status = source.status();
        assert_eq!(status.ready, status.reason.is_empty());
        if what(&status.reason) {
            return status.reason.into_owned();
        }
        assert!(started.elapsed() < LONG, "the status stays {status:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn metric(source: &RemoteSnapshots, name: &str) -> Option<u64> {
    let page = source.metrics();
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("highwater_")?.split_once(' '));
    lines.find(|(key, _)| *key == name).map(|(_, value)| value.parse().unwrap())
}

#[tokio::test]
async fn readiness_begins_with_the_first_snapshot() {
    let engine = Engine::start();
    let source = follow(&engine, LONG);
    assert!(source.latest().is_none() && !source.status().ready);
    let text = reason(&source, |reason| reason.contains("publishes nothing")).await;
    assert!(text.contains("no snapshot has come") && text.contains(&engine.address.to_string()), "{text}");
    assert_eq!((metric(&source, "engine_connected"), metric(&source, "epoch")), (Some(1), None));
    assert!(matches!(source.lookup("a").await, Err(LookupError::Unreachable(text)) if text.contains("no snapshot")));
    publish(&engine, 5);
    assert!(source.wait_for(Epoch(5), LONG).await);
    reason(&source, str::is_empty).await;
    assert!(!source.wait_for(Epoch(6), Duration::from_millis(50)).await);
    assert_eq!(source.latest().unwrap().epoch, Epoch(5));
    let counts = source.lookup("a").await.unwrap();
    assert_eq!((&*counts.video_id, counts.epoch, counts.counts.len()), ("a", Epoch(5), 1));
    assert_eq!((metric(&source, "lookups_total"), metric(&source, "lookups_failed_total")), (Some(2), Some(1)));
}

#[tokio::test]
async fn a_dead_engine_makes_it_stale_and_a_new_start_ready_again() {
    let engine = Engine::start();
    let source = follow(&engine, Duration::from_millis(900));
    publish(&engine, 5);
    assert!(source.wait_for(Epoch(5), LONG).await);
    let address = engine.address;
    let remains = engine.die();
    let text = reason(&source, |reason| reason.contains("not connected")).await;
    assert!(text.contains("old, the limit is 900ms") && text.contains(&address.to_string()), "{text}");
    assert_eq!(source.latest().unwrap().epoch, Epoch(5), "the last one is served all the same");
    assert!(metric(&source, "snapshot_age_ms").unwrap() >= 900);
    let engine = remains.restart(address);
    publish(&engine, 6);
    assert!(source.wait_for(Epoch(6), LONG).await);
    reason(&source, str::is_empty).await;
    assert_eq!((metric(&source, "engine_connected"), metric(&source, "engine_reconnects_total")), (Some(1), Some(1)));
}

#[tokio::test]
async fn another_instance_is_neither_served_nor_asked() {
    let engine = Engine::start();
    let source = follow(&engine, LONG);
    publish(&engine, 50);
    assert!(source.wait_for(Epoch(50), LONG).await);
    engine.book.lock().unwrap().instance = 10;
    // Before the subscription has found out, the look-up's own answer tells.
    let error = source.lookup("a").await.unwrap_err().to_string();
    assert!(error.contains("another data directory"), "{error}");
    engine.reset_connections();
    publish(&engine, 60);
    let text = reason(&source, |reason| reason.contains("another data directory")).await;
    assert!(text.contains("restart this sidecar"), "{text}");
    assert_eq!((source.latest().unwrap().epoch, metric(&source, "engine_replaced")), (Epoch(50), Some(1)));
    assert!(source.lookup("a").await.is_err());
    engine.book.lock().unwrap().instance = 9;
    publish(&engine, 61);
    assert!(source.wait_for(Epoch(61), LONG).await);
    reason(&source, str::is_empty).await;
    source.lookup("a").await.unwrap();
}

#[tokio::test]
async fn what_is_closed_is_asked_of_the_engine_that_is_followed() {
    const HOUR_MS: u64 = 3_600_000;
    let engine = Engine::start();
    let source = follow(&engine, LONG);
    let early = source.closed_list(Period::Hour, 0).await;
    assert!(matches!(early, Err(LookupError::Unreachable(text)) if text.contains("no snapshot")));
    let list = |hour| ClosedList {
        period: Period::Hour,
        start_ms: hour * HOUR_MS,
        end_ms: (hour + 1) * HOUR_MS,
        total_views: 70,
        rows: vec![BoardRow { video_id: "a".into(), view_count: hour }],
    };
    engine.book.lock().unwrap().closed = vec![list(5), list(6), list(8)];
    publish(&engine, 5);
    assert!(source.wait_for(Epoch(5), LONG).await);
    let answer = source.closed_list(Period::Hour, 6 * HOUR_MS).await.unwrap();
    assert_eq!((answer.list, answer.bounds.closed_until_ms), (Ok(Some(list(6))), 9 * HOUR_MS));
    assert_eq!(source.closed_list(Period::Hour, 7 * HOUR_MS).await.unwrap().list, Ok(None));
    let listed = source.closed_periods(Period::Hour, Some(8 * HOUR_MS), 1).await.unwrap().periods.unwrap();
    assert_eq!((listed.periods.len(), listed.periods[0].start_ms, listed.more), (1, 6 * HOUR_MS, true));
    engine.book.lock().unwrap().instance = 10;
    for error in [
        source.closed_list(Period::Hour, 6 * HOUR_MS).await.unwrap_err(),
        source.closed_periods(Period::Hour, None, 10).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("another data directory"), "{error}");
    }
    let counted = ["history_questions_total", "history_questions_failed_total"].map(|name| metric(&source, name));
    assert_eq!(counted, [Some(6), Some(3)]);
}

#[tokio::test]
async fn what_cannot_be_followed_at_all_is_refused_at_once() {
    let engine = Engine::start();
    for config in [
        ClientConfig { ca_pem: b"none".to_vec(), ..engine.config() },
        ClientConfig { engine: "nowhere".into(), ..engine.config() },
    ] {
        assert!(RemoteSnapshots::start(config, LONG).is_err());
    }
}
