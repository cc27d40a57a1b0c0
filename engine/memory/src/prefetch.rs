//! Prefetch hints.
//!
//! A prefetch changes no state that a program can see and faults on no address, so these are safe
//! functions; on processors without a stable intrinsic they do nothing.
//! Source: Intel SDM, PREFETCHh.

/// Asks for the cache line that `value` starts in, to be read soon.
#[inline(always)]
pub fn prefetch_read<T>(value: &T) {
    prefetch_address(std::ptr::from_ref(value).cast());
}

/// Asks for the cache line that `slice[index]` starts in, to be read soon. An index outside the
/// slice is harmless.
#[inline(always)]
pub fn prefetch_at<T>(slice: &[T], index: usize) {
    prefetch_address(slice.as_ptr().wrapping_add(index).cast());
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn prefetch_address(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: PREFETCHT0 is a hint: it reads nothing into the program and never faults, whatever
    // the address; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn prefetch_address(_address: *const i8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_is_harmless() {
        let values = [1u64, 2, 3];
        prefetch_read(&values[0]);
        prefetch_at(&values, 2);
        prefetch_at(&values, usize::MAX / 3);
        assert_eq!(values, [1, 2, 3]);
    }
}
