//! `highwater serve`: run an engine until a signal.

use crate::args::ServeArguments;
use crate::engine::Engine;
use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;

/// Runs an engine; returns after a clean shutdown.
///
/// # Errors
/// What [`Engine::start`] finds wrong, or a thread that panicked.
pub fn serve(arguments: &ServeArguments) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let engine = Engine::start(arguments)?;
    let line = serde_json::to_string(&engine.ready).context("the ready line cannot be written")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("stdout is closed; nobody would learn the addresses")?;
    drop(out);
    if let Some(signal) = signals.forever().next() {
        tracing::info!(signal, "shutting down; a second signal ends at once");
    }
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            crate::fatal::fatal("a second signal", &"the shutdown was cut short; the next start replays the log");
        }
    });
    engine.stop()
}
