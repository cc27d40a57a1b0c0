//! Lives of the simulated engine: how one begins, what it must know then, and how it ends.

use super::events::Event;
use super::{MINUTE_MS, Simulation};
use crate::engine::{Answer, Engine};
use highwater_pipeline::{Intake, RecoveryError, SessionId};
use highwater_proto::{Hello, HelloMode, PROTOCOL_VERSION, ProducerId};
use highwater_storage::{
    GenerationScan, LogNumber, LogPosition, MemoryDisk, RecordKind, StorageError, scan_generation,
};
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};

/// What an engine that has just started says of a producer.
pub(super) enum Standing {
    Known(u64),
    Unknown,
}

/// Asks a new engine what it has of a producer.
pub(super) fn ask_standing(engine: &mut Engine, session: SessionId, producer: ProducerId) -> Standing {
    let hello = Hello { version: PROTOCOL_VERSION, mode: HelloMode::Resume, producer, token: Vec::new() };
    assert_eq!(engine.hello(session, &hello), Intake::Taken);
    let said = engine.outputs();
    engine.at(session).handle_disconnect(session);
    match said.as_slice() {
        [(to, Answer::Welcome(welcome))] if *to == session => Standing::Known(welcome.last.0),
        [(_, Answer::Close(..))] => Standing::Unknown,
        _ => panic!("{producer:?} says hello after a restart and hears {said:?}"),
    }
}

impl Simulation {
    /// Starts the engine, however often its disk fails at that, and learns what survived.
    pub(super) fn start(&mut self) {
        self.jump_ms = 0;
        loop {
            self.tally.progress.lives += 1;
            if !self.is_calm {
                self.trouble_the_start();
            }
            let seed = self.random.random();
            let cores: [u16; 6] = if self.is_calm { [1, 1, 1, 1, 2, 2] } else { [1, 1, 2, 2, 3, 4] };
            self.setup.cores = cores[self.below(6) as usize];
            let started = Engine::start(&self.setup, &self.disk, self.reading(), seed);
            if !self.is_calm || started.is_err() {
                self.disk.restart();
            }
            match started {
                Ok(engine) => {
                    let (cores, issued_before) = (engine.cores.len(), engine.issued_before.0);
                    self.events.note(None, Event::Started { cores, issued_before });
                    self.now_ms = vec![engine.time_ms; cores];
                    self.refused_in_life = 0;
                    let start = LogPosition::start_of(engine.store.state().generation);
                    self.logs_read = vec![start; cores];
                    self.tally.progress.many_cores += u64::from(cores > 1);
                    self.engine = Some(engine);
                    return self.take_stock();
                }
                Err(RecoveryError::Storage(error)) if error.is_no_space() => {
                    self.events.note(None, Event::StartRefused(error.to_string()));
                    self.tally.faults.full_starts += 1;
                    self.make_room();
                }
                Err(error) => {
                    let text = error.to_string();
                    let expected = ["the power has failed", "os error 5"];
                    assert!(expected.iter().any(|part| text.contains(part)), "{text}");
                    self.events.note(None, Event::StartRefused(text));
                }
            }
            if self.is_calm || self.chance(2) {
                self.cut_power();
            }
        }
    }

    fn trouble_the_start(&mut self) {
        if self.chance(5) {
            let calls = self.below(60);
            self.disk.fail_after(calls);
        }
        if self.chance(10) {
            let calls = self.below(20);
            self.disk.fill_after(calls);
        }
        if self.chance(6) {
            self.fail_one_call();
        }
    }

    /// Lets a read, a write or a sync fail soon.
    pub(super) fn fail_one_call(&mut self) {
        let calls = self.below(20);
        match self.below(3) {
            0 => self.disk.fail_read_after(calls),
            1 => self.disk.fail_write_after(calls),
            _ => self.disk.fail_sync_after(calls),
        }
    }

    fn cut_power(&mut self) {
        let seed = self.random.random();
        self.events.note(None, Event::PowerCut { seed });
        self.disk = self.disk.crash(seed);
    }

    /// Asks for every producer what the engine has of it.
    fn take_stock(&mut self) {
        let mut last = BTreeMap::new();
        for index in 0..self.clients.len() {
            let (producer, session) = (self.clients[index].producer, self.network.session());
            match ask_standing(self.engine(), session, producer) {
                Standing::Known(sequence) => {
                    last.insert(producer, sequence);
                }
                Standing::Unknown => assert!(!self.clients[index].welcomed, "{producer:?} is forgotten"),
            }
        }
        let issued_before = self.engine().issued_before.0;
        self.ledger.restart(&last, &BTreeSet::new(), issued_before, &mut self.oracle);
    }

    /// The engine ends: by power cut, or killed, with all that it wrote still there.
    pub(super) fn die(&mut self, why: &str) {
        self.events.note(None, Event::Died(why.to_owned()));
        self.tally.progress.deaths += 1;
        self.read_log();
        let mut engine = self.engine.take().expect("the engine lives");
        for stats in engine.stats() {
            self.tally.progress.cuts += stats.cuts;
            self.tally.progress.waits += stats.intake_waits;
            self.tally.progress.questions += stats.questions;
        }
        self.engine_is_gone();
        drop(engine);
        self.disk.restart();
        self.make_room();
        if self.is_calm || self.random.random_bool(0.6) {
            self.cut_power();
        } else {
            self.tally.faults.kills += 1;
            self.events.note(None, Event::Killed);
        }
        if !self.is_calm && self.chance(2) {
            self.start_on_damage();
        }
        if !self.is_calm && self.chance(6) {
            self.tally.faults.clock_set_back += 1;
            self.wall_ms -= self.below(3 * MINUTE_MS);
        }
        self.start();
    }

    /// The disk as it is, without faults.
    pub(super) fn sound_disk(&self) -> MemoryDisk {
        let disk = self.disk.copy();
        disk.restart();
        disk
    }

    /// Reads from the log which new ids were refused; without a full table every verdict is predicted.
    pub(super) fn read_log(&mut self) {
        // Nothing was written since.
        let calls = self.disk.calls();
        if !self.is_tiny || std::mem::replace(&mut self.log_calls, calls) == calls {
            return;
        }
        let disk = self.sound_disk();
        let Some(engine) = &mut self.engine else { return };
        let (ledger, oracle) = (&mut self.ledger, &self.oracle);
        for (core, log_read) in self.logs_read.iter_mut().enumerate() {
            let identity = engine.store.log_identity(LogNumber(core as u32));
            let (from, segment_bytes) = (log_read.position, self.setup.log.segment_bytes);
            let scan = GenerationScan { identity, segment_bytes, from, expected_end: None };
            let end = scan_generation::<StorageError>(&disk, &scan, |record| {
                if record.header.kind == RecordKind::Batch {
                    let found: Vec<_> = record.verdicts.iter().collect();
                    ledger.verdicts(record.header.producer, record.header.sequence.0, &found, oracle);
                }
                Ok(())
            });
            *log_read = end.unwrap().end;
        }
    }
}
