//! The ring itself: two counters that only grow, and a power-of-two array of slots between them.
//!
//! | field  | written by | read by  | ordering |
//! |--------|------------|----------|----------|
//! | `tail` | sender     | receiver | `Release` after the slots are written, pairs with the receiver's `Acquire` before it reads them |
//! | `head` | receiver   | sender   | `Release` after the slots are read, pairs with the sender's `Acquire` before it writes them again |
//! | slots  | sender in `[tail, head + capacity)`, receiver reads `[head, tail)` | | ordered by the two pairs above |
//!
//! Each side keeps a copy of the other's counter and loads it again only when the copy says too little. It keeps its
//! own counter beside the shared one and never loads that: nobody else writes it. Counters wrap around `usize` and are
//! compared by difference.
//! No `SeqCst`: neither side draws a conclusion from the order of the two counters; a stale one only says too little.
//! Invariant: `tail - head <= capacity`.

use super::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};
use crossbeam_utils::CachePadded;
use std::mem::MaybeUninit;

struct Ring<T> {
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    mask: usize,
    head: CachePadded<AtomicUsize>,
    tail: CachePadded<AtomicUsize>,
}

// SAFETY: a slot is written by the one sender while it lies outside [head, tail) and read by the one receiver while it
// lies inside; the Release and Acquire pairs of the table above order the hand-over. `lane` makes one of each side and
// neither can be cloned. The loom models in model/rings.rs cover it.
unsafe impl<T: Copy + Send> Sync for Ring<T> {}

/// The values did not fit; none of them was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneFull {
    /// Slots that were free.
    pub free: usize,
}

/// The sending end of a lane; there is exactly one.
pub struct Sender<T> {
    ring: Arc<Ring<T>>,
    tail: usize,
    head_seen: usize,
}

/// The receiving end of a lane; there is exactly one.
pub struct Receiver<T> {
    ring: Arc<Ring<T>>,
    head: usize,
    tail_seen: usize,
}

/// Makes a lane of `capacity` slots.
///
/// # Panics
/// When `capacity` is not a power of two.
pub fn lane<T: Copy + Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    lane_from(capacity, 0)
}

/// A lane whose counters begin at `first`, so that the models can begin just before they wrap around `usize`.
pub(super) fn lane_from<T: Copy + Send>(capacity: usize, first: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity.is_power_of_two(), "a lane's capacity is a power of two, not {capacity}");
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let ring = Arc::new(Ring {
        slots,
        mask: capacity - 1,
        head: CachePadded::new(AtomicUsize::new(first)),
        tail: CachePadded::new(AtomicUsize::new(first)),
    });
    let sender = Sender { ring: Arc::clone(&ring), tail: first, head_seen: first };
    (sender, Receiver { ring, head: first, tail_seen: first })
}

impl<T: Copy + Send> Sender<T> {
    /// Slots that can be pushed now; the receiver can only make it more.
    pub fn free(&mut self) -> usize {
        self.head_seen = self.ring.head.load(Ordering::Acquire);
        self.capacity() - self.tail.wrapping_sub(self.head_seen)
    }

    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.ring.mask + 1
    }

    /// Pushes all of `values`, in order, visible to the receiver at once; or none of them.
    ///
    /// # Errors
    /// [`LaneFull`] when fewer than `values.len()` slots are free.
    pub fn push(&mut self, values: &[T]) -> Result<(), LaneFull> {
        let seen_free = self.capacity() - self.tail.wrapping_sub(self.head_seen);
        if seen_free < values.len() {
            let free = self.free();
            if free < values.len() {
                return Err(LaneFull { free });
            }
        }
        for (offset, value) in values.iter().enumerate() {
            let index = self.tail.wrapping_add(offset) & self.ring.mask;
            self.ring.slots[index].with_mut(|slot| {
                // SAFETY: the slot lies in [tail, head_seen + capacity), which the receiver released; model/rings.rs.
                unsafe { (*slot).write(*value) };
            });
        }
        self.tail = self.tail.wrapping_add(values.len());
        self.ring.tail.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T: Copy + Send> Receiver<T> {
    /// Values that wait; the sender can only make it more.
    pub fn waiting(&mut self) -> usize {
        self.tail_seen = self.ring.tail.load(Ordering::Acquire);
        self.tail_seen.wrapping_sub(self.head)
    }

    /// Moves up to `count_max` waiting values to the end of `values` and frees their slots; returns how many.
    pub fn pop_into(&mut self, values: &mut Vec<T>, count_max: usize) -> usize {
        if self.tail_seen.wrapping_sub(self.head) < count_max {
            self.waiting();
        }
        let count = self.tail_seen.wrapping_sub(self.head).min(count_max);
        if count == 0 {
            return 0;
        }
        let head = self.head;
        let ring = &self.ring;
        values.extend((0..count).map(|offset| {
            let index = head.wrapping_add(offset) & ring.mask;
            ring.slots[index].with(|slot| {
                // SAFETY: the sender writes no slot in [head, tail_seen) before `head` is released; model/rings.rs.
                let value = unsafe { *slot };
                // SAFETY: the sender has written every slot in [head, tail_seen) and released it; model/rings.rs.
                unsafe { value.assume_init() }
            })
        }));
        self.head = head.wrapping_add(count);
        self.ring.head.store(self.head, Ordering::Release);
        count
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("tail", &self.tail).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("head", &self.head).finish_non_exhaustive()
    }
}
