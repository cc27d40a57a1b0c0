//! Views refused one by one, batches refused as a whole, and waiting for room.

use crate::engine::{Answer, Setup};
use crate::world::{START_MS, World, payload};
use bytes::Bytes;
use highwater_pipeline::Intake;
use highwater_pipeline::limits::LANES_CELLS;
use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX, TIMESTAMP_MS_MAX};
use highwater_proto::{
    BatchBuilder, BatchRefusal, CloseReason, ENCODINGS, FRAME_HEADER_BYTES, HelloMode, IN_FLIGHT_BATCHES_MAX, Period,
    ProducerId, Pushed, RefusedRange, Sequence, View, ViewRefusal,
};
use highwater_storage::{Disk, LogLimits};

/// About 200 KB, so that a few of them fill a segment.
fn fat(producer: ProducerId, sequence: u64) -> Bytes {
    payload(producer, sequence, &[("a", START_MS); 250], 255)
}

/// Leaves the disk room for small files only.
fn fill_disk(world: &World) {
    world.disk.set_capacity((1 << 40) - world.disk.free_bytes().unwrap() + 90_000);
}

/// Sends fat batches until one is refused; returns its sequence.
fn send_until_refused(world: &mut World, session: highwater_pipeline::SessionId, producer: ProducerId) -> u64 {
    for sequence in 1..100 {
        assert_eq!(world.send(session, &fat(producer, sequence)), Intake::Taken);
        let said = world.settle();
        match said.as_slice() {
            [(_, Answer::Ack(ack))] => assert_eq!(ack.counted, 250),
            [(_, Answer::Refused(refused))] => {
                assert_eq!((refused.sequence.0, refused.reason), (sequence, BatchRefusal::DiskFull));
                return sequence;
            }
            _ => panic!("{said:?}"),
        }
    }
    panic!("the disk is never full");
}

#[test]
fn views_too_far_ahead_are_refused_with_exact_ranges() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let edge_ms = START_MS + world.setup.skew_max_ms;
    let views = [
        ("a", edge_ms + 1),
        ("a", edge_ms + 9),
        ("a", edge_ms),
        ("a", TIMESTAMP_MS_MAX + 1),
        ("a", u64::MAX),
        ("a", TIMESTAMP_MS_MAX),
        ("a", 0),
    ];
    let ack = world.acked(session, &payload(producer, 1, &views, 1));
    let range = |first, count, reason| RefusedRange { first, count, reason };
    let expected = [
        range(0, 2, ViewRefusal::FutureBeyondSkew),
        range(3, 2, ViewRefusal::TimeOutOfRange),
        range(5, 1, ViewRefusal::FutureBeyondSkew),
    ];
    assert_eq!((ack.counted, ack.refused.as_slice(), ack.detail_complete), (2, expected.as_slice(), true));
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 2)]);
    assert_eq!(world.rows(Period::Month), [("a".to_owned(), 1)]);
    world.restart(Some(3)).unwrap();
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 2)]);
    assert_eq!(world.stats().views_refused, [0; 3], "what was refused before is not refused again");
}

#[test]
fn a_retry_is_told_only_the_totals_of_many_refused_ranges() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let views: Vec<(&str, u64)> = (0..40).map(|index| ("a", START_MS + index % 2 * 3_600_000)).collect();
    let batch = payload(producer, 1, &views, 1);
    let first = world.acked(session, &batch);
    assert_eq!((first.counted, first.refused.len(), first.detail_complete), (20, 20, true));
    let again = world.acked(session, &batch);
    let totals = [RefusedRange { first: u32::MAX, count: 20, reason: ViewRefusal::FutureBeyondSkew }];
    assert_eq!((again.duplicate, again.refused.as_slice(), again.detail_complete), (20, totals.as_slice(), false));
    world.restart(Some(3)).unwrap();
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 20)]);
}

/// Recovery once counted the new ids of refused views too, and refused to start on a full table.
#[test]
fn a_full_table_counts_what_it_knows_and_refuses_new_ids_also_after_a_restart() {
    let mut world = World::new(Setup { shards: 1, videos_per_shard_max: 4, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    for (sequence, id) in (1..).zip(["a", "b", "c", "d"]) {
        assert_eq!(world.acked(session, &payload(producer, sequence, &[(id, START_MS)], 1)).counted, 1);
    }
    let mixed = [("e", START_MS), ("a", START_MS), ("f", START_MS), ("g", START_MS), ("d", START_MS)];
    let check = |world: &mut World, session, sequence| {
        let ack = world.acked(session, &payload(producer, sequence, &mixed, 1));
        let range = |first, count| RefusedRange { first, count, reason: ViewRefusal::TableFull };
        assert_eq!((ack.counted, ack.refused.as_slice()), (2, [range(0, 1), range(2, 2)].as_slice()));
    };
    check(&mut world, session, 5);
    assert_eq!(world.stats().videos, 4);
    for (seed, sequence) in [(None, 6), (Some(7), 7)] {
        world.restart(seed).unwrap();
        let (session, _) = world.connect(HelloMode::Resume, producer);
        check(&mut world, session, sequence);
    }
    let rows = [("a", 4), ("d", 4), ("b", 1), ("c", 1)].map(|(id, count)| (id.to_owned(), count));
    assert_eq!(world.rows(Period::AllTime), rows);
}

/// Views in flight were once counted as new ids against every shard, so a table half full refused new ids under load.
#[test]
fn a_table_with_room_waits_for_what_is_in_flight_before_it_refuses_new_ids() {
    let mut world = World::new(Setup { shards: 1, videos_per_shard_max: 8, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    assert_eq!(world.acked(session, &payload(producer, 1, &[("a", START_MS), ("b", START_MS)], 1)).counted, 2);
    let known = payload(producer, 2, &[("a", START_MS); 4], 1);
    let mixed = payload(producer, 3, &[("a", START_MS), ("b", START_MS), ("a", START_MS), ("new", START_MS)], 1);
    assert_eq!(world.send(session, &known), Intake::Taken);
    assert_eq!(world.send(session, &mixed), Intake::NoRoom, "six slots are free, eight views would be in flight");
    world.settle();
    assert_eq!(world.acked(session, &mixed).counted, 4);
    assert_eq!(world.stats().videos, 3);
}

/// Small batches that still fitted once passed a large one for ever.
#[test]
fn nothing_passes_a_batch_that_waits_for_the_tables() {
    let mut world = World::new(Setup { shards: 1, videos_per_shard_max: 8, ..Setup::default() });
    let (first, session) = world.new_producer(9);
    let (second, other) = world.new_producer(10);
    assert_eq!(world.send(session, &payload(first, 1, &[("a", START_MS); 2], 1)), Intake::Taken);
    let large = payload(first, 2, &[("a", START_MS); 7], 1);
    let small = payload(second, 1, &[("a", START_MS)], 1);
    assert_eq!(world.send(session, &large), Intake::NoRoom);
    assert_eq!(world.send(other, &small), Intake::NoRoom, "one more view would fit, but a batch waits");
    world.settle();
    assert_eq!(world.acked(session, &large).counted, 7);
    assert_eq!(world.acked(other, &small).counted, 1);
}

/// The question names an id as often as the batch has views of it, however short the batch is.
#[test]
fn a_question_that_the_lane_has_no_room_for_waits() {
    let setup =
        Setup { shards: 1, videos_per_shard_max: 2_000_000, id_arena_bytes_per_shard: 100_000, ..Setup::default() };
    let mut world = World::new(setup);
    let (producer, session) = world.new_producer(9);
    let batch = |sequence, id: &str, views: u32, encodings| {
        let mut builder = BatchBuilder::new(views, BATCH_BYTES_MAX as u32).with_encodings(encodings);
        let view = View { video_id: id, timestamp_ms: START_MS, user_id: "", region: "", device: "" };
        (0..views).for_each(|_| assert_eq!(builder.push(&view), Ok(Pushed::Added)));
        builder.encode(producer, Sequence(sequence)).slice(FRAME_HEADER_BYTES..)
    };
    // The next minute's marker waits for runs, and behind it the lane fills.
    world.wall_ms += 60_000;
    world.monotonic_ms += 60_000;
    let fills = (LANES_CELLS - 20_000) as u64 / u64::from(BATCH_VIEWS_MAX);
    for sequence in 1..=fills {
        let plain = batch(sequence, "a", BATCH_VIEWS_MAX, 0);
        assert!((0..10).any(|_| {
            let taken = world.send(session, &plain) == Intake::Taken;
            world.settle_but_edges();
            taken
        }));
    }
    let long = batch(fills + 1, &"x".repeat(255), 3800, ENCODINGS);
    assert!(long.len() < 500);
    assert_eq!(world.send(session, &long), Intake::NoRoom);
    world.settle_but_edges();
    assert_eq!((world.send(session, &long), world.stats().questions), (Intake::NoRoom, 0));
    world.settle();
    let ack = world.acked(session, &long);
    assert_eq!((ack.counted, ack.refused_count(), world.stats().questions), (0, 3800, 1), "as many ids as views");
    assert_eq!(world.rows(Period::AllTime)[0], ("a".to_owned(), fills * u64::from(BATCH_VIEWS_MAX)));
}

#[test]
fn a_full_arena_refuses_long_ids_and_takes_short_ones() {
    let mut world = World::new(Setup { shards: 1, id_arena_bytes_per_shard: 100, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    let (long, other) = ("x".repeat(80), "y".repeat(80));
    assert_eq!(world.acked(session, &payload(producer, 1, &[(&long, START_MS)], 1)).counted, 1);
    let views = [(long.as_str(), START_MS), (other.as_str(), START_MS)];
    let ack = world.acked(session, &payload(producer, 2, &views, 1));
    assert_eq!((ack.counted, ack.refused_count()), (1, 1));
    assert_eq!(world.acked(session, &payload(producer, 3, &[("short", START_MS)], 1)).counted, 1);
    world.restart(Some(1)).unwrap();
    let rows = [(long.clone(), 2), ("short".to_owned(), 1)];
    assert_eq!(world.rows(Period::AllTime), rows);
}

#[test]
fn a_full_disk_refuses_batches_until_there_is_space_and_they_come_back_in_order() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    fill_disk(&world);
    let refused = send_until_refused(&mut world, session, producer);
    assert_eq!(world.refused(session, &fat(producer, refused + 1)), (refused + 1, BatchRefusal::AfterRefusal));
    assert_eq!(world.refused(session, &fat(producer, refused)), (refused, BatchRefusal::DiskFull));
    let newcomer = world.session();
    // A hello is small: it may still fit, or the newcomer is told to come back.
    assert_eq!(world.hello(newcomer, HelloMode::New, ProducerId(10)), Intake::Taken);
    let said = world.settle();
    assert!(
        matches!(said.as_slice(), [(_, Answer::Welcome(_) | Answer::Close(CloseReason::Overloaded, _))]),
        "{said:?}"
    );
    world.disk.set_capacity(1 << 40);
    world.advance(1000);
    assert_eq!(world.refused(session, &fat(producer, refused + 1)), (refused + 1, BatchRefusal::AfterRefusal));
    assert_eq!(world.acked(session, &fat(producer, refused)).counted, 250);
    assert_eq!(world.acked(session, &fat(producer, refused + 1)).counted, 250);
    let stats = world.stats();
    assert_eq!(stats.views_refused_with_batch.iter().sum::<u64>(), 4 * 250);
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), (refused + 1) * 250)]);
}

#[test]
fn a_jump_of_the_clock_refuses_batches_and_stops_snapshots_until_it_is_back() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    world.wall_ms += 3_600_000;
    let snapshots = world.snapshots.len();
    world.advance(5000);
    let batch = payload(producer, 2, &[("a", START_MS)], 1);
    assert_eq!(world.refused(session, &batch), (2, BatchRefusal::ClockStopped));
    let third = payload(producer, 3, &[("a", START_MS)], 1);
    assert_eq!(world.refused(session, &third), (3, BatchRefusal::AfterRefusal));
    assert_eq!(world.snapshots.len(), snapshots);
    assert_eq!(world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1)).duplicate, 1);
    world.wall_ms -= 3_600_000;
    world.advance(1000);
    assert_eq!(world.acked(session, &batch).counted, 1);
    assert_eq!(world.acked(session, &third).counted, 1);
    assert!(world.snapshots.last().unwrap().as_of_ms < START_MS + 60_000);
}

#[test]
fn no_room_in_the_log_is_waiting_and_not_a_refusal() {
    let log = LogLimits { buffers: 2, ..Setup::default().log };
    let mut world = World::new(Setup { log, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    let batch = |sequence| payload(producer, sequence, &[("a", START_MS)], 1);
    for sequence in 1..=2 {
        assert_eq!(world.send(session, &batch(sequence)), Intake::Taken);
        world.turn();
    }
    assert_eq!(world.send(session, &batch(3)), Intake::NoRoom, "both buffers are on their way to the disk");
    assert!(world.engine.outputs().is_empty());
    assert_eq!(world.settle().len(), 2);
    assert_eq!(world.acked(session, &batch(3)).counted, 1);
    assert_eq!(world.stats().intake_waits, 1);
}

#[test]
fn no_more_batches_than_are_remembered_may_be_in_flight() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let batch = |sequence| payload(producer, sequence, &[("a", START_MS)], 1);
    let most = u64::from(IN_FLIGHT_BATCHES_MAX);
    for sequence in 1..=most {
        assert_eq!(world.send(session, &batch(sequence)), Intake::Taken);
    }
    assert_eq!(world.send(session, &batch(most + 1)), Intake::NoRoom);
    assert_eq!(world.settle().len() as u64, most);
    assert_eq!(world.acked(session, &batch(most + 1)).counted, 1);
}
