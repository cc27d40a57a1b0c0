//! `results`: the page of all figures, made anew: what engines hold on this machine, and what it costs.
//!
//! Part after part is measured, mostly by other programs as child processes, and written into one page in Markdown as
//! soon as it is there. Not a test: figures are of this machine at this time. Invariant: a part that fails, and a tool
//! that is missing, are written as not measured and exit 1; parts that were not asked for stay as they were.

mod changes;
mod children;
mod fixed;
mod growth;
mod load;
mod log;
mod machine;
mod micro;
mod oha;
mod page;
mod part;
mod report;
mod rules;
mod samples;
mod serving;
mod stages;
mod stamp;
mod sweep;

use anyhow::{Result, bail};
use clap::Parser;
use highwater_benches::flags::{EngineFlags, LoadFlags};
use page::Page;
use part::Part;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures everything and writes the page of results.
///
/// Exit codes: 0 all that was asked for was measured, 1 not, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "results", version, about, max_term_width = 100)]
struct Arguments {
    /// Only these parts, with commas between; the others stay on the page as they are.
    #[arg(long, value_name = "PART,…", value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// How long each stretch is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// The page.
    #[arg(long, value_name = "FILE", default_value = "benches/RESULTS.md")]
    out: PathBuf,
    /// Few videos, few views and stretches of a second: the figures say nothing, but every part is gone through.
    #[arg(long, conflicts_with = "seconds")]
    tiny: bool,
    /// The engine and its load.
    #[command(flatten)]
    flags: LoadFlags,
}

/// What all parts are measured with.
pub(crate) struct Bench {
    pub(crate) engine: EngineFlags,
    pub(crate) highwater: PathBuf,
    pub(crate) loadgen: PathBuf,
    /// How long each stretch is measured.
    pub(crate) seconds: u64,
    pub(crate) tiny: bool,
    /// Views that an engine took each second at most, once the sweep has found it.
    pub(crate) full_per_s: Option<f64>,
}

impl Bench {
    /// One of two figures: that of measurements, or that of tests.
    pub(crate) fn or_tiny<T>(&self, full: T, tiny: T) -> T {
        if self.tiny { tiny } else { full }
    }
}

fn main() -> ExitCode {
    match results(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("results: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn results(arguments: &Arguments) -> Result<()> {
    let flags = &arguments.flags;
    let setup = flags.engine.setup("8GiB")?;
    let mut bench = Bench {
        engine: flags.engine.clone(),
        highwater: setup.binary,
        loadgen: flags.loadgen()?,
        seconds: if arguments.tiny { 1 } else { arguments.seconds },
        tiny: arguments.tiny,
        full_per_s: None,
    };
    warn(&bench);
    let mut page = Page::open(&arguments.out)?;
    // What cannot be written must not be found out after hours.
    page.write()?;
    let mut missing = Vec::new();
    for part in Part::ALL.into_iter().filter(|part| arguments.only.is_empty() || arguments.only.contains(part)) {
        eprintln!("results: {part}");
        let stamp = stamp::Stamp::now();
        let report = part.measure(&mut bench).unwrap_or_else(report::Report::failed);
        missing.extend(report.missing.iter().map(|what| format!("{part}: {what}")));
        page.put(part, &stamp.close(), &report.text);
        page.write()?;
    }
    if missing.is_empty() { Ok(()) } else { bail!("not measured:\n{}", missing.join("\n")) }
}

/// What would make the figures say less than they seem to.
fn warn(bench: &Bench) {
    if cfg!(debug_assertions) {
        eprintln!("results: built without --release; the figures say little");
    }
    if bench.engine.engine_cpu == bench.engine.load_cpu {
        eprintln!("results: engine and load share CPU {}; neither has it to itself", bench.engine.engine_cpu);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn parts_are_named_with_commas_between() {
        let parsed = Arguments::try_parse_from(["results", "--only=machine,micro"]).unwrap();
        assert_eq!(parsed.only, [Part::Machine, Part::Micro]);
        assert_eq!((parsed.seconds, parsed.tiny), (8, false));
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for bad in [&["--only=nothing"][..], &["--seconds=0"], &["--seconds=601"], &["--tiny", "--seconds=2"]] {
            let error = Arguments::try_parse_from([&["results"], bad].concat()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{bad:?}");
        }
    }
}
