//! Markers: core 0 issues them, every core pushes them down all its lanes.
//!
//! Invariant: a batch's rows are in every lane before its core's next marker, so what a core has pushed before marker e
//! is in epoch e, and what it pushes later is not.

use crate::limits::{CUTS_UNWRITTEN_MAX, MARKER_INTERVAL_MS};
use crate::messages::{CutErrand, StoreRequest};
use crate::pipeline::Pipeline;
use highwater_ranking::{Cell, CoreCut, MARKER_CELLS, Marker, Minute};

impl Pipeline {
    /// On core 0: asks for what the next marker needs, and issues it when it is due.
    pub(crate) fn advance_markers(&mut self) -> bool {
        if !self.clock.healthy() || self.stop.has_ended() {
            return false;
        }
        let now_ms = self.clock.now_ms();
        let Some(markers) = &mut self.markers else { return false };
        while let Some(errand) = markers.poll_errand(now_ms) {
            self.errands.push_back(errand);
        }
        let last_cut = self.stop.wants_cut() && self.cut_started.is_none();
        let early = self.cut_wanted && self.cut_started.is_none() && self.cuts_unwritten < CUTS_UNWRITTEN_MAX;
        // Engine time stands still while the wall clock is behind it; snapshots go on all the same.
        let overdue = self.clock.monotonic_ms() >= self.marker_at_ms + 2 * MARKER_INTERVAL_MS;
        let Some((epoch, time_ms)) = markers.poll_marker(now_ms, early || last_cut || overdue) else {
            return false;
        };
        self.marker_at_ms = self.clock.monotonic_ms();
        if last_cut {
            self.stop.handle_cut_issued();
        }
        let new_minute = Minute::of_ms(time_ms) > self.counting.ranking.minute();
        self.push_marker(Marker { epoch, time_ms, cut: early || last_cut || new_minute, ..self.stand() });
        true
    }

    /// On the other cores: a marker has come from core 0.
    pub(crate) fn pass_on(&mut self, marker: &Marker) {
        let Marker { epoch, time_ms, cut, .. } = *marker;
        self.push_marker(Marker { epoch, time_ms, cut, ..self.stand() });
    }

    /// The part of a marker that says how far this core has come.
    fn stand(&self) -> Marker {
        Marker {
            epoch: self.marked,
            time_ms: 0,
            cut: false,
            log_generation: self.pushed.generation,
            log_position: self.pushed.position,
            oldest_arrival_ms: self.appended.front().map_or(self.clock.now_ms(), |one| one.arrival_ms),
        }
    }

    fn push_marker(&mut self, marker: Marker) {
        if marker.cut {
            self.cut_started = Some((self.pushed, self.producers.image(self.clock.now_ms())));
            self.cut_wanted = false;
        }
        self.marked = marker.epoch;
        self.stats.markers += 1;
        let cells: [Cell; MARKER_CELLS] = marker.encode();
        for lane in &mut self.lanes {
            lane.push(&cells);
        }
    }

    /// Sends this core's part of a cut to the helper.
    pub(crate) fn write_cut(&mut self, cut: CoreCut) {
        let (position, producers) = self.cut_started.take().expect("a cut is closed by a marker that asked for one");
        self.cut_pushed = position;
        self.cuts_unwritten += 1;
        let minute_moves = cut.minute < self.counting.ranking.minute();
        let errand = CutErrand { cut, position, producers, minute_moves };
        self.errands.push_back(StoreRequest::WriteCut(Box::new(errand)));
    }
}
