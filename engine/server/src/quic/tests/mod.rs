//! The driver against a real client (quinn on tokio) over loopback sockets.

mod harness;
mod room;

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::VarInt;

use super::{LossReason, QuicLimits, WriteOutcome};
use harness::{Engine, Mode, PATIENCE, client, client_with, connect, identity, pattern};

async fn echo(connection: quinn::Connection, seed: u64, len: usize) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let sent = pattern(seed, len);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    });
    let answer = receive.read_to_end(len + 1).await.unwrap();
    writer.await.unwrap();
    assert!(answer == expected, "stream {seed}: {} bytes came back of {len}", answer.len());
}

#[tokio::test]
async fn many_streams_of_many_connections_are_echoed() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let endpoint = client(&tls);
    let mut tasks = Vec::new();
    let mut connections = Vec::new();
    for number in 0..6_u64 {
        let connection = connect(&endpoint, engine.address).await;
        for stream in 0..30 {
            let len = [0, 1, 1200, 70_000, 700_000][stream as usize % 5];
            tasks.push(tokio::spawn(echo(connection.clone(), number * 1000 + stream, len)));
        }
        connections.push(connection);
    }
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    engine.wait_for("end of 180 streams", |seen| seen.finished.len() == 180).await;
    let seen = engine.seen();
    assert_eq!((seen.opened.len(), seen.streams.len(), seen.lost.len()), (6, 180, 0));
    assert_eq!(seen.stats.transmits_dropped, 0);
}

#[tokio::test]
async fn one_long_stream_passes_whole() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Sink);
    let connection = connect(&client(&tls), engine.address).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let sent = pattern(9, 32 << 20);
    let start = Instant::now();
    send.write_all(&sent).await.unwrap();
    send.finish().unwrap();
    engine.wait_for("end of the stream", |seen| seen.finished.len() == 1).await;
    println!("{:.0} MB/s", sent.len() as f64 / 1e6 / start.elapsed().as_secs_f64());
    let seen = engine.seen();
    assert!(seen.read[&seen.streams[0]] == sent);
}

#[tokio::test]
async fn a_paused_stream_holds_its_sender_and_no_other_stream() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let most = QuicLimits::default().receive_window_bytes_max;
    let limits = QuicLimits { receive_window_bytes_min: most, ..QuicLimits::default() };
    let window = limits.stream_receive_window_bytes as usize;
    let engine = Engine::start(&tls, limits, Mode::Sink);
    engine.act(|_, app| app.paused = true);
    let connection = connect(&client(&tls), engine.address).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let sent = pattern(5, 5 * window);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        send.write_all(&sent).await.unwrap();
        send.finish().unwrap();
    });
    engine.wait_for("stream", |seen| seen.streams.len() == 1).await;
    engine.wait_for("half a window", |seen| seen.stats.bytes_received as usize >= window / 2).await;
    // Long enough for what must not come, were it sent.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let received = engine.seen().stats.bytes_received as usize;
    assert!((window / 2..window * 5 / 4).contains(&received), "{received} bytes against a window of {window}");
    assert!(!writer.is_finished());
    assert!(engine.seen().read.is_empty());
    let turns = engine.seen().turns;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(engine.seen().turns - turns < 50, "a paused stream must not keep the core busy");

    // Another stream of the same connection is read while the first is paused.
    engine.act(|_, app| app.paused = false);
    let (mut other, _other_receive) = connection.open_bi().await.unwrap();
    other.write_all(b"look up").await.unwrap();
    engine.wait_for("the other stream's bytes", |seen| seen.read.len() == 1).await;
    assert_eq!(engine.seen().read.values().next().unwrap(), b"look up");

    engine.act(|driver, app| {
        for stream in app.waiting.drain(..) {
            driver.resume(stream);
        }
    });
    engine.wait_for("end of the stream", |seen| seen.finished.len() == 1).await;
    writer.await.unwrap();
    let seen = engine.seen();
    assert!(seen.read[&seen.streams[0]] == expected);
}

#[tokio::test]
async fn a_close_of_the_client_and_its_silence_are_told() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let limits = QuicLimits { idle_timeout: Duration::from_millis(700), ..QuicLimits::default() };
    let engine = Engine::start(&tls, limits, Mode::Echo);
    let endpoint = client(&tls);
    let connection = connect(&endpoint, engine.address).await;
    echo(connection.clone(), 1, 100).await;
    connection.close(VarInt::from_u32(7), b"bye");
    engine.wait_for("loss", |seen| seen.lost.len() == 1).await;
    assert_eq!(engine.seen().lost[0].1, LossReason::ClosedByPeer { code: 7, reason: "bye".into() });

    // A client whose runtime is gone says nothing any more.
    let address = engine.address;
    let silent_tls = tls.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (endpoint, connection) = runtime.block_on(async {
            let endpoint = client(&silent_tls);
            let connection = connect(&endpoint, address).await;
            echo(connection.clone(), 2, 100).await;
            (endpoint, connection)
        });
        std::mem::forget((endpoint, connection));
        std::mem::forget(runtime);
    })
    .join()
    .unwrap();
    engine.wait_for("second loss", |seen| seen.lost.len() == 2).await;
    assert_eq!(engine.seen().lost[1].1, LossReason::TimedOut);
    engine.wait_for("nothing left", |seen| seen.idle && seen.connections == 0).await;
}

#[tokio::test]
async fn code_and_reason_of_a_close_reach_the_client() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let connection = connect(&client(&tls), engine.address).await;
    echo(connection.clone(), 1, 100).await;
    let key = engine.seen().opened[0];
    let stream = engine.seen().streams[0];
    engine.act(move |driver, app| {
        driver.close(key, 5, &"sequence 9 was sent before with other bytes ".repeat(100));
        driver.close(key, 6, "a second close changes nothing");
        let outcome = driver.write(stream, Bytes::from_static(b"late"));
        assert_eq!(outcome, WriteOutcome::Closed);
        assert!(app.waiting.is_empty());
    });
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("{:?}", connection.close_reason());
    };
    assert_eq!(close.error_code, VarInt::from_u32(5));
    assert!(close.reason.starts_with(b"sequence 9 was sent before") && close.reason.len() <= 512);
    engine.wait_for("loss", |seen| seen.lost == [(key, LossReason::ClosedHere)]).await;
    engine.wait_for("drained connection", |seen| seen.idle).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits { connections_max: 2, ..QuicLimits::default() }, Mode::Echo);
    let endpoint = client(&tls);
    let first = connect(&endpoint, engine.address).await;
    let second = connect(&endpoint, engine.address).await;
    let third = endpoint.connect(engine.address, "localhost").unwrap().await;
    assert!(matches!(third, Err(quinn::ConnectionError::ConnectionClosed(_))), "{third:?}");
    echo(first.clone(), 1, 5000).await;
    first.close(VarInt::from_u32(0), b"");
    engine.wait_for("room", |seen| seen.connections == 1).await;
    let third = connect(&endpoint, engine.address).await;
    echo(third, 3, 5000).await;
    echo(second, 2, 5000).await;
    assert_eq!(engine.seen().stats.connections_refused, 1);
}

#[tokio::test]
async fn connections_that_drain_take_no_room_from_newcomers() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits { connections_max: 2, ..QuicLimits::default() }, Mode::Echo);
    let endpoint = client(&tls);
    let stays = connect(&endpoint, engine.address).await;
    for round in 0..20 {
        let goes = connect(&endpoint, engine.address).await;
        echo(goes.clone(), round, 5000).await;
        goes.close(VarInt::from_u32(0), b"");
        engine.wait_for("room", |seen| seen.connections == 1).await;
        assert_eq!(engine.seen().lost.len() as u64, round + 1);
    }
    echo(stays.clone(), 99, 5000).await;
    stays.close(VarInt::from_u32(0), b"");
    engine.wait_for("the end of all", |seen| seen.idle).await;
    assert_eq!(engine.seen().stats.connections_refused, 0);
}

#[tokio::test]
async fn a_crowd_of_newcomers_must_prove_their_address() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits { connections_max: 24, ..QuicLimits::default() }, Mode::Echo);
    let endpoint = client(&tls);
    let attempts: Vec<_> = (0..20).map(|_| endpoint.connect(engine.address, "localhost").unwrap()).collect();
    let mut connections = Vec::new();
    for attempt in attempts {
        connections.push(tokio::time::timeout(PATIENCE, attempt).await.unwrap().unwrap());
    }
    for (seed, connection) in connections.iter().enumerate() {
        echo(connection.clone(), seed as u64, 5000).await;
    }
    let stats = engine.seen().stats;
    assert_eq!((stats.connections_opened, stats.connections_refused), (20, 0));
    assert!(stats.retries_sent > 0, "{stats:?}");
}

#[tokio::test]
async fn a_failed_handshake_is_counted_and_never_told() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(&place.path().join("engine"));
    let stranger = identity(&place.path().join("stranger"));
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let attempt = client(&stranger).connect(engine.address, "localhost").unwrap().await;
    assert!(attempt.is_err());
    engine.wait_for("failed handshake", |seen| seen.stats.handshakes_failed == 1 && seen.idle).await;
    let seen = engine.seen();
    assert!(seen.opened.is_empty() && seen.lost.is_empty());
    assert_eq!(seen.connections, 0);
}

#[tokio::test]
async fn garbage_datagrams_harm_nobody() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let connection = connect(&client(&tls), engine.address).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for seed in 0..3000_u64 {
        let mut bytes = pattern(seed, (seed as usize * 37) % 1500);
        if let Some(first) = bytes.first_mut() {
            match seed % 4 {
                // A long header of QUIC version 1: an initial packet as far as anyone can see.
                0 => *first = 0xC0 | (*first & 0x0F),
                1 => *first = 0x40 | (*first & 0x3F),
                _ => {}
            }
            if seed % 8 == 0 && bytes.len() >= 5 {
                bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
        }
        socket.send_to(&bytes, engine.address).unwrap();
        if seed % 100 == 0 {
            echo(connection.clone(), seed, 3000).await;
        }
    }
    echo(connection, 1, 100_000).await;
    let seen = engine.seen();
    assert!(seen.stats.datagrams_received > 1000, "{:?}", seen.stats);
    assert_eq!((seen.opened.len(), seen.lost.len()), (1, 0));
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_as_overloaded() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let limits = QuicLimits { unsent_bytes_max: 200_000, send_window_bytes_max: 100_000, ..QuicLimits::default() };
    let engine = Engine::start(&tls, limits, Mode::Amplify);
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(64 * 1024));
    let connection = connect(&client_with(&tls, transport), engine.address).await;
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let writer = tokio::spawn(async move {
        while send.write_all(&[1; 9000]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
        panic!("{:?}", connection.close_reason());
    };
    assert_eq!(close.error_code, VarInt::from_u32(highwater_proto::CloseReason::Overloaded.code()));
    assert!(String::from_utf8_lossy(&close.reason).contains("200000"), "{close}");
    writer.await.unwrap();
    engine.wait_for("loss", |seen| seen.lost.len() == 1 && seen.stats.connections_overloaded == 1).await;
    assert!(engine.seen().outcomes.contains(&WriteOutcome::Overloaded));
}

#[tokio::test]
async fn resets_and_stops_are_told_and_free_their_streams() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Amplify);
    let connection = connect(&client(&tls), engine.address).await;
    for code in 1..=20_u32 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(b"start").await.unwrap();
        receive.read_chunk(1, true).await.unwrap().unwrap();
        receive.stop(VarInt::from_u32(100 + code)).unwrap();
        send.reset(VarInt::from_u32(code)).unwrap();
        engine
            .wait_for("reset and stop", |seen| {
                seen.resets.contains(&u64::from(code)) && seen.stops.contains(&u64::from(100 + code))
            })
            .await;
    }
    // The engine may also turn a stream away: the client's writes fail, and the stream's place is free again.
    for _ in 0..10 {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        let streams = engine.seen().streams.len();
        send.write_all(b"unwanted").await.unwrap();
        engine.wait_for("stream", |seen| seen.streams.len() == streams + 1).await;
        let stream = engine.seen().streams[streams];
        engine.act(move |driver, _| {
            driver.stop_reading(stream, 14);
            driver.finish(stream);
        });
        assert_eq!(send.stopped().await.unwrap(), Some(VarInt::from_u32(14)));
        receive.read_to_end(1 << 20).await.unwrap();
    }
    assert!(engine.seen().lost.is_empty());
}

#[tokio::test]
async fn a_stale_key_touches_nobody_else() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let endpoint = client(&tls);
    let first = connect(&endpoint, engine.address).await;
    echo(first.clone(), 1, 10).await;
    first.close(VarInt::from_u32(0), b"");
    engine.wait_for("drained connection", |seen| seen.lost.len() == 1 && seen.idle).await;
    let second = connect(&endpoint, engine.address).await;
    let (mut send, mut receive) = second.open_bi().await.unwrap();
    send.write_all(b"a").await.unwrap();
    assert_eq!(receive.read_chunk(10, true).await.unwrap().unwrap().bytes, "a");
    let (opened, streams) = {
        let seen = engine.seen();
        (seen.opened.clone(), seen.streams.clone())
    };
    let (old_connection, new_connection) = (opened[0], opened[1]);
    let (old_stream, new_stream) = (streams[0], streams[1]);
    assert_eq!(old_connection.index, new_connection.index, "the slot should have been reused");
    assert_eq!(old_stream.stream, new_stream.stream);
    engine.act(move |driver, _| {
        assert_eq!(driver.write(old_stream, Bytes::from_static(b"wrong")), WriteOutcome::Closed);
        driver.finish(old_stream);
        driver.resume(old_stream);
        driver.stop_reading(old_stream, 1);
        driver.close(old_connection, 1, "wrong");
        assert_eq!(driver.unsent_bytes(old_stream), 0);
        assert_eq!(driver.peer(old_connection), None);
        assert!(driver.peer(new_connection).is_some());
    });
    send.write_all(b"b").await.unwrap();
    send.finish().unwrap();
    assert_eq!(receive.read_to_end(10).await.unwrap(), b"b");
}

#[tokio::test]
async fn shutdown_tells_everyone_and_drains() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let endpoint = client(&tls);
    let mut connections = Vec::new();
    for seed in 0..5 {
        let connection = connect(&endpoint, engine.address).await;
        echo(connection.clone(), seed, 1000).await;
        connections.push(connection);
    }
    engine.act(|driver, _| driver.close_all(13, "the engine stops"));
    for connection in connections {
        let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await else {
            panic!("{:?}", connection.close_reason());
        };
        assert_eq!((close.error_code, &close.reason[..]), (VarInt::from_u32(13), &b"the engine stops"[..]));
    }
    let late = endpoint.connect(engine.address, "localhost").unwrap().await;
    assert!(late.is_err());
    engine.wait_for("drained engine", |seen| seen.idle && seen.lost.len() == 5).await;
}

#[tokio::test]
async fn peers_of_a_killed_engine_learn_of_it_from_its_successor() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let engine = Engine::start(&tls, QuicLimits::default(), Mode::Echo);
    let address = engine.address;
    let connection = connect(&client(&tls), address).await;
    echo(connection.clone(), 1, 1000).await;
    drop(engine);
    let _successor = Engine::start_at(address, &identity(place.path()), QuicLimits::default(), Mode::Echo);
    let start = Instant::now();
    assert_eq!(connection.closed().await, quinn::ConnectionError::Reset);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_port_that_is_taken_is_named() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let Err(error) = super::QuicDriver::bind(address, &tls, 0, QuicLimits::default()) else {
        panic!("bound {address} twice");
    };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn limits_out_of_range_are_named() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let limits = QuicLimits { receive_window_bytes_min: 1000, ..QuicLimits::default() };
    let Err(error) = super::QuicDriver::bind("127.0.0.1:0".parse().unwrap(), &tls, 0, limits) else {
        panic!("a window of 1000 bytes was taken");
    };
    assert!(error.to_string().contains("receive_window_bytes_min is 1000"), "{error}");
    let within = QuicLimits::within(1 << 30);
    let least = QuicLimits::CONNECTION_BYTES_MIN * within.connections_max as u64;
    let shared = within.windows_bytes + (within.unsent_bytes_total_max + within.held_bytes_max) as u64;
    assert!(least + shared <= 1 << 30);
    assert!(within.connections_max > 10_000);
    assert_eq!(QuicLimits::within(0).connections_max, 4);
}
