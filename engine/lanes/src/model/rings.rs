//! The ring: a sender and a receiver at capacities of two and four.
//!
//! Invariant: every value arrives once and in order, and what `free` and `waiting` promise holds.

use super::explore;
use super::ring::{lane, lane_from};

/// Sends 0..`total` in slices of `slice`, receives them on another thread, and expects each once and in order. The
/// counters begin at `first`.
fn values_arrive_in_order(name: &str, capacity: usize, first: usize, slice: usize, total: u32) {
    explore(name, move || {
        let (mut sender, mut receiver) = lane_from::<u32>(capacity, first);
        let sending = loom::thread::spawn(move || {
            let values: Vec<u32> = (0..total).collect();
            for part in values.chunks(slice) {
                while sender.push(part).is_err() {
                    loom::thread::yield_now();
                }
            }
        });
        let mut received = Vec::new();
        while received.len() < total as usize {
            if receiver.pop_into(&mut received, 2) == 0 {
                loom::thread::yield_now();
            }
        }
        sending.join().unwrap();
        assert_eq!(received, (0..total).collect::<Vec<_>>());
        assert_eq!(receiver.waiting(), 0);
    });
}

#[test]
fn two_slots_one_at_a_time() {
    values_arrive_in_order("two_slots_one_at_a_time", 2, 0, 1, 3);
}

#[test]
fn two_slots_whole_slices() {
    values_arrive_in_order("two_slots_whole_slices", 2, 0, 2, 4);
}

#[test]
fn four_slots_slices_that_wrap() {
    values_arrive_in_order("four_slots_slices_that_wrap", 4, 0, 3, 6);
}

#[test]
fn four_slots_whole_slices() {
    values_arrive_in_order("four_slots_whole_slices", 4, 0, 4, 8);
}

#[test]
fn counters_that_wrap_around() {
    values_arrive_in_order("counters_that_wrap_around", 2, usize::MAX - 1, 2, 4);
}

#[test]
fn a_sender_dropped_early_leaves_what_it_pushed() {
    explore("a_sender_dropped_early_leaves_what_it_pushed", || {
        let (mut sender, mut receiver) = lane::<u32>(2);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.push(&[1]), Ok(()));
            assert_eq!(sender.push(&[2]), Ok(()));
        });
        let mut received = Vec::new();
        receiver.pop_into(&mut received, 2);
        assert!(received.is_empty() || received == [1] || received == [1, 2], "{received:?}");
        sending.join().unwrap();
        receiver.pop_into(&mut received, 2);
        assert_eq!(received, [1, 2]);
        assert_eq!(receiver.waiting(), 0);
    });
}

#[test]
fn a_receiver_dropped_early_leaves_the_sender_its_room() {
    explore("a_receiver_dropped_early_leaves_the_sender_its_room", || {
        let (mut sender, mut receiver) = lane::<u32>(2);
        let receiving = loom::thread::spawn(move || receiver.pop_into(&mut Vec::new(), 2));
        assert_eq!(sender.push(&[1, 2]), Ok(()));
        let refused_with = sender.push(&[3]).err().map(|full| full.free);
        assert!(matches!(refused_with, None | Some(0)), "{refused_with:?}");
        let popped = receiving.join().unwrap();
        assert_eq!(sender.free(), popped - usize::from(refused_with.is_none()));
    });
}

#[test]
fn what_free_promises_can_be_pushed() {
    explore("what_free_promises_can_be_pushed", || {
        let (mut sender, mut receiver) = lane::<u32>(4);
        assert_eq!(sender.push(&[0, 1, 2]), Ok(()));
        let receiving = loom::thread::spawn(move || {
            let mut received = Vec::new();
            receiver.pop_into(&mut received, 2);
            receiver.pop_into(&mut received, 2);
            (received, receiver)
        });
        let free_before = sender.free();
        let free = sender.free();
        assert!((1..=4).contains(&free_before) && free >= free_before, "{free_before}, then {free}");
        let values: Vec<u32> = (3..).take(free).collect();
        assert_eq!(sender.push(&values), Ok(()));
        let (mut received, mut receiver) = receiving.join().unwrap();
        receiver.pop_into(&mut received, 4);
        assert_eq!(received, (0..3 + free as u32).collect::<Vec<_>>());
        assert_eq!(sender.free(), 4);
    });
}

#[test]
fn what_waiting_promises_can_be_popped() {
    explore("what_waiting_promises_can_be_popped", || {
        let (mut sender, mut receiver) = lane::<u32>(4);
        let sending = loom::thread::spawn(move || {
            assert_eq!(sender.push(&[0, 1]), Ok(()));
            assert_eq!(sender.push(&[2, 3]), Ok(()));
        });
        let waiting = receiver.waiting();
        assert!(waiting.is_multiple_of(2) && waiting <= 4, "half a slice is visible: {waiting}");
        let mut received = Vec::new();
        assert_eq!(receiver.pop_into(&mut received, waiting), waiting);
        sending.join().unwrap();
        assert_eq!(receiver.pop_into(&mut received, 4), 4 - waiting);
        assert_eq!(received, [0, 1, 2, 3]);
    });
}

#[test]
fn a_slice_that_does_not_fit_leaves_the_lane_as_it_was() {
    let (mut sender, mut receiver) = crate::lane::<u64>(4);
    assert_eq!(sender.push(&[1, 2, 3]), Ok(()));
    assert_eq!(sender.push(&[4, 5]), Err(crate::LaneFull { free: 1 }));
    let mut values = Vec::new();
    assert_eq!(receiver.pop_into(&mut values, 8), 3);
    assert_eq!(values, [1, 2, 3]);
    assert_eq!(sender.push(&[4, 5, 6, 7]), Ok(()));
    assert_eq!(receiver.pop_into(&mut values, 8), 4);
    assert_eq!(values, [1, 2, 3, 4, 5, 6, 7]);
}
