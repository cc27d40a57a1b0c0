//! Batches of rows as Parquet or CSV.
//!
//! Not where the bytes go. Invariant: a row group has at most [`GROUP_ROWS_MAX`] rows and about [`GROUP_BYTES_MAX`]
//! bytes, and no more than one is held in memory. Source: <https://parquet.apache.org/docs/file-format>, RFC 4180.

use super::rows::Sink;
use super::table::{Format, Table};
use crate::units::time_text;
use anyhow::{Context, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fmt::Write as _;
use std::io::Write;

/// Most rows of a row group.
pub(crate) const GROUP_ROWS_MAX: usize = 1 << 20;

/// Bytes at which a row group ends, encoded.
pub(crate) const GROUP_BYTES_MAX: usize = 64 << 20;

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Writes a table.
pub(crate) struct TableWriter<W: Write + Send> {
    kind: Kind<W>,
    rows: u64,
}

enum Kind<W: Write + Send> {
    Parquet(Box<ArrowWriter<W>>),
    Csv(Box<csv::Writer<W>>),
}

impl<W: Write + Send> TableWriter<W> {
    /// Begins a file: of CSV the header is written.
    pub(crate) fn new(table: Table, format: Format, to: W) -> Result<Self> {
        let schema = table.schema();
        let kind = match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_dictionary_enabled(true)
                    .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
                    .set_created_by(concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(to, schema, Some(properties));
                Kind::Parquet(Box::new(writer.context("the Parquet file cannot be begun")?))
            }
            Format::Csv => {
                let mut writer = csv::Writer::from_writer(to);
                writer.write_record(schema.fields().iter().map(|field| field.name())).context("CSV header")?;
                Kind::Csv(Box::new(writer))
            }
        };
        Ok(Self { kind, rows: 0 })
    }

    /// Rows so far.
    pub(crate) const fn rows(&self) -> u64 {
        self.rows
    }

    /// Ends the file; returns what it was written to.
    pub(crate) fn finish(self) -> Result<W> {
        match self.kind {
            Kind::Parquet(writer) => writer.into_inner().context("the Parquet file cannot be ended"),
            Kind::Csv(writer) => {
                writer.into_inner().map_err(|error| error.into_error()).context("the CSV file cannot be ended")
            }
        }
    }
}

impl<W: Write + Send> Sink for TableWriter<W> {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        match &mut self.kind {
            Kind::Parquet(writer) => {
                writer.write(batch).context("Parquet cannot be written")?;
                if writer.in_progress_size() >= GROUP_BYTES_MAX {
                    writer.flush().context("Parquet cannot be written")?;
                }
                Ok(())
            }
            Kind::Csv(writer) => write_csv(writer, batch).context("CSV cannot be written"),
        }
    }
}

fn write_csv<W: Write>(writer: &mut csv::Writer<W>, batch: &RecordBatch) -> Result<()> {
    let columns: Vec<&dyn Array> = batch.columns().iter().map(AsRef::as_ref).collect();
    let mut text = String::new();
    for row in 0..batch.num_rows() {
        for column in &columns {
            text.clear();
            write_cell(&mut text, *column, row)?;
            writer.write_field(&text)?;
        }
        writer.write_record(None::<&[u8]>)?;
    }
    Ok(())
}

fn write_cell(text: &mut String, column: &dyn Array, row: usize) -> Result<()> {
    match column.data_type() {
        DataType::Utf8 => text.push_str(column.as_string::<i32>().value(row)),
        DataType::Int32 => write!(text, "{}", column.as_primitive::<Int32Type>().value(row))?,
        DataType::Int64 => write!(text, "{}", column.as_primitive::<Int64Type>().value(row))?,
        DataType::Date32 => {
            let day = u64::try_from(column.as_primitive::<Date32Type>().value(row))?;
            text.push_str(time_text(day * DAY_MS).split('T').next().unwrap_or_default());
        }
        DataType::Timestamp(..) => {
            let time_ms = u64::try_from(column.as_primitive::<TimestampMillisecondType>().value(row))?;
            text.push_str(&time_text(time_ms));
        }
        other => unreachable!("no table has a column of {other}"),
    }
    Ok(())
}
