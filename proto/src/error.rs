//! What can be wrong with bytes, with a view, or with a word.
//!
//! What it is not: refusals of sound input, which are verdicts (see [`crate::words`]). Invariant: each text says what
//! was found, what is allowed and what to do; [`DecodeError::close_reason`] gives the code a connection is closed with.

use crate::close::CloseReason;
use crate::frame::FrameKind;
use crate::limits::{FIELD_BYTES_MAX, VIDEO_ID_BYTES_MAX};
use std::fmt;
use thiserror::Error;

/// Bytes that are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A frame header names no known kind.
    #[error("unknown frame kind {found:#04x}: use a kind of highwater/1 (PROTOCOL.md, section 3)")]
    UnknownKind {
        /// The kind byte.
        found: u8,
    },
    /// A frame states a payload longer than its kind may have.
    #[error("{kind} payload of {bytes} bytes is over the limit of {max}: send less at once")]
    PayloadTooLong {
        /// The frame's kind.
        kind: FrameKind,
        /// The stated length.
        bytes: u64,
        /// The longest allowed.
        max: usize,
    },
    /// The payload ends before what it states.
    #[error("{what} ends too soon: {needed} bytes needed, {available} left; check the lengths stated before it")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes left.
        available: usize,
    },
    /// The payload goes on after its end.
    #[error("{what} has {bytes} bytes too many at its end: check the lengths stated in it")]
    Trailing {
        /// What was being read.
        what: &'static str,
        /// Bytes left over.
        bytes: usize,
    },
    /// Reserved bytes are not zero.
    #[error("reserved bytes of {what} are {found:#x}, allowed is 0: write zeros")]
    Reserved {
        /// Where they stand.
        what: &'static str,
        /// Their value, little-endian.
        found: u32,
    },
    /// The peer speaks another version.
    #[error(
        "protocol version {found} is not supported: this side reads version {supported}; bring both to one version"
    )]
    Version {
        /// The version in the frame.
        found: u16,
        /// The version read here.
        supported: u16,
    },
    /// A code stands for nothing.
    #[error("unknown {field} {found}: use one of the codes in PROTOCOL.md")]
    UnknownCode {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
    /// A number is outside its range.
    #[error("{field} is {found}, allowed is {min} to {max}: keep to PROTOCOL.md and to the limits in the welcome")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The least allowed.
        min: u64,
        /// The most allowed.
        max: u64,
    },
    /// A column uses an encoding that is not accepted.
    #[error("column {column} has encoding {found}, accepted is {accepted}: use an encoding that the welcome names")]
    Encoding {
        /// The column.
        column: &'static str,
        /// Its encoding byte.
        found: u8,
        /// The encodings of columns of its kind.
        accepted: &'static str,
    },
    /// A view's index names no entry of its column's dictionary.
    #[error(
        "column {column} has index {index} in view {view}, its dictionary {entries} entries: indices are below that"
    )]
    DictionaryIndex {
        /// The column.
        column: &'static str,
        /// Index of the view.
        view: u32,
        /// What it names as its entry.
        index: u32,
        /// How many there are.
        entries: u32,
    },
    /// Narrow times begin where a sum could overflow.
    #[error("base of narrow times is {found}, allowed is 0 to {max}: send such times as plain ones")]
    TimeBase {
        /// The base.
        found: u64,
        /// The greatest allowed.
        max: u64,
    },
    /// A column's strings do not fill it exactly.
    #[error("column {column} states {stated} bytes but its views need {needed}: check it against the number of views")]
    ColumnLength {
        /// The column.
        column: &'static str,
        /// The column's byte length.
        stated: u64,
        /// What its views need.
        needed: u64,
    },
    /// A string is not UTF-8.
    #[error("{field} is not valid UTF-8{place} (each string by itself must be): encode it as UTF-8")]
    NotUtf8 {
        /// The field or column.
        field: &'static str,
        /// Where in it.
        place: Place,
    },
    /// A video id that must have at least one byte has none.
    #[error("empty video_id{place}, allowed are 1 to {VIDEO_ID_BYTES_MAX} bytes: name the video or leave it out")]
    EmptyVideoId {
        /// Where.
        place: Place,
    },
    /// The batch's checksum does not fit its content.
    #[error(
        "batch checksum is {stated:#010x}, its content gives {computed:#010x}: compute CRC32C over version, producer id and all \
         bytes behind the checksum"
    )]
    Checksum {
        /// The checksum in the batch.
        stated: u32,
        /// The checksum of what arrived.
        computed: u32,
    },
    /// Entries that must be in order are not.
    #[error("{what} {index} is out of order or stands twice: sort as PROTOCOL.md says")]
    Order {
        /// What kind of entry.
        what: &'static str,
        /// Its index.
        index: usize,
    },
}

impl DecodeError {
    /// The code to close the connection with.
    pub fn close_reason(&self) -> CloseReason {
        match self {
            Self::Version { .. } => CloseReason::VersionUnsupported,
            Self::Checksum { .. } => CloseReason::ChecksumMismatch,
            Self::PayloadTooLong { .. } => CloseReason::LimitExceeded,
            Self::OutOfRange { found, max, .. } if found > max => CloseReason::LimitExceeded,
            Self::EmptyVideoId { .. } | Self::NotUtf8 { field: "video_id", .. } => CloseReason::InvalidVideoId,
            _ => CloseReason::Malformed,
        }
    }
}

/// Where a string stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a field of a frame.
    Field,
    /// In the view of this index.
    View(u32),
    /// In the entry of this index of a column's dictionary.
    Entry(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field => Ok(()),
            Self::View(index) => write!(out, " in view {index}"),
            Self::Entry(index) => write!(out, " in entry {index} of its dictionary"),
        }
    }
}

/// A view that cannot be put into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidView {
    /// The video id is empty.
    #[error("video_id is empty, allowed are 1 to {VIDEO_ID_BYTES_MAX} bytes: name the video or leave the view out")]
    VideoIdEmpty,
    /// The video id is too long.
    #[error("video_id has {bytes} bytes, allowed are 1 to {VIDEO_ID_BYTES_MAX}: use a shorter id")]
    VideoIdTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Another string is too long.
    #[error("{field} has {bytes} bytes, allowed are up to {FIELD_BYTES_MAX}: shorten it")]
    FieldTooLong {
        /// Which.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
}

/// A text that names no word of a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown {what} {found:?}: use {allowed}")]
pub struct UnknownWord {
    /// What the text should have named.
    pub what: &'static str,
    /// The text.
    pub found: String,
    /// The words allowed.
    pub allowed: &'static str,
}

impl UnknownWord {
    pub(crate) fn new(what: &'static str, found: &str, allowed: &'static str) -> Self {
        Self { what, found: found.to_owned(), allowed }
    }
}
