//! The world of the directed tests: one engine that can be restarted, a clock, sessions and small batches.

use crate::engine::{Answer, Died, Engine, Setup};
use bytes::Bytes;
use highwater_pipeline::{Intake, Reading, RecoveryError, SessionId, Stats};
use highwater_proto::{
    Ack, BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, BatchRefusal, ENCODINGS, FRAME_HEADER_BYTES, Hello, HelloMode,
    PROTOCOL_VERSION, Period, ProducerId, Pushed, Sequence, Snapshot, View, Welcome, Window,
};
use highwater_storage::MemoryDisk;

/// Ten seconds into a minute of November 2023.
pub(crate) const START_MS: u64 = 28_333_334 * 60_000 + 10_000;

/// Turns after which a world that does not come to rest is taken to be stuck.
const TURNS_MAX: usize = 100_000;

/// The payload of a batch frame: views by video id and time, with fields of `field_len` bytes; every other sequence in
/// compact columns.
pub(crate) fn payload(producer: ProducerId, sequence: u64, views: &[(&str, u64)], field_len: usize) -> Bytes {
    let field = "f".repeat(field_len);
    let encodings = if sequence.is_multiple_of(2) { 0 } else { ENCODINGS };
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32).with_encodings(encodings);
    for &(video_id, timestamp_ms) in views {
        let view = View { video_id, timestamp_ms, user_id: &field, region: &field, device: &field };
        assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
    }
    builder.encode(producer, Sequence(sequence)).slice(FRAME_HEADER_BYTES..)
}

/// Offers a payload in two chunks, as it may come off a stream.
pub(crate) fn offer(engine: &mut Engine, session: SessionId, payload: &Bytes) -> Intake {
    let middle = payload.len() / 3;
    engine.at(session).handle_batch(session, &[payload.slice(..middle), payload.slice(middle..)], payload.len())
}

pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) disk: MemoryDisk,
    pub(crate) wall_ms: u64,
    pub(crate) monotonic_ms: u64,
    pub(crate) engine: Engine,
    pub(crate) snapshots: Vec<Snapshot>,
    sessions: u64,
    starts: u64,
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        Self::on(setup, MemoryDisk::new(), START_MS)
    }

    pub(crate) fn on(setup: Setup, disk: MemoryDisk, wall_ms: u64) -> Self {
        let engine = Engine::start(&setup, &disk, Reading { wall_ms, monotonic_ms: 0 }, 1).unwrap();
        let mut world =
            Self { setup, disk, wall_ms, monotonic_ms: 0, engine, snapshots: Vec::new(), sessions: 0, starts: 1 };
        world.settle();
        world
    }

    pub(crate) fn reading(&self) -> Reading {
        Reading { wall_ms: self.wall_ms, monotonic_ms: self.monotonic_ms }
    }

    pub(crate) fn turn(&mut self) -> bool {
        let reading = self.reading();
        (0..self.engine.cores.len()).fold(false, |worked, core| worked | self.engine.turn(core, reading))
    }

    /// One turn of every core, one errand of the helper, and what came of those before.
    fn step(&mut self, errand: fn(&mut Engine) -> Result<bool, Died>) -> bool {
        let mut worked = self.turn();
        worked |= errand(&mut self.engine).unwrap();
        worked |= self.engine.segment().unwrap();
        for core in 0..self.engine.cores.len() {
            worked |= self.engine.complete(core).unwrap();
            worked |= self.engine.answer(core).unwrap();
        }
        worked
    }

    /// Lets everything happen that can without time passing; returns what clients were told.
    pub(crate) fn settle(&mut self) -> Vec<(SessionId, Answer)> {
        for _ in 0..TURNS_MAX {
            let mut worked = self.step(Engine::errand);
            if let Some(snapshot) = self.engine.publish() {
                self.snapshots.push(snapshot);
                worked = true;
            }
            if !worked {
                self.engine.check_balance();
                return self.engine.outputs();
            }
        }
        panic!("the engine does not come to rest");
    }

    /// Lets everything happen that can while the helper brings no runs: counting stands still at an edge.
    pub(crate) fn settle_but_edges(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.step(Engine::errand_but_edges) {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    /// Lets time pass, then everything happen.
    pub(crate) fn advance(&mut self, ms: u64) -> Vec<(SessionId, Answer)> {
        self.wall_ms += ms;
        self.monotonic_ms += ms;
        self.settle()
    }

    pub(crate) fn session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    pub(crate) fn hello(&mut self, session: SessionId, mode: HelloMode, producer: ProducerId) -> Intake {
        let hello = Hello { version: PROTOCOL_VERSION, mode, producer, token: Vec::new() };
        self.engine.hello(session, &hello)
    }

    /// Says hello and waits for the welcome.
    pub(crate) fn connect(&mut self, mode: HelloMode, producer: ProducerId) -> (SessionId, Welcome) {
        let session = self.session();
        assert_eq!(self.hello(session, mode, producer), Intake::Taken);
        let said = self.settle();
        let welcome = said.iter().find_map(|(to, answer)| match answer {
            Answer::Welcome(welcome) if *to == session => Some(welcome.clone()),
            _ => None,
        });
        (session, welcome.unwrap_or_else(|| panic!("no welcome among {said:?}")))
    }

    pub(crate) fn new_producer(&mut self, id: u128) -> (ProducerId, SessionId) {
        let producer = ProducerId(id);
        (producer, self.connect(HelloMode::New, producer).0)
    }

    pub(crate) fn send(&mut self, session: SessionId, payload: &Bytes) -> Intake {
        offer(&mut self.engine, session, payload)
    }

    /// Sends a batch that must be taken, if not at once, and returns its acknowledgement.
    pub(crate) fn acked(&mut self, session: SessionId, payload: &Bytes) -> Ack {
        let offers = (0..10).take_while(|_| {
            let waits = self.send(session, payload) == Intake::NoRoom;
            assert!(!waits || self.settle().is_empty());
            waits
        });
        assert!(offers.count() < 10, "there is never room for it");
        let said = self.settle();
        match said.as_slice() {
            [(to, Answer::Ack(ack))] if *to == session => ack.clone(),
            _ => panic!("not one acknowledgement but {said:?}"),
        }
    }

    /// Sends a batch that must be refused as a whole.
    pub(crate) fn refused(&mut self, session: SessionId, payload: &Bytes) -> (u64, BatchRefusal) {
        assert_eq!(self.send(session, payload), Intake::Taken);
        let said = self.settle();
        match said.as_slice() {
            [(to, Answer::Refused(refused))] if *to == session => (refused.sequence.0, refused.reason),
            _ => panic!("not one refusal but {said:?}"),
        }
    }

    /// Starts again on what a kill leaves (everything written), or a power cut with this seed.
    pub(crate) fn restart(&mut self, crash_seed: Option<u64>) -> Result<(), RecoveryError> {
        if let Some(seed) = crash_seed {
            self.disk = self.disk.crash(seed);
        }
        self.starts += 1;
        self.engine = Engine::start(&self.setup, &self.disk, self.reading(), self.starts)?;
        self.settle();
        Ok(())
    }

    /// What core 0 counts.
    pub(crate) fn stats(&mut self) -> Stats {
        self.engine.cores[0].pipeline.stats()
    }

    /// The next snapshot's rows of a period.
    pub(crate) fn rows(&mut self, period: Period) -> Vec<(String, u64)> {
        self.advance(1000);
        rows(self.snapshots.last().expect("a snapshot a second"), period)
    }
}

/// A snapshot's rows of a period's sliding window.
pub(crate) fn rows(snapshot: &Snapshot, period: Period) -> Vec<(String, u64)> {
    rows_of(snapshot, (period, Window::Sliding))
}

/// A snapshot's rows of a period and window.
pub(crate) fn rows_of(snapshot: &Snapshot, (period, window): (Period, Window)) -> Vec<(String, u64)> {
    let board = snapshot.board(period, window).unwrap();
    board.rows.iter().map(|row| (row.video_id.to_string(), row.view_count)).collect()
}
