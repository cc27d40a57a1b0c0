//! The end of the process when going on could acknowledge what is not durable.

use std::fmt::Display;

/// Exit code of a process that ended itself.
pub const FAILED: u8 = 1;

/// Says why and ends the process at once, without another acknowledgement.
pub fn fatal(what: &str, error: &dyn Display) -> ! {
    tracing::error!("{what}: {error}; the engine ends now, so that nothing is acknowledged that is not durable");
    crate::screen::show_cursor();
    std::process::exit(i32::from(FAILED))
}
