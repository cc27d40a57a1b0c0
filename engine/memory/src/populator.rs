//! Committing a slab's memory from another thread, ahead of the owner's first touch.
//!
//! It sees no element: it knows where memory is and never reads or writes it. It keeps no memory either: a slab that is
//! dropped gives its memory back, and its populators then do nothing.
//!
//! Why that is sound for every caller, whatever the owner does meanwhile:
//! - *The slab is in use.* The kernel treats populating as a write fault of each page that writes nothing: a page that
//!   is there stays as it is, one that is not comes in zeroed, which is what the owner's own touch would bring. A fault
//!   of the owner on the same page at the same time is settled under the page table's lock, by one of the two.
//! - *The slab is dropped.* A populator holds the mapping weakly, and strongly only during a call. So a call either
//!   finds the mapping gone and touches no address, or keeps it for its own length, and then the populator gives it
//!   back in the slab's stead. At no time can the call meet an address range that was unmapped and given to somebody
//!   else.
//!
//! Invariant: only pages that hold elements of the slab are committed.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::mapping::Mapping;

/// Commits memory of one [`Slab`](crate::Slab) from any thread. Cheap to clone.
#[derive(Clone)]
pub struct Populator {
    mapping: Weak<Mapping>,
    len: usize,
    element_bytes: usize,
}

/// What came of populating.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a helper can stop when the slab is gone or the system refuses"]
pub enum Populated {
    /// The memory is committed.
    Done,
    /// The slab was dropped: there is nothing to do, now and later.
    Gone,
    /// The system cannot (before Linux 5.14) or has no memory left: what is not committed is committed on first touch.
    Refused,
}

impl Populator {
    pub(crate) fn new(mapping: &Arc<Mapping>, len: usize, element_bytes: usize) -> Self {
        Self { mapping: Arc::downgrade(mapping), len, element_bytes }
    }

    /// Elements of the slab.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slab has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Commits the pages that hold these elements; those beyond the slab's end are left out. What is in them stays,
    /// what is new is zero. Takes up to some milliseconds for each 2 MiB that is not committed yet.
    pub fn populate(&self, elements: Range<usize>) -> Populated {
        let Some(mapping) = self.mapping.upgrade() else { return Populated::Gone };
        let (start, end) = (elements.start.min(self.len), elements.end.min(self.len));
        if start >= end {
            return Populated::Done;
        }
        // No overflow: the slab's own bytes were checked when it was reserved.
        match mapping.populate(start * self.element_bytes..end * self.element_bytes) {
            Ok(()) => Populated::Done,
            Err(_) => Populated::Refused,
        }
    }
}

impl std::fmt::Debug for Populator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Populator").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HUGE_PAGE_BYTES, Slab};
    use std::os::unix::fs::FileExt;
    use std::thread;

    const WORDS_PER_HUGE_PAGE: usize = HUGE_PAGE_BYTES / size_of::<u64>();

    /// Whether this kernel can populate at all: Linux 5.14 can, earlier ones leave the tests nothing to see.
    fn kernel_can() -> bool {
        let slab = Slab::<u64>::reserve(1).unwrap();
        slab.populator().populate(0..1) == Populated::Done
    }

    /// Whether the page that holds this address is committed, by the kernel's own account.
    fn is_committed<T>(at: *const T) -> bool {
        let pages = std::fs::File::open("/proc/self/pagemap").unwrap();
        let mut entry = [0; 8];
        pages.read_exact_at(&mut entry, (at.addr() / rustix::param::page_size() * 8) as u64).unwrap();
        // Bit 63: present. Bit 62: swapped out.
        u64::from_ne_bytes(entry) >> 62 != 0
    }

    #[test]
    fn what_was_asked_for_is_committed_and_zero_and_the_rest_is_not() {
        if !kernel_can() {
            return;
        }
        let slab = Slab::<u64>::reserve(8 * WORDS_PER_HUGE_PAGE).unwrap();
        let populator = slab.populator();
        assert_eq!((populator.len(), populator.is_empty()), (slab.len(), false));
        let asked = 2 * WORDS_PER_HUGE_PAGE + 5..4 * WORDS_PER_HUGE_PAGE;
        assert_eq!(thread::spawn(move || populator.populate(asked)).join().unwrap(), Populated::Done);
        let committed = [0, 1, 2, 3, 4, 7].map(|page| is_committed(&slab[page * WORDS_PER_HUGE_PAGE + 5]));
        assert_eq!(committed, [false, false, true, true, false, false]);
        assert!(is_committed(&slab[4 * WORDS_PER_HUGE_PAGE - 1]));
        assert!(slab.iter().all(|&word| word == 0));
    }

    /// Page faults of this thread so far that needed no disk: the tenth field of its stat line.
    fn minor_faults() -> u64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = &stat[stat.rfind(')').unwrap() + 1..];
        after_name.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    #[test]
    fn the_owners_first_writes_find_their_pages() {
        if !kernel_can() {
            return;
        }
        const PAGES: usize = 16;
        let touch = |slab: &mut Slab<u64>| {
            let before = minor_faults();
            (0..slab.len()).step_by(512).for_each(|word| slab[word] = 1);
            minor_faults() - before
        };
        let mut untouched = Slab::<u64>::reserve(PAGES * WORDS_PER_HUGE_PAGE).unwrap();
        let mut populated = Slab::<u64>::reserve(PAGES * WORDS_PER_HUGE_PAGE).unwrap();
        assert_eq!(populated.populator().populate(0..usize::MAX), Populated::Done);
        let (without, with) = (touch(&mut untouched), touch(&mut populated));
        // Reading the figures may itself fault once or twice.
        assert!(without >= PAGES as u64 && with < PAGES as u64 / 2, "{without} faults without, {with} with");
    }

    #[test]
    fn a_range_beyond_the_end_is_cut_and_one_without_elements_does_nothing() {
        if !kernel_can() {
            return;
        }
        let slab = Slab::<u64>::reserve(3 * WORDS_PER_HUGE_PAGE).unwrap();
        let populator = slab.populator();
        let at_the_end = 3 * WORDS_PER_HUGE_PAGE - 1;
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller's wrong arithmetic may give")]
        for nothing in [0..0, 9..9, 7..3, usize::MAX - 1..usize::MAX, slab.len()..slab.len() + 1, usize::MAX..0] {
            assert_eq!(populator.populate(nothing), Populated::Done);
        }
        assert!(!is_committed(&slab[0]) && !is_committed(&slab[at_the_end]));
        assert_eq!(populator.populate(at_the_end..usize::MAX), Populated::Done);
        assert!(!is_committed(&slab[0]) && is_committed(&slab[at_the_end]));
        let empty = Slab::<u64>::reserve(0).unwrap();
        assert_eq!(empty.populator().populate(0..1), Populated::Done);
        let short = Slab::<u8>::reserve(5).unwrap();
        assert_eq!(short.populator().populate(0..usize::MAX), Populated::Done);
        assert_eq!(*short, [0; 5]);
    }

    #[test]
    fn a_helper_populates_while_the_owner_writes() {
        if !kernel_can() {
            return;
        }
        let mut slab = Slab::<u64>::reserve(16 * WORDS_PER_HUGE_PAGE).unwrap();
        let populator = slab.populator();
        // Every page is populated and written, in orders that meet in the middle; small steps, so that both often
        // come to one page at a time.
        let helper = thread::spawn(move || {
            for start in (0..populator.len()).step_by(1 << 12).rev() {
                assert_eq!(populator.populate(start..start + (1 << 12)), Populated::Done);
            }
        });
        for index in (0..slab.len()).step_by(97) {
            assert_eq!(slab[index], 0);
            slab[index] = index as u64 + 1;
        }
        helper.join().unwrap();
        assert_eq!(slab.populator().populate(0..slab.len()), Populated::Done);
        let expected = |index: usize| if index.is_multiple_of(97) { index as u64 + 1 } else { 0 };
        assert!(slab.iter().enumerate().all(|(index, &word)| word == expected(index)));
    }

    #[test]
    fn a_slab_that_is_dropped_leaves_its_populators_nothing_to_do() {
        let slab = Slab::<u64>::reserve(WORDS_PER_HUGE_PAGE).unwrap();
        let populator = slab.populator();
        drop(slab);
        assert_eq!(populator.clone().populate(0..1), Populated::Gone);
    }

    #[test]
    fn slabs_are_dropped_while_helpers_populate_them() {
        for round in 0..200 {
            let slab = Slab::<u64>::reserve(WORDS_PER_HUGE_PAGE).unwrap();
            let populator = slab.populator();
            let helper = thread::spawn(move || {
                let mut page = 0;
                // Bounded: every call before the drop makes progress, the first one after it ends the loop.
                while populator.populate(page * 512..(page + 1) * 512) != Populated::Gone {
                    page = (page + 1) % 512;
                }
            });
            for _ in 0..round % 10 {
                thread::yield_now();
            }
            drop(slab);
            // Likely mapped where the slab was: it must stay as it is written.
            let mut next = Slab::<u64>::reserve(WORDS_PER_HUGE_PAGE).unwrap();
            next[0] = round;
            helper.join().unwrap();
            assert_eq!(next[0], round);
        }
    }
}
