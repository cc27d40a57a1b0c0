//! Fixed-length arrays in reserved address space: what tables and counter lines live in.
//!
//! A slab costs address space at once and physical memory only as it is touched, so tables can be
//! reserved for the largest state at start and never rehash or move. It is not growable.
//!
//! Invariant: `base` points at `len` initialised elements inside a private anonymous mapping of
//! `mapped_bytes` bytes at `base` that nobody else knows of. Source: mmap(2), madvise(2).

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use bytemuck::Pod;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::MemoryError;

/// Bytes of one huge page, and the alignment of every slab.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A zeroed array of `len` elements, aligned to [`HUGE_PAGE_BYTES`], backed by huge pages where
/// it is at least one of them long and the system has them.
///
/// Physical memory is committed page by page on first touch. Where the system has none left on
/// first touch, it ends the process; the limits that `--memory` sets are there to prevent that.
pub struct Slab<T: Pod> {
    base: NonNull<T>,
    len: usize,
    mapped_bytes: usize,
    owns: PhantomData<T>,
}

// SAFETY: a slab owns its mapping alone, like a `Box<[T]>`, and every `Pod` element is plain data.
unsafe impl<T: Pod + Send> Send for Slab<T> {}
// SAFETY: shared access to a slab gives out `&[T]` only, like a `Box<[T]>`.
unsafe impl<T: Pod + Sync> Sync for Slab<T> {}

impl<T: Pod> Slab<T> {
    /// Reserves `len` zeroed elements (0 is allowed and maps nothing).
    ///
    /// # Errors
    /// [`MemoryError`] when the address space is too small or the system refuses.
    pub fn reserve(len: usize) -> Result<Self, MemoryError> {
        const { assert!(size_of::<T>() > 0, "a slab of empty elements has no use") };
        const { assert!(align_of::<T>() <= HUGE_PAGE_BYTES) };
        let too_large = || MemoryError::TooLarge { len, element_bytes: size_of::<T>() };
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        if bytes == 0 {
            return Ok(Self { base: NonNull::dangling(), len, mapped_bytes: 0, owns: PhantomData });
        }
        let mapped_bytes = bytes.checked_next_multiple_of(page_bytes_for(bytes)).ok_or_else(too_large)?;
        // Keeps every slice within `isize::MAX` bytes, as references require.
        let reserved_bytes = mapped_bytes
            .checked_add(HUGE_PAGE_BYTES)
            .filter(|&total| isize::try_from(total).is_ok())
            .ok_or_else(too_large)?;
        let base = map_aligned(mapped_bytes, reserved_bytes)?;
        Ok(Self { base: base.cast(), len, mapped_bytes, owns: PhantomData })
    }

    /// Commits the first `len` elements' memory now (all of them if there are fewer), so that their first touch costs
    /// nothing later. Takes up to some milliseconds for each 2 MiB. A kernel that cannot (before Linux 5.14) commits on
    /// first touch as ever.
    pub fn populate(&mut self, len: usize) {
        let bytes = (len.min(self.len) * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        if bytes == 0 {
            return;
        }
        // SAFETY: the range lies in our own mapping (its length is a whole number of pages), and populating it changes
        // no byte of it; `a_populated_slab_is_zeroed_and_keeps_what_was_written` covers it.
        let _ = unsafe { madvise(self.base.as_ptr().cast(), bytes, Advice::LinuxPopulateWrite) };
    }

    /// Bytes of address space held (not all of them are committed).
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.mapped_bytes
    }
}

/// A short slab keeps to small pages: a huge page for a few bytes would only cost zeroing.
fn page_bytes_for(bytes: usize) -> usize {
    if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { rustix::param::page_size() }
}

/// Maps `mapped_bytes` at a huge-page boundary out of `reserved_bytes`, giving back the rest.
fn map_aligned(mapped_bytes: usize, reserved_bytes: usize) -> Result<NonNull<c_void>, MemoryError> {
    let refused = |errno: rustix::io::Errno| MemoryError::Refused { bytes: reserved_bytes, source: errno.into() };
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

impl<T: Pod> Deref for Slab<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `base` is aligned and points at `len` elements (module invariant); zeroed memory
        // is a valid `T` as `Pod` says; the borrow of `self` keeps the mapping and excludes writers.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Pod> DerefMut for Slab<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; the unique borrow of `self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T: Pod> Drop for Slab<T> {
    fn drop(&mut self) {
        unmap(self.base.as_ptr().cast(), self.mapped_bytes);
    }
}

impl<T: Pod> std::fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slab").field("len", &self.len).field("mapped_bytes", &self.mapped_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_writable_at_both_ends() {
        for len in [1, 7, 511, 4096, HUGE_PAGE_BYTES / 8, HUGE_PAGE_BYTES / 8 + 1] {
            let mut slab = Slab::<u64>::reserve(len).unwrap();
            assert_eq!(slab.len(), len);
            assert_eq!(slab.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
            assert!(slab.iter().all(|&word| word == 0));
            slab[0] = 1;
            slab[len - 1] = 2;
            assert_eq!(slab[len - 1], 2);
        }
    }

    #[test]
    fn empty_slab_maps_nothing() {
        let slab = Slab::<u64>::reserve(0).unwrap();
        assert!(slab.is_empty());
        assert_eq!(slab.reserved_bytes(), 0);
    }

    #[test]
    fn more_than_the_machine_has_can_be_reserved_but_not_more_than_addresses() {
        let slab = Slab::<u64>::reserve(1 << 36).unwrap();
        assert_eq!(slab[(1 << 36) - 1], 0);
        let error = Slab::<u64>::reserve(usize::MAX / 4).unwrap_err();
        assert!(matches!(error, MemoryError::TooLarge { .. }));
        let error = Slab::<u64>::reserve(1 << 57).unwrap_err();
        assert!(matches!(error, MemoryError::Refused { .. }), "{error}");
    }

    #[test]
    fn slabs_move_between_threads() {
        let mut slab = Slab::<u32>::reserve(1024).unwrap();
        slab[3] = 9;
        let back = std::thread::spawn(move || slab).join().unwrap();
        assert_eq!(back[3], 9);
    }

    #[test]
    fn a_populated_slab_is_zeroed_and_keeps_what_was_written() {
        let mut slab = Slab::<u64>::reserve(1_000_000).unwrap();
        slab[3] = 7;
        slab.populate(500_000);
        slab.populate(usize::MAX / 16);
        assert_eq!(slab[3], 7);
        assert!(slab.iter().enumerate().all(|(index, &value)| value == 0 || index == 3));
        Slab::<u64>::reserve(0).unwrap().populate(1);
        Slab::<u8>::reserve(5).unwrap().populate(5);
    }
}
