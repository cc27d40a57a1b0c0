//! What is in a data directory before it is read: whether it is one, what is fixed for it, what a crash left half made.
//!
//! Not the contents of logs and closed files. Invariant: nothing is made in a directory that holds files of others,
//! and no name is believed that a power cut could take away.

use super::OpenOptions;
use crate::archive::ARCHIVE_DIR;
use crate::base::{BASES_DIR, base_path, parse_base_name};
use crate::cut::{CUTS_DIR, cut_path, parse_cut_name};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::history::HISTORY_DIR;
use crate::position::{LogNumber, LogPosition, parse_segment_name};
use crate::rollup::ROLLUPS_DIR;
use crate::state::StoreState;

/// Directories of closed files.
pub(super) const CLOSED_DIRS: [&str; 4] = [CUTS_DIR, ROLLUPS_DIR, BASES_DIR, ARCHIVE_DIR];

/// What may be in a directory that is to become a data directory: the lock and keys are made before it is one, and a
/// file system of its own begins with a folder of its own.
const NAMES_ALLOWED_BEFORE: [&str; 4] = ["lock", "directory.hw.tmp", "tls", "lost+found"];

/// What else may stand in a data directory, besides the directories of the logs.
pub(crate) const TOP_NAMES: [&str; 10] = [
    "lock",
    "tls",
    "lost+found",
    Directory::PATH,
    StoreState::PATH,
    CUTS_DIR,
    ROLLUPS_DIR,
    BASES_DIR,
    HISTORY_DIR,
    ARCHIVE_DIR,
];

/// Of the names in a directory the first that keeps it from becoming a data directory; none when it is one already.
#[must_use]
pub fn stranger(names: &[String]) -> Option<&str> {
    if names.iter().any(|name| name == Directory::PATH || is_made_later(name)) {
        return None;
    }
    names.iter().map(String::as_str).find(|name| !NAMES_ALLOWED_BEFORE.contains(name))
}

/// Whether this is made only after the directory file.
fn is_made_later(name: &str) -> bool {
    name == StoreState::PATH || name == HISTORY_DIR || CLOSED_DIRS.contains(&name) || is_log_directory(name)
}

pub(crate) fn exists(disk: &dyn Disk, path: &str) -> Result<bool, StorageError> {
    disk.exists(path).map_err(|error| StorageError::io("look for", path, error))
}

pub(crate) fn list(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, StorageError> {
    disk.list(dir).map_err(|error| StorageError::io("list", if dir.is_empty() { "." } else { dir }, error))
}

pub(super) fn open_directory(disk: &dyn Disk, options: &OpenOptions) -> Result<Directory, StorageError> {
    let Some(directory) = Directory::read(disk)? else {
        options.create.check()?;
        if let Some(name) = list(disk, "")?.into_iter().find(|name| is_made_later(name)) {
            let why = format!("{name} is there, and belongs to a data directory");
            return Err(StorageError::Missing { file: Directory::PATH.to_owned(), why });
        }
        options.create.write(disk)?;
        return Ok(options.create);
    };
    // Whoever wrote it may have been killed before the name was durable, and nothing is made before it is.
    disk.sync_dir("").map_err(|error| StorageError::io("sync directory", ".", error))?;
    if let Some(requested) = options.require_shards.filter(|shards| *shards != directory.shards) {
        let (requested, stored) = (u64::from(requested), u64::from(directory.shards));
        return Err(StorageError::FixedSetting { setting: "shards", requested, stored });
    }
    if let Some(requested) = options.require_lateness_max_ms.filter(|late| *late != directory.lateness_max_ms) {
        let stored = directory.lateness_max_ms;
        return Err(StorageError::FixedSetting { setting: "lateness_max_ms", requested, stored });
    }
    Ok(directory)
}

pub(super) fn open_state(disk: &dyn Disk, directory: &Directory) -> Result<StoreState, StorageError> {
    if let Some(state) = StoreState::read(disk, directory.id)? {
        return Ok(state);
    }
    let mut held = list(disk, CUTS_DIR)?.into_iter().find(|name| name.ends_with(".cut"));
    held = held.or(list(disk, BASES_DIR)?.into_iter().find(|name| name.ends_with(".base")));
    for dir in log_directories(disk)? {
        held = held.or(list(disk, &dir)?.into_iter().find(|name| parse_segment_name(name).is_some()));
    }
    if let Some(name) = held {
        let why = format!("{name} is there, and is made only after it");
        return Err(StorageError::Missing { file: StoreState::PATH.to_owned(), why });
    }
    let state = StoreState::default();
    state.write(disk, directory.id)?;
    Ok(state)
}

/// The file that says up to where the logs are covered: the newest cut, or else the newest base.
fn newest_closed(disk: &dyn Disk) -> Result<String, StorageError> {
    let newest = |dir, parse: fn(&str) -> Option<u64>| -> Result<Option<u64>, StorageError> {
        Ok(list(disk, dir)?.iter().filter_map(|name| parse(name)).max())
    };
    if let Some(number) = newest(CUTS_DIR, parse_cut_name)? {
        return Ok(cut_path(number));
    }
    Ok(base_path(newest(BASES_DIR, parse_base_name)?.unwrap_or(0)))
}

/// Refuses a state that is not the newest: one that a disk, a copy or a hand has put back. What it does not know of
/// would be given up, or counted twice.
pub(crate) fn refuse_older_state(
    disk: &dyn Disk,
    state: &StoreState,
    covered: &[(LogNumber, LogPosition)],
) -> Result<(), StorageError> {
    let known = state.generation;
    let refuse = |holder: String, newest: u32| {
        let what = format!(
            "it knows log generations up to {known}, but {holder} of generation {newest}: it is older than the rest"
        );
        Err(StorageError::damaged(StoreState::PATH, 0, what))
    };
    if let Some((_, position)) = covered.iter().find(|(_, position)| position.generation > known) {
        return refuse(format!("{} covers records", newest_closed(disk)?), position.generation);
    }
    for dir in log_directories(disk)? {
        let of_later = |name: &String| parse_segment_name(name).is_some_and(|(generation, _)| generation > known);
        if let Some(name) = list(disk, &dir)?.iter().find(|name| of_later(name)) {
            let newest = parse_segment_name(name).map_or(0, |(generation, _)| generation);
            return refuse(format!("{dir}/{name} is"), newest);
        }
    }
    Ok(())
}

pub(crate) fn is_log_directory(name: &str) -> bool {
    name.strip_prefix("log-").is_some_and(|number| number.parse::<u32>().is_ok())
}

pub(crate) fn log_directories(disk: &dyn Disk) -> Result<Vec<String>, StorageError> {
    Ok(list(disk, "")?.into_iter().filter(|name| is_log_directory(name)).collect())
}

/// Makes every name durable before it is believed: a killed process may have left some that a power cut would take
/// away.
pub(super) fn sync_names(disk: &dyn Disk) -> Result<(), StorageError> {
    let mut dirs = log_directories(disk)?;
    dirs.extend(CLOSED_DIRS.map(str::to_owned));
    dirs.push(String::new());
    for dir in dirs {
        disk.sync_dir(&dir).map_err(|error| StorageError::io("sync directory", &dir, error))?;
    }
    Ok(())
}

/// Removes what a crash left half made.
pub(super) fn remove_temporary_files(disk: &dyn Disk) -> Result<(), StorageError> {
    let mut dirs = log_directories(disk)?;
    dirs.extend(CLOSED_DIRS.map(str::to_owned));
    for dir in dirs {
        for name in list(disk, &dir)?.iter().filter(|name| name.ends_with(".tmp")) {
            let path = format!("{dir}/{name}");
            disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
        }
    }
    Ok(())
}
