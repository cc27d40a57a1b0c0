//! Why a connection was closed: the QUIC application close codes.
//!
//! What it is for: one closed list that engine and client share; the close frame's reason phrase carries human text
//! beside the code. What it is not: the answer to a refused batch, which keeps the connection. Invariant: a code never
//! changes its meaning.

use std::fmt;

/// An application close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum CloseReason {
    /// The side that closes has finished.
    Done = 0,
    /// Bytes that are not what the protocol says.
    Malformed = 1,
    /// The other side's protocol version is not read here.
    VersionUnsupported = 2,
    /// A batch's checksum does not fit its content.
    ChecksumMismatch = 3,
    /// A sequence was left out though nothing was refused.
    SequenceGap = 4,
    /// A sequence came again with other bytes.
    SequenceReused = 5,
    /// A sequence came again that is too old to be checked against its first bytes.
    SequenceTooOld = 6,
    /// A newer connection of the same producer has taken over.
    Fenced = 7,
    /// A hello says `resume`, but the engine does not know the producer.
    ProducerUnknown = 8,
    /// A hello says `new`, but the engine knows the producer already.
    ProducerExists = 9,
    /// The engine has no room for another producer.
    ProducerTableFull = 10,
    /// The token is missing, not accepted, or not good for this.
    Unauthorized = 11,
    /// A stated limit was passed.
    LimitExceeded = 12,
    /// The engine is shutting down.
    ShuttingDown = 13,
    /// A frame came that has no place at this point.
    UnexpectedFrame = 14,
    /// The engine has no room for this connection, or the client does not read its answers.
    Overloaded = 15,
    /// A video id is empty or not UTF-8.
    InvalidVideoId = 16,
    /// The producer is somebody else's.
    NotOwner = 17,
}

/// What a client does when its connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseAction {
    /// Nothing: the work is done.
    Finish,
    /// Connect again after a pause that grows, resume, and send what has no answer.
    Reconnect,
    /// Where no welcome has come yet: connect with a fresh producer id. Else stop.
    FreshProducer,
    /// Report the reason and stop.
    Stop,
}

impl CloseReason {
    /// Every reason; the index of each is its code.
    pub const ALL: [Self; 18] = [
        Self::Done,
        Self::Malformed,
        Self::VersionUnsupported,
        Self::ChecksumMismatch,
        Self::SequenceGap,
        Self::SequenceReused,
        Self::SequenceTooOld,
        Self::Fenced,
        Self::ProducerUnknown,
        Self::ProducerExists,
        Self::ProducerTableFull,
        Self::Unauthorized,
        Self::LimitExceeded,
        Self::ShuttingDown,
        Self::UnexpectedFrame,
        Self::Overloaded,
        Self::InvalidVideoId,
        Self::NotOwner,
    ];

    /// The reason's code in the QUIC close frame.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The reason with that code; QUIC codes have up to 62 bits.
    pub fn from_code(code: impl Into<u64>) -> Option<Self> {
        usize::try_from(code.into()).ok().and_then(|index| Self::ALL.get(index).copied())
    }

    /// The reason's name in metrics, logs and PROTOCOL.md.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Malformed => "malformed",
            Self::VersionUnsupported => "version_unsupported",
            Self::ChecksumMismatch => "checksum_mismatch",
            Self::SequenceGap => "sequence_gap",
            Self::SequenceReused => "sequence_reused",
            Self::SequenceTooOld => "sequence_too_old",
            Self::Fenced => "fenced",
            Self::ProducerUnknown => "producer_unknown",
            Self::ProducerExists => "producer_exists",
            Self::ProducerTableFull => "producer_table_full",
            Self::Unauthorized => "unauthorized",
            Self::LimitExceeded => "limit_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::UnexpectedFrame => "unexpected_frame",
            Self::Overloaded => "overloaded",
            Self::InvalidVideoId => "invalid_video_id",
            Self::NotOwner => "not_owner",
        }
    }

    /// What a person does about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Done => "nothing to do",
            Self::Malformed => "compare the client's bytes with PROTOCOL.md",
            Self::VersionUnsupported => "bring client and engine to the same protocol version",
            Self::ChecksumMismatch => "check what the client computes the checksum over, then both machines' memory",
            Self::SequenceGap => "send sequences in order from the welcome's last + 1",
            Self::SequenceReused => "never change a batch once it was sent; take a new producer id for new data",
            Self::SequenceTooOld => "resume from the welcome's last + 1; older batches are durable already",
            Self::Fenced => "run one process per producer id",
            Self::ProducerUnknown => "check the engine's data directory; if it is right, take a new producer id",
            Self::ProducerExists => "say resume, or take a fresh random producer id",
            Self::ProducerTableFull => "use fewer producers, or wait until idle ones are forgotten",
            Self::Unauthorized => "send a token of the engine's --token-file that has the scope for this",
            Self::LimitExceeded => "keep to the limits in the welcome",
            Self::ShuttingDown => "connect again when the engine is back",
            Self::UnexpectedFrame => "send only the frames that PROTOCOL.md allows at this point",
            Self::Overloaded => "read answers promptly, and connect again after a pause",
            Self::InvalidVideoId => "give every view a video_id of 1 to 255 bytes of UTF-8",
            Self::NotOwner => "resume it with the token or certificate of who made it, or take a fresh id",
        }
    }

    /// What a client does about it.
    pub const fn action(self) -> CloseAction {
        match self {
            Self::Done => CloseAction::Finish,
            Self::ShuttingDown | Self::Overloaded | Self::ProducerTableFull => CloseAction::Reconnect,
            Self::ProducerExists => CloseAction::FreshProducer,
            _ => CloseAction::Stop,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_and_names_are_dense_and_distinct() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.code() as usize, index);
            assert_eq!(CloseReason::from_code(reason.code()), Some(reason));
        }
        let names: HashSet<_> = CloseReason::ALL.map(CloseReason::as_str).into();
        assert_eq!(names.len(), CloseReason::ALL.len());
        assert_eq!(CloseReason::from_code(18u32), None);
        assert_eq!(CloseReason::from_code(u64::MAX), None);
    }
}
