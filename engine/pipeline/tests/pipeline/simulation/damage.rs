//! Damage at rest: a bit that flips, a sector or a replaced file that goes back to what it was before, on a copy of the
//! disk.
//!
//! An engine that starts on such a copy must refuse it and name the file, or come up exactly as the ledger and the
//! oracle have it, because what was hit is not needed: free blocks, what lies behind the end, files that others have
//! superseded.
//!
//! One case is taken for something else, and cannot be told from it: damage to the last groups of a log before a crash.
//! A bad record is damage if a later group states a durable prefix behind it, and a torn write otherwise. What a log
//! wrote in the second before it died may lack such a statement, an idle or stopped log never does. Without one, the
//! engine comes up without the bad record and all that follow it in its log, acknowledged or not, and with all else.

use super::Simulation;
use super::events::Event;
use super::living::{Standing, ask_standing};
use crate::engine::{Died, Engine};
use crate::ledger::{BatchKey, Ledger};
use crate::oracle::Oracle;
use highwater_pipeline::{Reading, RecoveryError};
use highwater_proto::ProducerId;
use highwater_storage::{BLOCK_BYTES, MemoryDisk, RecordHeader, RecordKind, StorageError, Store, segment_path};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

/// What goes stale at once.
const SECTOR_BYTES: usize = 512;

/// Rounds in which a copy must publish.
const ROUNDS_MAX: u32 = 5_000;

/// A place on a disk, and what is done to it.
struct Hit {
    path: String,
    byte: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bit,
    Sector,
    File,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Bit => "bit",
            Self::Sector => "sector",
            Self::File => "file",
        }
    }
}

/// What an engine that starts on a damaged copy may say.
struct Verdict {
    ledger: Ledger,
    oracle: Oracle,
    excused: BTreeSet<BatchKey>,
}

impl Simulation {
    /// Damages a copy of the disk and starts an engine on it.
    pub(super) fn start_on_damage(&mut self) {
        let disk = self.sound_disk();
        disk.make_room();
        let (open, records) = self.records(&disk);
        let hit = self.choose(&disk, &records);
        let faults = &mut self.tally.faults;
        match hit.kind {
            Kind::Bit => {
                disk.flip_bit(&hit.path, hit.byte, self.random.random_range(0..8));
                faults.bits_flipped += 1;
            }
            Kind::Sector if disk.go_stale(&hit.path, hit.byte) => faults.sectors_stale += 1,
            Kind::File if disk.go_back(&hit.path) => faults.files_stale += 1,
            Kind::Sector | Kind::File => return,
        }
        self.events.note(None, Event::Damaged { path: hit.path.clone(), byte: hit.byte, kind: hit.kind.name() });
        let excused = excused(&records, open, &hit);
        let (is_excused, seed) = (!excused.is_empty(), self.random.random());
        let outcome = match Engine::start(&self.setup, &disk, self.reading(), seed) {
            Ok(engine) => {
                let verdict = Verdict { ledger: self.ledger.clone(), oracle: self.oracle.clone(), excused };
                self.examine(engine, verdict).map_err(|Died(why)| why)
            }
            Err(RecoveryError::Storage(error)) => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        };
        let progress = &mut self.tally.progress;
        match outcome {
            Ok(()) if is_excused => progress.damage_taken_for_torn += 1,
            Ok(()) => progress.damage_harmless += 1,
            Err(text) => {
                // A state of before may want a file that is given up.
                let is_named = text.contains(&hit.path) || (hit.kind == Kind::File && text.contains(" is missing: "));
                assert!(is_named, "{} is damaged, and the engine says: {text}", hit.path);
                progress.damage_refused += 1;
            }
        }
    }

    /// The generation that is open, and the records that a start reads.
    fn records(&mut self, disk: &MemoryDisk) -> (u32, Vec<RecordHeader>) {
        let mut records = Vec::new();
        let mut store = Store::open(disk.copy(), self.setup.options()).unwrap();
        let open = store.state().generation;
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        let visited = store.replay_logs::<StorageError>(|_, record| {
            records.push(record.header);
            Ok(())
        });
        visited.unwrap();
        (open, records)
    }

    fn choose(&mut self, disk: &MemoryDisk, records: &[RecordHeader]) -> Hit {
        let kind = [Kind::Bit, Kind::Bit, Kind::Sector, Kind::Sector, Kind::File][self.below(5) as usize];
        if kind == Kind::File {
            let path = ["state.hw", "history/closed.hw"][self.below(2) as usize];
            return Hit { path: path.to_owned(), byte: 0, kind };
        }
        if !records.is_empty() && self.random.random() {
            // The last ones are the most delicate.
            let last = if self.chance(2) { records.len().min(4) } else { records.len() };
            let record = &records[records.len() - 1 - self.below(last as u64) as usize];
            let byte = record.place.offset + self.below(u64::from(record.length));
            return Hit { path: path_of(record), byte: byte as usize, kind };
        }
        let paths: Vec<String> = disk.paths().into_iter().filter(|path| !disk.contents(path).is_empty()).collect();
        let path = paths[self.below(paths.len() as u64) as usize].clone();
        let byte = self.below(disk.contents(&path).len() as u64) as usize;
        Hit { path, byte, kind }
    }

    /// Holds an engine on a damaged copy to what it may say.
    fn examine(&mut self, mut engine: Engine, verdict: Verdict) -> Result<(), Died> {
        let Verdict { mut ledger, mut oracle, excused } = verdict;
        let mut last = BTreeMap::new();
        for index in 0..self.clients.len() {
            let (producer, session) = (self.clients[index].producer, self.network.session());
            match ask_standing(&mut engine, session, producer) {
                Standing::Known(sequence) => {
                    last.insert(producer, sequence);
                }
                Standing::Unknown => {
                    let is_excused = !self.clients[index].welcomed || excused.contains(&(producer, 0));
                    assert!(is_excused, "{producer:?} is forgotten");
                }
            }
        }
        ledger.restart(&last, &excused, engine.issued_before.0, &mut oracle);
        let mut reading = self.reading();
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "an engine on a damaged disk publishes nothing");
            self.round_of(&mut engine, reading)?;
            reading = Reading { wall_ms: reading.wall_ms + 20, monotonic_ms: reading.monotonic_ms + 20 };
            if let Some(snapshot) = engine.publish() {
                oracle.check(&snapshot, self.setup.top_k);
                break;
            }
        }
        for _ in 0..20 {
            self.round_of(&mut engine, reading)?;
        }
        for core in engine.cores.iter_mut().filter(|core| core.pipeline.can_look_up()) {
            for id in &self.ids {
                if let Ok(counts) = core.pipeline.handle_lookup(id) {
                    oracle.check_look_up(&counts, u64::MAX);
                }
            }
        }
        oracle.check_history(&engine.history()?, self.setup.top_k)?;
        while engine.close_periods(20, u64::MAX)?.is_more_due {}
        Ok(oracle.check_history(&engine.history()?, self.setup.top_k)?)
    }

    fn round_of(&self, engine: &mut Engine, reading: Reading) -> Result<(), Died> {
        for core in 0..engine.cores.len() {
            engine.turn(core, reading);
            engine.complete(core)?;
            engine.errand()?;
            engine.segment()?;
            engine.answer(core)?;
        }
        Ok(())
    }
}

fn path_of(record: &RecordHeader) -> String {
    let identity = &record.place.identity;
    segment_path(identity.log, identity.generation, record.place.segment)
}

/// What may be missing after damage because nothing states that it was there: batches, and with a sequence of 0 the
/// hellos of new producers.
fn excused(records: &[RecordHeader], open: u32, hit: &Hit) -> BTreeSet<BatchKey> {
    // A flipped bit hits one record, a stale sector perhaps several; the first decides.
    let sector = hit.byte / SECTOR_BYTES * SECTOR_BYTES;
    let (start, end) = match hit.kind {
        Kind::Bit => (hit.byte, hit.byte + 1),
        Kind::Sector => (sector, sector + SECTOR_BYTES),
        Kind::File => return BTreeSet::new(),
    };
    let is_hit = |record: &RecordHeader| {
        let offset = record.place.offset as usize;
        path_of(record) == hit.path && offset < end && offset + record.length as usize > start
    };
    let Some(first) = records.iter().position(is_hit) else { return BTreeSet::new() };
    let identity = records[first].place.identity;
    let lost: Vec<&RecordHeader> = records[first..].iter().filter(|record| record.place.identity == identity).collect();
    let states_more = |record: &&&RecordHeader| {
        record.place.offset.is_multiple_of(BLOCK_BYTES as u64)
            && !is_hit(record)
            && record.durable_prefix > records[first].previous_end
    };
    // Of an older generation the end is recorded.
    if open != identity.generation || lost.iter().find(states_more).is_some() {
        return BTreeSet::new();
    }
    let key = |record: &&RecordHeader| match record.kind {
        RecordKind::Batch => Some((record.producer, record.sequence.0)),
        RecordKind::ProducerNew => Some((record.producer, 0)),
        RecordKind::Prefix => None,
    };
    lost.iter().filter_map(key).collect::<BTreeSet<(ProducerId, u64)>>()
}
