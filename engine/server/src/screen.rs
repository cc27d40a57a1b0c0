//! Where pictures are shown: a terminal, in place, or anything else, one after the other.
//!
//! It knows nothing of what is in them. Invariant: a cursor that was hidden is shown again however the process ends,
//! except by SIGKILL or a signal that nobody watches.

use crate::live::cut;
use anyhow::{Context, Result};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns of a line when stdout is no terminal, or one that does not know its size.
const WIDTH_DEFAULT: usize = 100;

/// Whether this process has hidden the terminal's cursor.
static CURSOR_HIDDEN: AtomicBool = AtomicBool::new(false);

/// Stdout as a place for pictures.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    shown: String,
}

impl Screen {
    /// Stdout as it is: a terminal is cleared with the first picture.
    #[must_use]
    pub fn stdout() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), shown: String::new() }
    }

    /// Whether pictures replace each other.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns there are now.
    #[must_use]
    pub fn width(&self) -> usize {
        self.size().map_or(WIDTH_DEFAULT, |(columns, _)| columns)
    }

    /// Columns and lines of the terminal, if it is one and says so.
    fn size(&self) -> Option<(usize, usize)> {
        let size = self.terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }

    /// Shows a picture of lines; elsewhere than on a terminal only if it differs from the one before.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn show(&mut self, picture: &str) -> Result<()> {
        let text = if self.terminal {
            let clear = if CURSOR_HIDDEN.swap(true, Ordering::Relaxed) { "" } else { "\x1b[?25l\x1b[2J" };
            let (columns, lines) = self.size().unwrap_or((WIDTH_DEFAULT, usize::MAX));
            format!("{clear}{}", in_place(picture, columns, lines))
        } else if picture == self.shown {
            return Ok(());
        } else {
            picture.to_owned()
        };
        picture.clone_into(&mut self.shown);
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("stdout is closed")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        show_cursor();
    }
}

/// Shows the cursor again if this process has hidden it; for ends of the process that drop nothing.
pub fn show_cursor() {
    if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) {
        let mut out = std::io::stdout();
        // A terminal that is gone needs no cursor.
        let _ = out.write_all(b"\x1b[?25h").and_then(|()| out.flush());
    }
}

/// The picture over the one before: each line clears what stood to its right, the last all below it. Lines that the
/// terminal has no room for are left out, and one stays free below, so that nothing scrolls.
fn in_place(picture: &str, columns: usize, lines: usize) -> String {
    let mut text = "\x1b[H".to_owned();
    for line in picture.lines().take(lines.saturating_sub(1).max(1)) {
        text.push_str(&cut(line, columns));
        text.push_str("\x1b[K\r\n");
    }
    text.push_str("\x1b[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_in_place_fits_the_terminal() {
        assert_eq!(in_place("one\ntwo\n", 80, 24), "\x1b[Hone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J");
        assert_eq!(in_place("one\ntwo\nthree\n", 2, 3), "\x1b[Ho…\x1b[K\r\nt…\x1b[K\r\n\x1b[J");
        assert_eq!(in_place("one\n", 80, 1), "\x1b[Hone\x1b[K\r\n\x1b[J");
    }
}
