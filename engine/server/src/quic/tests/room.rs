//! The memory that connections share: windows that grow while there is room, and who goes when what is unsent is too
//! much.

use std::time::{Duration, Instant};

use quinn::VarInt;

use super::harness::{Engine, Mode, client, client_with, connect, identity, pattern};
use crate::quic::QuicLimits;

const KIB: usize = 1024;

/// Sends to a connection that is not read, and returns how much the engine took.
async fn taken_unread(connection: &quinn::Connection) -> usize {
    let (mut send, _receive) = connection.open_bi().await.unwrap();
    let mut taken = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(300), send.write(&[3; 4 * KIB])).await {
        taken += written.unwrap();
    }
    taken
}

#[tokio::test]
async fn windows_grow_for_who_sends_while_there_is_room() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    // Room for one connection to grow, and for a second to grow a little.
    let most = QuicLimits::default().receive_window_bytes_max;
    let limits = QuicLimits { windows_bytes: most + 100 * KIB as u64, ..QuicLimits::default() };
    let engine = Engine::start(&tls, limits, Mode::Sink);
    let endpoint = client(&tls);
    let mut connections = Vec::new();
    for number in 0..3 {
        let connection = connect(&endpoint, engine.address).await;
        if number < 2 {
            let (mut send, _receive) = connection.open_bi().await.unwrap();
            send.write_all(&pattern(number, 8 << 20)).await.unwrap();
            send.finish().unwrap();
            engine.wait_for("all that was sent", |seen| seen.finished.len() as u64 == number + 1).await;
        }
        connections.push(connection);
    }
    engine.act(|_, app| app.paused = true);
    // A peer may send a window's worth and no more; what it has buffered itself comes on top.
    let stream_window = QuicLimits::default().stream_receive_window_bytes as usize;
    let first = taken_unread(&connections[0]).await;
    let second = taken_unread(&connections[1]).await;
    let third = taken_unread(&connections[2]).await;
    assert!(first >= stream_window, "{first}");
    assert!((32 * KIB..256 * KIB).contains(&second), "{second}");
    assert!((16 * KIB..32 * KIB).contains(&third), "{third}");
}

#[tokio::test]
async fn who_reads_is_served_beside_many_that_never_read() {
    let place = tempfile::tempdir().unwrap();
    let tls = identity(place.path());
    let limits = QuicLimits { unsent_bytes_total_max: 1 << 20, windows_bytes: 1 << 20, ..QuicLimits::default() };
    let engine = Engine::start(&tls, limits, Mode::Amplify);
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(VarInt::from_u32(8 * KIB as u32));
    let deaf = client_with(&tls, transport);
    let mut silent = Vec::new();
    for _ in 0..24 {
        let connection = connect(&deaf, engine.address).await;
        let (mut send, receive) = connection.open_bi().await.unwrap();
        send.write_all(b"say much").await.unwrap();
        silent.push((connection, send, receive));
    }
    // Each is told 64 KiB and reads none of it: together more than may wait.
    engine.wait_for("some to be closed", |seen| seen.stats.connections_overloaded >= 4).await;
    let reading = connect(&client(&tls), engine.address).await;
    let (mut send, mut receive) = reading.open_bi().await.unwrap();
    let began = Instant::now();
    let mut buffer = vec![0; 64 * KIB];
    for _ in 0..50 {
        send.write_all(b"more").await.unwrap();
        receive.read_exact(&mut buffer).await.unwrap();
    }
    assert!(began.elapsed() < super::harness::PATIENCE);
    assert!(reading.close_reason().is_none());
    let seen = engine.seen();
    assert!(seen.stats.connections_overloaded < 24, "{:?}", seen.stats);
}
