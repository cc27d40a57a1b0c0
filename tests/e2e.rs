//! Views on their whole way: from a file or a generator over QUIC to lists over HTTP, verified to the last view.
//!
//! What it is not: a test under failures; those are in `crash` and `hostile`.

use crate::support::views::{DAY_MS, HOUR_MS, MINUTE_MS, NEWEST_MS, SECOND_MS, rows, spread_times, write_csv};
use crate::support::{Engine, Load, RECOVERED, RUNTIMES, Setup, block_on, now_ms, wait_for};
use highwater_client::{Fate, LookupClient, Producer, Subscriber};
use highwater_proto::{Period, Pushed, View, ViewRefusal, Window};
use std::sync::mpsc::{Sender, channel};

const LISTED_MAX: usize = 1000;

#[test]
fn a_replayed_file_is_served_exactly() {
    RUNTIMES.into_iter().for_each(replay_a_file);
}

fn replay_a_file(runtime: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let rows = rows(spread_times(30_000), 4000);
    let file = write_csv(folder.path(), &rows);
    let engine = Setup { runtime: Some(runtime), ..Setup::new(&folder.path().join("data")) }.start();
    let report = folder.path().join("report.json");
    let report_flag = format!("--report={}", report.display());
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--speed=max", "--batch=700", &report_flag];
    let done = Load::verified(&engine, &load).finish();
    done.assert_verified();
    assert_eq!((done.figure("views_sent"), done.figure("refused"), done.figure("duplicates")), (30_000, 0, 0));
    let written: serde_json::Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(written, done.report);

    let hour = engine.top(Period::Hour, 1);
    let all = engine.top(Period::AllTime, 1);
    assert_eq!(all["top_videos"].as_array().unwrap().len(), LISTED_MAX);
    assert!(hour["start_time"].is_string() && all["start_time"].is_null(), "{hour} {all}");
    assert_eq!((engine.metric("views_received_total"), engine.metric("views_counted_total")), (30_000, 30_000));
}

#[test]
fn a_generated_load_of_two_producers_is_served_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let load = ["run", "--rate=40000", "--duration=3s", "--videos=20000", "--producers=2", "--batch=1000", "--seed=5"];
    let done = Load::verified(&engine, &load).finish();
    done.assert_verified();
    assert_eq!(done.figure("views_sent"), 120_000);
    assert!(done.figure("distinct_videos") > 5000);
}

#[test]
fn views_of_all_ages_are_served_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    // Those of two ages leave their windows within a minute or so.
    let ages = "--age=0s,59m30s,2h,23h59m30s,26h,10d,45d";
    let load = ["run", "--rate=20000", "--duration=10s", "--videos=20000", "--producers=2", "--batch=1000", ages];
    let done = Load::verified(&engine, &load).finish();
    done.assert_verified();
    assert_eq!(done.figure("views_sent"), 200_000);
}

#[test]
fn views_of_the_future_are_refused_by_reason_and_the_rest_is_exact() {
    let folder = tempfile::tempdir().unwrap();
    let (now, ahead) = (now_ms(), 3 * HOUR_MS);
    // The present falls into a gap of the file, so that the number of future views does not hang on when it is sent.
    let past = (0..8000).map(|index| NEWEST_MS - ahead - index * 9973 % (2 * DAY_MS));
    let soon = (0..300).map(|index| NEWEST_MS - ahead + index * 100);
    let future = (0..5000).map(|index| NEWEST_MS - index * 997 % (ahead - 10 * MINUTE_MS));
    let mut rows = rows(past.chain(soon).chain(future), 700);
    rows.sort_by_key(|(_, time_ms)| time_ms * 31 % 1009);
    let file = write_csv(folder.path(), &rows);
    let engine = Engine::start(&folder.path().join("data"));
    let shift_ms = now as i64 - (NEWEST_MS - ahead) as i64;
    let shift = format!("--shift-ms={shift_ms}");
    let done = Load::verified(&engine, &["replay", file.to_str().unwrap(), &shift, "--batch=512"]).finish();
    done.assert_verified();
    let reasons = &done.report["refused_by_reason"];
    assert_eq!((done.figure("refused"), reasons["future_beyond_skew"].as_u64()), (5000, Some(5000)), "{reasons}");
    assert_eq!(done.report["shift_ms"].as_i64(), Some(shift_ms));
    assert_eq!(engine.metric("views_refused_total"), 5000);
    assert_eq!(engine.metric("views_counted_total"), 8300);
}

#[test]
fn a_second_verified_load_is_refused_because_the_engine_holds_views() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let load = ["run", "--rate=5000", "--duration=200ms", "--videos=100"];
    Load::verified(&engine, &load).finish().assert_verified();
    let again = Load::verified(&engine, &load).finish();
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("already holds views"), "{again:?}");
    assert_eq!(engine.metric("views_received_total"), 1000);
}

#[test]
fn a_clean_stop_needs_no_repair_and_changes_no_list() {
    let folder = tempfile::tempdir().unwrap();
    // No window's edge passes these views while the test runs.
    let times = (0..20_000).map(|index| NEWEST_MS - index * 997 % (30 * MINUTE_MS));
    let file = write_csv(folder.path(), &rows(times, 3000));
    let engine = Engine::start(&folder.path().join("data"));
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--batch=900"];
    Load::verified(&engine, &load).finish().assert_verified();
    let (lists, instance) = (engine.lists(), engine.ready["instance"].clone());
    let epoch = engine.top(Period::AllTime, 1)["epoch"].as_u64().unwrap();
    let again = engine.same_place();
    let ended = engine.terminate();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.log.contains("needs no repair"), "{ended:?}");

    let engine = again.start();
    let line = engine.log_line(RECOVERED);
    assert!(line.contains(" records=0 views=0 "), "{line}");
    assert_eq!(engine.ready["instance"], instance);
    assert_eq!(engine.lists(), lists);
    assert!(engine.top(Period::AllTime, 1)["epoch"].as_u64().unwrap() > epoch);
}

#[test]
fn a_full_table_refuses_new_videos_and_counts_known_ones() {
    fill_a_table(1, "512MiB", 120_000);
    fill_a_table(2, "768MiB", 200_000);
}

fn fill_a_table(cores: usize, memory: &'static str, videos: u64) {
    let folder = tempfile::tempdir().unwrap();
    let engine = Setup { cores, memory, ..Setup::new(&folder.path().join("data")) }.start();
    // The least memory holds about 20 MB of long ids.
    let id = |number: u64| format!("{number:0>250}");
    let once = (0..videos).map(|number| (id(number), NEWEST_MS - number % 600 * SECOND_MS));
    let again = (0..5000).map(|number| (id(number), NEWEST_MS));
    let rows: Vec<_> = once.chain(again).collect();
    let file = write_csv(folder.path(), &rows);
    let done = Load::verified(&engine, &["replay", file.to_str().unwrap(), "--shift-to-now", "--in-flight=1"]).finish();
    done.assert_verified();
    let refused = done.figure("refused");
    assert_eq!(done.report["refused_by_reason"]["table_full"].as_u64(), Some(refused));
    assert!((videos / 6..videos).contains(&refused), "{refused} refused");
    let first = &engine.top(Period::Hour, 1)["top_videos"][0];
    assert_eq!((first["video_id"].as_str(), first["view_count"].as_u64()), (Some(id(0).as_str()), Some(2)));
    assert!(engine.terminate().code == Some(0));
}

#[test]
fn a_state_that_does_not_fit_the_memory_is_refused_with_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(&folder.path().join("data"));
    let large = Setup { memory: "2GiB", ..setup.clone() };
    let rows: Vec<_> = (0..120_000).map(|number| (format!("{number:0>250}"), NEWEST_MS)).collect();
    let file = write_csv(folder.path(), &rows);
    let engine = large.start();
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--in-flight=1"];
    let done = Load::unverified(&engine, &load).finish();
    assert_eq!((done.code, done.figure("refused")), (Some(0), 0), "{done:?}");
    engine.terminate();
    let refused = setup.refused();
    assert_eq!(refused.code, Some(1));
    assert!(refused.log.contains("--memory") && refused.log.contains("bytes"), "{}", refused.log);
    let engine = large.start();
    wait_for("all videos in the metrics", || (engine.metric("videos") == 120_000).then_some(()));
}

/// Sends `(video, age in ms)` views in one batch and returns the batch's fate.
async fn send(producer: &mut Producer, fates: &std::sync::mpsc::Receiver<Fate>, views: &[(&str, i64)]) -> Fate {
    let mut batch = producer.batch_builder();
    for (video_id, age_ms) in views {
        let timestamp_ms = now_ms().checked_add_signed(-age_ms).unwrap();
        let view = View { video_id, timestamp_ms, user_id: "user", region: "DE", device: "tv" };
        assert_eq!(batch.push(&view), Ok(Pushed::Added));
    }
    producer.send(&mut batch, 9).await.unwrap();
    loop {
        match fates.try_recv() {
            Ok(fate) => return fate,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    }
}

fn told(fates: Sender<Fate>) -> impl FnMut(Fate) + Send + 'static {
    move |fate| {
        // A test that has ended listens no more.
        let _ = fates.send(fate);
    }
}

#[test]
fn a_producer_a_subscriber_and_a_look_up_agree() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    block_on(async {
        let mut subscriber = Subscriber::connect(engine.client()).await.unwrap();
        let (sender, fates) = channel();
        let mut producer = Producer::connect(engine.client(), told(sender)).await.unwrap();
        let (hour, day, month) = (HOUR_MS as i64, DAY_MS as i64, 30 * DAY_MS as i64);
        let minutes = 5 * MINUTE_MS as i64;
        let views = [
            ("b", 0),
            ("a", hour - minutes),
            ("b", hour + minutes),
            ("a", day + minutes),
            ("c", month + hour + minutes),
            ("c", -(hour + minutes)),
        ];
        let fate = send(&mut producer, &fates, &views).await;
        assert_eq!((fate.counted, fate.duplicate, fate.refused.len(), fate.token), (5, 0, 1, 9));
        let refused = fate.refused[0];
        assert_eq!((refused.first, refused.count, refused.reason), (5, 1, ViewRefusal::FutureBeyondSkew));

        let mut last = None;
        let snapshot = loop {
            let snapshot = subscriber.next().await.unwrap();
            assert!(last < Some(snapshot.epoch), "epochs only grow");
            last = Some(snapshot.epoch);
            if snapshot.epoch >= fate.visible_epoch {
                break snapshot;
            }
        };
        let list = |period| {
            let board = snapshot.board(period, Window::Sliding).unwrap();
            board.rows.iter().map(|row| (&*row.video_id, row.view_count)).collect::<Vec<_>>()
        };
        assert_eq!(list(Period::Hour), [("a", 1), ("b", 1)]);
        assert_eq!(list(Period::Day), [("b", 2), ("a", 1)]);
        assert_eq!(list(Period::Month), [("a", 2), ("b", 2)]);
        assert_eq!(list(Period::AllTime), [("a", 2), ("b", 2), ("c", 1)]);

        let lookups = LookupClient::new(engine.client()).unwrap();
        let counts = lookups.lookup("b").await.unwrap();
        assert!(counts.epoch >= fate.visible_epoch && counts.instance == snapshot.instance);
        let found = |period| counts.counts.iter().find(|count| count.period == period).unwrap();
        let figures = Period::ALL.map(|period| (found(period).view_count, found(period).rank));
        assert_eq!(figures, [(1, Some(2)), (2, Some(1)), (2, Some(2)), (2, Some(2))]);
        let unknown = lookups.lookup("nobody's").await.unwrap();
        assert!(unknown.counts.iter().all(|count| count.view_count == 0 && count.rank.is_none()), "{unknown:?}");
        producer.finish().await.unwrap();
    });
}

#[test]
fn a_producer_that_resumes_goes_on_after_its_last_batch() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(folder.path());
    let again = engine.same_place();
    let id = block_on(async {
        let (sender, fates) = channel();
        let mut producer = Producer::connect(engine.client(), told(sender)).await.unwrap();
        let first = send(&mut producer, &fates, &[("x", 0)]).await;
        let second = send(&mut producer, &fates, &[("x", 0), ("y", 0)]).await;
        assert_eq!((first.sequence.0, second.sequence.0), (1, 2));
        let id = producer.id();
        producer.finish().await.unwrap();
        id
    });
    drop(engine.kill());
    let engine = again.start();
    block_on(async {
        let (sender, fates) = channel();
        let mut producer = Producer::resume(engine.client(), id, told(sender)).await.unwrap();
        let third = send(&mut producer, &fates, &[("x", 0)]).await;
        assert_eq!(third.sequence.0, 3);
        producer.finish().await.unwrap();
        let stranger = highwater_proto::ProducerId(id.0 ^ 1);
        let refused = Producer::resume(engine.client(), stranger, |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("producer_unknown"), "{refused}");
    });
    wait_for("the third batch's view", || {
        (engine.top(Period::AllTime, 1)["top_videos"][0]["view_count"] == 3).then_some(())
    });
}
