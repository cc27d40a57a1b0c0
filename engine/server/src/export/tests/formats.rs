//! What a Parquet file says of itself, and how long its row groups are.
//!
//! Invariant: nothing here is read with the code that writes.

use super::super::rows::{Batches, Value};
use super::super::table::{Format, Table};
use super::super::writer::{GROUP_BYTES_MAX, GROUP_ROWS_MAX, TableWriter};
use parquet::basic::{Compression, LogicalType, TimeUnit, TimestampType, Type};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Writes views to a file in memory; returns what the file says of itself.
fn written(rows: u64, mut id: impl FnMut(u64) -> String) -> ParquetMetaData {
    let mut writer = TableWriter::new(Table::Views, Format::Parquet, Vec::new()).unwrap();
    let mut batches = Batches::new(Table::Views, &mut writer);
    for row in 0..rows {
        let (id, text, time) = (id(row), Value::Text("x"), Value::Time(1_721_000_000_000 + row));
        batches.push([Value::Text(&id), time, text, text, text, time]).unwrap();
    }
    batches.finish().unwrap();
    assert_eq!(writer.rows(), rows);
    let file = bytes::Bytes::from(writer.finish().unwrap());
    SerializedFileReader::new(file).unwrap().metadata().clone()
}

#[test]
fn columns_have_the_types_of_what_they_hold() {
    let time = LogicalType::Timestamp(TimestampType { is_adjusted_to_u_t_c: true, unit: TimeUnit::MILLIS });
    for table in [Table::Minute, Table::Hour, Table::Day, Table::Top, Table::Views] {
        let writer = TableWriter::new(table, Format::Parquet, Vec::new()).unwrap();
        let file = bytes::Bytes::from(writer.finish().unwrap());
        let reader = SerializedFileReader::new(file).unwrap();
        for column in reader.metadata().file_metadata().schema_descr().columns() {
            let wanted = match column.name() {
                "date" => (Type::INT32, Some(LogicalType::Date)),
                "start_time" | "end_time" | "view_timestamp" | "arrival_time" => (Type::INT64, Some(time.clone())),
                "view_count" | "total_views" => (Type::INT64, None),
                "hour" | "minute" | "rank" => (Type::INT32, None),
                _ => (Type::BYTE_ARRAY, Some(LogicalType::String)),
            };
            assert_eq!((column.physical_type(), column.logical_type_ref().cloned()), wanted, "{}", column.name());
            assert_eq!(column.max_def_level(), 0, "{} is never empty", column.name());
        }
    }
}

#[test]
fn row_groups_are_bounded_by_rows() {
    let rows = GROUP_ROWS_MAX as u64 + 5;
    let metadata = written(rows, |row| format!("video-{}", row % 1000));
    let groups: Vec<_> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [GROUP_ROWS_MAX as i64, 5]);
    for column in metadata.row_group(0).columns() {
        assert!(matches!(column.compression(), Compression::ZSTD(_)), "{:?}", column.compression());
        assert!(column.dictionary_page_offset().is_some(), "{}", column.column_path());
    }
}

#[test]
fn row_groups_are_bounded_by_bytes() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let metadata = written(450_000, |_| {
        let letters = (0..200).map(|_| char::from(random.random_range(b'0'..=b'z')));
        letters.collect()
    });
    assert!(metadata.num_row_groups() > 1, "{:?}", metadata.row_groups().len());
    for group in metadata.row_groups() {
        // Beyond the bound by a batch at most.
        assert!((group.compressed_size() as usize) < GROUP_BYTES_MAX * 5 / 4, "{}", group.compressed_size());
    }
}
