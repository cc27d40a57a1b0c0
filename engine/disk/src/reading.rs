//! A data directory that is only looked at: by another process than the engine's, beside it or without one.
//!
//! Blocking. Invariant: nothing is made, changed or removed, and nothing locked unless it is asked for; whatever would
//! is refused.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_storage::{Access, Disk, DiskFile};
use rustix::fs::{FlockOperation, flock};

use crate::files::{FileDiskError, LOCK_FILE, OpenFile, names_in};

/// A data directory, for reading.
#[derive(Debug, Clone)]
pub struct ReadingDisk {
    root: PathBuf,
    /// Keeps engines away until the last clone is gone.
    _lock: Option<Arc<File>>,
}

impl ReadingDisk {
    /// Takes a directory that is there. Files may come and go while it is read.
    ///
    /// # Errors
    /// When it is not there, cannot be listed, or is the engine's in no way.
    pub fn open(root: &Path) -> Result<Self, FileDiskError> {
        let path = || root.display().to_string();
        if root.exists() && !root.is_dir() {
            return Err(FileDiskError::NoDirectory { path: path() });
        }
        let names = names_in(root).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => FileDiskError::Absent { path: path() },
            _ => FileDiskError::Io { operation: "list", path: path(), source },
        })?;
        if let Some(stranger) = highwater_storage::stranger(&names) {
            return Err(FileDiskError::Foreign { path: path(), stranger: stranger.to_owned() });
        }
        Ok(Self { root: root.to_owned(), _lock: None })
    }

    /// Takes a directory that no engine has, and keeps engines away from it; other readers may have it meanwhile.
    ///
    /// # Errors
    /// As of [`open`](Self::open), and when an engine has it.
    pub fn open_at_rest(root: &Path) -> Result<Self, FileDiskError> {
        let disk = Self::open(root)?;
        let path = || root.display().to_string();
        let failed = |operation, source| FileDiskError::Io { operation, path: path(), source };
        let lock = match File::open(root.join(LOCK_FILE)) {
            // No engine has ever had it under this name, as with a copy.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(disk),
            opened => opened.map_err(|source| failed("open the lock of", source))?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(Self { _lock: Some(Arc::new(lock)), ..disk }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FileDiskError::InUse { path: path() }),
            Err(errno) => Err(failed("lock", errno.into())),
        }
    }

    fn path(&self, relative: &str) -> PathBuf {
        if relative.is_empty() { self.root.clone() } else { self.root.join(relative) }
    }
}

impl Disk for ReadingDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        match access {
            Access::Read => Ok(Box::new(OpenFile { file: File::open(self.path(path))? })),
            Access::Write | Access::CreateNew | Access::CreateDirect => Err(refused()),
        }
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        names_in(&self.path(dir))
    }

    fn create_dir(&self, _dir: &str) -> io::Result<()> {
        Err(refused())
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        self.path(path).try_exists()
    }

    fn rename(&self, _from: &str, _to: &str) -> io::Result<()> {
        Err(refused())
    }

    fn remove(&self, _path: &str) -> io::Result<()> {
        Err(refused())
    }

    fn sync_dir(&self, _dir: &str) -> io::Result<()> {
        Err(refused())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(0)
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the data directory was opened for reading only")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FileDisk;

    #[test]
    fn it_reads_beside_an_engine_and_changes_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("data");
        assert!(matches!(ReadingDisk::open(&root), Err(FileDiskError::Absent { .. })));
        assert!(!root.exists());
        let engine = FileDisk::open(&root).unwrap();
        engine.create_dir("cuts").unwrap();
        engine.open("cuts/a", Access::CreateNew).unwrap().write_at(b"hello", 0).unwrap();
        let disk = ReadingDisk::open(&root).unwrap();
        assert_eq!(disk.list("cuts").unwrap(), ["a"]);
        let file = disk.open("cuts/a", Access::Read).unwrap();
        engine.remove("cuts/a").unwrap();
        let mut bytes = [0; 5];
        file.read_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"hello", "an open file stays");
        assert!(file.write_at(b"x", 0).is_err());
        assert!(disk.open("cuts/b", Access::CreateNew).is_err() && disk.create_dir("more").is_err());
        assert!(disk.open("lock", Access::Write).is_err() && disk.remove("lock").is_err());
        assert!(disk.rename("lock", "key").is_err());
        assert_eq!(disk.list("").unwrap(), ["cuts", "lock"]);
    }

    #[test]
    fn a_directory_at_rest_is_kept_from_engines_and_shared_with_readers() {
        let temporary = tempfile::tempdir().unwrap();
        ReadingDisk::open_at_rest(temporary.path()).unwrap();
        assert!(!temporary.path().join("lock").exists(), "nothing is made");
        let engine = FileDisk::open(temporary.path()).unwrap();
        let in_use = |error| matches!(error, FileDiskError::InUse { .. });
        assert!(in_use(ReadingDisk::open_at_rest(temporary.path()).unwrap_err()));
        drop(engine);
        let reader = ReadingDisk::open_at_rest(temporary.path()).unwrap();
        let other = ReadingDisk::open_at_rest(temporary.path()).unwrap().clone();
        assert!(in_use(FileDisk::open(temporary.path()).unwrap_err()));
        drop((reader, other));
        FileDisk::open(temporary.path()).unwrap();
    }

    #[test]
    fn what_is_not_the_engines_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::write(temporary.path().join("thesis.txt"), "mine").unwrap();
        assert!(matches!(ReadingDisk::open(temporary.path()), Err(FileDiskError::Foreign { .. })));
        let file = temporary.path().join("thesis.txt");
        assert!(matches!(ReadingDisk::open(&file), Err(FileDiskError::NoDirectory { .. })));
    }
}
