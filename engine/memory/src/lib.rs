//! Memory that the engine's hot state lives in: reserved huge-page slabs, buffers aligned for
//! direct I/O, and prefetch, behind safe types.
//!
//! It is not an allocator: nothing is ever grown, moved or handed back in parts. One of the few
//! rooms where `unsafe` is allowed; each block does one thing and says why it is sound.
//!
//! Invariant: a [`Slab`] and an [`AlignedBuffer`] alone read and write their memory, it is zeroed when
//! they are made, and it stays where it is until they are dropped. A [`Populator`] lets another thread
//! bring a slab's memory in ahead of its use.

mod buffer;
mod mapping;
mod populator;
mod prefetch;
mod slab;

pub use buffer::{AlignedBuffer, BUFFER_ALIGN_BYTES};
pub use populator::{Populated, Populator};
pub use prefetch::{prefetch_at, prefetch_read};
pub use slab::{HUGE_PAGE_BYTES, Slab};

/// Why memory could not be reserved.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The length in bytes does not fit the address space.
    #[error(
        "a slab of {len} elements of {element_bytes} bytes does not fit the address space; \
         lower --memory"
    )]
    TooLarge {
        /// Elements asked for.
        len: usize,
        /// Bytes of one element.
        element_bytes: usize,
    },
    /// The system refused the mapping.
    #[error(
        "the system refused to reserve {bytes} bytes of address space ({source}); lower --memory \
         or raise the limit that was met: `ulimit -v unlimited`, `sysctl -w vm.max_map_count=1048576`, \
         or, where vm.overcommit_memory is 2, `sysctl -w vm.overcommit_memory=0`"
    )]
    Refused {
        /// Bytes asked for, alignment slack included.
        bytes: usize,
        /// What the system said.
        source: std::io::Error,
    },
}
