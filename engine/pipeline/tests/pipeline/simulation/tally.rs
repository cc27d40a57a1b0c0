//! What simulations came to: how often something happened that proves something.

/// What a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) lives: u64,
    /// Lives with more than one core.
    pub(super) many_cores: u64,
    pub(super) redirects: u64,
    pub(super) questions: u64,
    pub(super) deaths: u64,
    /// Starts refused for want of room on the disk.
    pub(super) full_starts: u64,
    pub(super) snapshots: u64,
    pub(super) batches: u64,
    pub(super) duplicates: u64,
    pub(super) views_refused: u64,
    pub(super) batches_refused: u64,
    pub(super) waits: u64,
    pub(super) cuts: u64,
    pub(super) rollups: u64,
    pub(super) lists_closed: u64,
    pub(super) look_ups: u64,
    pub(super) digest: u64,
}

impl Tally {
    /// Adds another run's; a digest is of one run.
    pub(super) fn add(&mut self, other: &Self) {
        self.lives += other.lives;
        self.many_cores += other.many_cores;
        self.redirects += other.redirects;
        self.questions += other.questions;
        self.deaths += other.deaths;
        self.full_starts += other.full_starts;
        self.snapshots += other.snapshots;
        self.batches += other.batches;
        self.duplicates += other.duplicates;
        self.views_refused += other.views_refused;
        self.batches_refused += other.batches_refused;
        self.waits += other.waits;
        self.cuts += other.cuts;
        self.rollups += other.rollups;
        self.lists_closed += other.lists_closed;
        self.look_ups += other.look_ups;
    }
}
