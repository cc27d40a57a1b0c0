//! Subscribers and questions against a small engine in the same process: reconnects, other engines, redirects, silence.
//!
//! What it is not: a test of producers. Invariant: every test waits for a state, never for a time, except where a time
//! limit is what is tested.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

#[allow(dead_code, reason = "producers are tested beside this")]
mod engine;

use std::time::{Duration, Instant};

use engine::{Engine, Identity};
use highwater_client::{ClientConfig, ClientError, LOOKUPS_MAX, Link, LookupClient, Subscriber};
use highwater_proto::{BoardRow, CloseReason, ClosedList, Epoch, InstanceId, Period, PeriodsAnswer, Redirect};
use tokio::sync::watch;

/// An engine that is missed soon.
fn impatient(engine: &Engine) -> ClientConfig {
    ClientConfig { idle_timeout: Duration::from_millis(600), ..engine.config() }
}

async fn wait_until(link: &mut watch::Receiver<Link>, what: impl FnMut(&Link) -> bool) -> Link {
    tokio::time::timeout(Duration::from_secs(20), link.wait_for(what)).await.unwrap().unwrap().clone()
}

fn publish(engine: &Engine, epoch: u64) {
    engine.book.lock().unwrap().epoch = epoch;
}

#[tokio::test]
async fn subscriptions_survive_reconnects_with_growing_epochs() {
    let engine = Engine::start();
    engine.book.lock().unwrap().epochs_per_subscription = 3;
    let mut subscriber = Subscriber::connect(engine.config()).await.unwrap();
    for epoch in 1..=8 {
        assert_eq!(subscriber.next().await.unwrap().epoch.0, epoch);
    }
}

#[tokio::test]
async fn a_patient_subscriber_outlives_engines_and_says_how_it_stands() {
    let mut engine = Engine::start();
    let config = ClientConfig { reconnect_timeout: Duration::from_millis(1), ..impatient(&engine) };
    let mut subscriber = LookupClient::new(config).unwrap().subscriber();
    let mut link = subscriber.link();
    assert_eq!(*link.borrow(), Link::default());
    publish(&engine, 1);
    assert_eq!(subscriber.wait_next().await.unwrap().epoch, Epoch(1));
    for round in 1..=3 {
        let address = engine.address;
        let waiting = tokio::spawn(async move { (subscriber.wait_next().await, subscriber) });
        let book = engine.die();
        let lost = wait_until(&mut link, |link| !link.connected).await;
        assert!(!lost.trouble.is_empty());
        engine = book.restart(address);
        publish(&engine, round * 10);
        let (snapshot, back) = waiting.await.unwrap();
        subscriber = back;
        assert_eq!(snapshot.unwrap().epoch, Epoch(round * 10));
        assert_eq!(*link.borrow(), Link { connected: true, trouble: String::new(), reconnects: round });
    }
}

#[tokio::test]
async fn no_error_but_another_instance_ends_a_patient_wait() {
    let engine = Engine::start();
    let config = ClientConfig { ca_pem: Identity::new().ca_pem.into_bytes(), ..engine.config() };
    let mut subscriber = LookupClient::new(config).unwrap().subscriber();
    let mut link = subscriber.link();
    let waiting = tokio::spawn(async move { subscriber.wait_next().await });
    let link = wait_until(&mut link, |link| !link.trouble.is_empty()).await;
    assert!(link.trouble.contains("TLS handshake") && !link.connected, "{link:?}");
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn another_instance_is_told_and_the_old_one_is_welcome_back() {
    let engine = Engine::start();
    let mut subscriber = LookupClient::new(engine.config()).unwrap().subscriber();
    let link = subscriber.link();
    publish(&engine, 50);
    assert_eq!(subscriber.wait_next().await.unwrap().epoch, Epoch(50));
    // The new engine's epochs are lower: whoever waited for epoch 51 would wait long.
    for epoch in [3, 4] {
        engine.book.lock().unwrap().instance = 10;
        publish(&engine, epoch);
        engine.reset_connections();
        let error = subscriber.wait_next().await.unwrap_err();
        let (expected, found) = (InstanceId(9), InstanceId(10));
        assert!(
            matches!(error, ClientError::OtherInstance { expected: e, found: f } if (e, f) == (expected, found)),
            "{error}"
        );
        assert!(!link.borrow().connected && link.borrow().trouble.contains("another data directory"));
    }
    engine.book.lock().unwrap().instance = 9;
    publish(&engine, 51);
    assert_eq!(subscriber.wait_next().await.unwrap().epoch, Epoch(51));
    assert!(link.borrow().connected && link.borrow().trouble.is_empty());
}

#[tokio::test]
async fn a_lower_epoch_of_the_same_instance_is_never_given_out() {
    let engine = Engine::start();
    let mut subscriber = LookupClient::new(engine.config()).unwrap().subscriber();
    let mut link = subscriber.link();
    publish(&engine, 50);
    assert_eq!(subscriber.wait_next().await.unwrap().epoch, Epoch(50));
    publish(&engine, 7);
    engine.reset_connections();
    let waiting = tokio::spawn(async move { subscriber.wait_next().await });
    let behind = wait_until(&mut link, |link| link.trouble.contains("older copy")).await;
    assert!(behind.connected && behind.trouble.contains("epoch 7"), "{behind:?}");
    publish(&engine, 51);
    assert_eq!(waiting.await.unwrap().unwrap().epoch, Epoch(51));
    assert_eq!(link.borrow().trouble, "");
}

#[tokio::test]
async fn look_ups_share_one_connection() {
    let engine = Engine::start();
    publish(&engine, 3);
    let client = LookupClient::new(engine.config()).unwrap();
    let asking: Vec<_> = (0..4 * LOOKUPS_MAX)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move { client.lookup(&format!("video-{number}")).await })
        })
        .collect();
    for (number, answer) in asking.into_iter().enumerate() {
        let counts = answer.await.unwrap().unwrap();
        assert_eq!((&*counts.video_id, counts.epoch.0, counts.instance.0), (&*format!("video-{number}"), 3, 9));
    }
    let book = engine.book.lock().unwrap();
    assert_eq!((book.connections, book.lookups), (1, 4 * LOOKUPS_MAX as u32));
}

#[tokio::test]
async fn an_id_that_cannot_be_asked_for_is_refused() {
    let engine = Engine::start();
    let client = LookupClient::new(engine.config()).unwrap();
    for id in [String::new(), "x".repeat(256)] {
        assert!(matches!(client.lookup(&id).await, Err(ClientError::Config { .. })));
    }
    assert_eq!(engine.book.lock().unwrap().connections, 0);
}

#[tokio::test]
async fn a_look_up_follows_its_redirect_and_both_connections_stay() {
    let first = Engine::start();
    let owner = first.another_core();
    let redirect =
        Redirect { home_core: 1, ports: vec![first.address.port(), owner.address.port()], host: String::new() };
    let client = LookupClient::new(first.config()).unwrap();
    for host in ["", "localhost", "127.0.0.1"] {
        let host = host.to_owned();
        first.book.lock().unwrap().lookup_redirect = Some(Redirect { host, ..redirect.clone() });
        for _ in 0..5 {
            assert_eq!(client.lookup("a").await.unwrap().counts.len(), 1);
        }
    }
    assert_eq!(owner.book.lock().unwrap().lookups, 15);
    let connections = |engine: &Engine| engine.book.lock().unwrap().connections;
    assert_eq!((connections(&first), connections(&owner)), (1, 1));
    // What was learnt from the redirect serves when the first core is gone.
    let config_only_first = first.address;
    drop(first);
    let counts = client.lookup("b").await.unwrap();
    assert_eq!(&*counts.video_id, "b", "{config_only_first} is gone");
    let mut subscriber = client.subscriber();
    publish(&owner, 4);
    assert_eq!(subscriber.wait_next().await.unwrap().epoch, Epoch(4));
}

#[tokio::test]
async fn look_ups_that_go_in_circles_end_in_time() {
    let engine = Engine::start();
    engine.book.lock().unwrap().lookup_redirect =
        Some(Redirect { home_core: 0, ports: vec![engine.address.port()], host: String::new() });
    let config = ClientConfig { lookup_timeout: Duration::from_millis(300), ..engine.config() };
    let error = LookupClient::new(config).unwrap().lookup("a").await.unwrap_err();
    assert!(matches!(&error, ClientError::NoAnswer { last, .. } if last.contains("redirects")), "{error}");
}

#[tokio::test]
async fn a_silent_engine_is_given_up_in_time_and_asked_again_when_it_speaks() {
    let engine = Engine::start();
    let config = ClientConfig { lookup_timeout: Duration::from_millis(600), ..engine.config() };
    let client = LookupClient::new(config).unwrap();
    engine.book.lock().unwrap().mute = true;
    let started = Instant::now();
    let error = client.lookup("a").await.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5));
    engine.book.lock().unwrap().mute = false;
    client.lookup("a").await.unwrap();
}

#[tokio::test]
async fn look_ups_find_an_engine_that_died_and_came_back() {
    let engine = Engine::start();
    let client = LookupClient::new(engine.config()).unwrap();
    client.lookup("a").await.unwrap();
    let engine = engine.die_and_restart();
    // The client learns of the death only by silence, within the one look-up.
    client.lookup("b").await.unwrap();
    engine.close_all(CloseReason::ShuttingDown);
    let error = client.lookup("c").await.unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
}

const DAY_MS: u64 = 86_400_000;

fn closed_day(day: u64) -> ClosedList {
    let row = |id: &str| BoardRow { video_id: id.into(), view_count: day };
    let (start_ms, end_ms) = (day * DAY_MS, (day + 1) * DAY_MS);
    ClosedList { period: Period::Day, start_ms, end_ms, total_views: 5 * day, rows: vec![row("a"), row("b")] }
}

#[tokio::test]
async fn closed_lists_and_the_periods_that_have_one_are_asked_for() {
    let engine = Engine::start();
    engine.book.lock().unwrap().closed = [3, 4, 6].map(closed_day).into();
    let client = LookupClient::new(engine.config()).unwrap();
    let found = client.history(Period::Day, 4 * DAY_MS).await.unwrap();
    assert_eq!((found.instance, found.list), (InstanceId(9), Ok(Some(closed_day(4)))));
    let none = client.history(Period::Day, 5 * DAY_MS).await.unwrap();
    assert_eq!((none.list, none.bounds.closed_until_ms), (Ok(None), 7 * DAY_MS));
    assert_eq!(client.history(Period::Month, 0).await.unwrap().bounds.oldest_start_ms, None);

    let starts = |answer: PeriodsAnswer| {
        let listed = answer.periods.unwrap();
        (listed.periods.iter().map(|one| one.start_ms / DAY_MS).collect::<Vec<_>>(), listed.more)
    };
    assert_eq!(starts(client.periods(Period::Day, None, 1000).await.unwrap()), (vec![6, 4, 3], false));
    assert_eq!(starts(client.periods(Period::Day, None, 2).await.unwrap()), (vec![6, 4], true));
    assert_eq!(starts(client.periods(Period::Day, Some(4 * DAY_MS), 2).await.unwrap()), (vec![3], false));
    assert_eq!(engine.book.lock().unwrap().history_asked, 6);
    for refused in [
        client.periods(Period::Day, None, 0).await.unwrap_err(),
        client.periods(Period::Day, None, 1001).await.unwrap_err(),
        client.periods(Period::AllTime, None, 1).await.unwrap_err(),
        client.history(Period::AllTime, 0).await.unwrap_err(),
    ] {
        assert!(matches!(refused, ClientError::Config { .. }), "{refused}");
    }
    let book = engine.book.lock().unwrap();
    assert_eq!((book.history_asked, book.connections), (6, 1));
}
