//! Nothing is acknowledged before it is durable, and in log order.

use crate::engine::{Answer, Engine, Setup};
use crate::world::{START_MS, World, payload};
use highwater_pipeline::{Intake, RecoveryError};
use highwater_proto::{HelloMode, Period, ProducerId, Sequence};
use highwater_storage::{BLOCK_BYTES, LogLimits, RECORD_HEADER_BYTES};

/// The sequences acknowledged by what a world's engine has to say.
fn acks(engine: &mut Engine) -> Vec<u64> {
    let sequence = |(_, answer): (_, Answer)| match answer {
        Answer::Ack(ack) => ack.sequence.0,
        other => panic!("{other:?}"),
    };
    engine.outputs().into_iter().map(sequence).collect()
}

/// The last durable sequence that a start on a copy of the disk after a power cut knows.
fn durable_after_crash(world: &World, producer: ProducerId, seed: u64) -> u64 {
    let mut other = World::on(world.setup.clone(), world.disk.crash(seed), world.wall_ms);
    let last = other.connect(HelloMode::Resume, producer).1.last.0;
    let rows = other.rows(Period::AllTime);
    assert_eq!(rows.first().map_or(0, |row| row.1), last, "each durable batch is counted once");
    last
}

#[test]
fn acknowledgements_follow_the_log_when_writes_complete_out_of_order() {
    let mut overtaken = 0;
    for seed in 0..8 {
        let log = LogLimits { buffers: 5, depth: 4, ..Setup::default().log };
        let mut world = World::new(Setup { log, ..Setup::default() });
        for _ in 0..seed {
            world.restart(None).unwrap();
        }
        let (producer, session) = world.new_producer(9);
        for sequence in 1..=4 {
            assert_eq!(world.send(session, &payload(producer, sequence, &[("a", START_MS)], 1)), Intake::Taken);
            world.turn();
        }
        let mut acked = Vec::new();
        for completed in 1..=4 {
            assert!(acked.len() < completed);
            assert!(world.engine.complete(0).unwrap());
            world.turn();
            acked.extend(acks(&mut world.engine));
            assert!(acked.iter().copied().eq(1..=acked.len() as u64), "in log order: {acked:?}");
            assert!(durable_after_crash(&world, producer, seed) >= acked.len() as u64);
            overtaken += u32::from(acked.len() < completed);
        }
        assert_eq!(acked.len(), 4);
    }
    assert!(overtaken > 4, "the writes complete out of order");
}

#[test]
fn a_failed_write_ends_the_process_without_another_acknowledgement() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    assert_eq!(world.send(session, &payload(producer, 2, &[("a", START_MS)], 1)), Intake::Taken);
    world.turn();
    world.disk.fail_after(0);
    assert!(world.engine.complete(0).is_err());
    world.turn();
    assert!(world.engine.outputs().is_empty());
    world.restart(Some(2)).unwrap();
    let last = world.connect(HelloMode::Resume, producer).1.last;
    assert!(last == Sequence(1) || last == Sequence(2));
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), last.0)]);
}

#[test]
fn a_log_at_rest_states_its_prefix_once() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.advance(100);
    let before = world.disk.calls();
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    let one_write = world.disk.calls() - before;
    world.advance(10);
    assert_eq!(world.disk.calls() - before, one_write, "it has not rested long enough");
    world.advance(20);
    assert_eq!(world.disk.calls() - before, 2 * one_write, "a record with the prefix");
    world.advance(500);
    assert_eq!(world.disk.calls() - before, 2 * one_write, "and no other");
    // Damage to the acknowledged batch is now a hole, not a torn tail.
    let path = world.disk.paths().into_iter().find(|path| path.ends_with("s0000000000.seg")).unwrap();
    // Blocks: the producer, the prefix that covers it, the batch, the prefix that covers the batch.
    world.disk.flip_bit(&path, 2 * BLOCK_BYTES + RECORD_HEADER_BYTES + 20, 3);
    let error = world.restart(None).unwrap_err();
    assert!(matches!(error, RecoveryError::Storage(_)), "{error}");
}

#[test]
fn a_clock_far_from_the_data_is_refused_at_a_start() {
    let mut world = World::new(Setup::default());
    world.advance(120_000);
    world.wall_ms -= 20 * 60_000;
    assert!(matches!(world.restart(None), Err(RecoveryError::Clock { .. })));
    world.wall_ms += 41 * 24 * 3_600_000;
    assert!(matches!(world.restart(None), Err(RecoveryError::Clock { .. })));
    world.setup.accept_clock = true;
    world.restart(None).unwrap();
}

/// Engine time stands still until a wall clock that was set back catches up; snapshots once stood still with it.
#[test]
fn snapshots_go_on_while_the_wall_clock_is_behind_the_durable_minute() {
    let mut world = World::new(Setup::default());
    world.advance(120_000);
    world.wall_ms -= 5 * 60_000;
    world.restart(None).unwrap();
    let (producer, session) = world.new_producer(3);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    let before = world.snapshots.len();
    for _ in 0..10 {
        world.advance(1000);
    }
    let new = &world.snapshots[before..];
    assert!(new.len() >= 4, "{} snapshots in 10 s", new.len());
    assert!(new.windows(2).all(|two| two[0].epoch < two[1].epoch && two[0].as_of_ms <= two[1].as_of_ms));
    assert_eq!(crate::world::rows(new.last().unwrap(), Period::AllTime), [("a".to_owned(), 1)]);
}
