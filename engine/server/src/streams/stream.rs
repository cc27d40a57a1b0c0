//! One stream: what it has turned out to be, and the frame that is coming.
//!
//! It decides nothing of what a frame does. Invariant: a stream holds at most one frame, and asks for no more bytes
//! than that frame has.

use super::held::Coming;
use crate::access::Grant;
use bytes::Bytes;
use highwater_pipeline::SessionId;
use highwater_proto::limits::FRAME_HEADER_BYTES;
use highwater_proto::{DecodeError, FrameHeader, FrameKind};
use std::fmt;
use std::sync::Arc;

/// What a stream has turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its first frame has not come.
    New,
    /// A token came, and the question that it is for has not.
    Token,
    /// A producer's stream.
    Producer,
    /// One question by a frame of this kind, and one answer.
    Question(FrameKind),
    /// A subscription to snapshots.
    Subscriber,
}

impl Role {
    /// Whether a frame of this kind may come on such a stream; asked before its payload is read.
    pub(super) fn takes(self, kind: FrameKind) -> bool {
        match self {
            Self::New => matches!(
                kind,
                FrameKind::Hello
                    | FrameKind::Token
                    | FrameKind::Lookup
                    | FrameKind::Subscribe
                    | FrameKind::History
                    | FrameKind::Periods
            ),
            Self::Token => {
                matches!(kind, FrameKind::Lookup | FrameKind::Subscribe | FrameKind::History | FrameKind::Periods)
            }
            Self::Producer => kind == FrameKind::Batch,
            Self::Question(_) | Self::Subscriber => false,
        }
    }

    /// What is said of a frame that may not come.
    pub(super) fn misplaced(self, kind: FrameKind) -> String {
        match self {
            Self::New => {
                let first = "HELLO, LOOKUP, SUBSCRIBE, HISTORY or PERIODS";
                format!("{kind} cannot be the first frame of a stream; begin with {first}")
            }
            Self::Token => {
                let next = "LOOKUP, SUBSCRIBE, HISTORY or PERIODS";
                format!("{kind} cannot come behind a TOKEN; send {next}, and a producer's token in its HELLO")
            }
            Self::Producer => {
                format!("{kind} came on a producer stream, which takes only BATCH after its HELLO")
            }
            Self::Question(_) | Self::Subscriber => {
                format!("{kind} came behind {self}, whose stream takes nothing more; open another stream")
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("nothing"),
            Self::Token => f.write_str("a TOKEN"),
            Self::Producer => f.write_str("a HELLO"),
            Self::Question(kind) => write!(f, "a {kind}"),
            Self::Subscriber => f.write_str("a SUBSCRIBE"),
        }
    }
}

/// One stream that clients have opened.
pub(super) struct Stream {
    pub(super) session: SessionId,
    pub(super) role: Role,
    /// What the token is good for under which it came in.
    pub(super) grant: Option<Arc<Grant>>,
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    /// Known when the header is whole.
    pub(super) frame: Option<FrameHeader>,
    pub(super) chunks: Vec<Bytes>,
    pub(super) chunk_bytes: usize,
    /// How long the payload has been coming.
    pub(super) coming: Coming,
    /// Whether the client has ended its side.
    pub(super) finished: bool,
}

impl Stream {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            session,
            role: Role::New,
            grant: None,
            header: [0; FRAME_HEADER_BYTES],
            header_len: 0,
            frame: None,
            chunks: Vec::new(),
            chunk_bytes: 0,
            coming: Coming::default(),
            finished: false,
        }
    }

    /// Bytes still missing of the header, or of the payload.
    pub(super) fn bytes_wanted(&self) -> usize {
        match self.frame {
            None => FRAME_HEADER_BYTES - self.header_len,
            Some(frame) => frame.payload_bytes as usize - self.chunk_bytes,
        }
    }

    /// Whether the frame that is coming is a batch.
    pub(super) fn is_batch(&self) -> bool {
        self.frame.is_some_and(|frame| frame.kind == FrameKind::Batch)
    }

    /// Bytes that have come of a batch.
    pub(super) fn batch_bytes(&self) -> usize {
        if self.is_batch() { self.chunk_bytes } else { 0 }
    }

    /// Whether part of a frame has come, and not all of it.
    pub(super) fn is_within_frame(&self) -> bool {
        self.header_len > 0 && !self.is_whole()
    }

    /// What is said of a stream that ends here, in the middle of a frame.
    pub(super) fn cut_short(&self) -> String {
        let (what, came, whole) = match self.frame {
            None => ("a frame's header".to_owned(), self.header_len, FRAME_HEADER_BYTES),
            Some(frame) => (format!("a {} payload", frame.kind), self.chunk_bytes, frame.payload_bytes as usize),
        };
        format!("the stream ended after {came} of {whole} bytes of {what}; send whole frames before its end")
    }

    pub(super) fn is_whole(&self) -> bool {
        self.frame.is_some_and(|frame| frame.payload_bytes as usize == self.chunk_bytes)
    }

    /// Takes a chunk of at most [`bytes_wanted`](Self::bytes_wanted) bytes.
    pub(super) fn take(&mut self, chunk: Bytes) -> Result<(), DecodeError> {
        if self.frame.is_some() {
            self.chunk_bytes += chunk.len();
            self.chunks.push(chunk);
            return Ok(());
        }
        self.header[self.header_len..self.header_len + chunk.len()].copy_from_slice(&chunk);
        self.header_len += chunk.len();
        if self.header_len == FRAME_HEADER_BYTES {
            self.frame = Some(FrameHeader::decode(&self.header)?);
        }
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.header_len = 0;
        self.frame = None;
        self.chunks.clear();
        self.chunk_bytes = 0;
    }
}
