//! What can go wrong with the data directory, in words an operator can act on.
//!
//! Not for overload of the running engine: that is [`AppendRoom`](crate::AppendRoom). Invariant: every text names the
//! file, the value found, the limit or the expectation, and the remedy.

use std::io;

/// Why the data directory could not be read, written or believed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused an operation.
    #[error("{operation} {file}: {source}; {}", remedy(source))]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file, relative to the data directory.
        file: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Too little room for the next file.
    #[error(
        "{file}: needs {needed_bytes} bytes besides a reserve of {reserve_bytes}, but {free_bytes} are free; free space on the data directory's file system"
    )]
    NoSpace {
        /// The file that was to be made.
        file: String,
        /// Its length.
        needed_bytes: u64,
        /// What is kept for cut files.
        reserve_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// Bytes that no power cut can leave.
    #[error(
        "{file} at byte {offset}: {what}; this is damage and not a torn write: restore the data directory from a backup"
    )]
    Damaged {
        /// The file, relative to the data directory.
        file: String,
        /// Byte within the file.
        offset: u64,
        /// What was found and what was expected.
        what: String,
    },
    /// A bad record before an acknowledged one.
    #[error(
        "{file} at byte {offset}: no valid record, but the record in {witness_file} at byte {witness_offset} states that the log was durable to logical byte {stated_prefix}; acknowledged views are missing: restore the data directory from a backup"
    )]
    LogHole {
        /// The file with the bad record.
        file: String,
        /// Byte within the file.
        offset: u64,
        /// File of the later record that proves the hole.
        witness_file: String,
        /// Its byte within that file.
        witness_offset: u64,
        /// The durable prefix it states.
        stated_prefix: u64,
    },
    /// A file that must be there is not.
    #[error("{file} is missing: {why}; restore the data directory from a backup")]
    Missing {
        /// The file, relative to the data directory.
        file: String,
        /// Why it must be there.
        why: String,
    },
    /// Written by a newer engine.
    #[error(
        "{file} has format version {found}, this engine reads up to {supported}; start the newer engine that wrote it"
    )]
    NewerVersion {
        /// The file, relative to the data directory.
        file: String,
        /// The version in the file.
        found: u32,
        /// The newest version this engine reads.
        supported: u32,
    },
    /// The file belongs to another data directory.
    #[error(
        "{file} belongs to data directory {found}, this one is {expected}; remove the foreign file or restore the right one"
    )]
    ForeignFile {
        /// The file, relative to the data directory.
        file: String,
        /// Directory id in the file, in hex.
        found: String,
        /// Directory id of this data directory, in hex.
        expected: String,
    },
    /// A setting that is fixed when the directory is created differs.
    #[error(
        "{setting} is {requested}, but this data directory was created with {stored}; start with {setting} {stored}, or use a new directory"
    )]
    FixedSetting {
        /// Name of the setting.
        setting: &'static str,
        /// What this start asked for.
        requested: u64,
        /// What the directory was created with.
        stored: u64,
    },
    /// A setting outside of what is possible.
    #[error("{setting} is {requested}, allowed is {allowed}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// What this start asked for.
        requested: u64,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl StorageError {
    /// Wraps an error of the operating system.
    pub(crate) fn io(operation: &'static str, file: &str, source: io::Error) -> Self {
        Self::Io { operation, file: file.to_owned(), source }
    }

    /// Names damage.
    pub(crate) fn damaged(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { file: file.to_owned(), offset, what: what.into() }
    }

    /// Whether a file is not there that was there, or must be: a reader beside a running engine looks again.
    pub(crate) fn is_vanished_file(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Whether the disk is full: batches are refused, the engine goes on.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            // After a failed sync of names nobody knows what is durable, so that is no mere lack of room. One of a
            // file's content is: it bears no name yet that anybody reads, and is thrown away and made anew.
            Self::Io { operation, source, .. } => is_full(source) && !operation.starts_with("sync directory"),
            _ => false,
        }
    }
}

/// Whether the disk, or what the user may have of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What an operator can do about an error of the operating system with the data directory.
#[must_use]
pub fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if is_full(error) => "free space on the data directory's file system, or raise the quota",
        io::ErrorKind::FileTooLarge => {
            "the limit on the length of a file is too low: raise it by `ulimit -f unlimited` or LimitFSIZE=infinity, \
             then start again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "the file system is mounted read-only: see the kernel's log for why, and mount it writable by \
             `mount -o remount,rw`"
        }
        io::ErrorKind::PermissionDenied => {
            "the engine's user has no right to it: give it the whole data directory by `chown -R USER DIR`"
        }
        _ => "check the disk and the rights on the data directory, then start again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_their_own_remedies() {
        let text = |kind| StorageError::io("write", "state.hw.tmp", io::Error::from(kind)).to_string();
        assert!(text(io::ErrorKind::StorageFull).contains("free space"));
        assert!(text(io::ErrorKind::FileTooLarge).contains("ulimit -f unlimited"));
        assert!(text(io::ErrorKind::ReadOnlyFilesystem).contains("remount,rw"));
        assert!(text(io::ErrorKind::PermissionDenied).contains("chown"));
        assert!(text(io::ErrorKind::Other).contains("check the disk"));
    }

    #[test]
    fn only_what_left_nothing_in_doubt_is_a_full_disk() {
        let error = |operation, kind| StorageError::io(operation, "cuts", io::Error::from(kind));
        assert!(error("write", io::ErrorKind::StorageFull).is_no_space());
        assert!(error("create", io::ErrorKind::QuotaExceeded).is_no_space());
        assert!(!error("write", io::ErrorKind::FileTooLarge).is_no_space());
        assert!(!error("sync directory", io::ErrorKind::StorageFull).is_no_space());
    }
}
