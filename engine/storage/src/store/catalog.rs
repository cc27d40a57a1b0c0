//! Which cut files there are, what they cover, and where the runs of which minute lie.
//!
//! Not their contents. Invariant: numbers run from 1 without gaps; the index knows every run of a minute that can still
//! leave a window.

use std::collections::BTreeMap;

use highwater_ranking::{FinalityClass, Minute, RunRequest, SlotCount};

use super::list;
use super::prepared::SLICE_ENTRIES;
use crate::cut::{CUTS_DIR, CutFile, CutHeader, RunBlock, cut_path, parse_cut_name};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::state::StoreState;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct BlockRef {
    cut: u64,
    offset: u64,
}

#[derive(Debug)]
pub(crate) struct CutCatalog {
    last: Option<CutHeader>,
    covered: BTreeMap<LogNumber, LogPosition>,
    blocks: BTreeMap<Minute, Vec<BlockRef>>,
    window_minutes_max: u32,
}

impl CutCatalog {
    pub(crate) fn open(
        disk: &dyn Disk,
        directory: &Directory,
        state: &StoreState,
        window_minutes_max: u32,
    ) -> Result<Self, StorageError> {
        let mut numbers: Vec<u64> = list(disk, CUTS_DIR)?.iter().filter_map(|name| parse_cut_name(name)).collect();
        numbers.sort_unstable();
        let last_number = numbers.last().copied().unwrap_or(0).max(state.cuts_known);
        let gap = (1..=last_number).zip(numbers.iter().copied().chain([0])).find(|(expected, found)| expected != found);
        if let Some((missing, _)) = gap {
            let why = format!("cut files up to number {last_number} were made and each holds views of its own");
            return Err(StorageError::Missing { file: cut_path(missing), why });
        }
        let mut catalog = Self { last: None, covered: BTreeMap::new(), blocks: BTreeMap::new(), window_minutes_max };
        let Some(last) = numbers.last() else { return Ok(catalog) };
        let newest = CutFile::open(disk, directory.id, *last)?;
        catalog.last = Some(*newest.header());
        catalog.covered = newest.positions()?.into_iter().collect();
        for number in numbers {
            let file = CutFile::open(disk, directory.id, number)?;
            catalog.index(number, &file.index()?);
        }
        Ok(catalog)
    }

    pub(crate) const fn last(&self) -> Option<&CutHeader> {
        self.last.as_ref()
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last.map_or(0, |header| header.number)
    }

    /// Up to where the cut files hold a log; the start of generation 0 where they hold nothing of it.
    pub(crate) fn covered(&self, log: LogNumber) -> LogPosition {
        self.covered.get(&log).copied().unwrap_or(LogPosition::start_of(0))
    }

    /// Adds the file that was just made durable.
    pub(crate) fn add(&mut self, header: CutHeader, positions: Vec<(LogNumber, LogPosition)>, blocks: &[RunBlock]) {
        self.last = Some(header);
        self.covered = positions.into_iter().collect();
        self.index(header.number, blocks);
        self.blocks = self.blocks.split_off(&self.minute_floor());
    }

    /// Runs of earlier minutes have left every window.
    fn minute_floor(&self) -> Minute {
        self.last.map_or(Minute(0), |header| header.minute.minus(self.window_minutes_max))
    }

    fn index(&mut self, cut: u64, blocks: &[RunBlock]) {
        let floor = self.minute_floor();
        for block in blocks {
            for minute in block.minutes.iter().filter(|minute| **minute >= floor) {
                self.blocks.entry(*minute).or_default().push(BlockRef { cut, offset: block.offset });
            }
        }
    }

    pub(crate) fn runs(
        &self,
        disk: &dyn Disk,
        directory: DirectoryId,
        request: &RunRequest,
        mut visit: impl FnMut(u16, Vec<SlotCount>),
    ) -> Result<(), StorageError> {
        let floor = self.minute_floor();
        assert!(request.minutes.start >= floor, "runs of {request:?} are no longer indexed, only from {floor:?}");
        if request.minutes.is_empty() {
            return Ok(());
        }
        let mut wanted: Vec<BlockRef> =
            self.blocks.range(request.minutes.clone()).flat_map(|(_, blocks)| blocks.iter().copied()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut slices: BTreeMap<u16, Vec<SlotCount>> = BTreeMap::new();
        for of_cut in wanted.chunk_by(|a, b| a.cut == b.cut) {
            let file = CutFile::open(disk, directory, of_cut[0].cut)?;
            for block in of_cut {
                let meant = |minute: Minute, class: FinalityClass| {
                    request.minutes.contains(&minute) && class <= request.class_max
                };
                file.block(block.offset, meant, |shard, entries| {
                    let slice = slices.entry(shard).or_default();
                    slice.extend_from_slice(entries);
                    if slice.len() >= SLICE_ENTRIES {
                        visit(shard, std::mem::take(slice));
                    }
                })?;
            }
        }
        for (shard, slice) in slices.into_iter().filter(|(_, slice)| !slice.is_empty()) {
            visit(shard, slice);
        }
        Ok(())
    }
}
