//! The client against a small engine in the same process: sessions, losses, refusals, redirects.
//!
//! What it is not: a test of the rules of a window of batches, which stand beside their code. Invariant: every test
//! waits for a state, never for a time, except where a time limit is what is tested.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

#[allow(dead_code, reason = "what is asked of the engine is tested beside this")]
mod engine;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{Engine, Identity};
use highwater_client::{ClientConfig, ClientError, Fate, Producer};
use highwater_proto::{
    Batch, BatchBuilder, BatchRefusal, CloseReason, ENCODING_NARROW_TIMES_BIT, ENCODING_PLAIN_BIT, ENCODINGS,
    HelloMode, ProducerId, Pushed, Redirect, Sequence, View,
};

/// Fates in the order reported.
#[derive(Clone, Default)]
struct Fates(Arc<Mutex<Vec<Fate>>>);

impl Fates {
    fn sink(&self) -> impl FnMut(Fate) + Send + 'static {
        let fates = Arc::clone(&self.0);
        move |fate| fates.lock().unwrap().push(fate)
    }

    fn all(&self) -> Vec<Fate> {
        self.0.lock().unwrap().clone()
    }

    async fn wait_for(&self, count: usize) {
        let started = Instant::now();
        while self.0.lock().unwrap().len() < count {
            assert!(started.elapsed() < Duration::from_secs(20), "only {} fates", self.0.lock().unwrap().len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn fill(builder: &mut BatchBuilder, number: u64, views: u32) {
    for view in 0..views {
        let video_id = format!("video-{number}-{view}");
        let timestamp_ms = 1_720_000_000_000 + number;
        let view = View { video_id: &video_id, timestamp_ms, user_id: "user", region: "NL", device: "tv" };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
}

async fn send(producer: &mut Producer, numbers: std::ops::Range<u64>) {
    let mut builder = producer.batch_builder();
    for number in numbers {
        fill(&mut builder, number, 10);
        producer.send(&mut builder, number).await.unwrap();
    }
}

/// Each token once, in order, and every view either counted or a duplicate.
fn assert_exactly_once(fates: &[Fate], count: u64) {
    let tokens: Vec<u64> = fates.iter().map(|fate| fate.token).collect();
    assert_eq!(tokens, (0..count).collect::<Vec<_>>());
    assert!(fates.iter().all(|fate| fate.counted + fate.duplicate == 10 && fate.view_count == 10));
    assert!(fates.iter().all(|fate| fate.acked_at >= fate.sent_at));
}

#[tokio::test]
async fn prepared_batches_are_each_a_batch_of_their_own_and_settled_waits_for_all() {
    let engine = Engine::start();
    let fates = Fates::default();
    let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
    let mut builder = producer.batch_builder();
    fill(&mut builder, 1, 10);
    let prepared = builder.prepare();
    assert!(builder.is_empty() && producer.has_room());
    for token in 0..200 {
        producer.send_prepared(&prepared, 1_720_000_000_000 + token, token).await.unwrap();
        if token % 70 == 69 {
            producer.settled().await.unwrap();
            assert_eq!(fates.all().len() as u64, token + 1);
        }
    }
    producer.settled().await.unwrap();
    producer.settled().await.unwrap();
    assert_exactly_once(&fates.all(), 200);
    let times: Vec<u64> = {
        let book = engine.book.lock().unwrap();
        let batches = book.logged.values().flatten().map(|payload| Batch::decode(payload).unwrap());
        batches.flat_map(|batch| batch.timestamps().collect::<Vec<_>>()).collect()
    };
    let expected: Vec<u64> = (0..2000).map(|view| 1_720_000_000_000 + view / 10).collect();
    assert_eq!(times, expected);
    assert_eq!(producer.finish().await.unwrap().last, Sequence(200));
}

#[tokio::test]
async fn columns_are_in_encodings_that_both_sides_take() {
    for (allowed, told, dictionary) in [
        (ENCODINGS, ENCODINGS, true),
        (ENCODINGS, u32::MAX, true),
        (ENCODINGS, ENCODING_PLAIN_BIT, false),
        (ENCODING_PLAIN_BIT, ENCODINGS, false),
        (ENCODINGS, ENCODING_PLAIN_BIT | ENCODING_NARROW_TIMES_BIT, false),
    ] {
        let engine = Engine::start();
        engine.book.lock().unwrap().encodings = told;
        let config = ClientConfig { encodings: allowed, ..engine.config() };
        let mut producer = Producer::connect(config, |_| ()).await.unwrap();
        assert_eq!(producer.encodings(), allowed & told);
        let mut builder = producer.batch_builder();
        for _ in 0..10 {
            let view = View { video_id: "one", timestamp_ms: 1000, user_id: "", region: "DE", device: "tv" };
            assert_eq!(builder.push(&view), Ok(Pushed::Added));
        }
        producer.send(&mut builder, 0).await.unwrap();
        producer.finish().await.unwrap();
        let book = engine.book.lock().unwrap();
        let payload = book.logged.values().flatten().next().unwrap();
        let batch = Batch::decode(payload).unwrap();
        assert_eq!(batch.video_dictionary().is_some(), dictionary, "{allowed} and {told}");
        assert_eq!(batch.video_ids().filter(|id| *id == "one").count(), 10);
    }
}

#[tokio::test]
async fn an_engine_that_comes_back_with_fewer_encodings_gets_no_others() {
    let mut engine = Engine::start();
    let fates = Fates::default();
    let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
    let mut builder = producer.batch_builder();
    for (token, encodings) in [(0, ENCODINGS), (1, ENCODING_PLAIN_BIT)] {
        if token == 1 {
            engine.book.lock().unwrap().encodings = encodings;
            engine = engine.die_and_restart();
            while producer.reconnects() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(producer.encodings(), encodings);
        for _ in 0..10 {
            let view = View { video_id: "one", timestamp_ms: 1000, user_id: "", region: "DE", device: "tv" };
            assert_eq!(builder.push(&view), Ok(Pushed::Added));
        }
        producer.send(&mut builder, token).await.unwrap();
        producer.settled().await.unwrap();
    }
    producer.finish().await.unwrap();
    let book = engine.book.lock().unwrap();
    let batches = book.logged.values().flatten().map(|payload| Batch::decode(payload).unwrap());
    assert_eq!(batches.map(|batch| batch.video_dictionary().is_some()).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn batches_are_acknowledged_in_order_and_finish_waits_for_the_last() {
    let engine = Engine::start();
    let fates = Fates::default();
    let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
    send(&mut producer, 0..300).await;
    let summary = producer.finish().await.unwrap();
    assert_eq!((summary.last, summary.reconnects), (Sequence(300), 0));
    assert_exactly_once(&fates.all(), 300);
    assert!(fates.all().iter().all(|fate| fate.retries == 0 && fate.duplicate == 0));
    assert_eq!(engine.views(), 3000);
}

#[tokio::test]
async fn a_redirect_leads_to_the_home_core() {
    let first = Engine::start();
    let home = first.another_core();
    let redirect =
        Redirect { home_core: 1, ports: vec![first.address.port(), home.address.port()], host: String::new() };
    for host in ["", "localhost"] {
        let host = host.to_owned();
        first.book.lock().unwrap().redirect = Some(Redirect { host, ..redirect.clone() });
        let mut producer = Producer::connect(first.config(), |_| {}).await.unwrap();
        send(&mut producer, 0..5).await;
        producer.finish().await.unwrap();
    }
    assert_eq!(home.views(), 100);
    assert_eq!(first.views(), 0);
}

#[tokio::test]
async fn redirects_in_a_circle_end_with_an_error() {
    let engine = Engine::start();
    engine.book.lock().unwrap().redirect =
        Some(Redirect { home_core: 0, ports: vec![engine.address.port()], host: String::new() });
    let config = ClientConfig { connect_timeout: Duration::from_millis(300), ..engine.config() };
    let error = Producer::connect(config, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
}

#[tokio::test]
async fn a_lost_connection_resends_the_same_bytes_and_counts_once() {
    let engine = Engine::start();
    let fates = Fates::default();
    let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
    for round in 0..10_u64 {
        engine.book.lock().unwrap().lose_after = Some((7, CloseReason::ShuttingDown));
        send(&mut producer, round * 20..(round + 1) * 20).await;
        fates.wait_for(((round + 1) * 20) as usize).await;
    }
    let summary = producer.finish().await.unwrap();
    assert_eq!(summary.reconnects, 10);
    assert_exactly_once(&fates.all(), 200);
    assert_eq!(engine.views(), 2000);
    let duplicates: u32 = fates.all().iter().map(|fate| fate.duplicate).sum();
    assert_eq!(duplicates, 10 * 7 * 10);
    assert!(fates.all().iter().any(|fate| fate.retries == 1));
    let book = engine.book.lock().unwrap();
    assert_eq!(book.hellos[0], HelloMode::New);
    assert!(book.hellos[1..].iter().all(|mode| *mode == HelloMode::Resume));
}

#[tokio::test]
async fn an_engine_that_dies_silently_and_comes_back_is_found_again() {
    let engine = Engine::start();
    let fates = Fates::default();
    let config = ClientConfig { idle_timeout: Duration::from_millis(600), ..engine.config() };
    let mut producer = Producer::connect(config, fates.sink()).await.unwrap();
    engine.book.lock().unwrap().mute = true;
    send(&mut producer, 0..30).await;
    while engine.views() < 300 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let engine = engine.die_and_restart();
    engine.book.lock().unwrap().mute = false;
    send(&mut producer, 30..40).await;
    let summary = producer.finish().await.unwrap();
    assert_eq!(summary.reconnects, 1);
    assert_exactly_once(&fates.all(), 40);
    assert_eq!((engine.views(), engine.book.lock().unwrap().duplicates), (400, 30));
}

#[tokio::test]
async fn a_refused_batch_and_all_after_it_come_again_in_order() {
    for reason in [BatchRefusal::DiskFull, BatchRefusal::MemoryFull, BatchRefusal::ClockStopped] {
        let engine = Engine::start();
        engine.book.lock().unwrap().refuse = Some((4, reason, 3));
        let fates = Fates::default();
        let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
        send(&mut producer, 0..50).await;
        let summary = producer.finish().await.unwrap();
        assert_eq!(summary.reconnects, 0);
        assert_exactly_once(&fates.all(), 50);
        assert_eq!(fates.all()[3].retries, 3, "{reason}");
        assert!(fates.all().iter().all(|fate| fate.duplicate == 0));
        assert_eq!(engine.views(), 500);
    }
}

#[tokio::test]
async fn what_is_unanswered_is_bounded() {
    let engine = Engine::start();
    engine.book.lock().unwrap().mute = true;
    engine.book.lock().unwrap().in_flight_batches_max = 3;
    let mut producer = Producer::connect(engine.config(), |_| {}).await.unwrap();
    send(&mut producer, 0..3).await;
    let mut builder = producer.batch_builder();
    fill(&mut builder, 3, 10);
    let fourth = tokio::time::timeout(Duration::from_millis(100), producer.send(&mut builder, 3)).await;
    assert!(fourth.is_err(), "a fourth batch went into a window of three");
    assert_eq!(builder.len(), 10, "a batch that was not taken stays in the builder");
}

#[tokio::test]
async fn a_reason_that_no_retry_mends_ends_the_producer() {
    let engine = Engine::start();
    engine.book.lock().unwrap().lose_after = Some((2, CloseReason::Fenced));
    let mut producer = Producer::connect(engine.config(), |_| {}).await.unwrap();
    send(&mut producer, 0..2).await;
    let error = producer.finish().await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason: CloseReason::Fenced, .. }), "{error}");
    assert!(error.to_string().contains("as the test asked"), "{error}");
}

#[tokio::test]
async fn a_waiting_sender_learns_of_the_end() {
    let engine = Engine::start();
    engine.book.lock().unwrap().in_flight_batches_max = 2;
    engine.book.lock().unwrap().lose_after = Some((2, CloseReason::Fenced));
    let mut producer = Producer::connect(engine.config(), |_| {}).await.unwrap();
    let mut builder = producer.batch_builder();
    let error = loop {
        fill(&mut builder, 0, 1);
        if let Err(error) = producer.send(&mut builder, 0).await {
            break error;
        }
    };
    assert!(matches!(error, ClientError::Closed { reason: CloseReason::Fenced, .. }), "{error}");
}

#[tokio::test]
async fn a_last_below_the_acknowledged_stops_the_producer() {
    let engine = Engine::start();
    let fates = Fates::default();
    let mut producer = Producer::connect(engine.config(), fates.sink()).await.unwrap();
    send(&mut producer, 0..5).await;
    fates.wait_for(5).await;
    engine.book.lock().unwrap().last_told = Some(3);
    engine.book.lock().unwrap().lose_after = Some((1, CloseReason::ShuttingDown));
    send(&mut producer, 5..6).await;
    let error = producer.finish().await.unwrap_err();
    assert!(matches!(error, ClientError::AcknowledgedLost { last: 3, acked: 5 }), "{error}");
}

#[tokio::test]
async fn a_producer_is_resumed_by_its_id_and_an_unknown_one_is_not() {
    let engine = Engine::start();
    let mut producer = Producer::connect(engine.config(), |_| {}).await.unwrap();
    let id = producer.id();
    send(&mut producer, 0..3).await;
    producer.finish().await.unwrap();
    let mut producer = Producer::resume(engine.config(), id, |_| {}).await.unwrap();
    let mut builder = producer.batch_builder();
    fill(&mut builder, 9, 1);
    assert_eq!(producer.send(&mut builder, 0).await.unwrap(), Sequence(4));
    producer.finish().await.unwrap();
    let error = Producer::resume(engine.config(), ProducerId(id.0 ^ 1), |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason: CloseReason::ProducerUnknown, .. }), "{error}");
}

#[tokio::test]
async fn connecting_names_what_is_wrong() {
    let engine = Engine::start();
    let config = ClientConfig { ca_pem: Identity::new().ca_pem.into_bytes(), ..engine.config() };
    let error = Producer::connect(config, |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Handshake { .. }), "{error}");

    engine.book.lock().unwrap().close_hello = Some(CloseReason::Unauthorized);
    let error = Producer::connect(engine.config(), |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Closed { reason: CloseReason::Unauthorized, .. }), "{error}");

    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = ClientConfig {
        engine: nobody.local_addr().unwrap().to_string(),
        connect_timeout: Duration::from_millis(300),
        ..engine.config()
    };
    let error = Producer::connect(config, |_| {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn an_engine_that_stays_away_ends_the_producer_at_the_limit() {
    let engine = Engine::start();
    let config = ClientConfig {
        idle_timeout: Duration::from_millis(300),
        reconnect_timeout: Duration::from_millis(500),
        ..engine.config()
    };
    let mut producer = Producer::connect(config, |_| {}).await.unwrap();
    engine.book.lock().unwrap().mute = true;
    send(&mut producer, 0..1).await;
    engine.book.lock().unwrap().close_hello = Some(CloseReason::ShuttingDown);
    engine.close_all(CloseReason::ShuttingDown);
    let error = producer.finish().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn an_engine_that_answers_nothing_ends_the_producer_at_the_limit() {
    let engine = Engine::start();
    engine.book.lock().unwrap().mute = true;
    let config = ClientConfig { reconnect_timeout: Duration::from_millis(300), ..engine.config() };
    let mut producer = Producer::connect(config, |_| {}).await.unwrap();
    send(&mut producer, 0..2).await;
    let error = producer.finish().await.unwrap_err();
    assert!(matches!(error, ClientError::Unanswered { .. }), "{error}");
}
