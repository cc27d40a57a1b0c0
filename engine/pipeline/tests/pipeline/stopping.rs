//! A clean shutdown: everything counted is in a cut file, and the next start replays nothing.

use crate::engine::{Answer, Setup};
use crate::world::{START_MS, World, payload};
use highwater_pipeline::Intake;
use highwater_proto::{BatchRefusal, CloseReason, HelloMode, Period, ProducerId, Sequence};
use highwater_storage::Disk;

/// Asks for a stop and waits for it.
fn stop(world: &mut World) -> Vec<Answer> {
    world.engine.stop();
    let mut said = Vec::new();
    for _ in 0..100 {
        said.extend(world.settle().into_iter().map(|(_, answer)| answer));
        if world.engine.is_stopped() {
            return said;
        }
        world.advance(10);
    }
    panic!("the engine does not stop");
}

fn cut_number(world: &World) -> u64 {
    world.engine.store.last_cut().map_or(0, |cut| cut.number)
}

#[test]
fn what_was_appended_settles_and_what_comes_later_is_refused() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    let batch = |sequence| payload(producer, sequence, &[("a", START_MS)], 1);
    world.acked(session, &batch(1));
    assert_eq!(world.send(session, &batch(2)), Intake::Taken);
    world.engine.stop();
    assert_eq!(world.send(session, &batch(3)), Intake::Taken);
    let newcomer = world.session();
    assert_eq!(world.hello(newcomer, HelloMode::New, ProducerId(10)), Intake::Taken);
    let said = stop(&mut world);
    assert!(matches!(&said[0], Answer::Refused(refused) if refused.reason == BatchRefusal::Stopping), "{said:?}");
    assert!(matches!(&said[1], Answer::Close(CloseReason::ShuttingDown, _)), "{said:?}");
    assert!(matches!(&said[2], Answer::Ack(ack) if ack.sequence == Sequence(2)), "{said:?}");
    let cuts = cut_number(&world);
    assert!(cuts > 0);
    for seed in [None, Some(3)] {
        world.restart(seed).unwrap();
        assert_eq!(cut_number(&world), cuts, "a start that replays records closes them into a cut of its own");
    }
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 2)]);
    let (session, welcome) = world.connect(HelloMode::Resume, producer);
    assert_eq!(welcome.last, Sequence(2));
    assert_eq!(world.acked(session, &batch(3)).counted, 1);
}

#[test]
fn an_idle_engine_stops_at_once_and_again() {
    let mut world = World::new(Setup::default());
    stop(&mut world);
    world.restart(None).unwrap();
    stop(&mut world);
    assert_eq!(cut_number(&world), 0);
}

/// A stop once waited for markers that a stopped clock never issues.
#[test]
fn an_engine_whose_clock_has_jumped_still_stops() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    world.wall_ms += 3_600_000;
    stop(&mut world);
    world.wall_ms -= 3_600_000;
    world.restart(Some(1)).unwrap();
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), 1)]);
}

/// A stop once waited for room for the record that states the prefix, on a disk that had none.
#[test]
fn an_engine_whose_disk_is_full_still_stops() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.disk.set_capacity((1 << 40) - world.disk.free_bytes().unwrap() + 90_000);
    let views = [("a", START_MS); 250];
    let mut accepted = 0;
    for (sequence, field_len) in (1..).zip([255; 100]) {
        assert_eq!(world.send(session, &payload(producer, sequence, &views, field_len)), Intake::Taken);
        if !matches!(world.settle().as_slice(), [(_, Answer::Ack(_))]) {
            break;
        }
        accepted = sequence;
    }
    // Newcomers take what is left of the last segment.
    for id in 100..5000 {
        let session = world.session();
        assert_eq!(world.hello(session, HelloMode::New, ProducerId(id)), Intake::Taken);
        if matches!(world.settle().as_slice(), [(_, Answer::Close(CloseReason::Overloaded, _))]) {
            break;
        }
    }
    // Room for cut files, and for no segment.
    world.disk.set_capacity(1 << 40);
    let free_bytes = world.disk.free_bytes().unwrap();
    world.disk.set_capacity((1 << 40) - free_bytes + 1_000_000);
    stop(&mut world);
    world.disk.set_capacity(1 << 40);
    world.restart(Some(1)).unwrap();
    assert_eq!(world.rows(Period::AllTime), [("a".to_owned(), accepted * 250)]);
}
