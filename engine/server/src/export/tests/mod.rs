//! Exports of data directories in memory, read back and held to naive counting.
//!
//! Invariant: random worlds print their seed when they fail; `WORLD_SEED=N cargo test -p highwater export` runs that
//! one again.

mod formats;
mod read_back;
mod views;
mod world;

use super::{Format, Summary, Table, write};
use crate::args::ExportArguments;
use crate::units::time_text;
use highwater_ranking::{CalendarPeriod, Minute};
use highwater_storage::{ClosedList, Disk, History};
use read_back::rows;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use world::{HOUR, START, World};

const FORMATS: [Format; 2] = [Format::Parquet, Format::Csv];

/// An export of all of a table to a file in `folder`.
fn arguments(table: Table, format: Format, folder: &Path) -> ExportArguments {
    let out = folder.join(format!("{table}.{}", if format == Format::Csv { "csv" } else { "parquet" }));
    ExportArguments { data_dir: "unused".into(), table, from: None, to: None, format: None, out, force: true }
}

fn exported(disk: &Arc<dyn Disk>, arguments: &ExportArguments) -> anyhow::Result<Summary> {
    assert_eq!(arguments.check(), []);
    write(disk, arguments, &AtomicBool::new(false))
}

fn refused(disk: &Arc<dyn Disk>, arguments: &ExportArguments) -> String {
    let error = exported(disk, arguments).expect_err("it must be refused");
    assert!(!arguments.out.exists(), "{error}");
    format!("{error:#}")
}

#[test]
fn counts_equal_those_of_a_naive_counter_in_both_formats() {
    let seeds = std::env::var("WORLD_SEED").map_or(0..10, |seed| seed.parse().map(|seed| seed..seed + 1).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let day = |number: u32| Some(Minute(START + number * 24 * HOUR).start_ms());
    let mut not_whole = 0;
    for seed in seeds {
        let world = World::random(seed);
        for table in [Table::Minute, Table::Hour, Table::Day] {
            for format in FORMATS {
                for (from, to) in [(None, None), (day(1), day(2)), (day(2), None)] {
                    let asked = ExportArguments { from, to, ..arguments(table, format, folder.path()) };
                    let told = format!("WORLD_SEED={seed}, {table} as {format:?}, {from:?} to {to:?}");
                    not_whole += u32::from(!is_exact(&world, &asked, &told));
                }
            }
        }
    }
    assert!(not_whole > 0 || std::env::var("WORLD_SEED").is_ok(), "some seeds keep too little for some ranges");
}

/// Exports and compares; `false` when the range begins before what is kept whole, and is refused for that.
fn is_exact(world: &World, asked: &ExportArguments, told: &str) -> bool {
    // A file of the last one would count as one that a refusal left behind.
    let _ = std::fs::remove_file(&asked.out);
    let format = asked.format().unwrap();
    let whole_from_ms = world.whole_from_ms(asked.table);
    if asked.from.unwrap_or(whole_from_ms) < whole_from_ms {
        let refusal = refused(&world.disk(), asked);
        assert!(refusal.contains(&time_text(whole_from_ms)) && refusal.contains("too early"), "{told}: {refusal}");
        return false;
    }
    let from_ms = asked.from.unwrap_or(whole_from_ms);
    let summary = exported(&world.disk(), asked).unwrap_or_else(|error| panic!("{told}: {error:#}"));
    let wanted = world.counted(asked.table, from_ms..asked.to.unwrap_or(u64::MAX));
    let mut found = rows(&asked.out, format);
    found.sort();
    assert!(wanted.rows == found, "{told}: {wanted:?}\n{found:?}");
    assert_eq!((summary.rows, summary.views), (found.len() as u64, Some(wanted.views)), "{told}");
    assert_eq!(summary.bytes, asked.out.metadata().unwrap().len(), "{told}");
    assert_eq!(summary.from, Some(time_text(from_ms)), "{told}");
    let end = asked.to.or(Some(wanted.end_ms).filter(|_| !found.is_empty()));
    assert_eq!(summary.to, end.map(time_text), "{told}");
    assert_eq!((summary.epoch, summary.as_of), (Some(world.epoch), Some(world.as_of())), "{told}");
    true
}

#[test]
fn a_directory_without_any_view_gives_files_without_rows() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::empty();
    for table in [Table::Minute, Table::Hour, Table::Day, Table::Top] {
        for format in FORMATS {
            let asked = arguments(table, format, folder.path());
            let summary = exported(&world.disk(), &asked).unwrap();
            assert_eq!((summary.rows, summary.as_of, rows(&asked.out, format).len()), (0, None, 0), "{table}");
        }
    }
}

#[test]
fn final_lists_come_by_kind_time_and_rank_and_only_those_within_the_range() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::empty();
    let history = History::open(world.disk(), world.directory.id).unwrap();
    let day = START..START + 24 * HOUR;
    for (kind, minutes, ids) in [
        (CalendarPeriod::Day, day.clone(), &["ü,\"x\"", "b"][..]),
        (CalendarPeriod::Hour, START + HOUR..START + 2 * HOUR, &["b"]),
        (CalendarPeriod::Hour, START..START + HOUR, &["a", "b"]),
    ] {
        let count = |rank| if kind == CalendarPeriod::Day && rank == 0 { 9 } else { 7 };
        let rows = (0..).zip(ids).map(|(rank, id)| (Box::from(*id), count(rank))).collect();
        let (start, end) = (Minute(minutes.start), Minute(minutes.end));
        let list = ClosedList { kind, start, end, final_ms: end.end_ms(), total_views: 100, videos: 50, rows };
        history.write(&list).unwrap();
    }
    let wanted = [
        "hour,2024-07-15T00:00:00Z,2024-07-15T01:00:00Z,a,7,1,100",
        "hour,2024-07-15T00:00:00Z,2024-07-15T01:00:00Z,b,7,2,100",
        "hour,2024-07-15T01:00:00Z,2024-07-15T02:00:00Z,b,7,1,100",
        "day,2024-07-15T00:00:00Z,2024-07-16T00:00:00Z,ü,\"x\",9,1,100",
        "day,2024-07-15T00:00:00Z,2024-07-16T00:00:00Z,b,7,2,100",
    ];
    let ms = |hours: u32| Some(Minute(START + hours * HOUR).start_ms());
    for format in FORMATS {
        let whole = arguments(Table::Top, format, folder.path());
        for (from, to, wanted) in [
            (None, None, &wanted[..]),
            (ms(0), ms(24), &wanted),
            (ms(0), ms(23), &wanted[..3]),
            (ms(1), None, &wanted[2..3]),
            (None, ms(1), &wanted[..2]),
            (ms(2), ms(24), &[]),
        ] {
            let asked = ExportArguments { from, to, ..whole.clone() };
            let summary = exported(&world.disk(), &asked).unwrap();
            let found: Vec<_> = rows(&asked.out, format).iter().map(|row| row.join(",")).collect();
            assert_eq!(found, wanted, "{format:?} {from:?} {to:?}");
            assert_eq!((summary.rows, summary.views), (wanted.len() as u64, None));
            let told = |given: Option<u64>, found: u32| Some(time_text(given.or(ms(found)).unwrap()));
            if !wanted.is_empty() {
                assert_eq!(summary.from, told(from, 0));
                assert_eq!(summary.to, told(to, if from.is_some() { 2 } else { 24 }));
            }
        }
    }
}

#[test]
fn damage_is_told_by_file_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::random(1);
    world.flip_a_byte_of_each_file();
    for format in FORMATS {
        let told = refused(&world.disk(), &arguments(Table::Minute, format, folder.path()));
        let is_named = ["cuts/cut-", "rollups/minute-", "bases/base-"].iter().any(|name| told.contains(name));
        assert!(is_named && told.contains(" at byte ") && told.contains("restore"), "{told}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::random(2);
    let asked = arguments(Table::Minute, Format::Csv, folder.path());
    let error = write(&world.disk(), &asked, &AtomicBool::new(true)).unwrap_err();
    assert!(error.to_string().contains("stopped by a signal"), "{error:#}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
