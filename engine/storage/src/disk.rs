//! The seam between the rules of storage and a real or simulated disk.
//!
//! Blocking calls for helper threads; the pinned core writes through
//! [`LogDevice`](crate::LogDevice) instead. Invariant that callers rely on: what was written is
//! durable only after [`DiskFile::sync`], and a name only after [`Disk::sync_dir`] on its directory.

use std::io;
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Existing file, reading only.
    Read,
    /// Existing file, reading and writing.
    Write,
    /// New file, reading and writing; an existing one of that name is an error.
    CreateNew,
    /// As [`Access::CreateNew`], past the system's cache where the file system can: what is written starts and ends at
    /// multiples of 4 KiB, in memory (`AlignedBuffer`) as in the file.
    CreateDirect,
}

/// A data directory. Paths are relative to it, with `/` between a directory and a name; at most
/// one directory deep.
pub trait Disk: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>>;

    /// Names of the files and directories in `dir` ("" is the data directory), sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes a directory in the data directory; one that is there already is fine.
    fn create_dir(&self, dir: &str) -> io::Result<()>;

    /// Whether a file or directory of that name is there.
    fn exists(&self, path: &str) -> io::Result<bool>;

    /// Gives a file another name in the same directory, replacing a file of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Makes the names in `dir` durable ("" is the data directory).
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes that can still be allocated.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. It stays usable when its name changes.
#[allow(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")]
pub trait DiskFile: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes and says how many; none only at the end of the file or for an empty buffer.
    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Reads exactly `buffer.len()` bytes, in as many reads as it takes; an earlier end of file is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all bytes, extending the file where needed.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes contents and length durable.
    fn sync(&self) -> io::Result<()>;
}

impl<D: Disk + ?Sized> Disk for Arc<D> {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        (**self).open(path, access)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        (**self).list(dir)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        (**self).create_dir(dir)
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        (**self).exists(path)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        (**self).rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        (**self).remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        (**self).sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        (**self).free_bytes()
    }
}
