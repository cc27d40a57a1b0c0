//! `highwater export`: a table out of a data directory, as Parquet or CSV.
//!
//! It reads what the engine has closed, whether that runs or not, and takes no lock. Invariant: nothing in the data
//! directory is changed, and what is written is one state of it, that of the summary.

mod check;
mod counts;
mod lists;
mod output;
mod rows;
mod table;
#[cfg(test)]
mod tests;
mod views;
mod writer;

pub use table::{Format, Table};

use crate::args::ExportArguments;
use crate::units::time_text;
use anyhow::{Context, Result, ensure};
use arrow_array::RecordBatch;
use counts::Counts;
use highwater_disk::ReadingDisk;
use highwater_ranking::Calendar;
use highwater_storage::{ArchiveReader, Disk, History, Tables};
use lists::Lists;
use output::Output;
use rows::{Batches, Sink};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use views::Views;
use writer::TableWriter;

/// What was exported: one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Summary {
    table: Table,
    format: Format,
    rows: u64,
    /// Views that the rows count; of top lists there is no such number, since a view is in several.
    #[serde(skip_serializing_if = "Option::is_none")]
    views: Option<u64>,
    /// Where the range begins.
    from: Option<String>,
    /// Where it ends: what was asked for, else the end of the newest row.
    to: Option<String>,
    /// Engine time of the newest cut file; everything that arrived before its marker is in it.
    as_of: Option<String>,
    epoch: Option<u64>,
    bytes: u64,
}

/// What a source says of what it has sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    views: Option<u64>,
    from_ms: Option<u64>,
    to_ms: Option<u64>,
    as_of_ms: Option<u64>,
    epoch: Option<u64>,
}

/// Exports a table, and says what was exported.
///
/// # Errors
/// When the data directory or what was asked of it cannot be read, or the file cannot be written.
pub fn export(arguments: &ExportArguments) -> Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(ReadingDisk::open(&arguments.data_dir)?);
    let stop = stop_flag()?;
    let summary = write(&disk, arguments, &stop)?;
    let line = serde_json::to_string(&summary).context("the summary cannot be written")?;
    if arguments.is_to_stdout() {
        eprintln!("{line}");
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("the file is written, but stdout is closed")
}

/// Set by the first SIGINT or SIGTERM; the second ends the process.
fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let failed = crate::fatal::FAILED;
        signal_hook::flag::register_conditional_shutdown(signal, failed.into(), Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .context("signals cannot be watched")?;
    }
    Ok(stop)
}

fn write(disk: &Arc<dyn Disk>, arguments: &ExportArguments, stop: &AtomicBool) -> Result<Summary> {
    let format = arguments.format().context("--format is neither given nor told by the name of --out")?;
    let source = Source::open(disk, arguments)?;
    let output = Output::create(&arguments.out, arguments.force)?;
    let mut writer = TableWriter::new(arguments.table, format, output)?;
    let unwritten = || match arguments.is_to_stdout() {
        true => "stdout cannot be written".to_owned(),
        false => format!("--out={} cannot be written", arguments.out.display()),
    };
    let mut sink = |batch: &RecordBatch| {
        ensure!(!stop.load(Ordering::Relaxed), "stopped by a signal; nothing was written");
        writer.batch(batch).with_context(unwritten)
    };
    let mut batches = Batches::new(arguments.table, &mut sink);
    let told = source.send(&mut batches)?;
    batches.finish()?;
    let rows = writer.rows();
    let bytes = writer.finish().with_context(unwritten)?.finish().with_context(unwritten)?;
    let time = |time_ms: Option<u64>| time_ms.map(time_text);
    Ok(Summary {
        table: arguments.table,
        format,
        rows,
        views: told.views,
        from: time(told.from_ms),
        to: time(arguments.to.or(told.to_ms)),
        as_of: time(told.as_of_ms),
        epoch: told.epoch,
        bytes,
    })
}

/// Where the rows come from, with the range within it.
enum Source {
    Counts(Counts),
    Lists(Lists),
    Views(Views),
}

impl Source {
    fn open(disk: &Arc<dyn Disk>, arguments: &ExportArguments) -> Result<Self> {
        let (from_ms, to_ms) = (arguments.from, arguments.to);
        let tables = Tables::open(Arc::clone(disk), Calendar::default())?;
        match arguments.table {
            table @ (Table::Minute | Table::Hour | Table::Day) => {
                Ok(Self::Counts(Counts::new(tables, table, from_ms, to_ms)?))
            }
            Table::Top => {
                let history = History::read_only(Arc::clone(disk), tables.directory().id);
                Ok(Self::Lists(Lists::new(history, from_ms, to_ms)))
            }
            Table::Views => {
                let reader = ArchiveReader::open(Arc::clone(disk))?;
                Ok(Self::Views(Views::new(reader, tables, from_ms, to_ms)?))
            }
        }
    }

    fn send(&self, batches: &mut Batches<'_>) -> Result<Told> {
        match self {
            Self::Counts(counts) => counts.send(batches),
            Self::Lists(lists) => lists.send(batches),
            Self::Views(views) => views.send(batches),
        }
    }
}
