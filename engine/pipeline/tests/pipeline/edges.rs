//! Minutes that pass: cuts, falling runs, early cuts, restarts in between.

use crate::engine::{Engine, Setup};
use crate::world::{START_MS, World, payload, rows};
use highwater_pipeline::Intake;
use highwater_proto::{Period, Window};
use highwater_ranking::{Calendar, WindowLengths};

const MINUTE_MS: u64 = 60_000;

fn counted(id: &str, count: u64) -> Vec<(String, u64)> {
    vec![(id.to_owned(), count)]
}

#[test]
fn a_new_minute_cuts_and_lets_the_oldest_minute_fall() {
    for restarts in [false, true] {
        let windows = WindowLengths { hour: 2, day: 4, month: 6, calendar: Calendar::scaled(1, 2, 3) };
        let mut world = World::new(Setup { windows, ..Setup::default() });
        let (producer, session) = world.new_producer(9);
        let views =
            [("a", START_MS), ("a", START_MS - MINUTE_MS), ("a", START_MS + 55_000), ("a", START_MS - 86_400_000)];
        assert_eq!(world.acked(session, &payload(producer, 1, &views, 1)).counted, 4);
        // Minutes counted by an hour of two minutes: from two before the engine's minute on.
        for (minute, hour, day, month) in [
            (0, 3, 3, 3),
            (1, 3, 3, 3),
            (2, 2, 3, 3),
            (3, 1, 3, 3),
            (4, 0, 2, 3),
            (5, 0, 1, 3),
            (7, 0, 0, 1),
            (9, 0, 0, 0),
        ] {
            let time_ms = START_MS + 1000 + minute * MINUTE_MS;
            world.advance(time_ms - world.wall_ms);
            if restarts {
                world.restart(Some(minute)).unwrap();
                world.advance(0);
            }
            let last = world.snapshots.last().unwrap();
            assert_eq!(last.as_of_ms, time_ms);
            let count = |period| rows(last, period).first().map_or(0, |row| row.1);
            let found = [Period::Hour, Period::Day, Period::Month].map(count);
            assert_eq!(found, [hour, day, month], "minute {minute}");
            assert_eq!(rows(last, Period::AllTime), counted("a", 4));
            let board = last.board(Period::Hour, Window::Sliding).unwrap();
            assert_eq!(board.start_ms, Some(time_ms - 11_000 - 2 * MINUTE_MS));
            assert_eq!(board.end_ms, (time_ms - 11_000 + MINUTE_MS).max(START_MS - 10_000 + 2 * MINUTE_MS));
        }
        assert!(world.engine.store.last_cut().is_some());
    }
}

#[test]
fn a_minute_without_views_writes_no_cut_file() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    world.advance(1000);
    world.advance(MINUTE_MS);
    let cuts = world.engine.store.last_cut().map(|cut| cut.number);
    assert_eq!(cuts, Some(1));
    for _ in 0..5 {
        world.advance(MINUTE_MS);
    }
    assert_eq!(world.engine.store.last_cut().map(|cut| cut.number), cuts);
    assert_eq!(world.stats().cuts, 1);
}

#[test]
fn late_views_that_fill_their_budget_ask_for_a_cut_before_the_minute_ends() {
    let windows = WindowLengths { hour: 2, day: 4, month: 6, calendar: Calendar::scaled(1, 2, 3) };
    let mut world = World::new(Setup { late_rows_max: 8, windows, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    world.settle();
    let epochs = world.snapshots.len();
    for sequence in 1..=12 {
        let views = [("a", START_MS - MINUTE_MS), ("b", START_MS - 3 * MINUTE_MS), ("a", START_MS + 50_000)];
        assert_eq!(world.send(session, &payload(producer, sequence, &views, 1)), Intake::Taken);
    }
    assert_eq!(world.settle().len(), 12);
    assert!(world.stats().cuts >= 1, "{:?}", world.stats());
    assert!(world.snapshots.len() > epochs, "early markers come before their second");
    assert_eq!(world.snapshots.last().unwrap().as_of_ms, START_MS);
    let all = [("a".to_owned(), 24), ("b".to_owned(), 12)];
    assert_eq!(world.rows(Period::AllTime), all);
    assert_eq!(world.rows(Period::Hour), counted("a", 24));
    assert_eq!(world.rows(Period::Day), all);
    world.restart(Some(1)).unwrap();
    assert_eq!(world.rows(Period::Day), all);
    world.advance(2 * MINUTE_MS);
    assert_eq!(world.rows(Period::Day), counted("a", 24));
    assert_eq!(world.rows(Period::Hour), counted("a", 12));
    world.advance(8 * MINUTE_MS);
    assert_eq!(world.rows(Period::Month), []);
    assert_eq!(world.rows(Period::AllTime), all);
}

#[test]
fn a_leap_over_months_empties_every_window() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1));
    world.advance(31 * 24 * 3_600_000);
    assert_eq!(world.rows(Period::Month), []);
    assert_eq!(world.rows(Period::AllTime), counted("a", 1));
    let now_ms = world.wall_ms;
    world.acked(session, &payload(producer, 2, &[("b", now_ms)], 1));
    assert_eq!(world.rows(Period::Hour), counted("b", 1));
}

#[test]
fn epochs_and_time_grow_through_restarts_and_leases() {
    let mut world = World::new(Setup::default());
    let (mut epoch, mut time_ms) = (0, 0);
    for round in 0..40 {
        world.advance(17_000);
        if round % 4 == 3 {
            world.restart((round % 8 == 3).then_some(round)).unwrap();
        }
        for snapshot in world.snapshots.drain(..) {
            assert!(snapshot.epoch.0 > epoch && snapshot.as_of_ms >= time_ms);
            (epoch, time_ms) = (snapshot.epoch.0, snapshot.as_of_ms);
        }
    }
    assert!(epoch > 9 * 4096, "each start leases anew");
}

#[test]
fn a_lease_is_renewed_before_it_runs_out() {
    let mut world = World::new(Setup::default());
    let end = world.engine.store.state().epoch_lease_end;
    for _ in 0..4200 {
        world.advance(1000);
    }
    assert!(world.snapshots.last().unwrap().epoch > end);
    assert_eq!(world.snapshots.len() as u64, world.stats().markers);
}

#[test]
fn late_views_at_twice_their_budget_wait_for_the_cuts_to_be_written() {
    let mut world = World::new(Setup { late_rows_max: 4, ..Setup::default() });
    let (producer, session) = world.new_producer(9);
    let batch = |sequence| payload(producer, sequence, &[("a", START_MS - MINUTE_MS); 3], 1);
    let mut sent = 0;
    let mut told = 0;
    while world.send(session, &batch(sent + 1)) == Intake::Taken {
        sent += 1;
        // The helper that writes cuts does not come to do it.
        for _ in 0..20 {
            world.turn();
            world.engine.complete(0).unwrap();
            world.snapshots.extend(world.engine.publish());
        }
        told += world.engine.outputs().len() as u64;
        assert!(sent < 60, "late views are taken without end");
    }
    assert!(told < sent, "what is not in a lane is not acknowledged");
    assert_eq!(world.settle().len() as u64, sent - told);
    assert_eq!(world.rows(Period::AllTime), counted("a", sent * 3));
}

/// Windows restored as of an earlier minute were once told as those of now, and counts in the middle of an edge as
/// those of either minute.
#[test]
fn look_ups_wait_for_the_first_snapshot_and_while_an_edge_moves() {
    let mut world = World::new(Setup { cores: 2, ..Setup::default() });
    let (producer, session) = world.new_producer(8);
    world.acked(session, &payload(producer, 1, &[("a", START_MS - 59 * MINUTE_MS)], 1));
    world.advance(1000);
    let can_look_up = |world: &World| world.engine.cores.iter().filter(|core| core.pipeline.can_look_up()).count();
    assert_eq!(can_look_up(&world), 2);
    world.restart(Some(1)).unwrap();
    let mut fresh = Engine::start(&world.setup, &world.disk, world.reading(), 9).unwrap();
    assert!(!fresh.cores.iter_mut().any(|core| core.pipeline.can_look_up()), "no snapshot is out");
    drop(fresh);
    world.restart(Some(2)).unwrap();
    world.wall_ms += 2 * MINUTE_MS;
    world.monotonic_ms += 2 * MINUTE_MS;
    let mut seen_waiting = 0;
    for _ in 0..200 {
        world.turn();
        seen_waiting += usize::from(can_look_up(&world) < 2);
        for core in 0..2 {
            world.engine.complete(core).unwrap();
            world.engine.answer(core).unwrap();
        }
        world.engine.errand().unwrap();
        world.engine.segment().unwrap();
        world.engine.publish();
    }
    assert!(seen_waiting > 0, "the edge was never seen at work");
    assert_eq!(can_look_up(&world), 2);
}
