//! Reading everything back at a start: cut files in order, then the logs beyond them.
//!
//! Not the counting, which is the visitor's. Invariant: each accepted view is handed out exactly once, in a run or in a
//! record, or the start is refused.

use super::slots::Slots;
use super::{Stage, Store};
use crate::container::{CutHeader, CutSection, SectionFile};
use crate::cut::open_cut;
use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::log::{DurableRecord, GenerationScan, scan_generation};
use crate::position::{LogIdentity, LogNumber, LogPosition, log_directory, parse_segment_name};
use crate::producers::ProducerTableImage;
use crate::state::ClosedGeneration;

/// Bytes written at once of what must be written again.
const PIECE_BYTES: usize = 1 << 20;

/// What the cut files held besides ids and runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutsReplayed {
    /// Producers as of the newest cut file's positions.
    pub producers: ProducerTableImage,
    /// The newest cut file.
    pub last: Option<CutHeader>,
}

impl<D: Disk> Store<D> {
    /// Reads the base, if there is one, and all cut files beyond it in order. `visit` gets only [`CutSection::Ids`],
    /// [`CutSection::AllTime`] and [`CutSection::Run`]; the ids of a shard come in slot order, and before the counts
    /// and runs that name them. Of the views that all-time counts stand for, [`runs_of_base`](Self::runs_of_base) has
    /// the runs.
    ///
    /// # Errors
    /// When a file is damaged, its ids do not follow those before, or `visit` fails.
    pub fn replay_cuts<E: From<StorageError>>(
        &mut self,
        mut visit: impl FnMut(CutSection<'_>) -> Result<(), E>,
    ) -> Result<CutsReplayed, E> {
        let mut replayed = CutsReplayed { last: self.chains.last().copied(), ..CutsReplayed::default() };
        let mut slots = Slots::new(self.directory.shards);
        let last = self.last_number();
        let base = self.chains.base().map(|base| base.source.open(&self.disk, self.directory.id)).transpose()?;
        let base_number = self.chains.base_number();
        let mut replay = |file: &SectionFile| {
            let is_last = file.cut().number == last;
            file.sections(|section| match section {
                CutSection::Positions(_) => Ok(()),
                CutSection::Producers(producers) => {
                    if is_last {
                        replayed.producers.producers.extend(producers);
                    }
                    Ok(())
                }
                section @ (CutSection::Ids { .. } | CutSection::AllTime { .. } | CutSection::Run { .. }) => {
                    slots.check(file.path(), &section)?;
                    visit(section)
                }
            })
        };
        if let Some(file) = base {
            replay(&file)?;
        }
        for number in base_number + 1..=last {
            replay(&open_cut(&self.disk, self.directory.id, number)?)?;
        }
        Ok(replayed)
    }

    /// Reads all records beyond the newest cut file, by generation, then log, then position; prefix records too.
    /// Everything handed out is durable afterwards, though its writer may have died before it knew.
    ///
    /// # Errors
    /// When a log has a hole or ends before its recorded end, or `visit` fails.
    ///
    /// # Panics
    /// When called twice.
    pub fn replay_logs<E: From<StorageError>>(
        &mut self,
        mut visit: impl FnMut(LogNumber, DurableRecord<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        assert_eq!(self.stage, Stage::Opened, "logs are replayed once");
        let mut closed = self.state.closed.clone();
        closed.sort_unstable_by_key(|closed| (closed.end.generation, closed.log));
        for ClosedGeneration { log, end } in closed {
            if end > self.covered(log) {
                self.replay_generation(log, end.generation, Some(end.position), &mut visit)?;
            }
        }
        let mut ends = Vec::new();
        for log in (0..self.state.logs_open).map(LogNumber) {
            let covered = self.covered(log);
            let mut stated = if covered.generation == self.state.generation { covered.position } else { 0 };
            let end = self.replay_generation(log, self.state.generation, None, &mut |log, record| {
                stated = stated.max(record.header.durable_prefix);
                visit(log, record)
            })?;
            self.make_durable(log, stated, end)?;
            ends.push(ClosedGeneration { log, end });
        }
        self.stage = Stage::Replayed(ends);
        Ok(())
    }

    fn replay_generation<E: From<StorageError>>(
        &self,
        log: LogNumber,
        generation: u32,
        expected_end: Option<u64>,
        visit: &mut impl FnMut(LogNumber, DurableRecord<'_>) -> Result<(), E>,
    ) -> Result<LogPosition, E> {
        let covered = self.covered(log);
        let scan = GenerationScan {
            identity: LogIdentity { directory: self.directory.id, log, generation },
            segment_bytes: self.directory.segment_bytes,
            from: if covered.generation == generation { covered.position } else { 0 },
            expected_end,
        };
        let end = scan_generation(&self.disk, &scan, |record| visit(log, record))?;
        Ok(end.end)
    }

    /// Makes durable what was just read: a killed writer's last writes may still be on their way to the disk. What no
    /// record states to be durable is written once more, since a sync that failed in an earlier start may have left it
    /// in the cache alone, where a later sync finds nothing left to do.
    fn make_durable(&self, log: LogNumber, stated: u64, end: LogPosition) -> Result<(), StorageError> {
        let dir = log_directory(log);
        if !super::exists(&self.disk, &dir)? {
            return Ok(());
        }
        for name in super::list(&self.disk, &dir)? {
            let Some((_, segment)) = parse_segment_name(&name).filter(|(of, _)| *of == end.generation) else {
                continue;
            };
            let path = format!("{dir}/{name}");
            let file = self.disk.open(&path, Access::Write).map_err(|error| StorageError::io("open", &path, error))?;
            let start = segment.0 * self.directory.segment_bytes;
            let limit = end.position.min(start + self.directory.segment_bytes);
            for position in (stated.max(start)..limit).step_by(PIECE_BYTES) {
                let mut piece = vec![0; (limit - position).min(PIECE_BYTES as u64) as usize];
                let offset = position - start;
                file.read_at(&mut piece, offset).map_err(|error| StorageError::io("read", &path, error))?;
                file.write_at(&piece, offset).map_err(|error| StorageError::io("write", &path, error))?;
            }
            file.sync().map_err(|error| StorageError::io("sync", &path, error))?;
        }
        Ok(())
    }
}
