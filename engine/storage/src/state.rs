//! The state file: the few things that must be durable before they are used.
//!
//! Not views, which are in logs and cut files. Invariants: epochs and minutes only grow; a generation is open in at
//! most one start; the end of a generation is recorded before a later one is written.
//!
//! Body of `state.hw`: directory id u128, epoch_lease_end u64, time_minute u32, generation u32, logs_open u32,
//! cuts_known u64, closed_count u32, then for each closed generation: log u32, generation u32, end u64.

use highwater_proto::{CORES_MAX, Epoch};
use highwater_ranking::Minute;

use crate::codec::{PutLe, TakeLe};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::sealed::{self, SealedKind};

const KIND: SealedKind = SealedKind { path: "state.hw", magic: *b"HWSTATE\0", version: 1 };
const CLOSED_BYTES: usize = 16;

/// A generation that will not be written again and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedGeneration {
    /// The log.
    pub log: LogNumber,
    /// Its generation and end.
    pub end: LogPosition,
}

/// What the state file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Epochs up to and including this one may have been used.
    pub epoch_lease_end: Epoch,
    /// Engine time may have reached this minute.
    pub time_minute: Minute,
    /// The generation opened last; 0 before the first.
    pub generation: u32,
    /// Logs 0 to this number (exclusive) have `generation` open.
    pub logs_open: u32,
    /// Cut files up to this number were durable when the state was written; a start without one of them is refused.
    pub cuts_known: u64,
    /// Older generations that no cut file covers yet, by generation, then log.
    pub closed: Vec<ClosedGeneration>,
}

impl StoreState {
    pub(crate) const PATH: &'static str = KIND.path;

    pub(crate) fn write(&self, disk: &dyn Disk, directory: DirectoryId) -> Result<(), StorageError> {
        let mut body = Vec::new();
        body.put_u128(directory.0);
        body.put_u64(self.epoch_lease_end.0);
        body.put_u32(self.time_minute.0);
        body.put_u32(self.generation);
        body.put_u32(self.logs_open);
        body.put_u64(self.cuts_known);
        body.put_u32(self.closed.len() as u32);
        for closed in &self.closed {
            body.put_u32(closed.log.0);
            body.put_u32(closed.end.generation);
            body.put_u64(closed.end.position);
        }
        sealed::replace(disk, &KIND, &body)
    }

    pub(crate) fn read(disk: &dyn Disk, directory: DirectoryId) -> Result<Option<Self>, StorageError> {
        let Some((found, state)) = Self::read_any(disk)? else { return Ok(None) };
        if found != directory {
            return Err(StorageError::ForeignFile {
                file: KIND.path.to_owned(),
                found: found.to_string(),
                expected: directory.to_string(),
            });
        }
        Ok(Some(state))
    }

    /// Reads the state of whatever directory, and the id of that.
    pub(crate) fn read_any(disk: &dyn Disk) -> Result<Option<(DirectoryId, Self)>, StorageError> {
        let Some(body) = sealed::read(disk, &KIND)? else { return Ok(None) };
        Self::parse(&body).map(Some).ok_or_else(|| sealed::senseless(&KIND))
    }

    fn parse(body: &[u8]) -> Option<(DirectoryId, Self)> {
        let mut reader = TakeLe::new(body);
        let directory = DirectoryId(reader.u128()?);
        let mut state = Self {
            epoch_lease_end: Epoch(reader.u64()?),
            time_minute: Minute(reader.u32()?),
            generation: reader.u32()?,
            logs_open: reader.u32()?,
            cuts_known: reader.u64()?,
            closed: Vec::new(),
        };
        let closed_count = reader.u32()? as usize;
        // A start looks for each log that is open.
        let are_few = state.logs_open as usize <= CORES_MAX;
        if !are_few || reader.left() != closed_count.checked_mul(CLOSED_BYTES)? {
            return None;
        }
        for _ in 0..closed_count {
            let log = LogNumber(reader.u32()?);
            let end = LogPosition { generation: reader.u32()?, position: reader.u64()? };
            state.closed.push(ClosedGeneration { log, end });
        }
        Some((directory, state))
    }
}
