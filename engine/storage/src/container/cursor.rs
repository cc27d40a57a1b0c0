//! Going through the runs of one shard in the order of their (minute, class), a section at a time.
//!
//! Not merging several. Invariant: what comes is ordered, and the file is refused where it is not.

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use super::file::SectionFile;
use super::format::kind;
use super::payload::Block;
use super::runs::{Piece, Pieces};
use crate::error::StorageError;

/// Reads the runs of one shard of one file, and holds one section of them.
pub(crate) struct RunCursor<'f> {
    file: &'f SectionFile,
    /// Offsets of the shard's sections that are still to come, the next one last.
    offsets: Vec<u64>,
    offset: u64,
    payload: Vec<u8>,
    pieces: Pieces,
    head: Option<(Minute, FinalityClass)>,
}

impl<'f> RunCursor<'f> {
    /// At the first piece.
    pub(crate) fn new(file: &'f SectionFile, blocks: &[Block], shard: u16) -> Result<Self, StorageError> {
        let of_shard = blocks.iter().filter(|block| block.shard == shard);
        let offsets = of_shard.rev().map(|block| block.offset).collect();
        let mut cursor = Self { file, offsets, offset: 0, payload: Vec::new(), pieces: Pieces::default(), head: None };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Period and class of the piece that it stands at; `None` at the end.
    pub(crate) const fn head(&self) -> Option<(Minute, FinalityClass)> {
        self.head
    }

    /// The entries of the piece that it stands at.
    pub(crate) fn entries(&self) -> &[SlotCount] {
        self.pieces.piece().entries
    }

    /// Goes to the next piece.
    pub(crate) fn advance(&mut self) -> Result<(), StorageError> {
        loop {
            let next = self.pieces.next(&self.payload).map_err(|_| self.file.senseless(self.offset))?;
            if let Some(Piece { minute, class, .. }) = next {
                let head = Some((minute, class));
                if head < self.head {
                    return Err(self.file.senseless(self.offset));
                }
                self.head = head;
                return Ok(());
            }
            let Some(offset) = self.offsets.pop() else {
                self.head = None;
                return Ok(());
            };
            self.offset = offset;
            let header = self.file.section(offset, &mut self.payload)?;
            if header.kind != kind::RUNS {
                return Err(self.file.senseless(offset));
            }
            self.pieces.rewind();
        }
    }
}
