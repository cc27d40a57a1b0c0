//! `highwater audit`: holds what is stored, and what is served, against the accepted views and against itself.
//!
//! It reads a data directory as it is, with an engine on it or without, and changes nothing. Not a repair. Invariants:
//! a difference is told by video, period and file; what could not be compared is told too, with why; memory is that of
//! one shard at a time, however large the directory is.

mod grains;
mod lists;
mod names;
mod recount;
mod report;
mod served;
#[cfg(test)]
mod tests;

use crate::args::{AuditArguments, ReportFormat};
use anyhow::{Result, bail};
use highwater_client::ClientConfig;
use highwater_disk::ReadingDisk;
use highwater_ranking::Calendar;
use highwater_storage::{Disk, StorageError, Tables};
use std::io::Write;
use std::sync::Arc;

pub use report::{Compared, Difference, Report};

/// Audits a data directory, and an engine where one is named.
///
/// # Errors
/// When there is a difference, or something could not be read.
pub fn audit(arguments: &AuditArguments) -> Result<()> {
    let disk: Arc<dyn Disk> = Arc::new(ReadingDisk::open(&arguments.data_dir)?);
    let calendar = Calendar::default();
    let mut report = Report::default();
    stored(&disk, calendar, &mut report)?;
    if let (Some(engine), Some(ca)) = (&arguments.engine, &arguments.ca) {
        let config = arguments.credentials().apply(ClientConfig::with_ca_file(engine, ca)?)?;
        served::compare(&disk, calendar, config, &mut report)?;
    }
    let text = match arguments.format {
        ReportFormat::Text => report.text(),
        ReportFormat::Json => report.json(),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    match report.wrong() {
        0 => Ok(()),
        wrong => bail!("{wrong} differences; they are listed on stdout, up to {}", report::LISTED_MAX),
    }
}

/// Compares all that is stored with each other.
///
/// # Errors
/// When the closed files cannot be opened. What fails later is told in the report, and the next comparison made.
pub fn stored(disk: &Arc<dyn Disk>, calendar: Calendar, report: &mut Report) -> Result<(), StorageError> {
    let tables = Tables::open(disk.clone(), calendar)?;
    let outcomes = [
        ("ids", names::compare(&tables, report)),
        ("minutes with the accepted views", recount::compare(disk, &tables, report)),
        ("hours with minutes", grains::compare_hours(&tables, report)),
        ("days with hours", grains::compare_days(&tables, report)),
        ("all-time with periods", grains::compare_all_time(&tables, report)),
        ("history with periods", lists::compare(disk, &tables, report)),
    ];
    for (what, outcome) in outcomes {
        if let Err(error) = outcome {
            report.problem(&format!("{what}: {error}"));
        }
    }
    Ok(())
}
