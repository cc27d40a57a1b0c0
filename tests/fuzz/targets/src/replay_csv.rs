//! Files of views for `loadgen replay`: against another reader of CSV, and written again.
//!
//! Input: the file.

use std::path::Path;

use highwater_loadgen::LoadError;
use highwater_loadgen::csv::{HEADER, ViewsFile};
use highwater_proto::View;

use crate::bounds::{assert_told, bounded};

const FACTOR: usize = 64;
/// The buffers of one reader.
const CONSTANT_BYTES: usize = 512 << 10;

pub(crate) fn run(data: &[u8]) {
    let file = match bounded(data.len(), FACTOR, CONSTANT_BYTES, || parse(data)) {
        Ok(file) => file,
        Err(error) => return assert_told(&error, &["views.csv, line ", "views.csv"]),
    };
    let rows: Vec<View<'_>> = (0..file.len()).map(|index| file.view(index).view).collect();
    assert!(rows.iter().all(|view| view.check().is_ok()), "a view that is read may be sent");
    assert_eq!(rows.is_empty(), file.time_range_ms().is_none());
    let lines = data.iter().filter(|byte| **byte == b'\n').count() + 1;
    // A lone CR ends a record too, but no line: a view may stand in the header's line.
    assert!((0..file.len()).all(|index| (1..=lines as u32).contains(&file.view(index).line)), "lines are those there");
    by_another(data, &rows);
    let text = written(&rows);
    let again = parse(&text).expect("what is written can be read");
    assert_eq!(again.video_ids(), file.video_ids());
    assert!(rows.iter().copied().eq((0..again.len()).map(|index| again.view(index).view)));
}

fn parse(data: &[u8]) -> Result<ViewsFile, LoadError> {
    ViewsFile::parse(Path::new("views.csv"), data)
}

/// Another reader finds the same fields.
fn by_another(data: &[u8], rows: &[View<'_>]) {
    let mut reader = csv::ReaderBuilder::new().has_headers(true).flexible(true).from_reader(data);
    let records: Vec<csv::ByteRecord> =
        reader.byte_records().map(|record| record.expect("bytes can be read")).collect();
    assert_eq!(records.len(), rows.len());
    for (record, view) in records.iter().zip(rows) {
        let time = view.timestamp_ms;
        let found = [&record[0], &record[2], &record[3], &record[4]];
        assert_eq!(found, [view.video_id, view.user_id, view.region, view.device].map(str::as_bytes));
        assert_eq!(std::str::from_utf8(&record[1]).ok().and_then(|text| text.parse().ok()), Some(time));
    }
}

fn written(rows: &[View<'_>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(HEADER).expect("memory can be written");
    for view in rows {
        let time = view.timestamp_ms.to_string();
        let record = [view.video_id, &time, view.user_id, view.region, view.device];
        writer.write_record(record).expect("memory can be written");
    }
    writer.into_inner().expect("memory can be written")
}
