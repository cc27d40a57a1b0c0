//! `highwater check`: reads everything in the data directory of an engine that does not run, and says what is damaged.
//!
//! Not a repair, and not whether counts agree, which is [`crate::audit`]'s. The files are judged by
//! `highwater-storage`, keys here. Invariants: nothing is changed; the directory's lock is held meanwhile, so that no
//! engine starts on it.

mod keys;
mod report;
#[cfg(test)]
mod tests;

use crate::args::{CheckArguments, ReportFormat};
use anyhow::{Result, bail};
use highwater_disk::{FileDiskError, ReadingDisk};
use highwater_ranking::Calendar;
use highwater_storage::Disk;
use std::io::Write;
use std::sync::Arc;

pub use report::Report;

/// Checks a data directory, and prints what was found.
///
/// # Errors
/// When anything is damaged, an engine runs on the directory, or it is none.
pub fn check(arguments: &CheckArguments) -> Result<()> {
    let path = arguments.data_dir.display();
    let disk = match ReadingDisk::open_at_rest(&arguments.data_dir) {
        Err(FileDiskError::InUse { .. }) => bail!(
            "an engine runs on data directory {path} (its lock is held), and its files change while they are read: \
             stop the engine, or use `highwater audit`, which may run beside it"
        ),
        opened => opened?,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let mut stored = highwater_storage::check(&disk, Calendar::default());
    let keys = keys::check(&arguments.data_dir, &mut stored);
    let report = Report::new(&arguments.data_dir, &stored, keys);
    let text = match arguments.format {
        ReportFormat::Text => report.text(),
        ReportFormat::Json => report.json(),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    match report.damage_total() {
        0 => Ok(()),
        wrong => bail!("data directory {path} is not sound: {wrong} found, listed on stdout"),
    }
}
