//! History: round trips, flipped bits, power cuts, and readers beside the writer.

use std::sync::Arc;

use highwater_ranking::{CalendarPeriod, Minute};
use proptest::prelude::*;

use super::support::{DIRECTORY, below, random};
use crate::{
    CLOSED_ROWS_MAX, ClosedList, ClosedPeriod, DirectoryId, Disk, History, HistoryFigures, MemoryDisk, StorageError,
};

const HOUR: CalendarPeriod = CalendarPeriod::Hour;

fn list(kind: CalendarPeriod, start: u32, rows: &[(&str, u64)]) -> ClosedList {
    let total_views = rows.iter().map(|row| row.1).sum();
    let rows: Vec<(Box<str>, u64)> = rows.iter().map(|(id, count)| ((*id).into(), *count)).collect();
    let (start, end) = (Minute(start), Minute(start + 60));
    ClosedList { kind, start, end, final_ms: end.start_ms() + 600_000, total_views, videos: rows.len() as u64, rows }
}

fn open(disk: &MemoryDisk) -> History {
    History::open(Arc::new(disk.clone()), DIRECTORY).unwrap()
}

fn starts(periods: &[ClosedPeriod]) -> Vec<u32> {
    periods.iter().map(|period| period.start.0).collect()
}

#[test]
fn lists_come_back_as_written_and_periods_newest_first() {
    let disk = MemoryDisk::new();
    let reader = History::read_only(Arc::new(disk.clone()), DIRECTORY);
    assert_eq!(reader.periods(HOUR, None, 10).unwrap(), [], "there is no history yet");
    assert_eq!(reader.closed_up_to(HOUR).unwrap(), None);
    assert_eq!(reader.figures().unwrap(), HistoryFigures::default());
    assert!(disk.paths().is_empty(), "a reader changes nothing");
    let history = open(&disk);
    // Longer than 8 digits and shorter: names sort as their minutes do.
    let hours: Vec<ClosedList> =
        [60, 600, 28_000_020].map(|start| list(HOUR, start, &[("b", 5), ("c", 5), ("a", 1)])).into();
    let day = list(CalendarPeriod::Day, 0, &[("é", u64::MAX)]);
    for list in hours.iter().chain([&day]) {
        history.write(list).unwrap();
        history.set_closed(list.kind, list.end).unwrap();
        assert_eq!(reader.list(list.kind, list.start).unwrap().as_ref(), Some(list));
        assert_eq!(reader.closed_up_to(list.kind).unwrap(), Some(list.end));
    }
    assert_eq!(reader.list(HOUR, Minute(0)).unwrap(), None);
    let newest_first: Vec<ClosedPeriod> = hours.iter().rev().map(ClosedList::period).collect();
    assert_eq!(reader.periods(HOUR, None, 10).unwrap(), newest_first);
    assert_eq!(starts(&reader.periods(HOUR, Some(Minute(28_000_020)), 1).unwrap()), [600]);
    assert_eq!(starts(&reader.periods(HOUR, Some(Minute(60)), 9).unwrap()), []);
    assert_eq!(reader.periods(CalendarPeriod::Day, None, 10).unwrap(), [day.period()]);
    let bytes =
        disk.paths().into_iter().filter(|path| path.ends_with(".top")).map(|path| disk.contents(&path).len() as u64);
    assert_eq!(reader.figures().unwrap(), HistoryFigures { files: 4, bytes: bytes.sum() });
    history.set_closed(HOUR, Minute(70)).unwrap();
    assert_eq!(open(&disk).closed_up_to(HOUR).unwrap(), Some(Minute(28_000_080)), "it only grows");
    assert_eq!(history.apply_retention(HOUR, Minute(601)).unwrap(), 2);
    assert_eq!(history.apply_retention(HOUR, Minute(601)).unwrap(), 0);
    assert_eq!(starts(&reader.periods(HOUR, None, 10).unwrap()), [28_000_020]);
    assert_eq!(reader.list(CalendarPeriod::Day, Minute(0)).unwrap(), Some(day));
}

#[test]
fn the_longest_list_fits() {
    let disk = MemoryDisk::new();
    let history = open(&disk);
    let ids: Vec<String> = (0..CLOSED_ROWS_MAX).map(|index| format!("{index:0255}")).collect();
    let rows: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), u64::MAX / 1000)).collect();
    let longest = list(HOUR, u32::MAX - 60, &rows);
    history.write(&longest).unwrap();
    assert_eq!(history.list(HOUR, longest.start).unwrap(), Some(longest));
}

#[test]
fn every_flipped_bit_and_every_short_file_is_refused() {
    let disk = MemoryDisk::new();
    let history = open(&disk);
    history.write(&list(HOUR, 60, &[("abc", 300), ("de", 2)])).unwrap();
    history.set_closed(HOUR, Minute(120)).unwrap();
    let path = "history/hour-0000000060.top";
    let original = disk.contents(path);
    for at in 0..original.len() * 8 {
        let mut bytes = original.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        disk.damage(path, bytes);
        let error = history.list(HOUR, Minute(60)).expect_err("the bit is covered");
        assert!(matches!(error, StorageError::Damaged { .. }), "bit {at}: {error}");
        // A head verifies by itself; the rest of the file is not looked at.
        match history.periods(HOUR, None, 9) {
            Ok(periods) => assert_eq!(periods[0].total_views, 302, "bit {at}"),
            Err(error) => assert!(error.to_string().contains(path), "bit {at}: {error}"),
        }
    }
    for len in 0..original.len() {
        disk.damage(path, original[..len].to_vec());
        history.list(HOUR, Minute(60)).expect_err("a short file is refused");
    }
    let path = "history/closed.hw";
    let original = disk.contents(path);
    for at in 0..original.len() * 8 {
        let mut bytes = original.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        disk.damage(path, bytes);
        history.closed_up_to(HOUR).expect_err("the bit is covered");
        History::open(Arc::new(disk.clone()), DIRECTORY).err().expect("nor is it opened");
    }
}

#[test]
fn a_flipped_bit_in_the_head_is_refused_by_periods_too() {
    let disk = MemoryDisk::new();
    let history = open(&disk);
    history.write(&list(HOUR, 60, &[("abc", 300)])).unwrap();
    let path = "history/hour-0000000060.top";
    for byte in 0..72 {
        disk.flip_bit(path, byte, 3);
        history.periods(HOUR, None, 9).expect_err("the head is covered");
        disk.flip_bit(path, byte, 3);
    }
    assert_eq!(history.periods(HOUR, None, 9).unwrap().len(), 1);
}

/// Replaces a sealed file's version and rights its checksum.
fn make_newer(disk: &MemoryDisk, path: &str) {
    let mut bytes = disk.contents(path);
    bytes[8] = 9;
    let crc_at = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
    disk.damage(path, bytes);
}

#[test]
fn newer_foreign_misnamed_and_missing_files_are_refused_by_name() {
    let disk = MemoryDisk::new();
    let history = open(&disk);
    history.write(&list(HOUR, 60, &[("abc", 300)])).unwrap();
    let path = "history/hour-0000000060.top";
    let other = History::read_only(Arc::new(disk.clone()), DirectoryId(7));
    for error in [
        other.list(HOUR, Minute(60)).map(|_| ()).unwrap_err(),
        other.periods(HOUR, None, 1).map(|_| ()).unwrap_err(),
        other.closed_up_to(HOUR).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, StorageError::ForeignFile { .. }), "{error}");
    }
    disk.rename(path, "history/hour-0000000120.top").unwrap();
    for error in [
        history.list(HOUR, Minute(120)).map(|_| ()).unwrap_err(),
        history.periods(HOUR, None, 1).map(|_| ()).unwrap_err(),
    ] {
        assert!(error.to_string().contains("from minute 60"), "{error}");
    }
    disk.rename("history/hour-0000000120.top", path).unwrap();
    make_newer(&disk, path);
    for error in [
        history.list(HOUR, Minute(60)).map(|_| ()).unwrap_err(),
        history.periods(HOUR, None, 1).map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(&error, StorageError::NewerVersion { file, found: 9, .. } if file == path), "{error}");
    }
    disk.remove("history/closed.hw").unwrap();
    let error = History::open(Arc::new(disk.clone()), DIRECTORY).err().expect("lists without what closed them");
    assert!(matches!(&error, StorageError::Missing { file, .. } if file == "history/closed.hw"), "{error}");
}

#[test]
#[should_panic(expected = "in order")]
fn a_list_out_of_order_is_not_written() {
    let disk = MemoryDisk::new();
    let _ = open(&disk).write(&list(HOUR, 60, &[("b", 5), ("a", 5)]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A power cut at any moment leaves a history that opens, in which each period said to be closed has its list.
    #[test]
    fn a_power_cut_leaves_whole_lists(seed in any::<u64>()) {
        let mut random = random(seed);
        let disk = MemoryDisk::new();
        disk.fail_after(u64::from(below(&mut random, 60)));
        let write_all = |disk: &MemoryDisk| -> Result<(), StorageError> {
            let history = History::open(Arc::new(disk.clone()), DIRECTORY)?;
            for start in [60, 120, 240] {
                history.write(&list(HOUR, start, &[("abc", u64::from(start))]))?;
                history.set_closed(HOUR, Minute(start + 60))?;
            }
            Ok(())
        };
        let done = write_all(&disk).is_ok();
        let disk = disk.crash(seed);
        let history = open(&disk);
        let closed = history.closed_up_to(HOUR).unwrap();
        prop_assert!(!done || closed == Some(Minute(300)));
        for start in [60, 120, 240] {
            let found = history.list(HOUR, Minute(start)).unwrap();
            let expected = list(HOUR, start, &[("abc", u64::from(start))]);
            prop_assert!(found.as_ref().is_none_or(|found| *found == expected));
            prop_assert!(found.is_some() || closed.is_none_or(|closed| closed <= Minute(start)), "seed {seed}");
        }
        prop_assert!(disk.paths().iter().all(|path| !path.ends_with(".tmp")));
        write_all(&disk).unwrap();
        prop_assert_eq!(history.periods(HOUR, None, 9).unwrap().len(), 3);
    }

    /// On a full disk nothing changes, and the same calls succeed when there is room.
    #[test]
    fn a_full_disk_changes_nothing(calls in 0u64..12) {
        let disk = MemoryDisk::new();
        let history = open(&disk);
        disk.fill_after(calls);
        let first = list(HOUR, 60, &[("abc", 7)]);
        let result = history.write(&first).and_then(|()| history.set_closed(HOUR, Minute(120)));
        if let Err(error) = result {
            prop_assert!(error.is_no_space(), "{}", error);
            prop_assert_eq!(history.closed_up_to(HOUR).unwrap(), None);
        }
        disk.make_room();
        history.write(&first).unwrap();
        history.set_closed(HOUR, Minute(120)).unwrap();
        prop_assert_eq!(open(&disk).list(HOUR, Minute(60)).unwrap(), Some(first));
    }

    #[test]
    fn bodies_that_verify_but_make_no_sense_never_panic(seed in any::<u64>()) {
        let mut random = random(seed);
        let disk = MemoryDisk::new();
        let history = open(&disk);
        history.write(&list(HOUR, 60, &[("abc", 300), ("de", 2), ("x", 1)])).unwrap();
        let path = "history/hour-0000000060.top";
        let mut bytes = disk.contents(path);
        for _ in 0..=below(&mut random, 3) {
            let at = 12 + below(&mut random, bytes.len() as u32 - 16) as usize;
            bytes[at] = below(&mut random, 256) as u8;
        }
        let head_crc = crc32c::crc32c(&bytes[..68]);
        bytes[68..72].copy_from_slice(&head_crc.to_le_bytes());
        let crc_at = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..crc_at]);
        bytes[crc_at..].copy_from_slice(&crc.to_le_bytes());
        disk.damage(path, bytes);
        let _ = history.list(HOUR, Minute(60));
        let _ = history.periods(HOUR, None, 5);
    }
}
