//! The order of batches, retries, and what is no retry.

use crate::engine::{Answer, Setup};
use crate::world::{START_MS, World, payload};
use bytes::Bytes;
use highwater_pipeline::{Intake, SessionId};
use highwater_proto::{CloseReason, HelloMode, IN_FLIGHT_BATCHES_MAX, Period, ProducerId, Sequence};

fn one(producer: ProducerId, sequence: u64) -> Bytes {
    payload(producer, sequence, &[("a", START_MS), ("b", START_MS - 5)], 1)
}

fn close_reason(world: &mut World, session: SessionId, payload: &Bytes) -> CloseReason {
    assert_eq!(world.send(session, payload), Intake::Taken);
    let said = world.settle();
    match said.as_slice() {
        [(to, Answer::Close(reason, _))] if *to == session => *reason,
        _ => panic!("{said:?}"),
    }
}

#[test]
fn batches_in_order_are_counted_and_acknowledged_with_their_epoch() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    for sequence in 1..=5 {
        let ack = world.acked(session, &one(producer, sequence));
        assert_eq!((ack.sequence, ack.counted, ack.duplicate), (Sequence(sequence), 2, 0));
        assert!(ack.refused.is_empty() && ack.detail_complete);
        world.advance(1000);
        assert_eq!(world.snapshots.last().unwrap().epoch, ack.visible_epoch);
        assert_eq!(world.rows(Period::Hour), [("a".to_owned(), sequence), ("b".to_owned(), sequence)]);
    }
    let counts = world.engine.cores[0].pipeline.handle_lookup("a").unwrap();
    assert!(counts.counts.iter().all(|count| count.view_count == 5 && count.rank == Some(1)), "{counts:?}");
    assert_eq!(counts.counts.len(), 7);
}

#[test]
fn a_gap_closes_the_connection() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &one(producer, 1));
    assert_eq!(close_reason(&mut world, session, &one(producer, 3)), CloseReason::SequenceGap);
    assert_eq!(world.connect(HelloMode::Resume, producer).1.last, Sequence(1));
}

#[test]
fn a_retry_of_a_durable_batch_repeats_the_verdict_and_counts_nothing() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let batch = payload(producer, 1, &[("a", START_MS), ("b", START_MS + 3_600_000)], 1);
    let first = world.acked(session, &batch);
    assert_eq!((first.counted, first.refused_count()), (1, 1));
    let check = |world: &mut World, session| {
        let again = world.acked(session, &batch);
        assert_eq!((again.counted, again.duplicate, &again.refused), (0, 1, &first.refused));
        assert!(again.visible_epoch >= first.visible_epoch);
        assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 1)]);
    };
    check(&mut world, session);
    world.restart(Some(1)).unwrap();
    let (session, welcome) = world.connect(HelloMode::Resume, producer);
    assert_eq!(welcome.last, Sequence(1));
    check(&mut world, session);
    world.advance(60_000);
    world.restart(Some(2)).unwrap();
    let (session, _) = world.connect(HelloMode::Resume, producer);
    check(&mut world, session);
}

#[test]
fn a_retry_in_flight_is_answered_together_with_the_original() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let batch = one(producer, 1);
    assert_eq!(world.send(session, &batch), Intake::Taken);
    assert_eq!(world.send(session, &batch), Intake::Taken);
    world.turn();
    assert!(world.engine.outputs().is_empty(), "neither is durable");
    let said = world.settle();
    let [(_, Answer::Ack(first)), (_, Answer::Ack(again))] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((first.counted, first.duplicate, again.counted, again.duplicate), (2, 0, 0, 2));
    assert_eq!(first.visible_epoch, again.visible_epoch);
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    assert_eq!((world.stats().views_received, world.stats().views_duplicate), (4, 2));
}

#[test]
fn a_sequence_with_other_bytes_closes_the_connection() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &one(producer, 1));
    let other = payload(producer, 1, &[("c", START_MS)], 1);
    assert_eq!(close_reason(&mut world, session, &other), CloseReason::SequenceReused);
    let (session, _) = world.connect(HelloMode::Resume, producer);
    assert_eq!(world.send(session, &one(producer, 2)), Intake::Taken);
    let in_flight = payload(producer, 2, &[("c", START_MS)], 1);
    assert_eq!(world.send(session, &in_flight), Intake::Taken);
    let said = world.settle();
    assert!(matches!(said.as_slice(), [(_, Answer::Close(CloseReason::SequenceReused, _))]), "{said:?}");
    // The same checksum field over other bytes is no retry either.
    let (session, welcome) = world.connect(HelloMode::Resume, producer);
    assert_eq!(welcome.last, Sequence(2));
    let mut forged = one(producer, 2).to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert_eq!(close_reason(&mut world, session, &forged.into()), CloseReason::SequenceReused);
}

#[test]
fn a_batch_that_does_not_verify_closes_the_connection_and_leaves_no_trace() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let mut broken = one(producer, 1).to_vec();
    let last = broken.len() - 1;
    broken[last] ^= 1;
    assert_eq!(close_reason(&mut world, session, &broken.into()), CloseReason::ChecksumMismatch);
    let (session, welcome) = world.connect(HelloMode::Resume, producer);
    assert_eq!(welcome.last, Sequence(0));
    assert_eq!(close_reason(&mut world, session, &Bytes::from_static(b"short")), CloseReason::Malformed);
    let (session, _) = world.connect(HelloMode::Resume, producer);
    assert_eq!(world.acked(session, &one(producer, 1)).counted, 2);
}

#[test]
fn a_retry_older_than_what_may_be_in_flight_closes_the_connection() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let last = u64::from(IN_FLIGHT_BATCHES_MAX) + 1;
    for sequence in 1..=last {
        world.acked(session, &one(producer, sequence));
    }
    assert_eq!(world.acked(session, &one(producer, 2)).duplicate, 2);
    assert_eq!(close_reason(&mut world, session, &one(producer, 1)), CloseReason::SequenceTooOld);
    world.advance(60_000);
    world.restart(None).unwrap();
    let (session, _) = world.connect(HelloMode::Resume, producer);
    assert_eq!(world.acked(session, &one(producer, 2)).duplicate, 2);
    assert_eq!(close_reason(&mut world, session, &one(producer, 1)), CloseReason::SequenceTooOld);
}
