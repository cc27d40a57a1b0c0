//! Letting segments wait for the archive: which is copied next, what may be used again, what is given up.
//!
//! Not the copying, which is [`ArchiveJob`]'s, on another thread. Invariant: the log never stops for the archive. At
//! most so many segments wait as [`waiting_max`] says, and none when the room for the log runs out.

use super::Store;
use crate::archive::{ArchiveDone, ArchiveJob, ArchiveOutcome, ArchiveShed, SegmentKey};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::SegmentNumber;

/// Segments that may wait for the archive beyond those that the log's retention keeps, at the least.
const WAITING_MIN: u64 = 16;

/// One segment in so many of the log's retention may wait beyond it.
const WAITING_SHARE: u64 = 4;

/// How many segments may wait for the archive besides those that the log's retention keeps.
const fn waiting_max(retention_bytes: u64, segment_bytes: u64) -> u64 {
    let share = retention_bytes / segment_bytes / WAITING_SHARE;
    if share > WAITING_MIN { share } else { WAITING_MIN }
}

/// What is to be done for the archive now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlan {
    /// Nothing: no segment waits, or one is being copied.
    Nothing,
    /// A segment waits, but an archive file might take the room that the log and cut files need.
    NoRoom {
        /// What is free.
        free_bytes: u64,
        /// What must be.
        needed_bytes: u64,
    },
    /// This.
    Copy(ArchiveJob),
}

/// How the archive stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArchiveFigures {
    /// Archive files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What was given up since the store was opened.
    pub shed: ArchiveShed,
}

impl<D: Disk> Store<D> {
    /// Which segment is to be copied next: the oldest that the log's retention keeps no longer.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn plan_archive(&mut self, log_retention_bytes: u64) -> Result<ArchivePlan, StorageError> {
        if self.archive.as_ref().is_none_or(|archive| archive.running().is_some()) {
            return Ok(ArchivePlan::Nothing);
        }
        let waiting = self.waiting(&self.segments_beyond(log_retention_bytes)?);
        let Some(&key) = waiting.first() else { return Ok(ArchivePlan::Nothing) };
        // The file, which may be as long as the segment, and the log's next segment.
        let needed_bytes = self.options.cut_reserve_bytes.saturating_add(2 * self.directory.segment_bytes);
        let free_bytes = self.free_bytes()?;
        if free_bytes < needed_bytes {
            return Ok(ArchivePlan::NoRoom { free_bytes, needed_bytes });
        }
        let is_open = key.generation == self.state.generation && key.log.0 < self.state.logs_open;
        let known_end = match is_open {
            true => Some(self.covered(key.log).position),
            false => self.ends.get(&(key.log, key.generation)).copied(),
        };
        self.archive.iter_mut().for_each(|archive| archive.begin(key));
        Ok(ArchivePlan::Copy(ArchiveJob {
            directory: self.directory.id,
            key,
            segment_bytes: self.directory.segment_bytes,
            known_end,
            is_closed: !is_open,
        }))
    }

    /// Takes the outcome of the job that was planned last. Says what happened to a segment that could not be read: it
    /// is given up, since no other look at it would find more.
    ///
    /// # Errors
    /// When the disk refused what the job wanted. With [`StorageError::is_no_space`] nothing has changed, and the
    /// segment is planned again; on any other error the process must end.
    ///
    /// # Panics
    /// When it is not the outcome of the job planned last.
    pub fn archive_done(&mut self, done: ArchiveDone) -> Result<Option<StorageError>, StorageError> {
        let archive = self.archive.as_mut().expect("only a store with an archive plans jobs");
        archive.end(done.key);
        match done.outcome {
            Ok(ArchiveOutcome::Written { file_bytes, arrival_ms_max, .. }) => {
                archive.add_file(done.key, file_bytes, arrival_ms_max);
            }
            Ok(ArchiveOutcome::Empty) => archive.settle(done.key),
            Ok(ArchiveOutcome::Stopped) => {}
            Err(error @ StorageError::Io { .. }) => return Err(error),
            Err(error) if error.is_no_space() => return Err(error),
            Err(error) => {
                archive.settle(done.key);
                archive.shed.segments_given_up += 1;
                return Ok(Some(error));
            }
        }
        Ok(None)
    }

    /// Removes what the archive keeps no longer, as of the newest cut. Returns the number of files.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn trim_archive(&mut self) -> Result<usize, StorageError> {
        let (Some(archive), Some(newest)) = (&mut self.archive, self.chains.last()) else { return Ok(0) };
        archive.trim(&self.disk, newest.time_ms)
    }

    /// How the archive stands; all zero without one.
    #[must_use]
    pub fn archive_figures(&self) -> ArchiveFigures {
        self.archive.as_ref().map_or_else(ArchiveFigures::default, |archive| ArchiveFigures {
            files: archive.files() as u64,
            bytes: archive.bytes(),
            shed: archive.shed,
        })
    }

    /// How many segments wait to be copied.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn archive_waiting(&self, log_retention_bytes: u64) -> Result<u64, StorageError> {
        Ok(self.waiting(&self.segments_beyond(log_retention_bytes)?).len() as u64)
    }

    /// Of these segments those that are not in the archive and should be, oldest first.
    fn waiting(&self, segments: &[SegmentKey]) -> Vec<SegmentKey> {
        let Some(archive) = &self.archive else { return Vec::new() };
        segments.iter().copied().filter(|key| !archive.is_settled(*key)).collect()
    }

    /// Of these segments, oldest first, those that can be given up now: all but the ones that wait. Of too many that
    /// wait the oldest are given up all the same; not the one being copied, and not the one behind it, by which the
    /// job knows where its own ends.
    pub(super) fn without_waiting(
        &self,
        segments: Vec<SegmentKey>,
        retention_bytes: u64,
    ) -> Result<Vec<SegmentKey>, StorageError> {
        let Some(archive) = &self.archive else { return Ok(segments) };
        let mut waiting = self.waiting(&segments);
        if waiting.is_empty() {
            return Ok(segments);
        }
        // Where the log's next segments would find no room, nothing waits.
        let needed_bytes = self.options.cut_reserve_bytes.saturating_add(self.directory.segment_bytes);
        let limit = match self.free_bytes()? < needed_bytes {
            true => 0,
            false => waiting_max(retention_bytes, self.directory.segment_bytes) as usize,
        };
        waiting.drain(..waiting.len().saturating_sub(limit));
        let running = archive.running();
        let behind = running.map(|key| SegmentKey { segment: SegmentNumber(key.segment.0 + 1), ..key });
        let is_in_use = |key: SegmentKey| running == Some(key) || behind == Some(key);
        let may_go = |key: &SegmentKey| waiting.binary_search(key).is_err() && !is_in_use(*key);
        Ok(segments.into_iter().filter(may_go).collect())
    }

    /// Notes that a segment is there no more.
    pub(super) fn note_given_up(&mut self, key: SegmentKey) {
        if let Some(archive) = &mut self.archive {
            if !archive.is_settled(key) {
                archive.shed.segments_given_up += 1;
            }
            archive.forget_segment(key);
        }
    }

    fn free_bytes(&self) -> Result<u64, StorageError> {
        self.disk.free_bytes().map_err(|error| StorageError::io("measure space of", ".", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_retention_may_wait_and_a_few_always() {
        assert_eq!(waiting_max(0, 64 << 20), 16);
        assert_eq!(waiting_max(8 << 30, 64 << 20), 32);
    }
}
