//! `highwater serve`: run an engine until a signal; SIGHUP has it read certificates and tokens again.

use crate::args::ServeArguments;
use crate::engine::Engine;
use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;

/// Runs an engine; returns after a clean shutdown.
///
/// # Errors
/// What [`Engine::start`] finds wrong, or a thread that panicked.
pub fn serve(arguments: &ServeArguments) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
    let engine = Engine::start(arguments)?;
    let line = serde_json::to_string(&engine.ready).context("the ready line cannot be written")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("stdout is closed; nobody would learn the addresses")?;
    drop(out);
    for signal in signals.forever() {
        if signal == SIGHUP {
            engine.reload();
            continue;
        }
        tracing::info!(signal, "shutting down; a second signal ends at once");
        break;
    }
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGHUP) {
            crate::fatal::fatal("a second signal", &"the shutdown was cut short; the next start replays the log");
        }
    });
    engine.stop()
}
