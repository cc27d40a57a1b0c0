//! What goes in and out of a pipeline besides batches: answers to clients, and the errands it sends to its helper.
//!
//! The shell carries these; it never looks inside. Every errand is answered, in the order in which errands were sent,
//! or the process ends: an errand fails only when a write or a sync failed or a file is not what it should be.

use crate::session::SessionId;
use bytes::Bytes;
use highwater_proto::{CloseReason, Epoch};
use highwater_ranking::{CoreCut, Minute, RunChange, RunRequest, SlotCount};
use highwater_storage::{LogPosition, ProducerTableImage};

/// Something to be told to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A whole frame for the session's stream.
    Send {
        /// To whom.
        session: SessionId,
        /// Header and payload.
        frame: Bytes,
    },
    /// Nothing more will be sent; the stream ends after what was sent before.
    Finish {
        /// To whom.
        session: SessionId,
    },
    /// The connection is closed with a typed reason.
    Close {
        /// Whose connection.
        session: SessionId,
        /// Why.
        reason: CloseReason,
        /// The same with the values at hand, for a person to read.
        text: String,
    },
}

/// The parts of a cut that one core supplies.
#[derive(Debug)]
pub struct CutErrand {
    /// Frozen shards.
    pub cut: CoreCut,
    /// Up to where this core's log is contained in the cut files up to this one.
    pub position: LogPosition,
    /// The producers that have this core as their home, as of `position`.
    pub producers: ProducerTableImage,
    /// Whether the engine's minute moves on, so that runs are asked for next.
    pub minute_moves: bool,
}

/// Blocking work that the pinned core leaves to its helper.
#[derive(Debug)]
pub enum StoreRequest {
    /// Prepare one more segment for the log; answered by the segment itself, or by what is missing for one.
    PrepareSegment,
    /// Make a further block of epochs usable.
    LeaseEpochs {
        /// How many.
        count: u64,
    },
    /// Make the engine minute durable before its first marker.
    RecordMinute(Minute),
    /// Write a cut file, when every core has sent its part.
    WriteCut(Box<CutErrand>),
    /// Read the runs that leave and enter the windows. Every core asks for the same, behind its part of a cut, which
    /// need not be written before: its runs count all the same.
    Runs(Vec<RunRequest>),
}

/// A slice of the runs that leave or enter a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSlice {
    /// The window, numbered as in [`RunRequest`].
    pub window: usize,
    /// Whether to subtract or to add.
    pub change: RunChange,
    /// The shard.
    pub shard: u16,
    /// What to subtract or add.
    pub entries: Vec<SlotCount>,
}

/// What the helper answers.
#[derive(Debug)]
pub enum StoreAnswer {
    /// Epochs up to and including this one may be used.
    EpochsLeased(Epoch),
    /// The minute is durable.
    MinuteRecorded(Minute),
    /// The cut file with the parts of all cores is durable.
    CutWritten,
    /// There was nothing on any core that an earlier cut file does not hold; none was written.
    CutEmpty,
    /// A slice of the runs asked for.
    Run(RunSlice),
    /// That were all runs asked for.
    RunsDone,
}
