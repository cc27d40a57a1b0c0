//! What simulations came to: how often something happened that proves something, and each kind of fault.

use highwater_storage::DiskFaults;
use std::fmt;

/// Counters with names for people.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(super) struct $name {
            $(pub(super) $field: u64,)*
        }

        impl $name {
            fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// What is counted, and how often it happened.
            pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$field),)*]
            }
        }
    };
}

counters! {
    /// What went on.
    Progress {
        lives: "lives of an engine",
        many_cores: "lives with more than one core",
        deaths: "deaths",
        snapshots: "snapshots checked in full",
        look_ups: "look-ups checked",
        batches: "batches acknowledged",
        duplicates: "acknowledgements of duplicates",
        views_refused: "acknowledgements with refused views",
        batches_refused: "batches refused",
        waits: "batches that waited for room",
        questions: "questions between cores",
        cuts: "cut files",
        rollups: "roll-ups",
        lists_closed: "closed lists",
        damage_refused: "damaged copies refused by file",
        damage_harmless: "damaged copies that came up exact",
        damage_taken_for_torn: "damaged copies that came up without their unstated tail",
    }
}

counters! {
    /// What went wrong, by kind.
    Faults {
        power_cuts: "disk: power cuts",
        kills: "disk: kills that leave all writes",
        calls_without_power: "disk: calls after the power failed",
        sectors_lost: "disk: unsynced sectors lost",
        sectors_kept: "disk: unsynced sectors kept",
        writes_torn: "disk: torn writes",
        names_lost: "disk: unsynced names lost",
        writes_reordered: "disk: log writes out of order",
        no_room: "disk: calls without room",
        full_starts: "disk: starts without room",
        failed_writes: "disk: failed writes",
        failed_syncs: "disk: failed syncs",
        failed_reads: "disk: failed reads",
        short_reads: "disk: short reads",
        bits_flipped: "disk: bits flipped",
        sectors_stale: "disk: stale sectors",
        files_stale: "disk: stale replaced files",
        clock_jumps: "clock: jumps",
        clock_set_back: "clock: set back between lives",
        leaps: "clock: leaps over days",
        pieces: "network: batches in pieces",
        cut_short: "network: batches cut short",
        batches_lost: "network: batches lost on the way",
        batches_into_void: "network: batches sent to an engine that is gone",
        answers_lost: "network: answers lost on the way",
        half_open_engine: "network: connections that only the engine holds",
        half_open_client: "network: connections that only the client holds",
        severed: "network: connections severed",
        late_batches: "network: batches behind a newer connection's hello",
        zombie_batches: "network: other batches of a fenced twin",
        late_hellos: "network: hellos that overtake newer ones",
        resent: "network: batches sent over another connection",
        overtaken: "network: batches taken over a connection given up",
        redirects: "network: hellos to another core",
    }
}

impl Faults {
    /// Adds what a disk has counted.
    pub(super) fn add_disk(&mut self, disk: &DiskFaults) {
        self.power_cuts += disk.power_cuts;
        self.calls_without_power += disk.calls_without_power;
        self.sectors_lost += disk.sectors_lost;
        self.sectors_kept += disk.sectors_kept;
        self.writes_torn += disk.writes_torn;
        self.names_lost += disk.names_lost;
        self.writes_reordered += disk.writes_reordered;
        self.no_room += disk.no_room;
        self.failed_writes += disk.failed_writes;
        self.failed_syncs += disk.failed_syncs;
        self.failed_reads += disk.failed_reads;
        self.short_reads += disk.short_reads;
    }
}

/// What a run, or many, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) runs: u64,
    /// Virtual time that passed.
    pub(super) time_ms: u64,
    pub(super) progress: Progress,
    pub(super) faults: Faults,
    /// Of one run: what clients and readers were told.
    pub(super) digest: u64,
}

impl Tally {
    /// Adds another run's; a digest is of one run.
    pub(super) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.time_ms += other.time_ms;
        self.progress.add(&other.progress);
        self.faults.add(&other.faults);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12}  runs", self.runs)?;
        writeln!(f, "{:>12}  simulated hours", self.time_ms / 3_600_000)?;
        let faults = self.faults.list();
        writeln!(f, "{:>12}  faults of {} kinds", faults.iter().map(|(_, count)| count).sum::<u64>(), faults.len())?;
        for (text, count) in self.progress.list().into_iter().chain(faults) {
            writeln!(f, "{count:>12}  {text}")?;
        }
        Ok(())
    }
}
