//! The ring under loom: every interleaving of a sender and a receiver at capacities of two and four.

mod sync {
    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicUsize, Ordering};
}

#[path = "ring.rs"]
#[allow(dead_code, unreachable_pub, reason = "the same source as the crate's own ring, a part of it used here")]
mod ring;

use ring::lane;

/// Sends 0..`total` in slices of `slice`, receives them on another thread, and expects each once and in order.
fn values_arrive_in_order(capacity: usize, slice: usize, total: u32) {
    loom::model(move || {
        let (mut sender, mut receiver) = lane::<u32>(capacity);
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
    values_arrive_in_order(2, 1, 3);
}

#[test]
fn two_slots_whole_slices() {
    values_arrive_in_order(2, 2, 4);
}

#[test]
fn four_slots_slices_that_wrap() {
    values_arrive_in_order(4, 3, 6);
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
