//! What happens to the simulated engine: time, death, full disks, clocks that jump.

use super::{MINUTE_MS, Simulation};
use highwater_storage::Disk;

impl Simulation {
    pub(super) fn pass_time(&mut self) {
        let ms = match self.below(60) {
            0..30 => self.below(200),
            30..52 => self.below(2000),
            52..56 => MINUTE_MS - self.wall_ms % MINUTE_MS,
            56..58 => MINUTE_MS * self.below(8),
            58 => 3_600_000 + self.below(3_600_000),
            _ if self.chance(6) => 24 * 3_600_000 * self.below(35),
            _ => 10 * MINUTE_MS,
        };
        self.wall_ms += ms;
        self.monotonic_ms += ms;
    }

    /// Fills the log with writes that are on their way and overtake each other.
    fn crowd(&mut self) {
        for _ in 0..self.below(8) {
            for index in 0..self.clients.len() {
                self.send_next(index, true);
            }
            self.turn();
            let core = self.some_core();
            if self.chance(3) && self.engine().complete(core).is_err() {
                return;
            }
        }
    }

    pub(super) fn make_room(&mut self) {
        self.disk.set_capacity(1 << 40);
        self.disk.make_room();
    }

    pub(super) fn misfortune(&mut self) {
        match self.below(10) {
            0..4 => {
                self.crowd();
                self.die();
            }
            4..6 => {
                let calls = self.below(30);
                self.disk.fail_after(calls);
            }
            6 => {
                let used = (1 << 40) - self.disk.free_bytes().unwrap();
                if used < 1 << 40 {
                    self.disk.set_capacity(used + 600_000);
                }
                // Or no room for anything at all, from some call on.
                if self.chance(2) {
                    let calls = self.below(30);
                    self.disk.fill_after(calls);
                }
            }
            7 => self.make_room(),
            8 => self.jump_ms = 3_600_000,
            _ => self.jump_ms = 0,
        }
    }
}
