//! Sidecars apart from their engine: what they answer, what they do while the engine is away, how they start and end.
//!
//! What it is not: the source behind them, which is tested beside its code. Invariant: lists are compared as bytes.

use crate::support::views::{MINUTE_MS, NEWEST_MS, rows, write_csv};
use crate::support::{Engine, Load, Setup, Sidecar, wait_for};
use highwater_proto::Period;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

/// Counts views that no window's edge passes while a test runs.
fn load_recent(engine: &Engine, folder: &Path) -> Vec<(String, u64)> {
    let times = (0..20_000).map(|index| NEWEST_MS - index * 997 % (30 * MINUTE_MS));
    let rows = rows(times, 3000);
    let file = write_csv(folder, &rows);
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--batch=900"];
    Load::verified(engine, &load).finish().assert_verified();
    rows
}

fn epoch(body: &str) -> Option<u64> {
    serde_json::from_str::<Value>(body).ok()?["epoch"].as_u64()
}

fn newest(sidecar: &Sidecar) -> Option<u64> {
    epoch(&sidecar.ask("/v1/videos/top?period=hour&k=1").body)
}

fn is_ready(sidecar: &Sidecar) -> bool {
    sidecar.ask("/readyz").status == 200
}

#[test]
fn equal_epochs_have_equal_bytes_at_every_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let sidecars = [Sidecar::start(&engine, &[]), Sidecar::start(&engine, &["--server-name=localhost"])];
    load_recent(&engine, folder.path());
    for period in Period::ALL {
        for k in [1, 7, 100, 1000] {
            wait_for("three answers of one epoch", || {
                let asked = format!("/v1/videos/top?period={period}&k={k}&min_epoch=");
                let first = engine.ask(&format!("{asked}1"));
                let at = epoch(&first.body)?;
                let others = [0, 1].map(|index: usize| sidecars[index].ask(&format!("{asked}{at}")));
                if others.iter().any(|other| epoch(&other.body) != Some(at)) {
                    return None;
                }
                assert!(first.json()["top_videos"][0]["view_count"].as_u64() > Some(1), "{first:?}");
                for other in others {
                    assert_eq!((other.status, &other.content_type), (200, &first.content_type));
                    assert_eq!(other.body, first.body, "{period} {k}");
                    assert!(other.etag.is_some() && other.etag == first.etag, "{period} {k}: {other:?}");
                }
                Some(())
            });
        }
    }
}

#[test]
fn a_sidecar_says_the_same_of_closed_periods() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Setup { cores: 2, memory: "1GiB", ..Setup::new(&folder.path().join("data")) }.start();
    let sidecar = Sidecar::start(&engine, &[]);
    wait_for("readiness", || is_ready(&sidecar).then_some(()));
    let questions = [
        "/v1/periods?period=day",
        "/v1/periods?period=hour&limit=1&before=2024-07-15Z",
        "/v1/videos/top?period=hour&window=tumbling&start=2024-07-15T11:00:00Z",
        "/v1/videos/top?period=month&window=tumbling&start=9000-01-01Z",
    ];
    for question in questions {
        // What is said of the time is as of the snapshot, which may be another one.
        let same = wait_for("two answers of one snapshot", || {
            let [local, remote] = [engine.ask(question), sidecar.ask(question)];
            (local.body == remote.body).then_some([local, remote])
        });
        let expected = if question.contains("periods") { 200 } else { 404 };
        assert!(same.iter().all(|one| one.status == expected), "{same:?}");
        assert_eq!(same[0].retry_after, same[1].retry_after, "{question}");
    }
    assert!(sidecar.metric("history_questions_total") >= 3 && sidecar.metric("history_questions_failed_total") == 0);
}

#[test]
fn sidecars_outlive_their_engine_and_go_on_with_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(&folder.path().join("data"));
    let sidecars = [0, 1].map(|_| Sidecar::start(&engine, &["--stale-after=2s"]));
    load_recent(&engine, folder.path());
    let mut last = [0; 2];
    for restart in 1..=2 {
        for (sidecar, last) in sidecars.iter().zip(&mut last) {
            wait_for("readiness", || is_ready(sidecar).then_some(()));
            *last = wait_for("a newer epoch", || newest(sidecar).filter(|now| now > last));
        }
        let again = engine.same_place();
        engine.kill();
        for (sidecar, last) in sidecars.iter().zip(&mut last) {
            let red = wait_for("a stale sidecar", || Some(sidecar.ask("/readyz")).filter(|one| one.status == 503));
            assert!(red.retry_after.is_some() && red.body.contains("127.0.0.1:"), "{red:?}");
            // A last snapshot may have come before the kill.
            let now = newest(sidecar).unwrap();
            assert!(now >= *last, "it serves the last snapshot while the engine is away");
            *last = now;
            assert!(sidecar.metric("snapshot_age_ms") >= 2000);
            let unasked = sidecar.ask("/v1/videos/views?video_id=a");
            assert_eq!((unasked.status, unasked.retry_after.is_some()), (503, true), "{unasked:?}");
            let never = sidecar.ask(&format!("/v1/videos/top?period=hour&min_epoch={}", now + 1));
            assert_eq!((never.status, never.retry_after.is_some()), (503, true), "{never:?}");
        }
        engine = again.start();
        for (sidecar, last) in sidecars.iter().zip(&mut last) {
            wait_for("an epoch of the next start", || {
                let now = newest(sidecar).unwrap();
                assert!(now >= *last, "epoch {now} after {last}");
                *last = now;
                is_ready(sidecar).then_some(())
            });
            assert!(sidecar.metric("engine_reconnects_total") >= restart && sidecar.metric("engine_connected") == 1);
        }
    }
}

#[test]
fn min_epoch_waits_at_a_sidecar_too() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let sidecar = Sidecar::start(&engine, &[]);
    let now = wait_for("a first snapshot", || newest(&sidecar));
    let next = sidecar.ask(&format!("/v1/videos/top?period=hour&min_epoch={}", now + 1));
    assert!(next.status == 200 && epoch(&next.body) > Some(now), "{next:?}");
    let asked = Instant::now();
    let never = sidecar.ask(&format!("/v1/videos/top?period=hour&min_epoch={}", u64::MAX));
    assert_eq!((never.status, &*never.content_type), (503, "application/problem+json"), "{never:?}");
    assert!(never.retry_after.is_some() && asked.elapsed() >= Duration::from_millis(1900), "{never:?}");
}

#[test]
fn one_videos_views_agree_with_what_was_sent_and_with_the_lists() {
    let folder = tempfile::tempdir().unwrap();
    // Two cores: half of the look-ups are redirected.
    let engine = Setup { cores: 2, memory: "1GiB", ..Setup::new(&folder.path().join("data")) }.start();
    let sidecar = Sidecar::start(&engine, &[]);
    let sent = load_recent(&engine, folder.path());
    wait_for("readiness", || is_ready(&sidecar).then_some(()));
    let list = engine.top(Period::Day, 1);
    let ranked = list["top_videos"].as_array().unwrap();
    let mut known: Vec<&str> = sent.iter().map(|(video_id, _)| &**video_id).collect();
    known.sort_unstable();
    known.dedup();
    let unranked = known.iter().find(|id| ranked.iter().all(|row| row["video_id"] != **id)).expect("more than a list");
    let listed = ranked.iter().step_by(150).map(|row| row["video_id"].as_str().unwrap());
    for id in listed.chain([*unranked, "nobody's"]) {
        let count = sent.iter().filter(|(video_id, _)| video_id == id).count();
        let rank = ranked.iter().position(|row| row["video_id"] == id).map(|index| index + 1);
        let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let path = format!("/v1/videos/views?video_id={escaped}");
        for answer in [engine.ask(&path), sidecar.ask(&path)] {
            assert_eq!((answer.status, &*answer.content_type), (200, "application/json"), "{answer:?}");
            let views = answer.json();
            assert_eq!(views["video_id"], id);
            assert!(views["epoch"].as_u64() >= list["epoch"].as_u64() && views["as_of"].is_string(), "{views}");
            let (sliding, tumbling): (Vec<&Value>, Vec<&Value>) =
                views["views"].as_array().unwrap().iter().partition(|one| one["window"] == "sliding");
            let expected: Vec<Value> = Period::ALL
                .iter()
                .map(|period| {
                    let period = period.as_str();
                    serde_json::json!({"period": period, "window": "sliding", "view_count": count, "rank": rank})
                })
                .collect();
            assert_eq!(Value::from_iter(sliding.into_iter().cloned()), Value::from(expected), "{id}");
            // The views may lie on both sides of the edge of an hour, a day and a month.
            let counts = tumbling.iter().map(|one| one["view_count"].as_u64().unwrap()).collect::<Vec<_>>();
            assert_eq!(tumbling.iter().map(|one| &one["period"]).collect::<Vec<_>>(), ["hour", "day", "month"]);
            assert!(counts.is_sorted() && counts.iter().all(|one| *one <= count as u64), "{id}: {views}");
        }
    }
    assert_eq!(sidecar.metric("lookups_failed_total"), 0);
    for (query, parameter) in [("", "video_id"), ("?video_id=", "video_id"), ("?video_id=a&k=1", "k")] {
        for answer in
            [&engine.ask(&format!("/v1/videos/views{query}")), &sidecar.ask(&format!("/v1/videos/views{query}"))]
        {
            assert_eq!((answer.status, answer.json()["parameter"].as_str()), (400, Some(parameter)), "{answer:?}");
        }
    }
}

#[test]
fn a_sidecar_starts_without_its_engine_and_ends_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let (again, address, ca) = (engine.same_place(), engine.address().to_owned(), engine.ca().to_owned());
    engine.kill();
    let sidecars = [0, 1].map(|_| Sidecar::beside(&address, &ca, &[]));
    for sidecar in &sidecars {
        assert_eq!(sidecar.ready["engine"], *address);
        assert!(sidecar.ready["pid"].is_u64() && sidecar.ready["http"].is_string(), "{}", sidecar.ready);
        assert_eq!((sidecar.ask("/healthz").status, sidecar.ask("/readyz").status), (200, 503));
        let early = sidecar.ask("/v1/videos/top?period=hour");
        assert_eq!((early.status, early.retry_after.is_some()), (503, true), "{early:?}");
    }
    let engine = again.start();
    let signals = [rustix::process::Signal::TERM, rustix::process::Signal::INT];
    for (sidecar, signal) in sidecars.into_iter().zip(signals) {
        wait_for("readiness", || is_ready(&sidecar).then_some(()));
        sidecar.log_line("following the engine");
        let ended = sidecar.end_by(signal);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn what_a_sidecar_cannot_start_with_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let (address, ca) = (format!("--engine={}", engine.address()), format!("--ca={}", engine.ca()));
    let taken = engine.ready["http"].as_str().unwrap();
    let missing = folder.path().join("none.pem");
    let http = format!("--http={taken}");
    let missing_flag = format!("--ca={}", missing.display());
    let cases = [
        ([address.as_str(), ca.as_str(), http.as_str()], taken),
        ([address.as_str(), missing_flag.as_str(), "--stale-after=10s"], missing.to_str().unwrap()),
    ];
    for (arguments, named) in cases {
        let ended = Sidecar::refused(&arguments);
        assert_eq!(ended.code, Some(1), "{arguments:?}: {ended:?}");
        assert!(ended.log.contains(named), "{named} is not named: {}", ended.log);
    }
}
