//! Fixed-length arrays in reserved address space: what tables and counter lines live in.
//!
//! A slab costs address space at once and physical memory only as it is touched, so tables can be
//! reserved for the largest state at start and never rehash or move. It is not growable.
//!
//! Invariant: `base` points at `len` initialised elements at the start of `mapping`, whose bytes nobody else reads or
//! writes: a [`Populator`] shares the mapping, but only brings in its pages. Source: mmap(2), madvise(2).

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use bytemuck::Pod;

use crate::mapping::Mapping;
use crate::{MemoryError, Populator};

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
    mapping: Arc<Mapping>,
    owns: PhantomData<T>,
}

// SAFETY: a slab alone reads and writes its mapping, like a `Box<[T]>`, and every `Pod` element is plain data.
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
        let mapped_bytes = match bytes {
            0 => 0,
            _ => bytes.checked_next_multiple_of(page_bytes_for(bytes)).ok_or_else(too_large)?,
        };
        let mapping = Mapping::new(mapped_bytes, too_large)?;
        let base = if mapped_bytes == 0 { NonNull::dangling() } else { mapping.base().cast() };
        Ok(Self { base, len, mapping: Arc::new(mapping), owns: PhantomData })
    }

    /// Commits the first `len` elements' memory now (all of them if there are fewer), so that their first touch costs
    /// nothing later. Takes up to some milliseconds for each 2 MiB. A kernel that cannot (before Linux 5.14) commits on
    /// first touch as ever.
    pub fn populate(&mut self, len: usize) {
        // Refused is not wrong: see above.
        let _ = self.mapping.populate(0..len.min(self.len) * size_of::<T>());
    }

    /// A handle by which another thread can commit memory of this slab ahead of its first touch.
    #[must_use]
    pub fn populator(&self) -> Populator {
        Populator::new(&self.mapping, self.len, size_of::<T>())
    }

    /// Bytes of address space held (not all of them are committed).
    #[must_use]
    pub fn reserved_bytes(&self) -> usize {
        self.mapping.bytes()
    }
}

/// A short slab keeps to small pages: a huge page for a few bytes would only cost zeroing.
fn page_bytes_for(bytes: usize) -> usize {
    if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { rustix::param::page_size() }
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

impl<T: Pod> std::fmt::Debug for Slab<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slab")
            .field("len", &self.len)
            .field("mapped_bytes", &self.mapping.bytes())
            .finish_non_exhaustive()
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
