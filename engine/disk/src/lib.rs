//! The disk: files for the helper threads and the log's io_uring for the pinned core.
//!
//! Not a format and not a rule of recovery, which are `highwater-storage`'s. Unsafe room: only `uring` and `bell` hold
//! unsafe code, to hand operations to the kernel. Invariant: the kernel uses a buffer or a descriptor only while this
//! crate owns it.

mod bell;
mod files;
mod reading;
mod refusal;
#[cfg(test)]
mod tests;
mod uring;

pub use bell::Bell;
pub use files::{FileDisk, FileDiskError};
pub use reading::ReadingDisk;
pub use refusal::UringError;
pub use uring::UringLog;
