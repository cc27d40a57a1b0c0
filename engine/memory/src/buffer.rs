//! Byte buffers aligned for direct I/O.
//!
//! Fixed in length, zeroed when made, freed when dropped; not growable and not pooled (whoever
//! writes with them keeps them). Invariant: `base` is the start of an allocation of `layout()`,
//! owned alone, all bytes of it initialised. Source: open(2) on `O_DIRECT`.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Alignment of every buffer: the page size, and a multiple of the block size of every device
/// that direct I/O is used on.
pub const BUFFER_ALIGN_BYTES: usize = 4096;

/// `len` bytes that start at a multiple of [`BUFFER_ALIGN_BYTES`].
pub struct AlignedBuffer {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its allocation alone, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access gives out `&[u8]` only, like a `Box<[u8]>`.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// A buffer of `len` zero bytes; 0 is allowed.
    ///
    /// # Panics
    /// When `len` exceeds `isize::MAX`. Ends the process when memory is exhausted, as `Vec` does.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let layout = layout(len);
        // SAFETY: `layout` never has size zero.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Self { base, len }
    }
}

/// The allocation behind `len` bytes: whole blocks, at least one, so that direct I/O may always
/// round the length up.
fn layout(len: usize) -> Layout {
    let bytes = len.max(1).next_multiple_of(BUFFER_ALIGN_BYTES);
    Layout::from_size_align(bytes, BUFFER_ALIGN_BYTES).expect("a buffer longer than isize::MAX")
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `base` points at at least `len` initialised bytes (module invariant), and the
        // borrow of `self` keeps them and excludes writers.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the unique borrow of `self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: `base` came from `alloc_zeroed` with this very layout and is freed once, here.
        unsafe { dealloc(self.base.as_ptr(), layout(self.len)) };
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_aligned_and_writable_to_the_last_byte() {
        for len in [0, 1, 4095, 4096, 4097, 2 << 20] {
            let mut buffer = AlignedBuffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr() as usize % BUFFER_ALIGN_BYTES, 0);
            assert!(buffer.iter().all(|&byte| byte == 0));
            buffer.fill(7);
            assert!(buffer.iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn buffers_move_between_threads() {
        let mut buffer = AlignedBuffer::zeroed(8192);
        buffer[8191] = 3;
        let back = std::thread::spawn(move || buffer).join().unwrap();
        assert_eq!(back[8191], 3);
    }
}
