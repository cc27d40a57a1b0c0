//! Small sealed files: closed lists, how far periods are closed, what is fixed for a directory, its state.
//!
//! Input: which file, then either its body, which is sealed rightly, or the whole file as it is.

use highwater_ranking::{Calendar, CalendarPeriod, Minute};
use highwater_storage::{CLOSED_ROWS_MAX, History, MemoryDisk, OpenOptions, StorageError, Store, Tables};

use crate::bounds::{assert_told, bounded};
use crate::directory::{DIRECTORY, data_directory, disk, options, shared};
use crate::seals::{list_file, small_file};

const LIST: &str = "history/hour-0000000060.top";
const CLOSED: &str = "history/closed.hw";
const START: Minute = Minute(60);
/// Of `state.hw`: behind its seal, the directory, the lease and the minute.
const GENERATION_AT: usize = 12 + 16 + 8 + 4;
/// A row of two bytes becomes a text of its own and an entry of 24, in a list that may hold twice as many while it
/// grows.
const FACTOR: usize = 64;
const CONSTANT_BYTES: usize = 4096;

/// Even modes are closed lists, odd ones `closed.hw`; from 2 on the bytes are a body.
pub(crate) fn history(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let file = match mode % 4 {
        2 => list_file(bytes),
        3 => small_file(b"HWCLOSED", 1, bytes),
        _ => bytes.to_vec(),
    };
    if mode & 1 == 0 { list(&file) } else { closed(&file) }
}

fn list(file: &[u8]) {
    let disk = disk(&[(LIST, file)]);
    let history = History::read_only(shared(&disk), DIRECTORY);
    let head = history.periods(CalendarPeriod::Hour, None, 9);
    let list = match bounded(file.len(), FACTOR, CONSTANT_BYTES, || history.list(CalendarPeriod::Hour, START)) {
        Ok(list) => list.expect("there is a file"),
        Err(error) => return assert_told(&error, &[LIST]),
    };
    assert_eq!(head.expect("the head of a sound list is sound"), [list.period()]);
    assert!(list.rows.len() <= CLOSED_ROWS_MAX && list.rows.iter().map(|row| row.1).sum::<u64>() <= list.total_views);
    let (again, _) = new_history();
    again.write(&list).expect("there is room");
    assert_eq!(again.list(CalendarPeriod::Hour, START).expect("it was just written"), Some(list));
}

fn new_history() -> (History, MemoryDisk) {
    let disk = disk(&[]);
    (History::open(shared(&disk), DIRECTORY).expect("there is room"), disk)
}

fn closed(file: &[u8]) {
    let history = History::read_only(shared(&disk(&[(CLOSED, file)])), DIRECTORY);
    let (again, _) = new_history();
    for kind in CalendarPeriod::ALL {
        match bounded(file.len(), FACTOR, CONSTANT_BYTES, || history.closed_up_to(kind)) {
            Ok(Some(minute)) => {
                again.set_closed(kind, minute).expect("there is room");
                assert_eq!(again.closed_up_to(kind).expect("it was just written"), Some(minute));
            }
            Ok(None) => assert_eq!(again.closed_up_to(kind).expect("it was made new"), None),
            Err(error) => assert_told(&error, &[CLOSED]),
        }
    }
}

/// Even modes are `directory.hw`, odd ones `state.hw`; from 2 on the bytes are a body.
pub(crate) fn state(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let file = match mode % 4 {
        2 => small_file(b"HWDIRECT", 1, bytes),
        3 => small_file(b"HWSTATE\0", 1, bytes),
        _ => bytes.to_vec(),
    };
    if mode & 1 == 0 { directory_file(&file) } else { store_state(&file) }
}

fn directory_file(file: &[u8]) {
    let tables = bounded(file.len(), FACTOR, CONSTANT_BYTES, || {
        Tables::open(shared(&disk(&[("directory.hw", file)])), Calendar::default())
    });
    let directory = match tables {
        Ok(tables) => *tables.directory(),
        Err(error) => return assert_told(&error, &["directory.hw", "shards", "segment_bytes"]),
    };
    let disk = disk(&[]);
    Store::open(disk.clone(), OpenOptions::new(directory)).expect("what is fixed for one directory may be for another");
    assert_eq!(disk.contents("directory.hw"), file, "it does not come back as it was");
}

fn store_state(file: &[u8]) {
    let disk = data_directory(&[]);
    disk.damage("state.hw", file.to_vec());
    let start = || -> Result<_, StorageError> {
        let mut store = Store::open(disk.clone(), options())?;
        store.replay_cuts::<StorageError>(|_| Ok(()))?;
        store.replay_logs::<StorageError>(|_, _| Ok(()))?;
        Ok(store)
    };
    match bounded(file.len(), FACTOR, CONSTANT_BYTES, start) {
        Ok(mut store) => {
            let stated = file[GENERATION_AT..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            if let Some(next) = stated.and_then(|generation| generation.checked_add(1)) {
                assert_eq!(
                    store.open_generations(1).expect("there is room"),
                    next,
                    "a start has a generation of its own"
                );
            }
        }
        Err(error) => assert_told(&error, &["state.hw", "cuts/", "log-"]),
    }
}
