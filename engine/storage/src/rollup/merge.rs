//! Merging the runs of one shard from several files into a fine and a coarse one.
//!
//! Not which files. Invariant: what comes out of both sums up to what went in; it is summed up in dense arrays of the
//! one shard, whatever the number of files and minutes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use highwater_ranking::{FinalityClass, Minute, SlotCount};

use super::job::JobError;
use crate::container::{Block, FileWriter, RunCursor, SectionFile};
use crate::error::StorageError;
use crate::tables::SlotSums;

/// Entries written at a time.
const PIECE_ENTRIES: usize = 1 << 14;

const CLASSES: RangeInclusive<u8> = 0..=FinalityClass::MAX.0;

/// Sums of the period at hand; kept from shard to shard.
#[derive(Default)]
pub(super) struct MergeSums {
    fine: SlotSums,
    /// By class.
    coarse: [SlotSums; CLASSES_COUNT],
}

const CLASSES_COUNT: usize = FinalityClass::MAX.0 as usize + 1;

/// The two files that a merge writes.
pub(super) struct MergeInto<'w, 'd> {
    pub(super) fine: &'w mut FileWriter<'d>,
    pub(super) coarse: &'w mut FileWriter<'d>,
}

/// Merges the runs of one shard. `coarse_of` gives the coarse period of a fine one; `each` sees every piece, with its
/// file.
pub(super) fn merge_shard(
    shard: u16,
    sources: &[(SectionFile, Vec<Block>)],
    into: &mut MergeInto<'_, '_>,
    sums: &mut MergeSums,
    coarse_of: impl Fn(Minute) -> Minute,
    mut each: impl FnMut(&SectionFile, &[SlotCount]) -> Result<(), JobError>,
) -> Result<(), JobError> {
    let cursors = sources.iter().map(|(file, blocks)| RunCursor::new(file, blocks, shard));
    let mut cursors = cursors.collect::<Result<Vec<_>, _>>()?;
    let mut heads: BinaryHeap<_> =
        cursors.iter().enumerate().filter_map(|(index, cursor)| Some(Reverse((cursor.head()?, index)))).collect();
    let mut coarse_period = Minute(0);
    while let Some(Reverse((head, _))) = heads.peek().copied() {
        let (minute, class) = head;
        if coarse_of(minute) != coarse_period {
            write_coarse(into.coarse, shard, coarse_period, &mut sums.coarse)?;
            coarse_period = coarse_of(minute);
        }
        while let Some(Reverse((_, index))) = heads.peek().copied().filter(|Reverse((other, _))| *other == head) {
            heads.pop();
            let cursor = &mut cursors[index];
            each(&sources[index].0, cursor.entries())?;
            sums.fine.add(cursor.entries());
            sums.coarse[usize::from(class.0)].add(cursor.entries());
            cursor.advance()?;
            heads.extend(cursor.head().map(|head| Reverse((head, index))));
        }
        write_sums(into.fine, shard, minute, class, &mut sums.fine)?;
    }
    write_coarse(into.coarse, shard, coarse_period, &mut sums.coarse)?;
    into.fine.end_runs(shard)?;
    into.coarse.end_runs(shard)?;
    Ok(())
}

fn write_coarse(
    writer: &mut FileWriter<'_>,
    shard: u16,
    period: Minute,
    by_class: &mut [SlotSums; CLASSES_COUNT],
) -> Result<(), StorageError> {
    CLASSES.zip(by_class).try_for_each(|(class, sums)| write_sums(writer, shard, period, FinalityClass(class), sums))
}

/// Writes the sums as a run, and forgets them. What is beyond a count of `u32` comes in further entries.
fn write_sums(
    writer: &mut FileWriter<'_>,
    shard: u16,
    minute: Minute,
    class: FinalityClass,
    sums: &mut SlotSums,
) -> Result<(), StorageError> {
    let mut excess = Vec::new();
    write_counts(writer, shard, (minute, class), sums.iter(), &mut excess)?;
    sums.clear();
    while !excess.is_empty() {
        let left = std::mem::take(&mut excess);
        write_counts(writer, shard, (minute, class), left.into_iter(), &mut excess)?;
    }
    Ok(())
}

fn write_counts(
    writer: &mut FileWriter<'_>,
    shard: u16,
    (minute, class): (Minute, FinalityClass),
    counts: impl Iterator<Item = (u32, u64)>,
    excess: &mut Vec<(u32, u64)>,
) -> Result<(), StorageError> {
    let mut entries = Vec::new();
    for (slot, views) in counts {
        let count = u32::try_from(views).unwrap_or(u32::MAX);
        entries.push(SlotCount { slot, count });
        if views > u64::from(count) {
            excess.push((slot, views - u64::from(count)));
        }
        if entries.len() == PIECE_ENTRIES {
            writer.run(shard, minute, class, &entries)?;
            entries.clear();
        }
    }
    writer.run(shard, minute, class, &entries)
}
