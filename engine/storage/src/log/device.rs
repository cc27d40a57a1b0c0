//! How the pinned core hands groups of records to a disk without blocking.
//!
//! Not the blocking [`Disk`](crate::Disk) of the helpers. Invariant: a [`GroupWrite`] owns its buffer, so nobody can
//! touch the bytes while the device reads them; it comes back, with its result, only when it is durable or failed.

use std::io;

use highwater_memory::AlignedBuffer;

use crate::position::{LogNumber, SegmentNumber};

/// A segment file that is zeroed or recycled, renamed into its place and durable by name: ready for first use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedSegment {
    /// The log it belongs to.
    pub log: LogNumber,
    /// The generation it belongs to.
    pub generation: u32,
    /// Its index within the generation.
    pub number: SegmentNumber,
    /// Its path, relative to the data directory.
    pub path: String,
}

/// A device's own name for an attached segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentHandle(pub u32);

/// One write of whole blocks into a segment.
#[derive(Debug)]
pub struct GroupWrite {
    /// Number of the group within the log, from 0; names the write when it comes back.
    pub group: u64,
    /// The segment within the generation.
    pub segment: SegmentNumber,
    /// The segment's file.
    pub file: SegmentHandle,
    /// Byte within the segment, a multiple of 4 KiB.
    pub offset: u64,
    /// The bytes; only the first `len` are written.
    pub buffer: AlignedBuffer,
    /// Bytes to write, a multiple of 4 KiB.
    pub len: usize,
}

/// A write that has ended.
#[derive(Debug)]
pub struct GroupWritten {
    /// The write, with its buffer.
    pub write: GroupWrite,
    /// `Ok` when all bytes are durable. After an error the process must end without another ack.
    pub result: io::Result<()>,
}

/// An asynchronous, durable writer of groups; belongs to one core.
pub trait LogDevice {
    /// Opens a segment for writing. One call for each 64 MiB of log; may block for the time of an open(2).
    fn attach(&mut self, segment: &PreparedSegment) -> io::Result<SegmentHandle>;

    /// Closes a segment; no write into it may be in flight.
    fn detach(&mut self, handle: SegmentHandle);

    /// Starts a write; gives it back when as many are in flight as the device can hold.
    fn submit(&mut self, write: GroupWrite) -> Result<(), GroupWrite>;

    /// A write that has ended, in any order; never blocks.
    fn complete(&mut self) -> Option<GroupWritten>;

    /// Writes that have been submitted and not completed.
    fn in_flight(&self) -> usize;
}
