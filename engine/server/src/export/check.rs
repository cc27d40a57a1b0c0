//! The arguments of an export, held against each other before anything is opened.
//!
//! Not against what the data directory holds. Invariant: what passes has a format, and bounds that are multiples of the
//! table's grain and in order.

use super::output::STDOUT;
use super::table::Format;
use crate::args::ExportArguments;
use crate::checks::Misfit;
use crate::units::time_text;
use std::io::IsTerminal;

impl ExportArguments {
    /// All that is wrong with these arguments on whatever data directory.
    pub fn check(&self) -> Vec<Misfit> {
        let bound = |key: &'static str, time_ms: Option<u64>| {
            let (grain_ms, grain) = self.table.bounds();
            let time_ms = time_ms.filter(|time_ms| !time_ms.is_multiple_of(grain_ms))?;
            let (below, above) = (time_ms - time_ms % grain_ms, time_ms - time_ms % grain_ms + grain_ms);
            let text = format!(
                "--{key}={} is no whole {grain} in UTC, which bounds of --table={} must be: choose {} or {}",
                time_text(time_ms),
                self.table,
                time_text(below),
                time_text(above)
            );
            Some(Misfit { key, text })
        };
        let checks = [self.check_format(), bound("from", self.from), bound("to", self.to), self.check_order()];
        checks.into_iter().flatten().collect()
    }

    /// The format that was asked for, or that the file's name ends in.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        let by_name = || match self.out.extension()?.to_str()? {
            "parquet" => Some(Format::Parquet),
            "csv" => Some(Format::Csv),
            _ => None,
        };
        let by_out = || if self.is_to_stdout() { Some(Format::Csv) } else { by_name() };
        self.format.or_else(by_out)
    }

    /// Whether it goes to stdout.
    #[must_use]
    pub fn is_to_stdout(&self) -> bool {
        self.out.as_os_str() == STDOUT
    }

    fn check_format(&self) -> Option<Misfit> {
        let out = self.out.display();
        let text = match self.format() {
            None => format!("--out={out} ends in neither .parquet nor .csv: say which by --format"),
            Some(Format::Parquet) if self.is_to_stdout() && std::io::stdout().is_terminal() => {
                "--format=parquet is not for a terminal: name a file by --out, or redirect stdout".to_owned()
            }
            Some(_) => return None,
        };
        Some(Misfit { key: "format", text })
    }

    fn check_order(&self) -> Option<Misfit> {
        let (from, to) = (self.from?, self.to?);
        let told = |from, to| format!("--from={from} is not before --to={to}: the range would be empty");
        (from >= to).then(|| Misfit { key: "from", text: told(time_text(from), time_text(to)) })
    }
}
