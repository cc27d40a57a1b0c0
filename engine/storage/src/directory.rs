//! The directory file: what is fixed for the life of a data directory.
//!
//! Not what changes (see the state file). Invariant: written once, before anything else of the directory.
//!
//! Body of `directory.hw`: directory id u128, instance id u128, hash seed u64, shards u16, lateness_max_ms u64,
//! segment_bytes u64.

use highwater_proto::InstanceId;

use crate::codec::{PutLe, TakeLe};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::{BLOCK_BYTES, DirectoryId};
use crate::sealed::{self, SealedKind};

const KIND: SealedKind = SealedKind { path: "directory.hw", magic: *b"HWDIRECT", version: 1 };

/// What is fixed when a data directory is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Part of every record and file.
    pub id: DirectoryId,
    /// Told to clients and readers.
    pub instance: InstanceId,
    /// Seed of the hash of video ids.
    pub hash_seed: u64,
    /// Number of shards.
    pub shards: u16,
    /// How long after its end a tumbling period becomes final, in ms.
    pub lateness_max_ms: u64,
    /// Length of a log segment in bytes, a multiple of 4 KiB.
    pub segment_bytes: u64,
}

impl Directory {
    pub(crate) const PATH: &'static str = KIND.path;

    pub(crate) fn write(&self, disk: &dyn Disk) -> Result<(), StorageError> {
        let mut body = Vec::new();
        body.put_u128(self.id.0);
        body.put_u128(self.instance.0);
        body.put_u64(self.hash_seed);
        body.put_u16(self.shards);
        body.put_u64(self.lateness_max_ms);
        body.put_u64(self.segment_bytes);
        sealed::replace(disk, &KIND, &body)
    }

    pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Self>, StorageError> {
        let Some(body) = sealed::read(disk, &KIND)? else { return Ok(None) };
        let directory = Self::parse(&body).ok_or_else(|| sealed::senseless(&KIND))?;
        directory.check()?;
        Ok(Some(directory))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = TakeLe::new(body);
        let directory = Self {
            id: DirectoryId(reader.u128()?),
            instance: InstanceId(reader.u128()?),
            hash_seed: reader.u64()?,
            shards: reader.u16()?,
            lateness_max_ms: reader.u64()?,
            segment_bytes: reader.u64()?,
        };
        reader.is_empty().then_some(directory)
    }

    /// Refuses values that nothing could work with.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        if self.shards == 0 {
            return Err(StorageError::Setting { setting: "shards", requested: 0, allowed: "1 to 65535" });
        }
        if self.segment_bytes == 0 || !self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let requested = self.segment_bytes;
            return Err(StorageError::Setting { setting: "segment_bytes", requested, allowed: "a multiple of 4096" });
        }
        Ok(())
    }
}
