//! Sessions led against the rules: sequences, retries, two connections of one producer, modes, wrong doors.

use super::forge::{batch, batch_of, hello, hello_with};
use super::{Victim, Welcomed};
use crate::rude::{row, told};
use crate::support::raw::Line;
use crate::support::{block_on, now_ms};
use highwater_proto::CloseReason::{
    Fenced, ProducerExists, ProducerUnknown, SequenceGap, SequenceReused, SequenceTooOld, UnexpectedFrame,
};
use highwater_proto::{Ack, FrameKind, HelloMode, ProducerId, Redirect, Sequence};

#[test]
fn sequences_out_of_order_are_refused() {
    let mut victim = Victim::new();
    let words = ["sequence 2 came where 1 was due", "in order"];
    victim.welcomed("sequence 2 before 1", |id| batch(id, 2), SequenceGap, &words);
    let id = victim.id();
    let (ack, closed) = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let ack = producer.acked(&batch_of(id, 1, &[("v", now_ms())])).await;
        producer.line.send(&batch_of(id, 1, &[("w", now_ms()), ("w", now_ms())])).await;
        (ack, producer.line.closed().await)
    });
    victim.acknowledged(&ack);
    let words = ["sequence 1 came again with other bytes", "checksum 0x", "a retry repeats all bytes"];
    victim.closed("sequence 1 again with other bytes", &closed, SequenceReused, &words);
    let id = victim.id();
    let (acks, closed) = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let first = batch(id, 1);
        let mut acks = vec![producer.acked(&first).await];
        for sequence in 2..=66 {
            acks.push(producer.acked(&batch(id, sequence)).await);
        }
        producer.line.send(&first).await;
        (acks, producer.line.closed().await)
    });
    acks.iter().for_each(|ack| victim.acknowledged(ack));
    let words = ["sequence 1 is older than the 64 last ones", "retry only what is in flight"];
    victim.closed("sequence 1 again after 66", &closed, SequenceTooOld, &words);
    victim.recover(&[]);
}

#[test]
fn a_retry_with_the_same_bytes_is_counted_once() {
    let mut victim = Victim::new();
    let id = victim.id();
    let acks = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let bytes = batch(id, 1);
        [producer.acked(&bytes).await, producer.acked(&bytes).await]
    });
    acks.iter().for_each(|ack| victim.acknowledged(ack));
    let verdicts = acks.map(|ack| (ack.counted, ack.duplicate));
    assert_eq!(verdicts, [(1, 0), (0, 1)]);
    row("the same BATCH twice", "ACK: counted 0, duplicate 1", "goes on");
    victim.recover(&[]);
}

/// What was sent in one go behind a breach is not judged any more: one connection is closed once.
#[test]
fn a_breach_is_counted_once_whatever_was_sent_behind_it() {
    let mut victim = Victim::new();
    let words = ["sequence 3 came where 1 was due"];
    let many = |id| [batch(id, 3), batch(id, 4), batch(id, 1), vec![0xFF; 32]].concat();
    victim.welcomed("a BATCH out of order, with others and garbage behind it", many, SequenceGap, &words);
    victim.recover(&[]);
}

#[test]
fn a_producer_has_one_connection() {
    let mut victim = Victim::new();
    let id = victim.id();
    let (acks, closed, last) = block_on(async {
        let mut older = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let first = older.acked(&batch(id, 1)).await;
        let mut newer = Welcomed::open(&victim.engine, id, HelloMode::Resume).await;
        let closed = older.line.closed().await;
        let second = newer.acked(&batch(id, 2)).await;
        ([first, second], closed, newer.welcome.last)
    });
    acks.iter().for_each(|ack| victim.acknowledged(ack));
    assert_eq!(last, Sequence(1), "what the older had acknowledged stays, and nothing comes after it");
    let words = [&id.to_string(), "a newer connection", "one process for each producer"];
    victim.closed("two connections of one producer: the older", &closed, Fenced, &words);
    assert_eq!(victim.counted, 2);
    victim.recover(&[]);
}

#[test]
fn new_and_resume_are_not_mixed_up() {
    let mut victim = Victim::new();
    let id = victim.id();
    block_on(async { Welcomed::open(&victim.engine, id, HelloMode::New).await });
    let words = [&*format!("producer {id}"), "known here already", "say resume", "fresh id"];
    victim.first("new for a producer that is known", &hello(id), ProducerExists, &words);
    let id = victim.id();
    let bytes = hello_with(id, HelloMode::Resume, b"");
    let words = [&*format!("producer {id}"), "not known here", "7 idle days", "check the engine"];
    victim.first("resume for a producer that is unknown", &bytes, ProducerUnknown, &words);
    victim.recover(&[]);
}

#[test]
fn a_producer_stream_is_greeted_once_and_waits_for_its_welcome() {
    let mut victim = Victim::new();
    let id = victim.id();
    let early = [hello(id), batch(id, 1)].concat();
    let words = ["before the WELCOME", "send nothing behind a HELLO"];
    victim.first("a BATCH right behind the HELLO", &early, UnexpectedFrame, &words);
    let words = ["HELLO came on a producer stream", "only BATCH"];
    victim.welcomed("a second HELLO on the stream", hello, UnexpectedFrame, &words);
    let (id, other) = (victim.id(), victim.id());
    let closed = block_on(async {
        let producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let (mut send, _receive) = producer.line.connection.open_bi().await.unwrap();
        send.write_all(&hello(other)).await.unwrap();
        producer.line.closed().await
    });
    let words = ["a second HELLO", "connection", "open a connection for each"];
    victim.closed("a second producer on a connection", &closed, UnexpectedFrame, &words);
    victim.recover(&[]);
}

#[test]
fn a_producer_at_another_core_is_sent_home_and_its_batches_are_not_taken() {
    let mut victim = Victim::of(|setup| crate::support::Setup { cores: 2, memory: "1GiB", ..setup });
    let cores = victim.engine.ready["listen"].as_array().unwrap().len();
    if cores == 1 {
        println!("one CPU: there is no other core to go to");
        return;
    }
    let id = ProducerId(1001);
    let (redirect, ended, closed) = block_on(async {
        let mut line = Line::open(&victim.engine).await;
        let (kind, payload) = line.ask(&hello(id)).await;
        assert_eq!(kind, FrameKind::Redirect);
        let ended = line.receive.read(&mut [0; 8]).await.unwrap();
        line.send(&batch(id, 1)).await;
        (Redirect::decode(&payload).unwrap(), ended, line.closed().await)
    });
    assert_eq!((redirect.home_core, redirect.ports.len(), ended), (1, 2, None));
    let text = format!("REDIRECT to core {}, end of the stream", redirect.home_core);
    told("a HELLO at another core than home", &text, "goes on", &["core 1"]);
    let words = ["redirected", "behind a WELCOME only"];
    victim.closed("a BATCH behind a REDIRECT", &closed, UnexpectedFrame, &words);
    victim.recover(&["--producers=4"]);
}

/// Acknowledgements of what was sent must not be lost with the connection that has sent it.
#[test]
fn a_producer_that_ends_its_stream_still_gets_its_answers() {
    let mut victim = Victim::new();
    let id = victim.id();
    let ack = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        producer.line.send(&batch(producer.id, 1)).await;
        producer.line.send.finish().unwrap();
        let (kind, payload) = producer.line.frame().await;
        assert_eq!(kind, FrameKind::Ack);
        Ack::decode(&payload).unwrap()
    });
    victim.acknowledged(&ack);
    row("the end of the stream before the answer", "ACK: counted 1", "goes on");
    victim.recover(&[]);
}
