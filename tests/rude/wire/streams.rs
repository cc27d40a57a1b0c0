//! What the transport refuses by itself: other protocols, more streams than granted, streams of one way, datagrams.

use super::forge::{lookup, subscribe};
use super::{Victim, Welcomed, told};
use crate::rude::row;
use crate::support::block_on;
use crate::support::raw::{Line, connect, read_frame, try_connect};
use highwater_proto::{CloseReason, FrameKind, HelloMode};
use quinn::{ConnectionError, SendDatagramError};

/// The QUIC error that TLS alert 120, `no_application_protocol`, travels as.
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

#[test]
fn another_protocol_is_refused_in_the_handshake() {
    let victim = Victim::new();
    let (address, ca) = (victim.engine.address(), victim.engine.ca());
    let cases = [("h3", vec![b"h3".to_vec()]), ("highwater/2", vec![b"highwater/2".to_vec()]), ("none", Vec::new())];
    for (name, alpn) in cases {
        let (_endpoint, outcome) = block_on(try_connect(address, ca, &alpn, 1 << 20));
        let error = outcome.expect_err("no such protocol is spoken");
        let code = match &error {
            ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
            ConnectionError::TransportError(error) => u64::from(error.code),
            other => panic!("{other}"),
        };
        assert_eq!(code, NO_APPLICATION_PROTOCOL, "{error}");
        let (deed, end) = (format!("a connection for ALPN {name}"), format!("QUIC error {code:#x}"));
        told(&deed, &error.to_string(), end, &["120"]);
    }
    victim.recover(&[]);
}

#[test]
fn what_was_not_granted_waits_and_harms_nobody() {
    let victim = Victim::new();
    block_on(async {
        let mut line = Line::open(&victim.engine).await;
        let connection = line.connection.clone();
        assert_eq!(line.ask(&subscribe()).await.0, FrameKind::Snapshot);
        let mut more = Vec::new();
        for _ in 0..3 {
            more.push(connection.open_bi().await.unwrap());
        }
        // The answer is a round trip later: by then a stream that was granted would be open.
        let (mut send, mut receive) = more.pop().unwrap();
        let answer = async {
            send.write_all(&lookup(1, b"v")).await.unwrap();
            let frame = read_frame(&mut receive).await;
            send.finish().unwrap();
            frame.0
        };
        let mut fifth = Box::pin(connection.open_bi());
        tokio::select! {
            biased;
            _ = &mut fifth => panic!("a fifth stream was granted"),
            _ = connection.open_uni() => panic!("a stream of one way was granted"),
            kind = answer => assert_eq!(kind, FrameKind::LookupAnswer),
        }
        assert_eq!(receive.read(&mut [0; 8]).await.unwrap(), None, "the engine ends the stream of an answer");
        let (mut send, mut receive) = fifth.await.unwrap();
        send.write_all(&lookup(1, b"v")).await.unwrap();
        assert_eq!(read_frame(&mut receive).await.0, FrameKind::LookupAnswer);
        row("a fifth stream at a time", "not granted until one of four has ended", "waits");
        row("a stream of one way", "never granted", "waits");
        assert_eq!(connection.max_datagram_size(), None);
        let error = connection.send_datagram(vec![0].into()).unwrap_err();
        assert_eq!(error, SendDatagramError::UnsupportedByPeer);
        told("a QUIC datagram", &error.to_string(), "not sent", &["not supported by peer"]);
        assert!(connection.close_reason().is_none());
    });
    victim.recover(&[]);
}

/// A subscription that was given up by STOP_SENDING alone once counted as open for as long as the connection lived, so
/// that a client was stuck after four of them.
#[test]
fn streams_that_were_given_up_make_room_for_others() {
    let victim = Victim::new();
    block_on(async {
        let (_endpoint, connection) = connect(&victim.engine, 1 << 20).await;
        let mut kept = Vec::new();
        for round in 0..15 {
            let (mut send, mut receive) = connection.open_bi().await.unwrap();
            match round % 5 {
                // Nothing at all, and then the end.
                0 => send.finish().unwrap(),
                1 => {
                    send.write_all(&lookup(1, b"v")).await.unwrap();
                    assert_eq!(read_frame(&mut receive).await.0, FrameKind::LookupAnswer);
                    send.finish().unwrap();
                }
                // A question that nobody waits for any more.
                2 => {
                    send.write_all(&lookup(1, b"v")).await.unwrap();
                    send.finish().unwrap();
                    receive.stop(0_u8.into()).unwrap();
                }
                end => {
                    send.write_all(&subscribe()).await.unwrap();
                    assert_eq!(read_frame(&mut receive).await.0, FrameKind::Snapshot);
                    receive.stop(0_u8.into()).unwrap();
                    if end == 3 {
                        send.finish().unwrap();
                    } else {
                        assert_eq!(send.stopped().await.unwrap(), Some(0_u8.into()), "the engine gives it up as well");
                        send.reset(0_u8.into()).unwrap();
                    }
                }
            }
            // A handle that is dropped would end its stream.
            kept.push((send, receive));
        }
        assert!(connection.close_reason().is_none());
    });
    victim.recover(&[]);
}

#[test]
fn a_producer_that_stops_reading_its_answers_is_told_so() {
    let mut victim = Victim::new();
    let id = victim.id();
    let closed = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        producer.line.receive.stop(0_u8.into()).unwrap();
        producer.line.closed().await
    });
    let words = ["STOP_SENDING", "read every ACK"];
    victim.closed("STOP_SENDING on the producer stream", &closed, CloseReason::UnexpectedFrame, &words);
    victim.recover(&[]);
}

/// A breach on each of two streams was once counted as two closed sessions of one connection.
#[test]
fn a_connection_is_closed_for_one_reason() {
    let mut victim = Victim::new();
    let closed = block_on(async {
        let mut line = Line::open(&victim.engine).await;
        let (mut other, _answers) = line.connection.open_bi().await.unwrap();
        other.write_all(&[0xff; 8]).await.unwrap();
        line.send(&[0xff; 8]).await;
        line.closed().await
    });
    victim.closed("garbage on two streams at once", &closed, CloseReason::Malformed, &["unknown frame kind 0xff"]);
    victim.recover(&[]);
}
