//! The names of places in the logs: directory, log, segment, position.
//!
//! Not the files themselves and not their contents. Invariant: a [`LogPosition`] is ordered as
//! records are ordered in one log: by generation, then by logical byte.

use std::fmt;

/// Unit in which the logs are written: groups start at multiples of it and are padded to it.
pub const BLOCK_BYTES: usize = 4096;

/// Default length of a log segment file in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// Identity of one data directory; part of every record and file, so that a file from another
/// directory is never believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryId(pub u128);

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DirectoryId({self})")
    }
}

/// Number of a log: the index of the core that writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogNumber(pub u32);

/// Index of a segment within one generation of one log, from 0 without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentNumber(pub u64);

/// A place between two records of one log.
///
/// `position` counts bytes within the generation: segment index × segment length + offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPosition {
    /// Generation of the log, from 1; each start of the engine opens a new one.
    pub generation: u32,
    /// Logical byte within the generation.
    pub position: u64,
}

impl LogPosition {
    /// The start of a generation.
    #[must_use]
    pub const fn start_of(generation: u32) -> Self {
        Self { generation, position: 0 }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {} position {}", self.generation, self.position)
    }
}

/// Which log of which directory, and which generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogIdentity {
    /// The data directory.
    pub directory: DirectoryId,
    /// The log within the directory.
    pub log: LogNumber,
    /// The generation within the log.
    pub generation: u32,
}

/// Where one record lies: what its header must name for it to be believed there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// Log and generation.
    pub identity: LogIdentity,
    /// Segment within the generation.
    pub segment: SegmentNumber,
    /// Byte within the segment file, a multiple of 8.
    pub offset: u64,
}

/// Directory of a log's files, relative to the data directory.
#[must_use]
pub fn log_directory(log: LogNumber) -> String {
    format!("log-{:03}", log.0)
}

/// Path of a segment file, relative to the data directory.
#[must_use]
pub fn segment_path(log: LogNumber, generation: u32, segment: SegmentNumber) -> String {
    format!("{}/g{generation:010}-s{:010}.seg", log_directory(log), segment.0)
}

/// Generation and segment of a file name made by [`segment_path`], `None` for other names.
#[must_use]
pub(crate) fn parse_segment_name(name: &str) -> Option<(u32, SegmentNumber)> {
    let middle = name.strip_prefix('g')?.strip_suffix(".seg")?;
    let (generation, segment) = middle.split_once("-s")?;
    Some((generation.parse().ok()?, SegmentNumber(segment.parse().ok()?)))
}

/// The next multiple of [`BLOCK_BYTES`] at or above `position`.
#[must_use]
pub(crate) const fn block_ceil(position: u64) -> u64 {
    position.next_multiple_of(BLOCK_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_round_trip() {
        let path = segment_path(LogNumber(3), 7, SegmentNumber(12));
        assert_eq!(path, "log-003/g0000000007-s0000000012.seg");
        let name = path.split_once('/').unwrap().1;
        assert_eq!(parse_segment_name(name), Some((7, SegmentNumber(12))));
        assert_eq!(parse_segment_name("spare-0000000001.seg"), None);
    }

    #[test]
    fn positions_order_by_generation_first() {
        let late = LogPosition::start_of(2);
        let early = LogPosition { generation: 1, position: 900 };
        assert!(early < late);
    }
}
