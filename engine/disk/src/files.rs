//! A data directory on a file system, locked against a second engine.
//!
//! Blocking, for helper threads; not the log's own writes. Invariant: while a [`FileDisk`] lives, no other process has
//! one on the same directory. Sources: flock(2), fsync(2), statvfs(3).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use highwater_storage::{Access, Disk, DiskFile};
use rustix::fs::{FlockOperation, flock, statvfs};

pub(crate) const LOCK_FILE: &str = "lock";
/// Owner reads and writes, group reads.
const FILE_MODE: u32 = 0o640;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileDiskError {
    /// Another process has it.
    #[error(
        "data directory {path} is in use by another process (it holds {path}/lock); stop that one, or use another directory"
    )]
    InUse {
        /// The data directory.
        path: String,
    },
    /// There is nothing to read.
    #[error("data directory {path} is not there; name an engine's by --data-dir")]
    Absent {
        /// The path.
        path: String,
    },
    /// The path is that of something else.
    #[error("data directory {path} is no directory; name a directory by --data-dir, or remove what is there")]
    NoDirectory {
        /// The path.
        path: String,
    },
    /// A new data directory would be made among the files of others.
    #[error(
        "{path} is no data directory, and holds {stranger:?}, which is none of the engine's: nothing was changed; name an \
         empty or a new directory by --data-dir"
    )]
    Foreign {
        /// The directory.
        path: String,
        /// What was found in it.
        stranger: String,
    },
    /// The operating system refuses.
    #[error("cannot {operation} data directory {path}: {source}; {}", highwater_storage::remedy(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The data directory.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A data directory, locked.
#[derive(Debug)]
pub struct FileDisk {
    root: PathBuf,
    /// Holds the lock until it is closed.
    _lock: File,
}

impl FileDisk {
    /// Makes the directory where it is not there, and locks it.
    ///
    /// # Errors
    /// When another process has it, it cannot be made or opened, or it is not the engine's.
    pub fn open(root: &Path) -> Result<Self, FileDiskError> {
        let path = || root.display().to_string();
        let failed = |operation| move |source| FileDiskError::Io { operation, path: path(), source };
        if root.exists() && !root.is_dir() {
            return Err(FileDiskError::NoDirectory { path: path() });
        }
        std::fs::create_dir_all(root).map_err(failed("create"))?;
        let names = names_in(root).map_err(failed("list"))?;
        if let Some(stranger) = highwater_storage::stranger(&names) {
            return Err(FileDiskError::Foreign { path: path(), stranger: stranger.to_owned() });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = options.open(root.join(LOCK_FILE)).map_err(failed("open the lock of"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FileDiskError::InUse { path: path() }),
            Err(errno) => Err(failed("lock")(errno.into())),
        }
    }

    /// The data directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, relative: &str) -> PathBuf {
        if relative.is_empty() { self.root.clone() } else { self.root.join(relative) }
    }
}

impl Disk for FileDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::CreateNew => {
                options.write(true).create_new(true);
            }
            Access::CreateDirect => {
                options.write(true).create_new(true).custom_flags(libc::O_DIRECT);
                match options.open(self.path(path)) {
                    // A file system without it; some leave the name behind.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        options.create_new(false).create(true).truncate(true).custom_flags(0);
                    }
                    opened => return Ok(Box::new(OpenFile { file: opened? })),
                }
            }
        }
        Ok(Box::new(OpenFile { file: options.open(self.path(path))? }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        names_in(&self.path(dir))
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        match std::fs::create_dir(self.path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.path(dir).is_dir() => Ok(()),
            made => made,
        }
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.path(path).try_exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        std::fs::remove_file(self.path(path))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let figures = statvfs(&self.root)?;
        Ok(figures.f_bavail.saturating_mul(figures.f_frsize))
    }
}

/// Names in a directory, sorted.
pub(crate) fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        // Names that are no UTF-8 are not the engine's.
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// A file as the engine reads and writes it: at an offset.
pub(crate) struct OpenFile {
    pub(crate) file: File,
}

impl DiskFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_renamed_and_listed() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(&temporary.path().join("data")).unwrap();
        disk.create_dir("cuts").unwrap();
        disk.create_dir("cuts").unwrap();
        let file = disk.open("cuts/a.tmp", Access::CreateNew).unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 8);
        disk.rename("cuts/a.tmp", "cuts/a").unwrap();
        disk.sync_dir("cuts").unwrap();
        disk.sync_dir("").unwrap();
        let mut bytes = [1; 8];
        disk.open("cuts/a", Access::Read).unwrap().read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0\0hello");
        assert!(disk.open("cuts/a", Access::Read).unwrap().read_at(&mut [0; 9], 0).is_err());
        assert!(disk.open("cuts/a", Access::CreateNew).is_err());
        assert_eq!(disk.list("cuts").unwrap(), ["a"]);
        assert!(disk.exists("cuts/a").unwrap() && !disk.exists("cuts/b").unwrap());
        disk.remove("cuts/a").unwrap();
        assert!(disk.free_bytes().unwrap() > 0);
    }

    #[test]
    fn what_is_not_the_engines_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("lost+found")).unwrap();
        FileDisk::open(temporary.path()).unwrap();
        std::fs::remove_file(temporary.path().join("lock")).unwrap();
        std::fs::write(temporary.path().join("thesis.txt"), "mine").unwrap();
        let error = FileDisk::open(temporary.path()).unwrap_err();
        assert!(matches!(&error, FileDiskError::Foreign { stranger, .. } if stranger == "thesis.txt"), "{error}");
        assert!(!temporary.path().join("lock").exists(), "nothing was made");
        let file = temporary.path().join("thesis.txt");
        assert!(matches!(FileDisk::open(&file), Err(FileDiskError::NoDirectory { .. })));
        std::fs::write(temporary.path().join("directory.hw"), "an engine's").unwrap();
        FileDisk::open(temporary.path()).unwrap();
    }

    #[test]
    fn a_second_engine_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let first = FileDisk::open(temporary.path()).unwrap();
        let error = FileDisk::open(temporary.path()).unwrap_err();
        assert!(matches!(error, FileDiskError::InUse { .. }), "{error}");
        drop(first);
        FileDisk::open(temporary.path()).unwrap();
    }
}
