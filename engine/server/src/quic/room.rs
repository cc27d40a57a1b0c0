//! What the connections of a core take beyond the least that each has: out of one amount, so that their number and
//! their speed are bounded together.
//!
//! A connection begins with small windows and is given larger ones as it proves to need them, while there is room.
//! What a window was given stays with it to the end of the connection, since credit cannot be taken back from a peer.
//! Invariant: what was taken and not given back is never more than what there was.

/// What is left.
#[derive(Debug)]
pub(super) struct Room {
    windows_left_bytes: u64,
    windows_taken_bytes: u64,
    unsent_bytes: usize,
    unsent_bytes_max: usize,
}

impl Room {
    /// Room for windows beyond the least, and for bytes that wait for their peers' windows.
    pub(super) fn new(windows_bytes: u64, unsent_bytes_max: usize) -> Self {
        Self { windows_left_bytes: windows_bytes, windows_taken_bytes: 0, unsent_bytes: 0, unsent_bytes_max }
    }

    /// Takes room for a larger window; returns whether there was any.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let is_there = bytes <= self.windows_left_bytes;
        if is_there {
            self.windows_left_bytes -= bytes;
            self.windows_taken_bytes += bytes;
        }
        is_there
    }

    /// Gives room back.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.windows_left_bytes += bytes;
        self.windows_taken_bytes -= bytes;
    }

    /// Bytes of windows taken, and bytes that wait for their peers' windows.
    pub(super) fn taken(&self) -> (u64, u64) {
        (self.windows_taken_bytes, self.unsent_bytes as u64)
    }

    /// A connection has so many bytes unsent, and had so many before.
    pub(super) fn unsent(&mut self, before: usize, now: usize) {
        self.unsent_bytes = self.unsent_bytes - before + now;
    }

    /// Whether so many more bytes may wait.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.unsent_bytes + bytes <= self.unsent_bytes_max
    }
}
