//! A clean shutdown: every core settles, one last cut is made, every log states its durable prefix.
//!
//! ```text
//! core 0   Running ─▶ Settling ─ all cores settled ─▶ Cutting ─ cut written ─▶ Stating ─▶ Stopped
//! others   Running ─▶ Settling ─ told core 0 ─▶ Settled ─ told to end ───────▶ Stating ─▶ Stopped
//! ```
//!
//! Core 0 decides when the markers end, so that no core waits for one that will not come. Invariant: a core stops only
//! after core 0 has issued its last marker.

use crate::mesh::{HOLD_COUNTS, HOLD_NOT};
use crate::notes::{Message, Note};
use crate::pipeline::Pipeline;
use highwater_storage::AppendRoom;

/// How far a core's shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// No batch is taken any more; what was appended settles.
    Settling,
    /// Core 0 was told that nothing more will be pushed.
    Settled,
    /// The last marker closes a cut.
    Cutting,
    /// A last record states the durable prefix.
    Stating,
    Stopped,
}

/// A core's shutdown.
#[derive(Debug)]
pub(crate) struct Stop {
    stage: Stage,
    /// Other cores that have not settled yet, as core 0 knows.
    unsettled: usize,
    /// Whether anything was pushed on any core since the last cut.
    dirty: bool,
    cut_issued: bool,
    /// Whether core 0 has issued its last marker.
    ended: bool,
}

impl Stop {
    pub(crate) fn new(cores: usize) -> Self {
        Self { stage: Stage::Running, unsettled: cores - 1, dirty: false, cut_issued: false, ended: false }
    }

    pub(crate) fn is_stating(&self) -> bool {
        self.stage == Stage::Stating
    }

    /// Whether the last cut is to be made.
    pub(crate) fn wants_cut(&self) -> bool {
        self.stage == Stage::Cutting && self.dirty && !self.cut_issued
    }

    pub(crate) fn handle_cut_issued(&mut self) {
        self.cut_issued = true;
    }

    pub(crate) fn handle_settled(&mut self, dirty: bool) {
        self.unsettled -= 1;
        self.dirty |= dirty;
    }

    /// Whether no marker is issued any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn handle_end(&mut self) {
        self.ended = true;
    }
}

impl Pipeline {
    /// Begins a clean shutdown; [`is_stopped`](Self::is_stopped) tells when it is done. Every core is to be told.
    pub fn handle_stop(&mut self) {
        if self.stop.stage == Stage::Running {
            self.stop.stage = Stage::Settling;
        }
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.stage != Stage::Running
    }

    /// Whether a clean shutdown is complete: everything counted is in a cut file and the log states its prefix.
    pub fn is_stopped(&self) -> bool {
        self.stop.stage == Stage::Stopped
    }

    /// Whether everything appended is durable.
    fn log_is_idle(&self) -> bool {
        self.log.durable_end() == self.log.appended_end()
    }

    /// Goes on to the next stage if it is time; returns whether it was.
    pub(crate) fn advance_stop(&mut self) -> bool {
        if self.stop.stage == Stage::Running {
            return false;
        }
        let settled = self.appended.is_empty() && self.log_is_idle();
        let dirty = self.pushed != self.cut_pushed;
        // A full disk has no room for the record: then the next start reads on to the end of the log, as after a kill.
        let no_room = self.disk_full.is_some() && self.log.room(0) == AppendRoom::NoSegment;
        // With late rows at their limit nothing settles before a cut, and a stopped clock makes none; with a count at
        // its limit nothing settles for a long time. Then the next start replays the log.
        let held = self.lanes.iter().any(|lane| lane.hold.read() != HOLD_NOT);
        let for_long = self.lanes.iter().any(|lane| lane.hold.read() == HOLD_COUNTS);
        let stuck = held && (for_long || !self.clock.healthy()) && self.is_between_cuts();
        let is_issuer = self.markers.is_some();
        let before = self.stop.stage;
        self.stop.stage = match before {
            Stage::Settling if settled && is_issuer && self.stop.unsettled == 0 => {
                self.stop.dirty |= dirty;
                Stage::Cutting
            }
            Stage::Settling if stuck && is_issuer => self.end(Stage::Stopped),
            Stage::Settling if held && self.stop.ended => Stage::Stopped,
            Stage::Settling if settled && !is_issuer => {
                self.lanes[0].tell(&Message::Note(Note::Settled { dirty }));
                Stage::Settled
            }
            Stage::Settled if self.stop.ended && self.cuts_unwritten == 0 => Stage::Stating,
            Stage::Cutting if self.is_cut() => self.end(Stage::Stating),
            Stage::Stating if !self.log.needs_prefix() || no_room => Stage::Stopped,
            stage => stage,
        };
        self.stop.stage != before
    }

    /// On core 0: whether the last cut is written, or not needed, or cannot be made because the clock stands.
    fn is_cut(&self) -> bool {
        (!self.stop.wants_cut() || !self.clock.healthy()) && self.is_between_cuts()
    }

    /// On core 0: whether no marker is under way and no cut is being made.
    fn is_between_cuts(&self) -> bool {
        let published = self.markers.as_ref().is_some_and(|markers| markers.is_published());
        published && self.cuts_unwritten == 0 && self.cut_started.is_none()
    }

    /// Tells the other cores that there will be no further marker.
    fn end(&mut self, then: Stage) -> Stage {
        for lane in self.lanes.iter_mut().skip(1) {
            lane.tell(&Message::Note(Note::End));
        }
        self.stop.ended = true;
        then
    }
}
