//! The closed files one by one, for those who hold them against each other.
//!
//! Not for questions about views, which [`Tables::sums`] answers with each view once: the same views are in files of
//! several grains. Invariant: what is told of a file is what the file itself says.

use std::cell::Cell;
use std::ops::{Range, RangeInclusive};

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use super::{Grain, SlotSums, Tables};
use crate::chains::Source;
use crate::container::CutSection;
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition};

/// One cut file or roll-up of some [`Tables`].
#[derive(Clone, Copy)]
pub struct TableFile<'t> {
    tables: &'t Tables,
    source: &'t Source,
}

/// What the newest base says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseFacts {
    /// The last cut in it.
    pub number: u64,
    /// Its path, relative to the data directory.
    pub path: String,
    /// Up to where that cut covers the logs.
    pub positions: Vec<(LogNumber, LogPosition)>,
    /// Its length in bytes.
    pub bytes: u64,
    /// The last cut that roll-ups by day hold.
    pub merged_to: u64,
}

impl TableFile<'_> {
    /// Its path, relative to the data directory.
    #[must_use]
    pub fn path(&self) -> &str {
        self.source.path()
    }

    /// The length of its rows' periods.
    #[must_use]
    pub const fn grain(&self) -> Grain {
        self.source.grain()
    }

    /// First and last cut whose views it holds.
    #[must_use]
    pub fn cuts(&self) -> RangeInclusive<u64> {
        let (first, last) = (*self.source.numbers.start(), self.source.last());
        if first == 0 { last..=last } else { first..=last }
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.source.len
    }

    /// Up to where the last of its cuts covers the logs.
    ///
    /// # Errors
    /// When the file does not verify, or the disk refuses.
    pub fn positions(&self) -> Result<Vec<(LogNumber, LogPosition)>, StorageError> {
        self.source.open(&*self.tables.disk, self.tables.directory.id)?.positions()
    }

    /// Starts of the periods that have rows in any shard, with repetitions.
    pub fn periods(&self) -> impl Iterator<Item = Minute> + '_ {
        self.source.minutes()
    }

    /// Hands out the runs of one shard whose periods start in `minutes`, by period and class, in pieces.
    ///
    /// # Errors
    /// When the file does not verify, or the disk refuses.
    pub fn runs(
        &self,
        shard: u16,
        minutes: &Range<Minute>,
        mut visit: impl FnMut(Minute, FinalityClass, &[SlotCount]),
    ) -> Result<(), StorageError> {
        let touched = |minute: &Minute| minutes.contains(minute);
        let mut blocks = self
            .source
            .blocks
            .iter()
            .filter(|block| block.shard == shard && block.minutes.iter().any(touched))
            .peekable();
        if blocks.peek().is_none() {
            return Ok(());
        }
        let file = self.source.open(&*self.tables.disk, self.tables.directory.id)?;
        let of_piece = Cell::new((Minute(0), FinalityClass::IN_HOUR));
        for block in blocks {
            let wanted = |minute: Minute, class: FinalityClass| {
                of_piece.set((minute, class));
                minutes.contains(&minute)
            };
            file.block(block.offset, wanted, |_, entries| {
                let (minute, class) = of_piece.get();
                visit(minute, class, entries);
            })?;
        }
        Ok(())
    }
}

impl Tables {
    /// The roll-ups by grain and number, then the cuts beyond the base by number.
    pub fn files(&self) -> impl Iterator<Item = TableFile<'_>> {
        let sources = self.chains.runs().iter().chain(self.chains.cuts());
        sources.map(|source| TableFile { tables: self, source })
    }

    /// The newest base, if there is one.
    #[must_use]
    pub fn base(&self) -> Option<BaseFacts> {
        self.chains.base().map(|base| BaseFacts {
            number: base.cut.number,
            path: crate::base::base_path(base.cut.number),
            positions: base.positions.clone(),
            bytes: base.source.len,
            merged_to: base.manifest.merged_to,
        })
    }

    /// Adds the all-time counts of the newest base, without the cuts beyond it.
    ///
    /// # Errors
    /// When the file does not verify, or the disk refuses.
    pub fn base_counts(&self, shard: u16, sums: &mut SlotSums) -> Result<(), StorageError> {
        let Some(base) = self.chains.base() else { return Ok(()) };
        let file = base.source.open(&*self.disk, self.directory.id)?;
        let mut known = 0;
        file.sections_of::<StorageError>(&base.source.blocks, shard, |section| {
            match section {
                CutSection::Ids { lens, .. } => known += lens.len(),
                CutSection::AllTime { first_slot, counts, .. } => {
                    let end = first_slot as usize + counts.len();
                    // A slot takes a place in the sums, and so do all before it.
                    if end > known {
                        let what = format!("counts of shard {shard} are of slots {first_slot} to {end} of {known}");
                        return Err(StorageError::damaged(file.path(), 0, what));
                    }
                    (first_slot..).zip(counts).for_each(|(slot, count)| sums.add_one(slot, *count));
                }
                _ => {}
            }
            Ok(())
        })
    }
}
