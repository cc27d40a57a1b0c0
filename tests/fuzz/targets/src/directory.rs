//! A data directory in memory that holds the files of an input.

use std::sync::Arc;

use highwater_proto::InstanceId;
use highwater_storage::{Access, Directory, DirectoryId, Disk, MemoryDisk, OpenOptions};

use crate::seals::small_file;

/// Whose files they are.
pub const DIRECTORY: DirectoryId = DirectoryId(7);
/// Its shards.
pub const SHARDS: u16 = 3;
/// Length of a segment: as short as lets a search go through many.
pub const SEGMENT_BYTES: u64 = 8 << 10;

/// What is fixed for the directory.
#[must_use]
pub const fn directory() -> Directory {
    Directory {
        id: DIRECTORY,
        instance: InstanceId(5),
        hash_seed: 77,
        shards: SHARDS,
        lateness_max_ms: 600_000,
        segment_bytes: SEGMENT_BYTES,
    }
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions { cut_reserve_bytes: 0, ..OpenOptions::new(directory()) }
}

fn directory_file() -> Vec<u8> {
    let Directory { id, instance, hash_seed, shards, lateness_max_ms, segment_bytes } = directory();
    let mut body = [id.0.to_le_bytes(), instance.0.to_le_bytes()].concat();
    body.extend_from_slice(&hash_seed.to_le_bytes());
    body.extend_from_slice(&shards.to_le_bytes());
    body.extend_from_slice(&lateness_max_ms.to_le_bytes());
    body.extend_from_slice(&segment_bytes.to_le_bytes());
    small_file(b"HWDIRECT", 1, &body)
}

/// The state file of a directory whose generation 1 is written by so many logs.
#[must_use]
pub fn state_file(logs_open: u32) -> Vec<u8> {
    let mut body = DIRECTORY.0.to_le_bytes().to_vec();
    body.extend_from_slice(&0u64.to_le_bytes());
    for number in [0, 1, logs_open] {
        body.extend_from_slice(&u32::to_le_bytes(number));
    }
    body.extend_from_slice(&[0; 12]);
    small_file(b"HWSTATE\0", 1, &body)
}

/// A disk with these files in it.
pub(crate) fn disk(files: &[(&str, &[u8])]) -> MemoryDisk {
    let disk = MemoryDisk::new();
    for (path, bytes) in files {
        if let Some((dir, _)) = path.rsplit_once('/') {
            disk.create_dir(dir).expect("a directory can be made");
        }
        let file = disk.open(path, Access::CreateNew).expect("a file can be made");
        file.write_at(bytes, 0).expect("a file can be written");
    }
    disk
}

/// A data directory with these files besides those that each has.
pub(crate) fn data_directory(files: &[(&str, &[u8])]) -> MemoryDisk {
    let (directory, state) = (directory_file(), state_file(1));
    let own: [(&str, &[u8]); 2] = [("directory.hw", &directory), ("state.hw", &state)];
    disk(&[&own[..], files].concat())
}

pub(crate) fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

/// An input whose first byte says whether checksums are made right by `mend`, and the file behind it.
pub(crate) fn mended(data: &[u8], mend: impl FnOnce(&mut [u8])) -> Option<Vec<u8>> {
    let (mode, file) = data.split_first()?;
    let mut file = file.to_vec();
    if mode & 1 == 1 {
        mend(&mut file);
    }
    Some(file)
}
