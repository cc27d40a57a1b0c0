//! What happens to the simulated engine: time, death, full and failing disks, clocks that jump.

use super::events::Event;
use super::{MINUTE_MS, Simulation};
use highwater_storage::Disk;

const DAY_MS: u64 = 24 * 3_600_000;

impl Simulation {
    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        self.wall_ms += ms;
        self.monotonic_ms += ms;
        self.tally.time_ms += ms;
    }

    pub(super) fn pass_time(&mut self) {
        let ms = match self.below(60) {
            0..30 => self.below(200),
            30..52 => self.below(2000),
            52..56 => MINUTE_MS - self.wall_ms % MINUTE_MS,
            56..58 => MINUTE_MS * self.below(8),
            58 => 3_600_000 + self.below(3_600_000),
            _ if self.chance(6) => DAY_MS * self.below(35),
            _ => 10 * MINUTE_MS,
        };
        self.tally.faults.leaps += u64::from(ms >= DAY_MS);
        self.events.note(None, Event::Passed { ms });
        self.pass(ms);
    }

    /// Fills the log with writes that are on their way and overtake each other.
    fn crowd(&mut self) {
        for _ in 0..self.below(8) {
            for index in 0..self.clients.len() {
                self.send_next(index, true);
            }
            self.network.sessions().into_iter().for_each(|session| while self.deliver_to_engine(session) {});
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
        match self.below(14) {
            0..5 => {
                self.crowd();
                self.die("by chance");
            }
            5..7 => {
                self.events.note(None, Event::Fault("the power will fail"));
                let calls = self.below(30);
                self.disk.fail_after(calls);
            }
            7..9 => {
                self.events.note(None, Event::Fault("a call will fail"));
                self.fail_one_call();
            }
            9 => {
                self.events.note(None, Event::Fault("the disk fills"));
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
            10 | 11 => self.make_room(),
            12 => {
                self.events.note(None, Event::Fault("the clock jumps"));
                self.tally.faults.clock_jumps += 1;
                self.jump_ms = 3_600_000;
            }
            _ => self.jump_ms = 0,
        }
    }
}
