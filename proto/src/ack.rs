//! The engine's answers to a batch: durable, or refused for now.
//!
//! What it is not: the decision. Invariant: a decoded ack speaks of at most one batch's views, it either counted or
//! recognised them, and its ranges are in order.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{BATCH_VIEWS_MAX, REFUSED_RANGE_BYTES};
use crate::wire::{Reader, in_range, put_frame, word};
use crate::words::{BatchRefusal, Epoch, RefusedRange, Sequence, ViewRefusal};

/// A batch is durable: its accepted views are counted exactly once and are in every snapshot from `visible_epoch` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The batch.
    pub sequence: Sequence,
    /// The first epoch that holds it.
    pub visible_epoch: Epoch,
    /// Views counted by this sending; 0 if it was a retry of a durable batch.
    pub counted: u32,
    /// Views that an earlier sending of the same batch had counted already; 0 if this one counted them.
    pub duplicate: u32,
    /// Views refused, by the verdict that was fixed when the batch first became durable.
    pub refused: Vec<RefusedRange>,
    /// False where the engine knows only how many views it refused by reason: then each range has
    /// [`RefusedRange::FIRST_UNKNOWN`], one per reason, by ascending reason.
    pub detail_complete: bool,
}

impl Ack {
    /// Views refused, all reasons together.
    pub fn refused_count(&self) -> u32 {
        RefusedRange::total(&self.refused)
    }

    /// Appends the whole frame to `out`.
    ///
    /// # Panics
    /// If there are more ranges than a batch may have views.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::Ack, |out| {
            out.extend_from_slice(&self.sequence.0.to_le_bytes());
            out.extend_from_slice(&self.visible_epoch.0.to_le_bytes());
            for number in [self.counted, self.duplicate, self.refused.len() as u32] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&[u8::from(self.detail_complete), 0, 0, 0]);
            for range in &self.refused {
                out.extend_from_slice(&range.first.to_le_bytes());
                out.extend_from_slice(&range.count.to_le_bytes());
                out.extend_from_slice(&[range.reason.code(), 0, 0, 0]);
            }
        });
    }

    /// Reads the payload of an ACK frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Ack, payload)?;
        let sequence = Sequence(reader.u64()?);
        in_range("ack sequence", sequence.0, 1, u64::MAX)?;
        let visible_epoch = Epoch(reader.u64()?);
        let counted = reader.u32()?;
        let duplicate = reader.u32()?;
        let range_count = reader.u32()?;
        let detail_complete =
            word("detail_complete", reader.u8()?, |code| [false, true].get(usize::from(code)).copied())?;
        reader.zeros::<3>()?;
        in_range("refused range count", range_count.into(), 0, (reader.remaining() / REFUSED_RANGE_BYTES) as u64)?;
        let mut refused = Vec::with_capacity(range_count as usize);
        for index in 0..range_count as usize {
            let range = range(&mut reader)?;
            check_order(refused.last(), &range, detail_complete, index)?;
            refused.push(range);
        }
        reader.finish()?;
        let views = refused.iter().map(|range| u64::from(range.count)).sum::<u64>();
        in_range("views of an ack", views + u64::from(counted) + u64::from(duplicate), 1, BATCH_VIEWS_MAX.into())?;
        if counted > 0 {
            in_range("duplicate views beside counted ones", duplicate.into(), 0, 0)?;
        }
        Ok(Self { sequence, visible_epoch, counted, duplicate, refused, detail_complete })
    }
}

fn range(reader: &mut Reader<'_>) -> Result<RefusedRange, DecodeError> {
    let (first, count) = (reader.u32()?, reader.u32()?);
    in_range("views of a refused range", count.into(), 1, BATCH_VIEWS_MAX.into())?;
    let reason = word("view refusal", reader.u8()?, ViewRefusal::from_code)?;
    reader.zeros::<3>()?;
    Ok(RefusedRange { first, count, reason })
}

fn check_order(
    before: Option<&RefusedRange>,
    range: &RefusedRange,
    detail_complete: bool,
    index: usize,
) -> Result<(), DecodeError> {
    let (in_bounds, in_order) = if detail_complete {
        (range.end() <= BATCH_VIEWS_MAX, before.is_none_or(|before| before.end() <= range.first))
    } else {
        (range.first == RefusedRange::FIRST_UNKNOWN, before.is_none_or(|before| before.reason < range.reason))
    };
    if !in_bounds {
        let max = u64::from(if detail_complete { BATCH_VIEWS_MAX } else { RefusedRange::FIRST_UNKNOWN });
        return Err(DecodeError::OutOfRange { field: "first refused view", found: range.first.into(), min: 0, max });
    }
    if in_order { Ok(()) } else { Err(DecodeError::Order { what: "refused range", index }) }
}

/// A batch was not taken. Its sequence is not used up: the same bytes may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRefused {
    /// The batch.
    pub sequence: Sequence,
    /// Why.
    pub reason: BatchRefusal,
    /// How long to wait before it is sent again.
    pub retry_after_ms: u32,
}

impl BatchRefused {
    /// Appends the whole frame to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_frame(out, FrameKind::BatchRefused, |out| {
            out.extend_from_slice(&self.sequence.0.to_le_bytes());
            out.extend_from_slice(&[self.reason.code(), 0, 0, 0]);
            out.extend_from_slice(&self.retry_after_ms.to_le_bytes());
        });
    }

    /// Reads the payload of a BATCH_REFUSED frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::BatchRefused, payload)?;
        let sequence = Sequence(reader.u64()?);
        in_range("refused sequence", sequence.0, 1, u64::MAX)?;
        let reason = word("batch refusal", reader.u8()?, BatchRefusal::from_code)?;
        reader.zeros::<3>()?;
        let retry_after_ms = reader.u32()?;
        reader.finish()?;
        Ok(Self { sequence, reason, retry_after_ms })
    }
}
