//! Making log segments ahead of their use, by the store or, once it has handed that over, beside it.
//!
//! Not writing into them, and not giving them up. Invariant: a segment is zeroed or recycled whole, and durable by
//! name, before a log gets it; there is one maker, so a log's are made in order.

use highwater_memory::AlignedBuffer;

use super::{Stage, Store, list};
use crate::container::remove_if_there;
use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::log::PreparedSegment;
use crate::position::{LogNumber, SegmentNumber, log_directory, segment_path};

/// Bytes written at once into a new segment.
const ZEROS_BYTES: usize = 1 << 20;

/// Makes log segments ready for use, on whatever thread, beside the store that it comes from.
#[derive(Debug)]
pub struct SegmentMaker<D: Disk> {
    disk: D,
    rules: Rules,
    /// Numbers of the next segments, by log.
    next: Vec<u64>,
}

/// What holds for all segments from when generations are open.
#[derive(Clone, Copy, Debug)]
struct Rules {
    generation: u32,
    segment_bytes: u64,
    cut_reserve_bytes: u64,
}

impl<D: Disk> SegmentMaker<D> {
    /// As [`Store::prepare_segment`].
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// As there.
    pub fn prepare(&mut self, log: LogNumber) -> Result<PreparedSegment, StorageError> {
        Making { disk: &self.disk, rules: self.rules }.prepare(&mut self.next, log)
    }
}

impl<D: Disk> Store<D> {
    /// Makes the next segment of an open log ready for use. May write a whole segment of zeros: takes its time.
    ///
    /// # Errors
    /// [`StorageError::is_no_space`] when the disk is full: call again later. Any other error must end the process.
    ///
    /// # Panics
    /// When the log is not open, or segments are made by a [`SegmentMaker`].
    pub fn prepare_segment(&mut self, log: LogNumber) -> Result<PreparedSegment, StorageError> {
        let rules = self.rules();
        Making { disk: &self.disk, rules }.prepare(&mut self.segments_next, log)
    }

    /// Hands the making of segments over, so that a log need not wait for other work of the store.
    ///
    /// # Panics
    /// When no generation is open, or it was handed over before.
    #[must_use]
    pub fn segment_maker(&mut self) -> SegmentMaker<D>
    where
        D: Clone,
    {
        assert_eq!(self.stage, Stage::Open, "segments are made when generations are open");
        assert!(!self.segments_next.is_empty(), "segments have one maker");
        SegmentMaker { disk: self.disk.clone(), rules: self.rules(), next: std::mem::take(&mut self.segments_next) }
    }

    const fn rules(&self) -> Rules {
        Rules {
            generation: self.state.generation,
            segment_bytes: self.directory.segment_bytes,
            cut_reserve_bytes: self.options.cut_reserve_bytes,
        }
    }
}

/// Files that are kept to be used again, in a log's directory.
pub(super) fn spares<D: Disk>(disk: &D, dir: &str) -> Result<Vec<String>, StorageError> {
    let is_spare = |name: &String| name.starts_with("spare-") && name.ends_with(".seg");
    Ok(list(disk, dir)?.into_iter().filter(is_spare).collect())
}

/// What making one takes.
struct Making<'a, D: Disk> {
    disk: &'a D,
    rules: Rules,
}

impl<D: Disk> Making<'_, D> {
    fn prepare(&self, next: &mut [u64], log: LogNumber) -> Result<PreparedSegment, StorageError> {
        let number = next.get_mut(log.0 as usize);
        let number = number.unwrap_or_else(|| panic!("{log:?} is not open, and no segment can be made for it here"));
        let segment = SegmentNumber(*number);
        let generation = self.rules.generation;
        let path = segment_path(log, generation, segment);
        let dir = log_directory(log);
        self.check_reserve(&path)?;
        let ready = match self.take_spare(&dir)? {
            Some(spare) => spare,
            None => self.make_zeroed(&dir, &path)?,
        };
        self.disk.rename(&ready, &path).map_err(|error| StorageError::io("rename to", &path, error))?;
        self.disk.sync_dir(&dir).map_err(|error| StorageError::io("sync directory", &dir, error))?;
        *number += 1;
        Ok(PreparedSegment { log, generation, number: segment, path })
    }

    fn take_spare(&self, dir: &str) -> Result<Option<String>, StorageError> {
        for name in spares(self.disk, dir)? {
            let path = format!("{dir}/{name}");
            let file = self.disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
            let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
            if len == self.rules.segment_bytes {
                return Ok(Some(path));
            }
            self.disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
        }
        Ok(None)
    }

    /// Whether the reserve for cut files is whole. Asked for recycled segments too: they take no room, but cut files
    /// that go on growing do, and a full disk must be met here and not by a cut.
    fn check_reserve(&self, for_path: &str) -> Result<(), StorageError> {
        let reserve_bytes = self.rules.cut_reserve_bytes;
        let free_bytes = self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
        if free_bytes < reserve_bytes {
            let file = for_path.to_owned();
            return Err(StorageError::NoSpace { file, needed_bytes: 0, reserve_bytes, free_bytes });
        }
        Ok(())
    }

    /// A durable file of zeros under a temporary name.
    fn make_zeroed(&self, dir: &str, for_path: &str) -> Result<String, StorageError> {
        let temporary = format!("{dir}/spare.tmp");
        // One that was left behind must not stand in its own way.
        remove_if_there(self.disk, &temporary)?;
        let needed_bytes = self.rules.segment_bytes;
        let reserve_bytes = self.rules.cut_reserve_bytes;
        let free_bytes = self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
        let no_space =
            |free_bytes| StorageError::NoSpace { file: for_path.to_owned(), needed_bytes, reserve_bytes, free_bytes };
        if free_bytes < needed_bytes.saturating_add(reserve_bytes) {
            return Err(no_space(free_bytes));
        }
        let made = self.write_zeros(&temporary);
        if made.as_ref().is_err_and(StorageError::is_no_space) {
            remove_if_there(self.disk, &temporary)?;
            return Err(no_space(free_bytes));
        }
        made.map(|()| temporary)
    }

    /// Writes past the system's cache, which would be filled for nothing, and syncs chunk by chunk: a whole segment,
    /// flushed at once, would hold up the log's own writes for as long as the flush takes.
    fn write_zeros(&self, path: &str) -> Result<(), StorageError> {
        let file =
            self.disk.open(path, Access::CreateDirect).map_err(|error| StorageError::io("create", path, error))?;
        let zeros = AlignedBuffer::zeroed(ZEROS_BYTES);
        let len = self.rules.segment_bytes;
        for offset in (0..len).step_by(ZEROS_BYTES) {
            let chunk = (len - offset).min(ZEROS_BYTES as u64) as usize;
            file.write_at(&zeros[..chunk], offset).map_err(|error| StorageError::io("write", path, error))?;
            file.sync().map_err(|error| StorageError::io("sync", path, error))?;
        }
        Ok(())
    }
}
