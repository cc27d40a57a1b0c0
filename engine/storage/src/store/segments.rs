//! Giving up log segments, and keeping some to be used again.
//!
//! Not making them, which is in `making.rs`. Invariant: a segment is given up only when a durable cut file covers it
//! and the state file knows that cut file, and, within limits, only when it is in the archive.

use super::making::spares;
use super::{Store, list, log_directories};
use crate::archive::SegmentKey;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{LogNumber, LogPosition, SegmentNumber, log_directory, parse_segment_name, segment_path};

/// Recycled files kept in each log's directory.
const SPARES_MAX: usize = 2;

impl<D: Disk> Store<D> {
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
            if is_open && spares(&self.disk, &dir)?.len() < SPARES_MAX {
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
            for name in spares(&self.disk, &dir)? {
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

    fn spare_path(&mut self, dir: &str) -> Result<String, StorageError> {
        loop {
            self.spare_next += 1;
            let path = format!("{dir}/spare-{:010}.seg", self.spare_next);
            if !super::exists(&self.disk, &path)? {
                return Ok(path);
            }
        }
    }
}
