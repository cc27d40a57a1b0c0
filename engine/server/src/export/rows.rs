//! Rows on their way from a source to a file: batches of columns of bounded size.
//!
//! Not what is in them. Invariant: a batch has at most [`BATCH_ROWS_MAX`] rows, and every column of its table as many.

use super::table::Table;
use anyhow::{Context, Result};
use arrow_array::builder::{
    ArrayBuilder, Date32Builder, Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use std::sync::Arc;

/// Most rows of a batch: with every string at its longest it takes about 8 MiB.
pub(crate) const BATCH_ROWS_MAX: usize = 8192;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What takes batches.
pub(crate) trait Sink {
    /// Takes one.
    fn batch(&mut self, batch: &RecordBatch) -> Result<()>;
}

impl<F: FnMut(&RecordBatch) -> Result<()>> Sink for F {
    fn batch(&mut self, batch: &RecordBatch) -> Result<()> {
        self(batch)
    }
}

/// One value of a row, in the terms of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    /// The UTC day of a time in milliseconds.
    DateOf(u64),
    /// A time in milliseconds.
    Time(u64),
    Small(u32),
    Count(u64),
}

enum Column {
    Text(StringBuilder),
    Date(Date32Builder),
    Time(TimestampMillisecondBuilder),
    Small(Int32Builder),
    Count(Int64Builder),
}

/// Makes batches of rows, and hands each to the sink when it is full.
pub(crate) struct Batches<'a> {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    sink: &'a mut dyn Sink,
}

impl<'a> Batches<'a> {
    pub(crate) fn new(table: Table, sink: &'a mut dyn Sink) -> Self {
        let schema = table.schema();
        let columns = schema.fields().iter().map(|field| Column::new(field.data_type())).collect();
        Self { schema, columns, rows: 0, sink }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// When the values are not of the table's columns.
    pub(crate) fn push<const N: usize>(&mut self, row: [Value<'_>; N]) -> Result<()> {
        assert_eq!(N, self.columns.len(), "a row has a value for each column");
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.push(value)?;
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS_MAX { self.flush() } else { Ok(()) }
    }

    /// Hands on what is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let columns: Vec<ArrayRef> = self.columns.iter_mut().map(Column::take).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns).context("the rows make no batch")?;
        self.sink.batch(&batch)
    }
}

impl Column {
    fn new(kind: &DataType) -> Self {
        match kind {
            DataType::Utf8 => Self::Text(StringBuilder::new()),
            DataType::Date32 => Self::Date(Date32Builder::new()),
            DataType::Timestamp(..) => Self::Time(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            DataType::Int32 => Self::Small(Int32Builder::new()),
            DataType::Int64 => Self::Count(Int64Builder::new()),
            other => unreachable!("no table has a column of {other}"),
        }
    }

    fn push(&mut self, value: Value<'_>) -> Result<()> {
        match (self, value) {
            (Self::Text(column), Value::Text(text)) => column.append_value(text),
            (Self::Date(column), Value::DateOf(time_ms)) => {
                column.append_value(i32::try_from(time_ms / DAY_MS).context("a date beyond what dates can say")?);
            }
            (Self::Time(column), Value::Time(time_ms)) => {
                column.append_value(i64::try_from(time_ms).context("a time beyond what times can say")?);
            }
            (Self::Small(column), Value::Small(number)) => {
                column.append_value(i32::try_from(number).context("a number beyond its column")?);
            }
            (Self::Count(column), Value::Count(count)) => {
                column.append_value(i64::try_from(count).context("a count beyond its column")?);
            }
            (_, value) => unreachable!("{value:?} is of another column"),
        }
        Ok(())
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) => ArrayBuilder::finish(column),
            Self::Date(column) => ArrayBuilder::finish(column),
            Self::Time(column) => ArrayBuilder::finish(column),
            Self::Small(column) => ArrayBuilder::finish(column),
            Self::Count(column) => ArrayBuilder::finish(column),
        }
    }
}
