//! The parking flag, alone and together with rings.
//!
//! Two stand-ins for the descriptor. [`loom::sync::Notify`] makes a wake-up that is lost a deadlock, which loom reports
//! at once, but it orders memory by itself. A relaxed count orders nothing, so there the parking flag alone must bring
//! what was pushed; a wake-up that is lost becomes an endless wait, which loom ends by its limit of branches.
//!
//! Invariant: no value is left in a ring while its owner sleeps for good, and one caller is told to wake it.

use super::parking::{Caller, parking_flag};
use super::ring::{Receiver, Sender, lane};
use super::{explore, explore_bounded};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};

/// Three threads with rings and a flag have too many interleavings to go through them all within seconds.
const TWO_SENDERS_PREEMPTIONS_MAX: Option<usize> = Some(3);

/// What stands for the descriptor.
trait Descriptor: Send + Sync + 'static {
    fn new() -> Self;
    fn write(&self);
    /// Waits for a write beyond the `taken` ones, and takes it.
    fn wait(&self, taken: &mut usize);
}

impl Descriptor for Notify {
    fn new() -> Self {
        Self::new()
    }

    fn write(&self) {
        self.notify();
    }

    /// May also return without a write, as a wait with a deadline does.
    fn wait(&self, _taken: &mut usize) {
        Self::wait(self);
    }
}

/// A descriptor that carries nothing but the wake-up itself. It only counts: loom gives stores that nothing orders no
/// common order, so a flag that one side sets and the other resets could stay reset for ever.
struct Bare(AtomicUsize);

impl Descriptor for Bare {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn write(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn wait(&self, taken: &mut usize) {
        let mut written = self.0.load(Ordering::Relaxed);
        while written == *taken {
            loom::thread::yield_now();
            written = self.0.load(Ordering::Relaxed);
        }
        *taken = written;
    }
}

/// A sender's turn: push, call, and wake if told to.
fn push_and_call(lane: &mut Sender<u32>, caller: &Caller, descriptor: &impl Descriptor, value: u32) {
    while lane.push(&[value]).is_err() {
        loom::thread::yield_now();
    }
    if caller.call() {
        descriptor.write();
    }
}

/// `senders` threads push `values` each into a ring of two slots of their own; one owner drains the rings and sleeps
/// whenever it may. It must get them all.
fn every_value_arrives<D: Descriptor>(name: &str, preemptions_max: Option<usize>, senders: u32, values: u32) {
    explore_bounded(name, preemptions_max, move || {
        let (mut sleeper, caller) = parking_flag();
        let descriptor = Arc::new(D::new());
        let mut lanes: Vec<Receiver<u32>> = Vec::new();
        let mut sending = Vec::new();
        for _ in 0..senders {
            let (mut sender, receiver) = lane(2);
            lanes.push(receiver);
            let (caller, descriptor) = (caller.clone(), Arc::clone(&descriptor));
            sending.push(loom::thread::spawn(move || {
                for value in 0..values {
                    push_and_call(&mut sender, &caller, &*descriptor, value);
                }
            }));
        }
        let mut taken = 0;
        let mut received = vec![Vec::new(); lanes.len()];
        loop {
            for (lane, received) in lanes.iter_mut().zip(&mut received) {
                lane.pop_into(received, 2);
            }
            if received.iter().all(|values_of_lane| values_of_lane.len() == values as usize) {
                break;
            }
            if sleeper.begin() {
                descriptor.wait(&mut taken);
                sleeper.end();
            }
        }
        assert!(received.iter().all(|of_lane| of_lane.iter().copied().eq(0..values)), "{received:?}");
        for sender in sending {
            sender.join().unwrap();
        }
    });
}

#[test]
fn no_value_is_left_behind_by_one_sender() {
    every_value_arrives::<Notify>("no_value_is_left_behind_by_one_sender", None, 1, 2);
}

#[test]
fn no_value_is_left_behind_by_two_senders() {
    every_value_arrives::<Notify>("no_value_is_left_behind_by_two_senders", TWO_SENDERS_PREEMPTIONS_MAX, 2, 1);
}

#[test]
fn the_flag_alone_brings_what_one_sender_pushed() {
    every_value_arrives::<Bare>("the_flag_alone_brings_what_one_sender_pushed", None, 1, 2);
}

#[test]
fn the_flag_alone_brings_what_two_senders_pushed() {
    every_value_arrives::<Bare>("the_flag_alone_brings_what_two_senders_pushed", TWO_SENDERS_PREEMPTIONS_MAX, 2, 1);
}

#[test]
fn a_turn_owed_to_a_call_sees_what_was_pushed() {
    explore("a_turn_owed_to_a_call_sees_what_was_pushed", || {
        let (mut sleeper, caller) = parking_flag();
        let (mut sender, mut receiver) = lane::<u32>(2);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.push(&[7]), Ok(()));
            caller.call()
        });
        if sleeper.begin() {
            // Nobody has been told anything yet, and whoever calls from now on wakes.
            assert!(sending.join().unwrap());
        } else {
            // No join: the flag alone has to show what was pushed before the call.
            assert_eq!(receiver.waiting(), 1);
            assert!(sleeper.begin());
            assert!(!sending.join().unwrap());
        }
    });
}

#[test]
fn the_end_of_a_sleep_sees_what_was_pushed_before_a_call() {
    explore("the_end_of_a_sleep_sees_what_was_pushed_before_a_call", || {
        let (mut sleeper, caller) = parking_flag();
        let (mut sender, mut receiver) = lane::<u32>(2);
        assert!(sleeper.begin());
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.push(&[7]), Ok(()));
            caller.call()
        });
        // As after a deadline: nobody need have written to the descriptor.
        sleeper.end();
        let seen = receiver.waiting();
        // The turn is over. Either it saw the value, or the call came later and forbids the next sleep or ends it.
        let sleeps = sleeper.begin();
        let woken = sending.join().unwrap();
        assert!(seen == 1 || !sleeps || woken, "the value is left behind");
        assert_eq!(receiver.waiting(), 1);
    });
}

#[test]
fn of_two_callers_exactly_one_wakes_a_sleeper() {
    explore("of_two_callers_exactly_one_wakes_a_sleeper", || {
        let (mut sleeper, caller) = parking_flag();
        assert!(sleeper.begin());
        let other = caller.clone();
        let calling = loom::thread::spawn(move || other.call());
        let told = [caller.call(), calling.join().unwrap()];
        assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
        sleeper.end();
        assert!(sleeper.begin(), "the calls are answered");
    });
}

#[test]
fn callers_and_a_sleeper_agree_on_who_wakes() {
    explore("callers_and_a_sleeper_agree_on_who_wakes", || {
        let (mut sleeper, caller) = parking_flag();
        let calling: Vec<_> =
            [caller.clone(), caller].into_iter().map(|caller| loom::thread::spawn(move || caller.call())).collect();
        let sleeps = sleeper.begin();
        let told = calling.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum::<usize>();
        assert_eq!(told, usize::from(sleeps), "a sleeper is woken once, one that did not sleep not at all");
    });
}

#[test]
fn a_woken_caller_finds_the_room_that_was_freed_before_the_sleep() {
    explore("a_woken_caller_finds_the_room_that_was_freed_before_the_sleep", || {
        let (mut sleeper, caller) = parking_flag();
        let (mut sender, mut receiver) = lane::<u32>(2);
        assert_eq!(sender.push(&[1, 2]), Ok(()));
        let sending = loom::thread::spawn(move || {
            if caller.call() {
                assert_eq!(sender.free(), 2);
            }
        });
        receiver.pop_into(&mut Vec::new(), 2);
        let _slept = sleeper.begin();
        sending.join().unwrap();
    });
}
