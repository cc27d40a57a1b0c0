//! The shared words of Highwater and its wire format.
//!
//! What it is for: the names that every part of the engine uses for the same thing (view, producer, epoch, period,
//! snapshot, refusal) and the codec of ALPN `highwater/1`, which `PROTOCOL.md` beside this crate describes byte by
//! byte. What it is not: it opens no socket, reads no clock and keeps no session; those rules live in the client and in
//! the engine. Invariant: a decoder never panics and never allocates beyond [`limits`], whatever the bytes; what an
//! encoder writes, the decoder of the same kind reads back unchanged.
#![forbid(unsafe_code)]

pub mod ack;
pub mod batch;
pub mod close;
pub mod error;
pub mod frame;
pub mod hello;
pub mod history;
pub mod limits;
pub mod query;
pub mod snapshot;
pub mod token;
pub mod words;

mod wire;

pub use ack::{Ack, BatchRefused};
pub use batch::{
    Batch, BatchBuilder, BatchHeader, Dictionary, Entries, PreparedBatch, Pushed, Strings, Times, Views,
    batch_checksum, batch_header,
};
pub use close::{CloseAction, CloseReason};
pub use error::{DecodeError, InvalidView, Place, UnknownWord};
pub use frame::{FrameHeader, FrameKind};
pub use hello::{Hello, HelloMode, Redirect, Welcome};
pub use history::{History, Periods};
pub use limits::*;
pub use query::{Lookup, Subscribe};
pub use token::{Scope, Scopes, Token, TokenLine, TokenLineError};
pub use words::*;
