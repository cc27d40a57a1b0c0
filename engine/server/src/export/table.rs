//! The tables that can be exported: their columns, types and grain.
//!
//! Not where their rows come from. Invariant: a column's type says what its values are, in the terms of Arrow and so of
//! Parquet: UTC times in milliseconds, dates, whole numbers; no column has empty values.

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use clap::ValueEnum;
use highwater_storage::Grain;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A table of the data model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// Views of each video in each minute.
    Minute,
    /// Views of each video in each UTC hour.
    Hour,
    /// Views of each video on each UTC day.
    Day,
    /// The final top 1000 of each closed hour, day and month.
    Top,
    /// The accepted views themselves.
    Views,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Apache Parquet, compressed.
    Parquet,
    /// CSV (RFC 4180) with a header; times as RFC 3339.
    Csv,
}

impl Table {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Top => "top",
            Self::Views => "views",
        }
    }

    /// The grain of its counts, if it is one of counts.
    #[must_use]
    pub const fn grain(self) -> Option<Grain> {
        match self {
            Self::Minute => Some(Grain::Minute),
            Self::Hour => Some(Grain::Hour),
            Self::Day => Some(Grain::Day),
            Self::Top | Self::Views => None,
        }
    }

    /// What the bounds of a range must be multiples of, in milliseconds, and its name.
    #[must_use]
    pub const fn bounds(self) -> (u64, &'static str) {
        match self {
            Self::Minute => (MINUTE_MS, "minute"),
            Self::Hour | Self::Top => (HOUR_MS, "hour"),
            Self::Day => (DAY_MS, "day"),
            Self::Views => (1, "millisecond"),
        }
    }

    /// The columns.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        let fields = match self {
            Self::Minute => vec![
                text("video_id"),
                date("date"),
                small("hour"),
                small("minute"),
                count("view_count"),
                time("start_time"),
            ],
            Self::Hour => vec![text("video_id"), date("date"), small("hour"), count("view_count"), time("start_time")],
            Self::Day => vec![text("video_id"), date("date"), count("view_count"), time("start_time")],
            Self::Top => vec![
                text("period"),
                time("start_time"),
                time("end_time"),
                text("video_id"),
                count("view_count"),
                small("rank"),
                count("total_views"),
            ],
            Self::Views => vec![
                text("video_id"),
                time("view_timestamp"),
                text("user_id"),
                text("region"),
                text("device"),
                time("arrival_time"),
            ],
        };
        Arc::new(Schema::new(fields))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn field(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn text(name: &str) -> Field {
    field(name, DataType::Utf8)
}

fn date(name: &str) -> Field {
    field(name, DataType::Date32)
}

fn time(name: &str) -> Field {
    field(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())))
}

/// A number of at most a thousand.
fn small(name: &str) -> Field {
    field(name, DataType::Int32)
}

/// Signed, since many readers know no other; no count comes near its half.
fn count(name: &str) -> Field {
    field(name, DataType::Int64)
}
