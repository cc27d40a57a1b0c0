//! A file of the memory disk: what readers see, what is durable, and what becomes of the difference.
//!
//! Not its name. Invariant: outside of the dirty sectors and of a failed sync, contents and durable contents are the
//! same.

use std::collections::BTreeSet;

use super::content::{Content, SECTOR_BYTES, Sector};
use super::faults::DiskFaults;
use super::random::Random;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) current: Content,
    pub(super) durable: Content,
    /// What each sector durably held before what it holds.
    earlier: Vec<Sector>,
    dirty: BTreeSet<usize>,
}

impl Inode {
    /// A file whose bytes are all durable.
    pub(super) fn at_rest(content: Content) -> Self {
        Self { current: content.clone(), durable: content, ..Self::default() }
    }

    /// Whether a sync has anything to write out.
    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.durable.len() < self.current.len()
    }

    /// Writes bytes, lengthening the file where needed.
    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.current.grow(end);
        self.current.write(bytes, offset);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            // Zeros on zeros leave nothing that could be lost.
            if self.current.sector(sector).is_some() || self.durable.sector(sector).is_some() {
                self.dirty.insert(sector);
            }
        }
    }

    /// Writes some of the sectors only, as a device that reports an error may have: durably, since such a write goes
    /// past any cache, and what is read afterwards is what is there.
    pub(super) fn write_in_part(&mut self, bytes: &[u8], offset: usize, random: &mut Random) {
        for (at, piece) in (offset..).step_by(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES)) {
            if random.below(2) == 0 && at + piece.len() <= self.current.len() {
                self.write(piece, at);
                self.sync_range(at, at + piece.len());
            }
        }
    }

    /// Makes the sectors of a byte range durable.
    pub(super) fn sync_range(&mut self, start: usize, end: usize) {
        self.durable.grow(self.current.len());
        for sector in self.take_dirty(start, end) {
            self.make_durable(sector);
        }
    }

    /// A sync that fails: of the dirty sectors some were written, and nobody remembers which were not, so that a later
    /// sync succeeds and writes nothing. Readers see what was written to the cache.
    pub(super) fn fail_sync_range(&mut self, start: usize, end: usize, random: &mut Random) {
        self.durable.grow(self.current.len());
        for sector in self.take_dirty(start, end) {
            if random.below(2) == 0 {
                self.make_durable(sector);
            }
        }
    }

    /// A write past any cache that its device reports to have failed: of the sectors some are there, and readers see
    /// which.
    pub(super) fn fail_write(&mut self, start: usize, end: usize, random: &mut Random) {
        for sector in self.take_dirty(start, end) {
            if random.below(2) == 0 {
                self.make_durable(sector);
            } else {
                self.current.set_sector(sector, self.durable.sector(sector));
            }
        }
    }

    fn take_dirty(&mut self, start: usize, end: usize) -> Vec<usize> {
        let range = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
        let sectors: Vec<usize> = self.dirty.range(range).copied().collect();
        for sector in &sectors {
            self.dirty.remove(sector);
        }
        sectors
    }

    fn make_durable(&mut self, sector: usize) {
        let before = self.durable.sector(sector);
        let now = self.current.sector(sector);
        if before != now {
            self.earlier.resize(self.earlier.len().max(sector + 1), None);
            self.earlier[sector] = before;
        }
        self.durable.set_sector(sector, now);
    }

    /// What is there after a power cut.
    pub(super) fn after_crash(&self, random: &mut Random, faults: &mut DiskFaults) -> Self {
        let mut survived = Self { durable: self.durable.clone(), earlier: self.earlier.clone(), ..Self::default() };
        if survived.durable.len() < self.current.len() && random.below(2) == 0 {
            survived.durable.grow(self.current.len());
        }
        // One fate for all sectors now and then, so that whole writes survive and vanish too.
        let mode = random.below(4);
        let (mut kept, mut lost) = (0, 0);
        for sector in &self.dirty {
            let survives = match mode {
                0 => true,
                1 => false,
                _ => random.below(2) == 0,
            };
            if survives {
                kept += 1;
                survived.earlier.resize(survived.earlier.len().max(sector + 1), None);
                survived.earlier[*sector] = survived.durable.sector(*sector);
                survived.durable.set_sector(*sector, self.current.sector(*sector));
            } else {
                lost += 1;
            }
        }
        faults.sectors_kept += kept;
        faults.sectors_lost += lost;
        faults.writes_torn += u64::from(kept > 0 && lost > 0);
        survived.current = survived.durable.clone();
        survived
    }

    /// Puts a sector back to what it durably held before, as if the disk had acknowledged the last write to it and
    /// lost it; returns whether that makes a difference.
    pub(super) fn go_stale(&mut self, sector: usize) -> bool {
        let stale = self.earlier.get(sector).cloned().flatten();
        let is_other = stale != self.durable.sector(sector);
        self.durable.set_sector(sector, stale.clone());
        self.current.set_sector(sector, stale);
        is_other
    }

    /// Flips one bit, durably.
    pub(super) fn flip_bit(&mut self, byte: usize, bit: u32) {
        let (number, at) = (byte / SECTOR_BYTES, byte % SECTOR_BYTES);
        let flip = |content: &mut Content| {
            let mut sector = content.sector(number).map_or([0; SECTOR_BYTES], |sector| *sector);
            sector[at] ^= 1 << bit;
            content.set_sector(number, Some(sector.into()));
        };
        flip(&mut self.current);
        flip(&mut self.durable);
    }
}
