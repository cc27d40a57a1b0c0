//! One private anonymous mapping: where a slab's memory comes from and goes back to.
//!
//! It gives out no references and reads and writes no byte; that is the slab's. Invariant: `base` is the start of a
//! mapping of `bytes` bytes (a whole number of pages, or 0 and none) that lives exactly as long as this value.
//! Source: mmap(2), madvise(2).

use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::{HUGE_PAGE_BYTES, MemoryError};

pub(crate) struct Mapping {
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: a mapping belongs to the process and to no thread, and this value only holds its address.
unsafe impl Send for Mapping {}
// SAFETY: all that shared access can do is `populate`, which the kernel allows from any thread at any time and which
// changes no byte; `a_helper_populates_while_the_owner_writes` covers it.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` zero bytes, a whole number of pages, at a huge-page boundary.
    pub(crate) fn new(bytes: usize, too_large: impl Fn() -> MemoryError) -> Result<Self, MemoryError> {
        if bytes == 0 {
            return Ok(Self { base: NonNull::dangling(), bytes });
        }
        // Keeps every slice within `isize::MAX` bytes, as references require.
        let reserved_bytes =
            bytes.checked_add(HUGE_PAGE_BYTES).filter(|&total| isize::try_from(total).is_ok()).ok_or_else(too_large)?;
        Ok(Self { base: map_aligned(bytes, reserved_bytes)?, bytes })
    }

    /// Where it starts; dangling if it is empty.
    pub(crate) fn base(&self) -> NonNull<c_void> {
        self.base
    }

    /// Bytes mapped.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Commits the pages that hold these bytes, those within the mapping, as a write to each would, and writes nothing.
    ///
    /// # Errors
    /// The system's error, when it does not know how (before Linux 5.14) or has no memory left. Pages that were not
    /// committed are committed on first touch as ever.
    pub(crate) fn populate(&self, bytes: Range<usize>) -> Result<(), Errno> {
        let page_bytes = rustix::param::page_size();
        let end = bytes.end.min(self.bytes).next_multiple_of(page_bytes);
        let mut start = bytes.start / page_bytes * page_bytes;
        // One huge page at a time: the kernel holds the lock on the address space meanwhile, which page faults of
        // other threads share, but which a change of the address space waits for, and they then behind that.
        while start < end {
            let step_end = (start / HUGE_PAGE_BYTES + 1).saturating_mul(HUGE_PAGE_BYTES).min(end);
            // SAFETY: `start` is below `end`, so within the mapping.
            let address = unsafe { self.base.byte_add(start) };
            // SAFETY: the range lies in this mapping, which the borrow of `self` keeps (both ends are whole pages).
            // The kernel brings in pages, it changes no byte, and it orders itself with accesses and faults of other
            // threads by the page tables' own locks, so no reference into the mapping is disturbed.
            unsafe { madvise(address.as_ptr(), step_end - start, Advice::LinuxPopulateWrite) }?;
            start = step_end;
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.base.as_ptr(), self.bytes);
    }
}

/// Maps `mapped_bytes` at a huge-page boundary out of `reserved_bytes`, giving back the rest.
fn map_aligned(mapped_bytes: usize, reserved_bytes: usize) -> Result<NonNull<c_void>, MemoryError> {
    let refused = |errno: Errno| MemoryError::Refused { bytes: reserved_bytes, source: errno.into() };
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory
    // that anybody uses.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            reserved_bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    }
    .map_err(refused)?;
    let head_bytes = start.align_offset(HUGE_PAGE_BYTES);
    assert!(head_bytes <= HUGE_PAGE_BYTES, "mmap gave the address {start:p}");
    let base = start.wrapping_byte_add(head_bytes);
    let tail_bytes = reserved_bytes - head_bytes - mapped_bytes;
    unmap(start, head_bytes);
    unmap(base.wrapping_byte_add(mapped_bytes), tail_bytes);
    if mapped_bytes >= HUGE_PAGE_BYTES {
        // SAFETY: the range is the mapping made above, and this advice changes page size only.
        // A system without huge pages refuses it, and the slab works on small ones.
        let _ = unsafe { madvise(base, mapped_bytes, Advice::LinuxHugepage) };
    }
    Ok(NonNull::new(base).expect("mmap gave address zero"))
}

/// Gives back a page-aligned part of a mapping of ours that nothing refers to.
fn unmap(start: *mut c_void, bytes: usize) {
    if bytes == 0 {
        return;
    }
    // SAFETY: only called on parts of a mapping made by `map_aligned` to which no reference is
    // left: the slack around a new slab, and the whole of a dropped one.
    let result = unsafe { munmap(start, bytes) };
    assert!(result.is_ok(), "munmap of our own mapping failed: {result:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_mapping_are_nobodys_to_populate() {
        let page_bytes = rustix::param::page_size();
        let too_large = || MemoryError::TooLarge { len: 0, element_bytes: 1 };
        let mapping = Mapping::new(page_bytes, too_large).unwrap();
        for beyond in [page_bytes..2 * page_bytes, 5 * page_bytes..usize::MAX, usize::MAX..usize::MAX] {
            assert_eq!(mapping.populate(beyond), Ok(()));
        }
        // An earlier kernel refuses it; no kernel may be asked for what is not ours.
        assert!(matches!(mapping.populate(0..usize::MAX), Ok(()) | Err(Errno::INVAL)));
        assert_eq!(Mapping::new(0, too_large).unwrap().populate(0..usize::MAX), Ok(()));
        assert!(Mapping::new(usize::MAX / page_bytes * page_bytes, too_large).is_err());
    }
}
