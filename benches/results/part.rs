//! The parts of the page, in its order.

use crate::report::Report;
use crate::{Bench, changes, growth, log, machine, micro, serving, stages, sweep};
use anyhow::Result;
use clap::ValueEnum;
use std::fmt;

/// One part; its name is what `--only` is given and what its marker on the page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Part {
    /// What it was measured on.
    Machine,
    /// Rates up to the highest that is held, in both encodings.
    Sweep,
    /// Where the engine's CPU time goes at full load.
    Stages,
    /// What a view costs as one thing after the other grows.
    Growth,
    /// Lists over HTTP.
    Serving,
    /// The log's writes on the disk.
    Log,
    /// Single modules.
    Micro,
    /// What was tried, kept and rejected.
    Changes,
}

impl Part {
    pub(crate) const ALL: [Self; 8] =
        [Self::Machine, Self::Sweep, Self::Stages, Self::Growth, Self::Serving, Self::Log, Self::Micro, Self::Changes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Sweep => "sweep",
            Self::Stages => "stages",
            Self::Growth => "growth",
            Self::Serving => "serving",
            Self::Log => "log",
            Self::Micro => "micro",
            Self::Changes => "changes",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Machine => "The machine",
            Self::Sweep => "What an engine holds",
            Self::Stages => "Where its CPU time goes",
            Self::Growth => "What a view costs as loads grow",
            Self::Serving => "Lists over HTTP",
            Self::Log => "The log on the disk",
            Self::Micro => "Single modules",
            Self::Changes => "What was tried",
        }
    }

    pub(crate) fn measure(self, bench: &mut Bench) -> Result<Report> {
        match self {
            Self::Machine => machine::measure(bench),
            Self::Sweep => sweep::measure(bench),
            Self::Stages => stages::measure(bench),
            Self::Growth => growth::measure(bench),
            Self::Serving => serving::measure(bench),
            Self::Log => log::measure(bench),
            Self::Micro => micro::measure(bench),
            Self::Changes => changes::measure(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_in_the_order_of_the_page() {
        for part in Part::ALL {
            assert_eq!(Part::from_str(part.name(), false), Ok(part));
        }
        assert_eq!(Part::value_variants(), Part::ALL);
        assert!(Part::ALL.is_sorted());
    }
}
