//! Engines of several cores: producers find their homes, lists are merged, starts with other numbers of cores.
//!
//! On a machine with one CPU these run on one core, which proves less; they say so.

use crate::support::views::{MINUTE_MS, NEWEST_MS, rows, write_csv};
use crate::support::{Engine, Load, RECOVERED, Setup, wait_for};
use highwater_client::Producer;
use highwater_proto::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, Pushed, View};
use std::net::UdpSocket;
use std::path::Path;

/// An engine of several cores on free ports.
fn setup(data_dir: &Path, cores: usize) -> Setup {
    Setup { cores, memory: "1GiB", ..Setup::new(data_dir) }
}

/// A port that is free like the `count` next ones, and was not given out before in this process.
fn ports_in_a_row(count: u16) -> u16 {
    let is_free = |port: &u16| (*port..port + count).all(|port| UdpSocket::bind(("127.0.0.1", port)).is_ok());
    // Below the range from which the system gives out ports of its own accord.
    let first = 20_000 + (std::process::id() % 1000) as u16 * 8;
    (first..32_000).step_by(usize::from(count)).find(is_free).expect("ports in a row")
}

#[test]
fn producers_find_their_home_cores_and_every_view_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let engine = setup(folder.path(), 2).start();
    let cores = engine.ready["listen"].as_array().unwrap().len() as u64;
    let load = ["run", "--rate=30000", "--duration=4s", "--videos=30000", "--producers=6", "--batch=400", "--seed=5"];
    Load::verified(&engine, &load).finish().assert_verified();
    let page = engine.ask("/metrics").body;
    for core in 0..cores {
        assert!(page.contains(&format!("highwater_loop_turn_us_max{{core=\"{core}\"}}")), "{page}");
    }
    assert!(engine.metric("welcomes_total") >= 6);
    let (received, counted) = (engine.metric("views_received_total"), engine.metric("views_counted_total"));
    assert_eq!((received, counted), (120_000, 120_000));
    let ended = engine.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[test]
fn a_producer_at_the_wrong_core_is_sent_home() {
    let folder = tempfile::tempdir().unwrap();
    let engine = setup(folder.path(), 2).start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cores = engine.ready["listen"].as_array().unwrap().len();
    let mut producers = 0;
    // Producer ids are random: half of them have their home elsewhere.
    while engine.metric("redirects_total") == 0 && (cores > 1 || producers == 0) {
        producers += 1;
        assert!(producers < 200, "no producer was redirected");
        runtime.block_on(async {
            let mut producer = Producer::connect(engine.client(), |_| {}).await.unwrap();
            let mut batch = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
            let view = View { video_id: "v", timestamp_ms: 1, user_id: "", region: "", device: "" };
            assert_eq!(batch.push(&view).unwrap(), Pushed::Added);
            producer.send(&mut batch, 0).await.unwrap();
            producer.finish().await.unwrap();
        });
        // Metrics are published with the snapshots.
        wait_for("the batch's count", || (engine.metric("views_counted_total") >= producers).then_some(()));
    }
}

#[test]
fn killed_and_started_with_another_number_of_cores_it_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let port = ports_in_a_row(2);
    let mut place = setup(&folder.path().join("data"), 1);
    place.listen = format!("127.0.0.1:{port}");
    let mut engine = place.start();
    place.http = engine.ready["http"].as_str().unwrap().to_owned();
    let load = ["run", "--rate=20000", "--duration=20s", "--videos=30000", "--producers=4", "--batch=500", "--seed=8"];
    let mut load = Load::verified(&engine, &load);
    for cores in [2, 1, 2] {
        wait_for("the first views of this start", || (engine.metric("views_counted_total") > 0).then_some(()));
        assert!(load.runs(), "the load was over before the last kill: raise its duration");
        engine.kill();
        engine = Setup { cores, ..place.clone() }.start();
    }
    let done = load.finish();
    done.assert_verified();
    assert!(done.figure("reconnects") >= 3, "{done:?}");
}

#[test]
fn lists_are_the_same_on_any_number_of_cores() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = setup(&data, 2).start();
    let times = (0..20_000).map(|index| NEWEST_MS - index * 997 % (30 * MINUTE_MS));
    let file = write_csv(folder.path(), &rows(times, 3000));
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--batch=900", "--producers=3"];
    Load::verified(&engine, &load).finish().assert_verified();
    let lists = engine.lists();
    engine.kill();
    let one: Engine = setup(&data, 1).start();
    assert_eq!(one.lists(), lists, "two cores, then one");
    one.terminate();
    let two = setup(&data, 2).start();
    assert_eq!(two.lists(), lists, "one core, then two");
    let line = two.log_line(RECOVERED);
    assert!(line.contains(" records=0 "), "a clean stop leaves nothing to replay: {line}");
}
