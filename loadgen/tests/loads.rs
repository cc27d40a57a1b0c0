//! Whole loads against a small engine in the same process: run, replay, verification, loss of the engine, exit codes.
//!
//! What it is not: a test of the real engine. Invariant: what the small engine answers over HTTP is counted from the
//! batches it logged, by sorting them, so an error of the oracle shows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

#[allow(dead_code, reason = "the client's tests use more of it")]
#[path = "../../proto/client/tests/engine/mod.rs"]
mod engine;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{Book, Engine};
use highwater_loadgen::{LoadError, Progress, Rate, ReplayOptions, RunOptions, Shift, Speed, Target, replay, run};
use highwater_proto::{Batch, BatchRefusal, CloseReason, ENCODING_PLAIN_BIT, ENCODINGS, Period, Window};

const MINUTE_MS: u64 = 60_000;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Serves the book's ranking on a free port; `wrong` is added to every count.
fn serve_http(book: Arc<Mutex<Book>>, wrong: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &book, wrong);
        }
    });
    url
}

fn answer(mut stream: TcpStream, book: &Mutex<Book>, wrong: u64) {
    let mut line = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    reader.read_line(&mut line).unwrap();
    let mut header = String::new();
    while reader.read_line(&mut header).unwrap() > 2 {
        header.clear();
    }
    let query = line.split(' ').nth(1).unwrap().split_once('?').unwrap().1;
    let parameters: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let period: Period = parameters["period"].parse().unwrap();
    let window: Window = parameters["window"].parse().unwrap();
    let k: usize = parameters["k"].parse().unwrap();
    let body = ranking(&book.lock().unwrap(), (period, window), k, wrong);
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).unwrap();
}

/// The first minute of a window, none for all-time; and the end of a calendar period.
fn bounds((period, window): (Period, Window), minute: u64) -> (Option<u64>, Option<u64>) {
    let date = jiff::Timestamp::from_second(minute as i64 * 60).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
    let at =
        |date: jiff::civil::Date| date.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second() as u64 / 60;
    match (period, window) {
        (Period::AllTime, _) => (None, None),
        (Period::Hour, Window::Sliding) => (Some(minute - 60), None),
        (Period::Day, Window::Sliding) => (Some(minute - 1440), None),
        (Period::Month, Window::Sliding) => (Some(minute - 43_200 - minute % 60), None),
        (Period::Hour, Window::Tumbling) => (Some(minute - minute % 60), Some(minute - minute % 60 + 60)),
        (Period::Day, Window::Tumbling) => (Some(at(date)), Some(at(date.tomorrow().unwrap()))),
        (Period::Month, Window::Tumbling) => {
            (Some(at(date.first_of_month())), Some(at(date.last_of_month().tomorrow().unwrap())))
        }
    }
}

fn ranking(book: &Book, list: (Period, Window), k: usize, wrong: u64) -> String {
    let as_of = now_ms();
    let minute = as_of / MINUTE_MS;
    let (start, end) = bounds(list, minute);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut latest = minute;
    for payload in book.logged.values().flatten() {
        for view in Batch::decode(payload).unwrap().views() {
            let minute = view.timestamp_ms / MINUTE_MS;
            latest = latest.max(minute);
            if minute >= start.unwrap_or(0) && minute < end.unwrap_or(u64::MAX) {
                *counts.entry(view.video_id.to_owned()).or_default() += 1;
            }
        }
    }
    let total: u64 = counts.values().sum();
    let mut rows: Vec<(String, u64)> = counts.into_iter().collect();
    rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let top_videos: Vec<serde_json::Value> = (1..)
        .zip(rows.iter().take(k))
        .map(|(rank, (id, count))| serde_json::json!({"rank": rank, "video_id": id, "view_count": count + wrong}))
        .collect();
    let listed: u64 = rows.iter().take(k).map(|(_, count)| count).sum();
    let time = |minute: u64| jiff::Timestamp::from_second(minute as i64 * 60).unwrap().to_string();
    serde_json::json!({
        "period": list.0.as_str(), "window": list.1.as_str(), "start_time": start.map(time),
        "end_time": time(end.unwrap_or(latest + 1)),
        "as_of": jiff::Timestamp::from_millisecond(as_of as i64).unwrap().to_string(),
        "epoch": 1_000_000, "total_views": total, "other_views": total - listed, "top_videos": top_videos,
    })
    .to_string()
}

fn target(engine: &Engine, verify: Option<String>) -> Target {
    let mut client = engine.config();
    client.idle_timeout = Duration::from_millis(600);
    client.reconnect_timeout = Duration::from_secs(20);
    Target { client, producers: 2, batch_views: 500, verify }
}

fn run_options(engine: &Engine, verify: Option<String>) -> RunOptions {
    RunOptions {
        target: target(engine, verify),
        rate: Rate::PerSecond(20_000),
        duration: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        prepared: 0,
        videos: 3000,
        ages: Vec::new(),
        zipf: 1.0,
        user_bytes: None,
        seed: 7,
    }
}

#[test]
fn a_run_at_a_set_rate_is_counted_to_the_last_view() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    let progress = Progress::new();
    let outcome = run(&run_options(&engine, Some(url)), &progress).unwrap();
    assert!(outcome.succeeded(), "{:?} {:?}", outcome.differences, outcome.failure);
    let report = &outcome.report;
    assert_eq!((report.views_sent, report.views_acked, report.views_counted), (20_000, 20_000, 20_000));
    assert_eq!((report.verified, engine.views(), progress.views_acked()), (Some(true), 20_000, 20_000));
    assert!(report.rate_per_s > 5_000.0 && report.rate_per_s < 21_000.0, "{}", report.rate_per_s);
    assert!(report.bytes_per_view > 20.0 && report.distinct_videos > 1000);
    let logged = payload_bytes(&engine);
    assert_eq!(report.bytes_per_view, logged as f64 / 20_000.0);
    assert!(report.ack_latency_us.max >= report.ack_latency_us.p50);
    assert!(report.generator.valid.is_some() && report.generator.late_us_max.is_some(), "{:?}", report.generator);
}

/// A load without a plan once counted as punctual, whatever the generator did.
#[test]
fn whether_a_load_as_fast_as_is_answered_was_punctual_is_not_said() {
    let engine = Engine::start();
    let options = RunOptions { rate: Rate::Max, duration: Duration::from_millis(200), ..run_options(&engine, None) };
    let outcome = run(&options, &Progress::new()).unwrap();
    assert!(outcome.succeeded() && outcome.report.views_acked > 0, "{:?}", outcome.failure);
    let json: serde_json::Value = serde_json::from_str(&outcome.report.to_json().unwrap()).unwrap();
    for key in ["valid", "late_us_p99", "late_us_p999", "late_us_max"] {
        assert!(json["generator"].get(key).is_some_and(serde_json::Value::is_null), "{key}: {json}");
    }
    assert!(json["generator"]["cpu_percent"].as_f64().unwrap() > 0.0, "{json}");
}

#[test]
fn an_engine_that_makes_no_room_is_not_the_generator_s_fault() {
    let engine = Engine::start();
    // The refused batch is sent again after ten pauses of 30 ms, and all behind it wait.
    engine.book.lock().unwrap().refuse = Some((5, BatchRefusal::DiskFull, 10));
    let mut options = run_options(&engine, None);
    options.target.producers = 1;
    options.target.client.in_flight_max = 1;
    let report = run(&options, &Progress::new()).unwrap().report;
    assert_eq!((report.views_acked, report.retries), (20_000, 10));
    let (late, acked) = (report.generator.late_us_max.unwrap(), report.ack_latency_us.max);
    assert!(acked >= 300_000 && late < acked / 2, "{late} us late, {acked} us until the answer");
}

#[test]
fn batches_made_ahead_are_counted_to_the_last_view_also_past_a_loss() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    engine.book.lock().unwrap().refuse = Some((9, BatchRefusal::DiskFull, 2));
    let options = RunOptions { prepared: 4000, warm_up: Duration::from_millis(300), ..run_options(&engine, Some(url)) };
    let outcome = run(&options, &Progress::new()).unwrap();
    assert!(outcome.succeeded(), "{:?} {:?}", outcome.differences, outcome.failure);
    let report = &outcome.report;
    assert_eq!((report.views_acked, engine.views(), report.verified), (20_000, 20_000, Some(true)));
    assert!(report.retries > 0 && report.distinct_videos > 1000 && report.distinct_videos < 3000);
    let told: u64 = outcome.seconds.iter().map(|second| second.views).sum();
    assert_eq!(told, 20_000);
    let aged = RunOptions { ages: vec![Duration::from_secs(60)], ..options };
    assert!(run(&aged, &Progress::new()).unwrap_err().is_usage());
}

#[test]
fn columns_are_as_the_engine_takes_them_and_as_the_option_says() {
    let engine = Engine::start();
    let bytes_per_view = |encodings, told, prepared| {
        engine.book.lock().unwrap().encodings = told;
        let mut options = RunOptions { prepared, user_bytes: Some(70), ..run_options(&engine, None) };
        options.target.client.encodings = encodings;
        let before = payload_bytes(&engine);
        let outcome = run(&options, &Progress::new())?;
        assert!(outcome.succeeded(), "{:?}", outcome.failure);
        assert_eq!(outcome.report.bytes_per_view, (payload_bytes(&engine) - before) as f64 / 20_000.0);
        Ok::<f64, LoadError>(outcome.report.bytes_per_view)
    };
    for prepared in [0, 4000] {
        let plain = bytes_per_view(ENCODING_PLAIN_BIT, ENCODINGS, prepared).unwrap();
        assert!((100.0..101.0).contains(&plain), "{plain}");
        let compact = bytes_per_view(ENCODINGS, ENCODINGS, prepared).unwrap();
        assert!(compact < 90.0, "{compact}");
    }
    // What is made as it is sent keeps to the welcome; what was made ahead cannot.
    assert!(bytes_per_view(ENCODINGS, ENCODING_PLAIN_BIT, 0).unwrap() > 100.0);
    let refused = bytes_per_view(ENCODINGS, ENCODING_PLAIN_BIT, 4000).unwrap_err();
    assert!(refused.is_usage() && refused.to_string().contains("--encoding=plain"), "{refused}");
}

/// Bytes of all payloads that the engine has.
fn payload_bytes(engine: &Engine) -> usize {
    engine.book.lock().unwrap().logged.values().flatten().map(Vec::len).sum()
}

#[test]
fn losses_and_refusals_on_the_way_count_nothing_twice() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    engine.book.lock().unwrap().refuse = Some((9, BatchRefusal::DiskFull, 2));
    let book = Arc::clone(&engine.book);
    let spoiler = std::thread::spawn(move || {
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(150));
            book.lock().unwrap().lose_after = Some((3, CloseReason::ShuttingDown));
        }
    });
    // One producer: the small engine answers nobody from the moment it is told to lose a connection until it has.
    let mut options = run_options(&engine, Some(url));
    options.target.producers = 1;
    let outcome = run(&options, &Progress::new()).unwrap();
    spoiler.join().unwrap();
    assert!(outcome.succeeded(), "{:?} {:?}", outcome.differences, outcome.failure);
    let report = &outcome.report;
    assert_eq!((report.views_acked, engine.views()), (20_000, 20_000));
    assert!(report.reconnects >= 1 && report.retries >= 1 && report.duplicates >= 500, "{report:?}");
}

#[test]
fn an_engine_that_dies_and_comes_back_is_verified_too() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    let options = RunOptions { duration: Duration::from_secs(2), ..run_options(&engine, Some(url)) };
    let load = std::thread::spawn(move || run(&options, &Progress::new()).unwrap());
    std::thread::sleep(Duration::from_millis(700));
    let engine = engine.die_and_restart();
    let outcome = load.join().unwrap();
    assert!(outcome.succeeded(), "{:?} {:?}", outcome.differences, outcome.failure);
    assert_eq!((outcome.report.views_acked, engine.views()), (40_000, 40_000));
    assert!(outcome.report.reconnects >= 2, "{:?}", outcome.report);
}

#[test]
fn wrong_counts_are_found_and_told() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 1);
    let outcome = run(&run_options(&engine, Some(url)), &Progress::new()).unwrap();
    assert!(!outcome.succeeded());
    assert_eq!((outcome.report.verified, outcome.failure.is_none()), (Some(false), true));
    assert!(outcome.differences.len() >= 7 && outcome.differences.len() <= 70, "{:?}", outcome.differences);
}

#[test]
fn an_engine_with_views_is_refused_before_anything_is_sent() {
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    run(&run_options(&engine, None), &Progress::new()).unwrap();
    let error = run(&run_options(&engine, Some(url)), &Progress::new()).unwrap_err();
    assert!(matches!(error, LoadError::EngineNotEmpty { .. }), "{error}");
    assert_eq!(engine.views(), 20_000);
}

#[test]
fn a_stopped_run_reports_what_it_did() {
    let engine = Engine::start();
    let progress = Progress::new();
    let stopper = Arc::clone(&progress);
    let options = RunOptions { duration: Duration::from_secs(600), ..run_options(&engine, None) };
    let stopping = std::thread::spawn(move || {
        while stopper.views_acked() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        stopper.stop();
    });
    let outcome = run(&options, &progress).unwrap();
    stopping.join().unwrap();
    assert!(outcome.succeeded());
    assert_eq!(outcome.report.views_sent, engine.views());
}

fn write_views(path: &Path, views: u64) {
    let mut text = "video_id,ts_ms,user_id,region,device\n".to_owned();
    for index in 0..views {
        let video = index * index % 97;
        text.push_str(&format!("\"video {video}, of the file\",{},u{index},,d\n", 1_000_000_000_000 + index * 997));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_replayed_file_is_counted_in_every_period() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("views.csv");
    write_views(&file, 7000);
    let engine = Engine::start();
    let url = serve_http(Arc::clone(&engine.book), 0);
    let options = ReplayOptions { target: target(&engine, Some(url)), file, shift: Shift::ToNow, speed: Speed::Max };
    let outcome = replay(&options, &Progress::new()).unwrap();
    assert!(outcome.succeeded(), "{:?} {:?}", outcome.differences, outcome.failure);
    assert_eq!((outcome.report.views_acked, outcome.report.distinct_videos), (7000, 49));
    assert!(outcome.report.shift_ms > 0);
}

fn loadgen(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadgen")).args(arguments).output().unwrap()
}

#[test]
fn the_command_line_reports_and_exits_as_promised() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    write_views(Path::new(&path("views.csv")), 300);
    let engine = Engine::start();
    std::fs::write(path("ca.pem"), engine.config().ca_pem).unwrap();
    let verify = format!("--verify={}", serve_http(Arc::clone(&engine.book), 0));
    let (ca, report) = (format!("--ca={}", path("ca.pem")), format!("--report={}", path("report.json")));
    let address = format!("--engine={}", engine.address);

    let done =
        loadgen(&["replay", &path("views.csv"), &address, &ca, "--shift-to-now", "--speed=max", &verify, &report]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path("report.json")).unwrap()).unwrap();
    for key in
        ["views_sent", "views_acked", "duplicates", "refused", "shift_ms", "verified", "rate_per_s", "bytes_per_view"]
    {
        assert!(!json[key].is_null(), "{key} is missing: {json}");
    }
    for key in ["distinct_videos", "machine", "kernel", "commit", "command_line"] {
        assert!(!json[key].is_null(), "{key} is missing: {json}");
    }
    for key in ["p50", "p90", "p99", "p999", "max"] {
        assert!(json["ack_latency_us"][key].is_u64(), "{key} is missing: {json}");
    }

    let again = loadgen(&["run", &address, &ca, "--rate=1000", "--duration=100ms", &verify]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already holds views"));
    assert_eq!(loadgen(&["run", &address, &ca, "--rate=1", "--duration=100ms"]).status.code(), Some(2));
    assert_eq!(loadgen(&["run", &address]).status.code(), Some(2));
    for warm_up in ["--warm-up=1s", "--warm-up=2s"] {
        let unmeasured = loadgen(&["run", &address, &ca, "--duration=1s", warm_up]);
        let said = String::from_utf8_lossy(&unmeasured.stderr);
        assert_eq!((unmeasured.status.code(), unmeasured.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(warm_up) && said.contains("--duration=1s"), "{said}");
    }
    assert_eq!(loadgen(&["--help"]).status.code(), Some(0));
}
