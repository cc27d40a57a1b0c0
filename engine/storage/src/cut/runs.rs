//! The payload of a runs section: pieces of runs, delta-varint.
//!
//! Not which pieces go into which section. Invariant: what is decoded has ascending slots and counts of at least 1.

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use crate::codec::{PutLe, TakeLe};

/// Most entries in one piece, and so in one slice handed to a core.
pub(crate) const PIECE_ENTRIES_MAX: usize = 1 << 13;

/// Appends a piece; `minute_before` is that of the piece before it in the section, 0 for the first.
pub(crate) fn put_piece(
    out: &mut Vec<u8>,
    minute_before: Minute,
    minute: Minute,
    class: FinalityClass,
    entries: &[SlotCount],
) {
    debug_assert!(entries.len() <= PIECE_ENTRIES_MAX);
    out.put_varint(u64::from(minute.0 - minute_before.0));
    out.put_u8(class.0);
    out.put_varint(entries.len() as u64);
    let mut slot_before = 0;
    for (index, entry) in entries.iter().enumerate() {
        debug_assert!(index == 0 || entry.slot > slot_before, "slots ascend");
        out.put_varint(u64::from(entry.slot - slot_before));
        out.put_varint(u64::from(entry.count));
        slot_before = entry.slot;
    }
}

/// Reads a payload piece by piece into a buffer that is used again.
pub(crate) struct Pieces<'a> {
    reader: TakeLe<'a>,
    minute: u32,
    entries: Vec<SlotCount>,
}

/// One piece; `None` from [`Pieces::next`] inside `Some` stands for bytes that make no sense.
pub(crate) struct Piece<'a> {
    pub(crate) minute: Minute,
    pub(crate) class: FinalityClass,
    pub(crate) entries: &'a [SlotCount],
}

impl<'a> Pieces<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self { reader: TakeLe::new(payload), minute: 0, entries: Vec::new() }
    }

    /// The next piece, `Ok(None)` at the end, `Err` where the bytes make no sense.
    pub(crate) fn next(&mut self) -> Result<Option<Piece<'_>>, Senseless> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let class = self.decode().ok_or(Senseless)?;
        Ok(Some(Piece { minute: Minute(self.minute), class, entries: &self.entries }))
    }

    fn decode(&mut self) -> Option<FinalityClass> {
        self.minute = self.minute.checked_add(self.reader.varint_u32()?)?;
        let class = FinalityClass(self.reader.u8()?);
        let count = self.reader.varint_u32()? as usize;
        if class > FinalityClass::MAX || count == 0 || count > PIECE_ENTRIES_MAX {
            return None;
        }
        self.entries.clear();
        let mut slot = 0u32;
        for index in 0..count {
            let difference = self.reader.varint_u32()?;
            if index > 0 && difference == 0 {
                return None;
            }
            slot = slot.checked_add(difference)?;
            let count = self.reader.varint_u32().filter(|count| *count > 0)?;
            self.entries.push(SlotCount { slot, count });
        }
        Some(class)
    }
}

/// Bytes that no writer writes.
#[derive(Debug)]
pub(crate) struct Senseless;
