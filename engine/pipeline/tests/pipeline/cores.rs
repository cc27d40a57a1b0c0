//! Several cores: shards and homes shared out, one cut and one snapshot of all, credit for tables that are nearly full.

use crate::engine::{Answer, Setup};
use crate::world::{START_MS, World, payload};
use highwater_pipeline::{Intake, SessionId, Targets, home_core};
use highwater_proto::{Hello, HelloMode, PROTOCOL_VERSION, Period, ProducerId};
use highwater_ranking::IdHash;

fn world(cores: u16, setup: Setup) -> World {
    World::new(Setup { cores, ..setup })
}

/// A producer whose home is `core`.
fn producer_of(world: &mut World, core: u16) -> (ProducerId, SessionId) {
    let cores = world.setup.cores;
    let id = (0..).find(|id| home_core(ProducerId(*id), cores) == core).unwrap();
    world.new_producer(id)
}

/// So many ids that a core counts.
fn ids_of(world: &World, core: usize, count: usize) -> Vec<String> {
    let targets = Targets::new(IdHash::new(crate::engine::HASH_SEED), world.setup.shards, world.setup.cores);
    (0..).map(|index| format!("v{index}")).filter(|id| targets.core_of(id) == core).take(count).collect()
}

fn views(ids: &[String]) -> Vec<(&str, u64)> {
    ids.iter().map(|id| (id.as_str(), START_MS)).collect()
}

#[test]
fn a_batch_is_counted_on_the_cores_that_own_its_videos_and_shows_whole_in_one_epoch() {
    let mut world = world(3, Setup { shards: 6, ..Setup::default() });
    let (producer, session) = producer_of(&mut world, 2);
    let ids: Vec<String> = (0..3).flat_map(|core| ids_of(&world, core, 2)).collect();
    let ack = world.acked(session, &payload(producer, 1, &views(&ids), 1));
    let before = world.snapshots.len();
    world.advance(1000);
    let snapshot = world.snapshots.iter().skip(before).find(|one| one.epoch == ack.visible_epoch).unwrap();
    assert_eq!(crate::world::rows(snapshot, Period::AllTime).len(), 6);
    let of_cores: Vec<u64> = world.engine.stats().iter().map(|stats| stats.videos).collect();
    assert_eq!(of_cores, [2, 2, 2]);
}

#[test]
fn only_the_home_core_welcomes_and_only_the_owner_answers_a_look_up() {
    let mut world = world(2, Setup::default());
    let session = world.session();
    let hello = Hello { version: PROTOCOL_VERSION, mode: HelloMode::New, producer: ProducerId(7), token: Vec::new() };
    assert_eq!(world.engine.hello_to(0, session, &hello), Intake::Taken);
    let said = world.settle();
    let [(_, Answer::Redirect(redirect)), (_, Answer::Finish)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((redirect.home_core, redirect.ports.len()), (1, 2));
    let (producer, session) = world.new_producer(7);
    let id = ids_of(&world, 0, 1).remove(0);
    world.acked(session, &payload(producer, 1, &[(&id, START_MS)], 1));
    world.advance(1000);
    let counts = world.engine.cores[0].pipeline.handle_lookup(&id).unwrap();
    assert_eq!((counts.counts[0].view_count, counts.counts[0].rank), (1, Some(1)));
    assert_eq!(world.engine.cores[1].pipeline.handle_lookup(&id).unwrap_err().home_core, 0);
}

/// Idle cores once could have kept the credit that they were granted at the start, and a table half empty refused ids.
#[test]
fn room_that_was_granted_to_idle_cores_is_taken_back_when_another_core_needs_it() {
    let mut world = world(4, Setup { shards: 4, videos_per_shard_max: 100, ..Setup::default() });
    let (producer, session) = producer_of(&mut world, 3);
    let ids = ids_of(&world, 1, 120);
    for (sequence, part) in (1..).zip(ids[..100].chunks(10)) {
        let ack = world.acked(session, &payload(producer, sequence, &views(part), 1));
        assert_eq!(ack.counted, 10, "{ack:?}");
    }
    assert_eq!(world.engine.stats()[1].videos, 100);
    assert!(world.engine.stats()[3].questions > 0);
    let mixed = payload(producer, 11, &views(&ids[90..110]), 1);
    let ack = world.acked(session, &mixed);
    assert_eq!((ack.counted, ack.refused[0].first, ack.refused_count()), (10, 10, 10));
    // The other shards have room as before.
    let others = ids_of(&world, 0, 20);
    assert_eq!(world.acked(session, &payload(producer, 12, &views(&others), 1)).counted, 20);
}

#[test]
fn late_views_on_any_core_bring_a_cut_for_all() {
    let mut world = world(2, Setup { late_rows_max: 1, ..Setup::default() });
    let (producer, session) = producer_of(&mut world, 0);
    let id = ids_of(&world, 1, 1).remove(0);
    let cuts = world.engine.store.last_cut().map_or(0, |cut| cut.number);
    world.acked(session, &payload(producer, 1, &[(id.as_str(), START_MS - 3_600_000); 30], 1));
    assert_eq!(world.engine.store.last_cut().map_or(0, |cut| cut.number), cuts + 1, "before the minute is over");
    world.restart(Some(1)).unwrap();
    assert_eq!(world.rows(Period::AllTime), [(id, 30)]);
}

#[test]
fn a_clean_stop_of_many_cores_leaves_nothing_to_replay_for_any_number_of_cores() {
    for (cores, next) in [(3, 1), (1, 4), (4, 2)] {
        let mut world = world(cores, Setup::default());
        let sent: Vec<(ProducerId, SessionId)> = (0..cores).map(|core| producer_of(&mut world, core)).collect();
        for (index, (producer, session)) in sent.iter().enumerate() {
            let id = format!("of {index}");
            assert_eq!(world.send(*session, &payload(*producer, 1, &[(&id, START_MS)], 1)), Intake::Taken);
        }
        world.engine.stop();
        let mut turns = 0;
        while !world.engine.is_stopped() {
            turns += 1;
            assert!(turns < 100, "the engine does not stop");
            world.advance(100);
        }
        let cut = world.engine.store.last_cut().map(|cut| cut.number);
        world.setup.cores = next;
        world.restart(Some(u64::from(cores))).unwrap();
        assert_eq!(world.engine.store.last_cut().map(|cut| cut.number), cut, "nothing was replayed");
        assert_eq!(world.rows(Period::AllTime).len(), usize::from(cores));
        for (producer, _) in sent {
            let (_, welcome) = world.connect(HelloMode::Resume, producer);
            assert_eq!((welcome.last.0, welcome.home_core), (1, home_core(producer, next)));
        }
    }
}
