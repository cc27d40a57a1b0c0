//! The disk: files for the helper threads and the log's io_uring for the pinned core.
//!
//! Not a format and not a rule of recovery, which are `highwater-storage`'s. Unsafe room: only `uring` holds unsafe
//! code, to hand buffers to the kernel. Invariant: the kernel reads a buffer only while this crate owns it.

mod files;
#[cfg(test)]
mod tests;
mod uring;

pub use files::{FileDisk, FileDiskError};
pub use uring::{UringError, UringLog};
