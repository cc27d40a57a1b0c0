//! How many connections are in which phase of their life, and in which order the lost ones were lost.
//!
//! What it is not: the connections themselves, which are the driver's. Invariant: `live` counts those that are not
//! lost, and every lost one that is not gone stands in `draining` once.

use std::collections::VecDeque;

use super::link::Phase;

/// Counts of a driver's connections.
#[derive(Debug, Default)]
pub(super) struct Census {
    /// Connections not lost.
    pub(super) live: usize,
    /// Of those, the ones that are not open yet.
    pub(super) handshaking: usize,
    /// Indices of the lost ones, the first lost first.
    draining: VecDeque<u32>,
}

impl Census {
    /// A connection began its handshake.
    pub(super) fn began(&mut self) {
        self.live += 1;
        self.handshaking += 1;
    }

    /// A connection went from one phase to another, or stayed in it.
    pub(super) fn moved(&mut self, index: u32, before: Phase, after: Phase) {
        self.handshaking -= usize::from(before == Phase::Handshaking && after != Phase::Handshaking);
        if before != Phase::Lost && after == Phase::Lost {
            self.live -= 1;
            self.draining.push_back(index);
        }
    }

    /// A connection is forgotten; it was in this phase.
    pub(super) fn gone(&mut self, index: u32, phase: Phase) {
        self.moved(index, phase, Phase::Lost);
        // Nearly first in line, as all drain for about as long.
        if let Some(place) = self.draining.iter().position(|lost| *lost == index) {
            self.draining.remove(place);
        }
    }

    /// The one that was lost first, if more than `draining_max` are lost and not gone.
    pub(super) fn surplus(&self, draining_max: usize) -> Option<u32> {
        self.draining.front().copied().filter(|_| self.draining.len() > draining_max)
    }
}
