//! Reads exported files with the readers of their libraries.
//!
//! Invariant: the cells of both formats come as the same texts.

use super::super::Format;
use crate::units::time_text;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;

/// The rows of a file as texts, in order.
pub(super) fn rows(path: &Path, format: Format) -> Vec<Vec<String>> {
    match format {
        Format::Csv => {
            let mut reader = csv::Reader::from_path(path).unwrap();
            reader.records().map(|record| record.unwrap().iter().map(str::to_owned).collect()).collect()
        }
        Format::Parquet => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
            reader.build().unwrap().flat_map(|batch| batch_rows(&batch.unwrap())).collect()
        }
    }
}

fn batch_rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let row = |row| batch.columns().iter().map(|column| cell(column, row)).collect();
    (0..batch.num_rows()).map(row).collect()
}

fn cell(column: &dyn Array, row: usize) -> String {
    assert!(column.is_valid(row));
    let time = |time_ms: i64| time_text(time_ms.try_into().unwrap());
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Date32 => {
            let day = i64::from(column.as_primitive::<Date32Type>().value(row));
            time(day * 86_400_000)[..10].to_owned()
        }
        DataType::Timestamp(..) => time(column.as_primitive::<TimestampMillisecondType>().value(row)),
        other => panic!("{other}"),
    }
}
