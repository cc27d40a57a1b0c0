//! Hello, welcome and fence.

use crate::engine::{Answer, PORT, Setup};
use crate::world::{START_MS, World, payload};
use highwater_pipeline::{Claim, Intake, SessionId};
use highwater_proto::{CloseReason, Hello, HelloMode, PROTOCOL_VERSION, ProducerId, Sequence};
use highwater_storage::OwnerId;

fn closed(said: &[(SessionId, Answer)]) -> Vec<(u64, CloseReason)> {
    let reason = |answer: &Answer| match answer {
        Answer::Close(reason, _) => Some(*reason),
        _ => None,
    };
    said.iter().filter_map(|(session, answer)| reason(answer).map(|reason| (session.0, reason))).collect()
}

#[test]
fn a_new_producer_is_welcome_when_its_hello_is_durable() {
    let mut world = World::new(Setup::default());
    let session = world.session();
    assert_eq!(world.hello(session, HelloMode::New, ProducerId(9)), Intake::Taken);
    world.turn();
    assert!(world.engine.outputs().is_empty(), "its record is on its way to the disk");
    let said = world.settle();
    let [(to, Answer::Welcome(welcome))] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((*to, welcome.producer, welcome.last), (session, ProducerId(9), Sequence(0)));
    assert_eq!((welcome.home_core, welcome.ports.as_slice()), (0, [PORT].as_slice()));
}

#[test]
fn resume_tells_the_last_durable_batch_also_after_a_power_cut() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    for sequence in 1..=3 {
        world.acked(session, &payload(producer, sequence, &[("a", START_MS)], 1));
    }
    assert_eq!(world.connect(HelloMode::Resume, producer).1.last, Sequence(3));
    world.restart(Some(4)).unwrap();
    assert_eq!(world.connect(HelloMode::Resume, producer).1.last, Sequence(3));
}

#[test]
fn unknown_taken_and_foreign_hellos_are_closed_by_reason() {
    let mut world = World::new(Setup::default());
    world.new_producer(9);
    let session = world.session();
    assert_eq!(world.hello(session, HelloMode::Resume, ProducerId(8)), Intake::Taken);
    assert_eq!(closed(&world.settle()), [(session.0, CloseReason::ProducerUnknown)]);
    let session = world.session();
    assert_eq!(world.hello(session, HelloMode::New, ProducerId(9)), Intake::Taken);
    assert_eq!(closed(&world.settle()), [(session.0, CloseReason::ProducerExists)]);
    let session = world.session();
    let version = PROTOCOL_VERSION + 1;
    let hello = Hello { version, mode: HelloMode::New, producer: ProducerId(7), token: Vec::new() };
    assert_eq!(world.engine.hello(session, &hello), Intake::Taken);
    assert_eq!(closed(&world.settle()), [(session.0, CloseReason::VersionUnsupported)]);
    assert_eq!(world.stats().producers, 1);
}

#[test]
fn a_hello_fences_and_waits_until_what_was_appended_has_settled() {
    let mut world = World::new(Setup::default());
    let (producer, old) = world.new_producer(9);
    assert_eq!(world.send(old, &payload(producer, 1, &[("a", START_MS)], 1)), Intake::Taken);
    let new = world.session();
    assert_eq!(world.hello(new, HelloMode::Resume, producer), Intake::Taken);
    world.turn();
    assert_eq!(closed(&world.engine.outputs()), [(old.0, CloseReason::Fenced)], "and no welcome yet");
    let batch = payload(producer, 2, &[("a", START_MS)], 1);
    assert_eq!(world.send(old, &batch), Intake::Taken);
    let said = world.settle();
    assert_eq!(closed(&said), [], "what the fenced one had sent meanwhile is no breach of its own");
    let [(to, Answer::Welcome(welcome))] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((*to, welcome.last), (new, Sequence(1)));
    assert_eq!(world.acked(new, &batch).counted, 1);
}

/// Says hello as somebody; returns why the engine closed, or `None` for a welcome.
fn hello_as(world: &mut World, mode: HelloMode, producer: ProducerId, claim: Claim) -> Option<CloseReason> {
    let session = world.session();
    let hello = Hello { version: PROTOCOL_VERSION, mode, producer, token: Vec::new() };
    assert_eq!(world.engine.hello_as(session, &hello, claim), Intake::Taken);
    let own = |to: &SessionId| *to == session;
    world.settle().into_iter().filter(|(to, _)| own(to)).find_map(|(_, answer)| match answer {
        Answer::Close(reason, _) => Some(reason),
        _ => None,
    })
}

#[test]
fn a_producer_is_its_makers_and_stays_it_over_restarts_and_cuts() {
    let mut world = World::new(Setup::default());
    let (ours, theirs) = (Claim::Owner(OwnerId(7)), Claim::Owner(OwnerId(8)));
    let (owned, free) = (ProducerId(9), ProducerId(10));
    assert_eq!(hello_as(&mut world, HelloMode::New, owned, ours), None);
    assert_eq!(hello_as(&mut world, HelloMode::New, free, Claim::Nameless), None);
    let check = |world: &mut World| {
        for (producer, claim, reason) in [
            (owned, theirs, Some(CloseReason::NotOwner)),
            (owned, Claim::Nameless, Some(CloseReason::NotOwner)),
            (owned, Claim::Unasked, None),
            (owned, ours, None),
            (free, theirs, None),
            (free, Claim::Nameless, None),
        ] {
            assert_eq!(hello_as(world, HelloMode::Resume, producer, claim), reason, "{producer} {claim:?}");
        }
    };
    check(&mut world);
    world.restart(Some(4)).unwrap();
    check(&mut world);
    // A view, so that there is something to cut.
    let (other, session) = world.new_producer(11);
    world.acked(session, &payload(other, 1, &[("a", START_MS)], 1));
    world.advance(61_000);
    assert!(world.stats().cuts > 0);
    world.restart(None).unwrap();
    check(&mut world);
}

#[test]
fn somebody_elses_hello_fences_nobody() {
    let mut world = World::new(Setup::default());
    let producer = ProducerId(9);
    let hello = Hello { version: PROTOCOL_VERSION, mode: HelloMode::New, producer, token: Vec::new() };
    let session = world.session();
    assert_eq!(world.engine.hello_as(session, &hello, Claim::Owner(OwnerId(7))), Intake::Taken);
    world.settle();
    let theirs = Claim::Owner(OwnerId(8));
    assert_eq!(hello_as(&mut world, HelloMode::Resume, producer, theirs), Some(CloseReason::NotOwner));
    assert_eq!(world.acked(session, &payload(producer, 1, &[("a", START_MS)], 1)).counted, 1);
}

#[test]
fn a_batch_needs_a_hello_and_its_welcome() {
    let mut world = World::new(Setup::default());
    let session = world.session();
    let batch = payload(ProducerId(9), 1, &[("a", START_MS)], 1);
    assert_eq!(world.send(session, &batch), Intake::Taken);
    assert_eq!(closed(&world.settle()), [(session.0, CloseReason::UnexpectedFrame)]);
    let session = world.session();
    assert_eq!(world.hello(session, HelloMode::New, ProducerId(9)), Intake::Taken);
    assert_eq!(world.send(session, &batch), Intake::Taken);
    assert_eq!(closed(&world.settle()), [(session.0, CloseReason::UnexpectedFrame)]);
    assert_eq!(world.stats().views_received, 0);
}

#[test]
fn a_session_that_is_lost_leaves_its_producer() {
    let mut world = World::new(Setup::default());
    let (producer, session) = world.new_producer(9);
    assert_eq!(world.send(session, &payload(producer, 1, &[("a", START_MS)], 1)), Intake::Taken);
    world.engine.at(session).handle_disconnect(session);
    assert!(world.settle().is_empty(), "nobody is there to be answered");
    assert_eq!(world.connect(HelloMode::Resume, producer).1.last, Sequence(1));
    assert_eq!(world.stats().views_counted, 1);
}
