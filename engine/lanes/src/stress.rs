//! The wake-up on real threads and real hardware: senders that push, call and unpark, and an owner that parks.
//!
//! Not a proof (the models are) and not a measure of speed. Invariant: bounded in values and in time; a wake-up that is
//! lost shows as a sleep up to its deadline with values waiting.

use crate::{Receiver, gauge, lane, parking_flag};
use std::thread;
use std::time::{Duration, Instant};

const SENDERS: usize = 2;
const VALUES: u64 = 40_000;

/// A sender waits until the owner is at most this far behind, so that the owner runs dry, and sleeps, again and again.
const AHEAD_MAX: u64 = 4;

/// Far beyond what a wake-up takes on a machine that does other things too.
const SLEEP_MAX: Duration = Duration::from_secs(20);

#[test]
fn an_owner_that_sleeps_whenever_it_may_gets_every_value() {
    let (mut sleeper, caller) = parking_flag();
    let owner = thread::current();
    let mut lanes: Vec<Receiver<u64>> = Vec::new();
    let mut taken = Vec::new();
    let mut sending = Vec::new();
    for _ in 0..SENDERS {
        let (mut sender, receiver) = lane(8);
        let (taken_writer, taken_reader) = gauge(0);
        lanes.push(receiver);
        taken.push(taken_writer);
        let (caller, owner) = (caller.clone(), owner.clone());
        sending.push(thread::spawn(move || {
            for value in 0..VALUES {
                while value - taken_reader.read() >= AHEAD_MAX {
                    thread::yield_now();
                }
                sender.push(&[value]).expect("the gauge says that there is room");
                if caller.call() {
                    owner.unpark();
                }
            }
        }));
    }
    let mut sleeps = 0_u64;
    let mut values = Vec::new();
    while taken.iter().any(|taken| taken.value() < VALUES) {
        for (lane, taken) in lanes.iter_mut().zip(&mut taken) {
            values.clear();
            let count = lane.pop_into(&mut values, 8) as u64;
            assert!(values.iter().copied().eq(taken.value()..taken.value() + count), "{values:?} of {taken:?}");
            taken.set(taken.value() + count);
        }
        if taken.iter().any(|taken| taken.value() < VALUES) && sleeper.begin() {
            let began = Instant::now();
            thread::park_timeout(SLEEP_MAX);
            sleeper.end();
            sleeps += 1;
            assert!(began.elapsed() < SLEEP_MAX, "nobody woke the owner at {taken:?}");
        }
    }
    for sender in sending {
        sender.join().unwrap();
    }
    println!("stress: {} values, {sleeps} sleeps", SENDERS as u64 * VALUES);
}
