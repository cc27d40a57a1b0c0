//! `highwater status`: how a running engine is, for whoever was woken by it.
//!
//! It asks the engine's HTTP, so it works from another machine and at a sidecar apart, which knows less. Not a monitor.
//! Invariants: what is not known is told as such; every problem has a remedy; the exit code alone says whether there is
//! one.

mod asking;
mod facts;
mod page;
mod problems;
#[cfg(test)]
mod tests;
mod text;

use crate::args::{ReportFormat, StatusArguments};
use crate::fatal::FAILED;
use anyhow::{Context, Result};
use asking::Asking;
use std::io::Write;
use std::time::Instant;

pub use facts::Facts;

/// Exit code of an engine that is ready but has problems: neither an error nor wrong usage.
const TROUBLED: u8 = 3;

/// How an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Ready, and nothing is wrong.
    Good,
    /// Ready, with problems.
    Troubled,
    /// Not ready.
    NotReady,
}

impl State {
    /// How the process ends.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Good => 0,
            Self::Troubled => TROUBLED,
            Self::NotReady => FAILED,
        }
    }

    fn of(facts: &Facts) -> Self {
        match (facts.ready, facts.problems.is_empty()) {
            (false, _) => Self::NotReady,
            (true, true) => Self::Good,
            (true, false) => Self::Troubled,
        }
    }
}

/// Asks an engine and prints how it is.
///
/// # Errors
/// When no engine answers, or stdout is closed.
pub fn status(arguments: &StatusArguments) -> Result<State> {
    let facts = ask(arguments)?;
    let text = match arguments.format {
        ReportFormat::Text => facts.text(),
        ReportFormat::Json => format!("{}\n", serde_json::to_string(&facts).context("the state cannot be written")?),
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("stdout is closed")?;
    Ok(State::of(&facts))
}

fn ask(arguments: &StatusArguments) -> Result<Facts> {
    let engine = Asking::new(arguments)?;
    // First, so that what answers but is no engine is told at once.
    engine.not_ready()?;
    let before = engine.metrics()?;
    let asked_at = Instant::now();
    std::thread::sleep(arguments.over);
    let now = engine.metrics()?;
    let facts = Facts::new(&arguments.engine, &before, &now, asked_at.elapsed());
    let facts = facts.with_readiness(engine.not_ready()?).with_lists(engine.top()?, engine.closed()?);
    let problems = problems::problems(&facts, &before, &now);
    Ok(Facts { problems, ..facts })
}
