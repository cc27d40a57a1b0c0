//! Closed hours and days, from outside: lists that are final, whoever is asked and whatever comes later, and the audit.
//!
//! Invariant: nothing is shifted but the lateness: yesterday is chosen to become final while the test runs.

use crate::support::binaries::command;
use crate::support::views::{DAY_MS, HOUR_MS, MINUTE_MS, write_csv};
use crate::support::{Engine, Load, Setup, Sidecar, now_ms, wait_for, wait_within};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

/// For views to be sent and acknowledged before yesterday is final.
const MARGIN_S: u64 = 15;
/// The margin, and the next edge of a minute, on a loaded machine.
const CLOSING_TIME_MAX: Duration = Duration::from_secs(60 + 60 + MARGIN_S);

#[test]
fn a_day_closes_and_its_lists_stay_as_they_are() {
    close_a_day("thread");
}

#[test]
fn a_day_closes_on_glommio_too() {
    close_a_day("glommio");
}

fn close_a_day(runtime: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let now = now_ms();
    let today = now / DAY_MS * DAY_MS;
    let lateness = format!("--lateness-max={}s", (now - today) / 1000 + MARGIN_S);
    let setup = Setup { runtime: Some(runtime), more: vec![lateness], ..Setup::new(&data) };
    let engine = setup.start();
    // The first hour of yesterday is final already, the last one and the whole day are not.
    let (first_hour, last_hour) = (today - DAY_MS + 30 * MINUTE_MS, today - HOUR_MS + 30 * MINUTE_MS);
    let views =
        [("a", last_hour, 5), ("b", last_hour, 3), ("é", last_hour, 3), ("b", first_hour, 4), ("c", first_hour, 1)];
    load(&engine, folder.path(), &views).assert_verified();

    let days = wait_within("a closed day", CLOSING_TIME_MAX, || {
        let days = closed(&engine, "day");
        (!days.is_empty()).then_some(days)
    });
    let totals = |periods: &[Value]| periods.iter().map(|one| one["total_views"].clone()).collect::<Vec<_>>();
    assert_eq!(totals(&days), [json!(16)], "{days:?}");
    let hours = closed(&engine, "hour");
    assert_eq!(totals(&hours), [json!(11)], "the first hour had no view in time: {hours:?}");
    let questions = [("day", &days[0]), ("hour", &hours[0])].map(|(period, of)| {
        format!("/v1/videos/top?period={period}&window=tumbling&start={}", of["start_time"].as_str().unwrap())
    });
    let lists = questions.clone().map(|question| engine.ask(&question));
    let rows = |body: &Value| {
        let rows = body["top_videos"].as_array().unwrap().iter();
        rows.map(|row| (row["video_id"].clone(), row["view_count"].clone())).collect::<Vec<_>>()
    };
    let [day, hour] = [0, 1].map(|index| lists[index].json());
    assert_eq!((&day["final"], &hour["final"]), (&json!(true), &json!(true)), "{day} {hour}");
    assert_eq!(rows(&day), [("b", 7), ("a", 5), ("é", 3), ("c", 1)].map(|(id, count)| (json!(id), json!(count))));
    assert_eq!(rows(&hour), [("a", 5), ("b", 3), ("é", 3)].map(|(id, count)| (json!(id), json!(count))));

    // Too late for yesterday, and counted for ever all the same; nor does a kill change what is final.
    load_more(&engine, folder.path(), &[("c", last_hour, 50)]);
    let again = engine.same_place();
    engine.kill();
    let engine = again.start();
    let sidecar = Sidecar::start(&engine, &[]);
    wait_for("readiness", || (sidecar.ask("/readyz").status == 200).then_some(()));
    for (question, list) in questions.iter().zip(&lists) {
        assert_eq!(engine.ask(question).body, list.body);
        assert_eq!(sidecar.ask(question).body, list.body);
    }
    let all_time = wait_for("the late views", || {
        let first = engine.ask("/v1/videos/top?period=all-time&k=1").json()["top_videos"][0].clone();
        first["video_id"].is_string().then_some(first)
    });
    assert_eq!((&all_time["video_id"], &all_time["view_count"]), (&json!("c"), &json!(51)));

    audit(&data, &["--engine", engine.address(), "--ca", engine.ca()]);
    engine.terminate();
    audit(&data, &[]);
}

/// The closed periods of a kind that have a list.
fn closed(engine: &Engine, period: &str) -> Vec<Value> {
    let answer = engine.ask(&format!("/v1/periods?period={period}"));
    let periods = answer.json()["periods"].as_array().cloned().unwrap_or_default();
    periods.into_iter().filter(|one| one["final"] == true).collect()
}

fn csv(folder: &Path, views: &[(&str, u64, u64)]) -> String {
    let rows: Vec<_> = views.iter().flat_map(|&(id, ms, count)| (0..count).map(move |_| (id.to_owned(), ms))).collect();
    write_csv(folder, &rows).to_str().unwrap().to_owned()
}

fn load(engine: &Engine, folder: &Path, views: &[(&str, u64, u64)]) -> crate::support::loadgen::Done {
    Load::verified(engine, &["replay", &csv(folder, views)]).finish()
}

/// An engine that holds views is not verified once more.
fn load_more(engine: &Engine, folder: &Path, views: &[(&str, u64, u64)]) {
    let done = Load::unverified(engine, &["replay", &csv(folder, views)]).finish();
    assert_eq!((done.code, done.figure("views_acked")), (Some(0), done.figure("views_sent")), "{done:?}");
}

/// The audit finds no difference.
fn audit(data: &Path, more: &[&str]) {
    let out = command("highwater").args(["audit", "--data-dir"]).arg(data).args(more).output().unwrap();
    let text = [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(out.status.code(), Some(0), "{more:?}: {text:?}");
}
