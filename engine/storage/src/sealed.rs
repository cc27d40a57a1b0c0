//! Small files that are written whole: directory, state and what is kept as history.
//!
//! Not for anything that grows. Layout: magic of 8 bytes, version u32, body, CRC32C u32 over all before it. Invariant:
//! a reader sees the old file or the new one, never a mixture, because the new one is synced before it takes the name.

use std::io;

use crate::disk::{Access, Disk};
use crate::error::StorageError;

/// Name, magic and version of a kind of file.
pub(crate) struct SealedKind<'a> {
    /// Relative to the data directory.
    pub(crate) path: &'a str,
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
}

/// Longest file believed; far above what the formats need.
const FILE_BYTES_MAX: u64 = 16 << 20;
const FRAME_BYTES: usize = 16;

/// Durably replaces the file. On a full disk nothing has changed, and it can be tried again.
pub(crate) fn replace(disk: &dyn Disk, kind: &SealedKind<'_>, body: &[u8]) -> Result<(), StorageError> {
    let mut bytes = Vec::with_capacity(body.len() + FRAME_BYTES);
    bytes.extend_from_slice(&kind.magic);
    bytes.extend_from_slice(&kind.version.to_le_bytes());
    bytes.extend_from_slice(body);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    assert!(bytes.len() as u64 <= FILE_BYTES_MAX, "{} has outgrown its limit: {} bytes", kind.path, bytes.len());
    let temporary = format!("{}.tmp", kind.path);
    if disk.exists(&temporary).map_err(|error| StorageError::io("look for", &temporary, error))? {
        disk.remove(&temporary).map_err(|error| StorageError::io("remove", &temporary, error))?;
    }
    write_whole(disk, &temporary, &bytes)?;
    disk.rename(&temporary, kind.path).map_err(|error| StorageError::io("rename to", kind.path, error))?;
    let dir = kind.path.rsplit_once('/').map_or("", |(dir, _)| dir);
    disk.sync_dir(dir).map_err(|error| StorageError::io("sync directory of", kind.path, error))
}

fn write_whole(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let file = disk.open(path, Access::CreateNew).map_err(|error| StorageError::io("create", path, error))?;
    file.write_at(bytes, 0).map_err(|error| StorageError::io("write", path, error))?;
    file.sync().map_err(|error| StorageError::io("sync", path, error))
}

/// The verified body of the file, `None` when there is no such file.
pub(crate) fn read(disk: &dyn Disk, kind: &SealedKind<'_>) -> Result<Option<Vec<u8>>, StorageError> {
    let path = kind.path;
    let file = match disk.open(path, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| StorageError::io("open", path, error))?,
    };
    let len = file.len().map_err(|error| StorageError::io("measure", path, error))?;
    if !(FRAME_BYTES as u64..=FILE_BYTES_MAX).contains(&len) {
        return Err(StorageError::damaged(
            path,
            0,
            format!("{len} bytes, allowed are {FRAME_BYTES} to {FILE_BYTES_MAX}"),
        ));
    }
    let mut bytes = vec![0; len as usize];
    file.read_at(&mut bytes, 0).map_err(|error| StorageError::io("read", path, error))?;
    if bytes[..8] != kind.magic {
        return Err(StorageError::damaged(path, 0, "the first 8 bytes are not those of this kind of file"));
    }
    let crc_at = bytes.len() - 4;
    let stored = u32::from_le_bytes([bytes[crc_at], bytes[crc_at + 1], bytes[crc_at + 2], bytes[crc_at + 3]]);
    let computed = crc32c::crc32c(&bytes[..crc_at]);
    if stored != computed {
        let what = format!("checksum {stored:08x} is stored, {computed:08x} computed");
        return Err(StorageError::damaged(path, crc_at as u64, what));
    }
    let found = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if found > kind.version {
        return Err(StorageError::NewerVersion { file: path.to_owned(), found, supported: kind.version });
    }
    bytes.truncate(crc_at);
    bytes.drain(..12);
    Ok(Some(bytes))
}

/// The error for a body that its checksum covers but that makes no sense.
pub(crate) fn senseless(kind: &SealedKind<'_>) -> StorageError {
    StorageError::damaged(kind.path, 12, "the checksum is right but the contents make no sense")
}
