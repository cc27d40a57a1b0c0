//! The part `growth`: the tables of `loadgen growth`, one for each thing that grows.
//!
//! Invariant: each is a run of its own, so that one load that an engine cannot take does not cost the other tables.

use crate::report::Report;
use crate::sweep::own_flags;
use crate::{Bench, children};
use anyhow::{Result, bail};
use std::process::Command;

/// What grows, and the beginning of its rows' names.
const GROUPS: [(&str, &str); 7] = [
    ("Views in a batch", "batch "),
    ("Nothing: the load of the sweep", "as given"),
    ("Distinct videos; a single one is as hot as can be", "videos "),
    ("Skew of their popularity", "zipf "),
    ("Every view of a new video", "every id new"),
    ("Producers, each a connection", "producers "),
    ("Cores; the last shares the load's CPU, so of its row only CPU time for a view says something", "cores "),
];

const TINY: [&str; 4] = ["--videos=5000", "--prepared=60000", "--memory=512MiB", "--warm-up=100ms"];

pub(crate) fn measure(bench: &Bench) -> Result<Report> {
    let mut report = Report::default();
    report.say(
        "Each row has an engine of its own, filled and then loaded as fast as it answers. All but the one thing is as \
         in the sweep, and all lists are verified in the end.",
    );
    for (heading, rows) in &GROUPS[..bench.or_tiny(GROUPS.len(), 1)] {
        eprintln!("results: growth: {rows}");
        let mut command = Command::new(&bench.loadgen);
        command.arg("growth").args(own_flags(bench)).args(bench.or_tiny(&[][..], &TINY));
        let said = children::run(command.arg(format!("--only={rows}")));
        report.add(heading, said.and_then(|said| table(&said)));
    }
    if bench.tiny {
        report.say("The other tables are left out by `--tiny`.");
    }
    Ok(report)
}

/// The table among all that was printed.
fn table(said: &str) -> Result<String> {
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with('|')).collect();
    if lines.len() < 3 {
        bail!("loadgen growth printed no table: {said:?}");
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_taken_as_it_is() {
        assert_eq!(table("words\n| a |\n|---|\n| 1 |\n\n").unwrap(), "| a |\n|---|\n| 1 |");
        assert!(table("| a |\n").is_err());
    }
}
