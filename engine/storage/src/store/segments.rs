//! Making log segments ahead of their use, and using old ones again.
//!
//! Not writing into them. Invariants: a segment is zeroed or recycled whole, and durable by name, before a log gets it;
//! one is given up only when a durable cut file covers it and the state file knows that cut file, and, within limits,
//! only when it is in the archive.

use highwater_memory::AlignedBuffer;

use super::{Store, list, log_directories};
use crate::archive::SegmentKey;
use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::log::PreparedSegment;
use crate::position::{LogNumber, LogPosition, SegmentNumber, log_directory, parse_segment_name, segment_path};

/// Recycled files kept in each log's directory.
const SPARES_MAX: usize = 2;
/// Bytes written at once into a new segment.
const ZEROS_BYTES: usize = 1 << 20;

impl<D: Disk> Store<D> {
    /// Makes the next segment of an open log ready for use. May write a whole segment of zeros: takes its time.
    ///
    /// # Errors
    /// [`StorageError::is_no_space`] when the disk is full: call again later. Any other error must end the process.
    ///
    /// # Panics
    /// When the log is not open.
    pub fn prepare_segment(&mut self, log: LogNumber) -> Result<PreparedSegment, StorageError> {
        let index = log.0 as usize;
        assert!(index < self.segments_next.len(), "{log:?} is open");
        let number = SegmentNumber(self.segments_next[index]);
        let generation = self.state.generation;
        let path = segment_path(log, generation, number);
        let dir = log_directory(log);
        self.check_reserve(&path)?;
        let ready = match self.take_spare(&dir)? {
            Some(spare) => spare,
            None => self.make_zeroed(&dir, &path)?,
        };
        self.disk.rename(&ready, &path).map_err(|error| StorageError::io("rename to", &path, error))?;
        self.disk.sync_dir(&dir).map_err(|error| StorageError::io("sync directory", &dir, error))?;
        self.segments_next[index] += 1;
        Ok(PreparedSegment { log, generation, number, path })
    }

    /// Gives up segments that cut files cover: keeps the newest `retention_bytes` of them, recycles some of the others
    /// and removes the rest. Returns how many segments were given up.
    ///
    /// # Errors
    /// When the disk refuses. With [`StorageError::is_no_space`] some segments are still there: call again later.
    pub fn recycle(&mut self, retention_bytes: u64) -> Result<usize, StorageError> {
        let beyond = self.segments_beyond(retention_bytes)?;
        let covered = self.without_waiting(beyond, retention_bytes)?;
        if covered.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.clone();
        self.forget_covered(&mut state);
        self.change_state(state)?;
        let mut dirs: Vec<String> = Vec::new();
        for segment in &covered {
            let path = segment_path(segment.log, segment.generation, segment.segment);
            let dir = log_directory(segment.log);
            let is_open = segment.log.0 < self.state.logs_open;
            if is_open && self.spares(&dir)?.len() < SPARES_MAX {
                let spare = self.spare_path(&dir)?;
                self.disk.rename(&path, &spare).map_err(|error| StorageError::io("rename to", &spare, error))?;
            } else {
                self.disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
            }
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
            self.note_given_up(*segment);
        }
        self.remove_foreign_spares(&mut dirs)?;
        for dir in dirs {
            self.disk.sync_dir(&dir).map_err(|error| StorageError::io("sync directory", &dir, error))?;
        }
        Ok(covered.len())
    }

    /// Removes what was kept for logs that no core of this start writes; notes the directories that it was in.
    fn remove_foreign_spares(&self, dirs: &mut Vec<String>) -> Result<(), StorageError> {
        let open: Vec<String> = (0..self.state.logs_open).map(|log| log_directory(LogNumber(log))).collect();
        for dir in log_directories(&self.disk)?.into_iter().filter(|dir| !open.contains(dir)) {
            for name in self.spares(&dir)? {
                let path = format!("{dir}/{name}");
                self.disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
                if !dirs.contains(&dir) {
                    dirs.push(dir.clone());
                }
            }
        }
        Ok(())
    }

    /// Covered segments that are to be given up, oldest first: all but the newest `retention_bytes`.
    pub(super) fn segments_beyond(&self, retention_bytes: u64) -> Result<Vec<SegmentKey>, StorageError> {
        let mut covered = self.covered_segments()?;
        covered.sort_unstable();
        let keep = (retention_bytes / self.directory.segment_bytes).min(covered.len() as u64) as usize;
        covered.truncate(covered.len() - keep);
        Ok(covered)
    }

    fn covered_segments(&self) -> Result<Vec<SegmentKey>, StorageError> {
        let mut covered = Vec::new();
        for dir in log_directories(&self.disk)? {
            let Some(log) = dir.strip_prefix("log-").and_then(|number| number.parse().ok()).map(LogNumber) else {
                continue;
            };
            for name in list(&self.disk, &dir)? {
                let Some((generation, segment)) = parse_segment_name(&name) else { continue };
                if !self.is_needed(log, generation, segment) {
                    covered.push(SegmentKey { generation, segment, log });
                }
            }
        }
        Ok(covered)
    }

    /// Whether a start would read, or a log may still write, the segment.
    fn is_needed(&self, log: LogNumber, generation: u32, number: SegmentNumber) -> bool {
        let end = LogPosition { generation, position: (number.0 + 1) * self.directory.segment_bytes };
        let covered = self.covered(log);
        let is_open = generation == self.state.generation && log.0 < self.state.logs_open;
        let closed = self.state.closed.iter().find(|closed| closed.log == log && closed.end.generation == generation);
        match closed {
            _ if is_open => end > covered,
            Some(closed) => closed.end > covered && end > covered,
            None => false,
        }
    }

    fn take_spare(&self, dir: &str) -> Result<Option<String>, StorageError> {
        for name in self.spares(dir)? {
            let path = format!("{dir}/{name}");
            let file = self.disk.open(&path, Access::Read).map_err(|error| StorageError::io("open", &path, error))?;
            let len = file.len().map_err(|error| StorageError::io("measure", &path, error))?;
            if len == self.directory.segment_bytes {
                return Ok(Some(path));
            }
            self.disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
        }
        Ok(None)
    }

    fn spares(&self, dir: &str) -> Result<Vec<String>, StorageError> {
        let is_spare = |name: &String| name.starts_with("spare-") && name.ends_with(".seg");
        Ok(list(&self.disk, dir)?.into_iter().filter(is_spare).collect())
    }

    fn spare_path(&mut self, dir: &str) -> Result<String, StorageError> {
        loop {
            self.spare_next += 1;
            let path = format!("{dir}/spare-{:010}.seg", self.spare_next);
            if !super::exists(&self.disk, &path)? {
                return Ok(path);
            }
        }
    }

    /// Whether the reserve for cut files is whole. Asked for recycled segments too: they take no room, but cut files
    /// that go on growing do, and a full disk must be met here and not by a cut.
    fn check_reserve(&self, for_path: &str) -> Result<(), StorageError> {
        let reserve_bytes = self.options.cut_reserve_bytes;
        let free_bytes = self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
        if free_bytes < reserve_bytes {
            let file = for_path.to_owned();
            return Err(StorageError::NoSpace { file, needed_bytes: 0, reserve_bytes, free_bytes });
        }
        Ok(())
    }

    /// A durable file of zeros under a temporary name.
    fn make_zeroed(&self, dir: &str, for_path: &str) -> Result<String, StorageError> {
        let needed_bytes = self.directory.segment_bytes;
        let reserve_bytes = self.options.cut_reserve_bytes;
        let free_bytes = self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))?;
        let no_space =
            |free_bytes| StorageError::NoSpace { file: for_path.to_owned(), needed_bytes, reserve_bytes, free_bytes };
        if free_bytes < needed_bytes.saturating_add(reserve_bytes) {
            return Err(no_space(free_bytes));
        }
        let temporary = format!("{dir}/spare.tmp");
        if super::exists(&self.disk, &temporary)? {
            crate::container::remove_if_there(&self.disk, &temporary)?;
        }
        let made = self.write_zeros(&temporary);
        if made.as_ref().is_err_and(StorageError::is_no_space) {
            crate::container::remove_if_there(&self.disk, &temporary)?;
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
        let len = self.directory.segment_bytes;
        for offset in (0..len).step_by(ZEROS_BYTES) {
            let chunk = (len - offset).min(ZEROS_BYTES as u64) as usize;
            file.write_at(&zeros[..chunk], offset).map_err(|error| StorageError::io("write", path, error))?;
            file.sync().map_err(|error| StorageError::io("sync", path, error))?;
        }
        Ok(())
    }
}
