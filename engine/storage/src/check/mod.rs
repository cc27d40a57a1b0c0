//! Verifying a whole data directory that no engine is using: every file, every checksum, every gap.
//!
//! Reading only, and not a repair. It uses the readers that a start, history, exports and the archive use, so it
//! judges as they do: a torn tail is repaired by the next start and noted, a hole is damage. Invariants: nothing on the
//! disk is changed; damage in one file keeps none from being read; memory is that of one shard's section and of the
//! index of one file at a time.

mod closed;
mod kept;
mod logs;
mod report;

use std::sync::Arc;

use highwater_ranking::Calendar;

pub use report::{CheckFinding, CheckReport, CheckedFiles, CheckedKind};

use crate::directory::Directory;
use crate::disk::{Access, Disk};
use crate::error::StorageError;
use crate::position::{DirectoryId, parse_segment_name};
use crate::state::StoreState;
use crate::store::{TOP_NAMES, is_log_directory, list, log_directories};

/// Against damage of what every start reads.
const RESTORE: &str = "this is damage and not a torn write: restore the data directory from a backup";

/// Names that are there before a directory is a data directory.
const NAMES_OF_NONE: [&str; 3] = ["lock", "tls", "lost+found"];

/// What all steps need to know of the directory.
struct Context {
    disk: Arc<dyn Disk>,
    calendar: Calendar,
    id: DirectoryId,
    shards: u16,
    /// None where neither the directory file nor any segment says.
    segment_bytes: Option<u64>,
    state: Option<StoreState>,
}

/// Reads everything in a data directory. No engine may be writing to it.
#[must_use]
pub fn check(disk: &Arc<dyn Disk>, calendar: Calendar) -> CheckReport {
    let mut report = CheckReport::default();
    let Some(names) = report.take(CheckedKind::Directory, list(disk, ""), RESTORE) else { return report };
    for name in &names {
        if name.ends_with(".tmp") {
            report.note(format!("{name} was left half made by a crash: the next start replaces it"));
        } else if !TOP_NAMES.contains(&name.as_str()) && !is_log_directory(name) {
            report.note(format!("{name} is none of the engine's"));
        }
    }
    let directory = read_directory(&**disk, &names, &mut report);
    let (owner, state) = read_state(&**disk, directory.as_ref(), &mut report).unzip();
    let Some(context) = context(disk, calendar, directory, owner, state) else {
        if names.iter().any(|name| !NAMES_OF_NONE.contains(&name.as_str())) {
            report.note("nothing else was checked: neither directory.hw nor state.hw says which directory this is");
        }
        return report;
    };
    let covered = closed::check_closed(&context, &mut report);
    logs::check_logs(&context, covered.as_deref(), &mut report);
    kept::check_history(&context, &mut report);
    kept::check_archive(&context, &mut report);
    report
}

fn context(
    disk: &Arc<dyn Disk>,
    calendar: Calendar,
    directory: Option<Directory>,
    owner: Option<DirectoryId>,
    state: Option<StoreState>,
) -> Option<Context> {
    let disk = disk.clone();
    match directory {
        Some(Directory { id, shards, segment_bytes, .. }) => {
            Some(Context { disk, calendar, id, shards, segment_bytes: Some(segment_bytes), state })
        }
        None => {
            let segment_bytes = any_segment_bytes(&*disk).ok().flatten();
            owner.map(|id| Context { disk, calendar, id, shards: u16::MAX, segment_bytes, state })
        }
    }
}

fn read_directory(disk: &dyn Disk, names: &[String], report: &mut CheckReport) -> Option<Directory> {
    let kind = CheckedKind::Directory;
    measure(disk, kind, Directory::PATH, report);
    let read = Directory::read(disk).and_then(|read| {
        read.ok_or_else(|| {
            let why = match names.iter().find(|name| !NAMES_OF_NONE.contains(&name.as_str())) {
                Some(name) => format!("{name} is there, and belongs to a data directory"),
                None => "every data directory has it; is this the right directory?".to_owned(),
            };
            StorageError::Missing { file: Directory::PATH.to_owned(), why }
        })
    });
    let is_none = names.iter().all(|name| NAMES_OF_NONE.contains(&name.as_str()));
    report.take(kind, read, if is_none { "name the directory of an engine" } else { RESTORE })
}

/// The state, and the id of the directory that it is of.
fn read_state(
    disk: &dyn Disk,
    directory: Option<&Directory>,
    report: &mut CheckReport,
) -> Option<(DirectoryId, StoreState)> {
    let kind = CheckedKind::State;
    measure(disk, kind, StoreState::PATH, report);
    let read = match directory {
        Some(directory) => StoreState::read(disk, directory.id).map(|state| state.map(|state| (directory.id, state))),
        None => StoreState::read_any(disk),
    };
    let read = report.take(kind, read, RESTORE)?;
    if read.is_none() && directory.is_some() {
        match first_made_later(disk) {
            Ok(None) => report.note("state.hw is not there yet: the first start was cut short, and the next makes it"),
            Ok(Some(name)) => {
                let why = format!("{name} is there, and is made only after it");
                report.error(kind, StorageError::Missing { file: StoreState::PATH.to_owned(), why }, RESTORE);
            }
            Err(error) => report.error(kind, error, RESTORE),
        }
    }
    read
}

/// A file that is made only after the state file.
fn first_made_later(disk: &dyn Disk) -> Result<Option<String>, StorageError> {
    for dir in [crate::cut::CUTS_DIR, crate::base::BASES_DIR] {
        let ending = |name: &String| name.ends_with(".cut") || name.ends_with(".base");
        if let Some(name) = names_in(disk, dir)?.into_iter().find(ending) {
            return Ok(Some(format!("{dir}/{name}")));
        }
    }
    Ok(segments(disk)?.into_iter().next())
}

/// Paths of all segments.
fn segments(disk: &dyn Disk) -> Result<Vec<String>, StorageError> {
    let mut paths = Vec::new();
    for dir in log_directories(disk)? {
        let names = list(disk, &dir)?;
        let segments = names.iter().filter(|name| parse_segment_name(name).is_some());
        paths.extend(segments.map(|name| format!("{dir}/{name}")));
    }
    Ok(paths)
}

/// The length of some segment.
fn any_segment_bytes(disk: &dyn Disk) -> Result<Option<u64>, StorageError> {
    let Some(path) = segments(disk)?.into_iter().next() else { return Ok(None) };
    let len = file_len(disk, &path)?;
    Ok(Some(len).filter(|len| *len > 0 && len.is_multiple_of(crate::position::BLOCK_BYTES as u64)))
}

fn file_len(disk: &dyn Disk, path: &str) -> Result<u64, StorageError> {
    let file = disk.open(path, Access::Read).map_err(|error| StorageError::io("open", path, error))?;
    file.len().map_err(|error| StorageError::io("measure", path, error))
}

/// Counts a file that may be there; whether it can be read is told by whoever reads it.
fn measure(disk: &dyn Disk, kind: CheckedKind, path: &str, report: &mut CheckReport) {
    if let Ok(bytes) = file_len(disk, path) {
        report.add(kind, CheckedFiles { files: 1, bytes, ..CheckedFiles::default() });
    }
}

/// Names in a directory, which may not be there.
fn names_in(disk: &dyn Disk, dir: &str) -> Result<Vec<String>, StorageError> {
    if crate::store::exists(disk, dir)? { list(disk, dir) } else { Ok(Vec::new()) }
}

/// What the names in a directory stand for, in order; names that stand for nothing are noted.
fn known<T>(
    context: &Context,
    kind: CheckedKind,
    dir: &str,
    parse: impl Fn(&str) -> Option<T>,
    report: &mut CheckReport,
) -> Vec<(String, T)> {
    let mut found = Vec::new();
    for name in report.take(kind, names_in(&*context.disk, dir), RESTORE).unwrap_or_default() {
        match parse(&name) {
            Some(known) => found.push((format!("{dir}/{name}"), known)),
            None if name.ends_with(".tmp") => {
                report.note(format!("{dir}/{name} was left half made by a crash: the next start removes it"));
            }
            None => report.note(format!("{dir}/{name} is none of the engine's")),
        }
    }
    found
}
