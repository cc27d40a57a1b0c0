//! The payload of a runs section: pieces of runs, delta-varint.
//!
//! Not which pieces go into which section. Invariant: what is decoded has ascending slots and counts of at least 1.

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use crate::codec::{PutLe, TakeLe};

/// Most entries in one piece that is written, and so in one slice handed to a core.
pub(crate) const PIECE_ENTRIES_MAX: usize = 1 << 13;

/// Most entries in one piece that is read: earlier engines wrote longer ones.
const PIECE_ENTRIES_READ_MAX: usize = 1 << 14;

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
#[derive(Default)]
pub(crate) struct Pieces {
    /// Bytes read so far.
    at: usize,
    minute: u32,
    class: FinalityClass,
    entries: Vec<SlotCount>,
}

/// One piece of a run.
pub(crate) struct Piece<'a> {
    pub(crate) minute: Minute,
    pub(crate) class: FinalityClass,
    pub(crate) entries: &'a [SlotCount],
}

impl Pieces {
    /// Begins anew, with another payload.
    pub(crate) const fn rewind(&mut self) {
        self.at = 0;
        self.minute = 0;
        self.class = FinalityClass(0);
    }

    /// The next piece of the payload, which is the same in each call; `Ok(None)` at the end, `Err` where the bytes make
    /// no sense.
    pub(crate) fn next(&mut self, payload: &[u8]) -> Result<Option<Piece<'_>>, Senseless> {
        if self.at == payload.len() {
            return Ok(None);
        }
        self.decode(payload).ok_or(Senseless)?;
        Ok(Some(self.piece()))
    }

    /// The piece that was read last.
    pub(crate) fn piece(&self) -> Piece<'_> {
        Piece { minute: Minute(self.minute), class: self.class, entries: &self.entries }
    }

    fn decode(&mut self, payload: &[u8]) -> Option<()> {
        let mut reader = TakeLe::new(payload.get(self.at..)?);
        self.minute = self.minute.checked_add(reader.varint_u32()?)?;
        self.class = FinalityClass(reader.u8()?);
        let count = reader.varint_u32()? as usize;
        if self.class > FinalityClass::MAX || count == 0 || count > PIECE_ENTRIES_READ_MAX {
            return None;
        }
        self.entries.clear();
        let mut slot = 0u32;
        for index in 0..count {
            let difference = reader.varint_u32()?;
            if index > 0 && difference == 0 {
                return None;
            }
            slot = slot.checked_add(difference)?;
            let count = reader.varint_u32().filter(|count| *count > 0)?;
            self.entries.push(SlotCount { slot, count });
        }
        self.at = payload.len() - reader.left();
        Some(())
    }
}

/// Bytes that no writer writes.
#[derive(Debug)]
pub(crate) struct Senseless;
