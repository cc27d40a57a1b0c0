//! Checking what no start needs: the lists of closed periods, and the archive.
//!
//! Not whether they agree with the counts, which is an audit's. Invariant: each file is read by the code that serves
//! or exports it.

use super::{Context, RESTORE, known, measure};
use crate::archive::{ARCHIVE_DIR, archive_path, parse_archive_name, verify_archive_file};
use crate::check::report::{CheckReport, CheckedFiles, CheckedKind};
use crate::error::StorageError;
use crate::history::{CLOSED_PATH, HISTORY_DIR, History, parse_list_name};

const LIST_REMEDY: &str =
    "the engine starts, but cannot serve the list of this period: restore this file from a backup";
const ARCHIVE_REMEDY: &str = "the engine starts without it, but exports of views and audits end at it: restore this \
                              file from a backup, or remove it and do without its views";

/// What a name in the directory of the lists stands for.
enum Name {
    Closed,
    List(highwater_ranking::CalendarPeriod, highwater_ranking::Minute),
}

fn parse_history_name(name: &str) -> Option<Name> {
    if Some(name) == CLOSED_PATH.rsplit('/').next() {
        return Some(Name::Closed);
    }
    parse_list_name(name).map(|(kind, start)| Name::List(kind, start))
}

pub(super) fn check_history(context: &Context, report: &mut CheckReport) {
    let kind = CheckedKind::History;
    let history = History::read_only(context.disk.clone(), context.id);
    let mut has_closed = false;
    let mut a_list = None;
    for (path, name) in known(context, kind, HISTORY_DIR, parse_history_name, report) {
        measure(&*context.disk, kind, &path, report);
        match name {
            Name::Closed => {
                has_closed = true;
                report.take(kind, history.needs(), RESTORE);
            }
            Name::List(of, start) => {
                let list = report.take(kind, history.list(of, start), LIST_REMEDY).flatten();
                let records = list.map_or(0, |list| list.rows.len() as u64);
                report.add(kind, CheckedFiles { records, ..CheckedFiles::default() });
                a_list.get_or_insert(path);
            }
        }
    }
    if let Some(path) = a_list.filter(|_| !has_closed) {
        let why = format!("{path} is there, and is made only after it");
        report.error(kind, StorageError::Missing { file: CLOSED_PATH.to_owned(), why }, RESTORE);
    }
}

pub(super) fn check_archive(context: &Context, report: &mut CheckReport) {
    let kind = CheckedKind::Archive;
    let parse = |name: &str| {
        let key = parse_archive_name(name)?;
        (archive_path(key) == format!("{ARCHIVE_DIR}/{name}")).then_some(key)
    };
    for (path, key) in known(context, kind, ARCHIVE_DIR, parse, report) {
        measure(&*context.disk, kind, &path, report);
        let read = verify_archive_file(&*context.disk, context.id, key);
        if let Some((records, views)) = report.take(kind, read, ARCHIVE_REMEDY) {
            report.add(kind, CheckedFiles { records, views, ..CheckedFiles::default() });
        }
    }
}
