//! The simulation: producers, network, clock, disk and restarts at random, everything from one seed.
//!
//! After every step what was received is counted, duplicate or refused; after every publication all lists are those of
//! the oracle; after every restart what was acknowledged is there. What comes of a fenced session counts nowhere. In
//! the end every batch is acknowledged, once.

mod damage;
mod ending;
mod events;
mod every_call;
mod fate;
mod living;
mod network;
mod setup;
mod tally;
mod traffic;

use crate::client::Client;
use crate::engine::{Died, Engine, Setup};
use crate::ledger::Ledger;
use crate::oracle::Oracle;
use crate::world::START_MS;
use events::{Event, Events, Rerun};
use highwater_pipeline::Reading;
use highwater_proto::{ProducerId, Snapshot};
use highwater_storage::{LogPosition, MemoryDisk};
use network::Network;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::hash::{DefaultHasher, Hash};
use tally::Tally;

const SEEDS: u64 = 300;
const STEPS: u32 = 750;
const MINUTE_MS: u64 = 60_000;

struct Simulation {
    random: ChaCha8Rng,
    setup: Setup,
    /// Whether the table of videos is too small for all of them.
    is_tiny: bool,
    /// Whether nothing goes wrong by itself.
    is_calm: bool,
    ids: Vec<String>,
    disk: MemoryDisk,
    engine: Option<Engine>,
    wall_ms: u64,
    monotonic_ms: u64,
    /// How far the wall clock has jumped away.
    jump_ms: u64,
    /// The engine's own time, by core.
    now_ms: Vec<u64>,
    clients: Vec<Client>,
    network: Network,
    producer_next: u128,
    ledger: Ledger,
    oracle: Oracle,
    /// By core.
    logs_read: Vec<LogPosition>,
    log_calls: u64,
    last: Option<(u64, u64)>,
    /// Batches refused by the engine that lives.
    refused_in_life: u64,
    tally: Tally,
    events: Events,
    digest: DefaultHasher,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let is_tiny = seed % 4 == 3;
        // Half of all seeds run windows of full length.
        let setup = setup::choose(&mut random, is_tiny, (seed / 4).is_multiple_of(2));
        let ids: Vec<String> = (0..random.random_range(4..50)).map(setup::id_of).collect();
        let clients = random.random_range(1..5);
        let disk = MemoryDisk::new();
        disk.shorten_reads(seed);
        Self {
            oracle: Oracle::new(ids.clone(), &setup),
            random,
            setup,
            is_tiny,
            is_calm: false,
            ids,
            disk,
            engine: None,
            wall_ms: START_MS,
            monotonic_ms: 0,
            jump_ms: 0,
            now_ms: Vec::new(),
            clients: (0..clients).map(|id| Client::new(ProducerId(id))).collect(),
            network: Network::default(),
            producer_next: clients,
            ledger: Ledger::default(),
            logs_read: Vec::new(),
            log_calls: 0,
            last: None,
            refused_in_life: 0,
            tally: Tally::default(),
            events: Events::default(),
            digest: DefaultHasher::new(),
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.random.random_ratio(1, one_in)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound)
    }

    fn reading(&self) -> Reading {
        Reading { wall_ms: self.wall_ms + self.jump_ms, monotonic_ms: self.monotonic_ms }
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the engine lives")
    }

    /// Remembers what somebody was told, to compare runs of the same seed.
    fn note_told(&mut self, text: &str) {
        text.hash(&mut self.digest);
    }

    /// A turn of one core, by chance.
    fn turn(&mut self) {
        let core = self.some_core();
        self.turn_of(core);
    }

    fn some_core(&mut self) -> usize {
        let cores = self.engine().cores.len() as u64;
        self.below(cores) as usize
    }

    fn turn_of(&mut self, core: usize) -> bool {
        let reading = self.reading();
        if self.jump_ms == 0 {
            self.now_ms[core] = self.now_ms[core].max(self.wall_ms);
        }
        let next_epoch = self.engine().marked(core).0 + 1;
        let before = self.engine().cores[core].pipeline.stats().batches_counted;
        let worked = self.engine().turn(core, reading);
        self.read_log();
        let counted = self.engine().cores[core].pipeline.stats().batches_counted;
        self.ledger.settle(core, counted, next_epoch, &mut self.oracle);
        if counted > before {
            self.events.note(Some(core), Event::Turned { settled: counted });
        }
        self.distribute();
        worked
    }

    fn complete(&mut self, core: usize) -> Result<bool, Died> {
        let worked = self.engine().complete(core)?;
        if worked {
            self.events.note(Some(core), Event::Written);
        }
        Ok(worked)
    }

    fn errand(&mut self) -> Result<bool, Died> {
        let worked = self.engine().errand()?;
        if worked {
            self.events.note(None, Event::Errand);
        }
        Ok(worked)
    }

    fn segment(&mut self) -> Result<bool, Died> {
        let worked = self.engine().segment()?;
        if worked {
            self.events.note(None, Event::Errand);
        }
        Ok(worked)
    }

    fn answer(&mut self, core: usize) -> Result<bool, Died> {
        let worked = self.engine().answer(core)?;
        if worked {
            self.events.note(Some(core), Event::Answered);
        }
        Ok(worked)
    }

    fn publish(&mut self) -> bool {
        let Some(snapshot) = self.engine().publish() else { return false };
        self.check_snapshot(&snapshot);
        let video = self.below(self.ids.len() as u64) as usize;
        self.look_up(video);
        true
    }

    /// Looks a video up at the core that counts it, if that may be asked now: all that is in its last epoch is counted.
    fn look_up(&mut self, video: usize) {
        let cores = &mut self.engine.as_mut().expect("the engine lives").cores;
        for core in cores.iter_mut().filter(|core| core.pipeline.can_look_up()) {
            if let Ok(counts) = core.pipeline.handle_lookup(&self.ids[video]) {
                self.oracle.check_look_up(&counts, counts.epoch.0);
                self.tally.progress.look_ups += 1;
            }
        }
    }

    fn check_snapshot(&mut self, snapshot: &Snapshot) {
        let (epoch, time_ms) = (snapshot.epoch.0, snapshot.as_of_ms);
        self.events.note(None, Event::Published { epoch, time_ms });
        if let Some((last_epoch, last_ms)) = self.last.replace((epoch, time_ms)) {
            assert!(epoch > last_epoch, "epoch {epoch} after {last_epoch}");
            assert!(time_ms / MINUTE_MS >= last_ms / MINUTE_MS, "time {time_ms} after {last_ms}");
        }
        self.oracle.check(snapshot, self.setup.top_k);
        self.tally.progress.snapshots += 1;
        self.note_told(&format!("{snapshot:?}"));
    }

    fn step(&mut self) {
        self.events.begin_step(self.monotonic_ms);
        if let Err(Died(why)) = self.act_by_chance() {
            self.die(&why);
        }
        self.engine().check_balance();
    }

    fn act_by_chance(&mut self) -> Result<(), Died> {
        match self.below(100) {
            0..18 => self.turn(),
            18..27 => (0..self.below(8)).try_for_each(|_| self.round().map(|_| ()))?,
            27..41 => {
                let core = self.some_core();
                self.complete(core)?;
            }
            41..46 => {
                self.errand()?;
            }
            46 => {
                self.segment()?;
            }
            47..49 => self.roll()?,
            49..51 => self.close()?,
            51..56 => {
                let core = self.some_core();
                self.answer(core)?;
            }
            56..61 => {
                self.publish();
            }
            61..67 => self.pass_time(),
            67..81 => {
                let index = self.below(self.clients.len() as u64) as usize;
                self.act(index);
            }
            81..96 => (0..1 + self.below(12)).for_each(|_| self.deliver()),
            _ if self.is_calm => {}
            96..99 => self.network_fault(),
            _ => self.misfortune(),
        }
        Ok(())
    }

    /// A step of a roll-up, which may be stopped after any section.
    fn roll(&mut self) -> Result<(), Died> {
        let patience = if self.chance(4) { self.below(30) } else { u64::MAX };
        if self.engine().roll(patience)? {
            self.tally.progress.rollups += 1;
            self.events.note(None, Event::RolledUp);
        }
        Ok(())
    }

    /// Closes some of the periods that are final, or is stopped before.
    fn close(&mut self) -> Result<(), Died> {
        let patience = if self.chance(4) { self.below(20) } else { u64::MAX };
        let periods_max = 1 + self.below(20) as usize;
        let lists = self.engine().close_periods(periods_max, patience)?.lists.len();
        if lists > 0 {
            self.tally.progress.lists_closed += lists as u64;
            self.events.note(None, Event::Closed { lists });
        }
        self.check_history()
    }

    fn check_history(&mut self) -> Result<(), Died> {
        let history = self.engine().history()?;
        Ok(self.oracle.check_history(&history, self.setup.top_k)?)
    }

    /// One round in which everything goes on; returns whether anything did.
    fn round(&mut self) -> Result<bool, Died> {
        let mut worked = self.publish();
        for core in 0..self.engine().cores.len() {
            worked |= self.turn_of(core);
            worked |= self.complete(core)?;
            worked |= self.errand()?;
            worked |= self.segment()?;
            worked |= self.answer(core)?;
        }
        Ok(worked)
    }
}

fn run(seed: u64) -> Tally {
    let mut simulation = Simulation::new(seed);
    let test = "every_acknowledged_view";
    let _rerun = Rerun { seed, test, events: simulation.events.clone() };
    simulation.start();
    for _ in 0..STEPS {
        simulation.step();
    }
    simulation.finish()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Runs seeds on all CPUs, or the one that is asked for.
fn run_all(seeds: u64, run: impl Fn(u64) -> Tally + Sync) -> Tally {
    if let Some(seed) = number("HIGHWATER_SEED") {
        return run(seed);
    }
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let sum_of = |first: u64| {
        let mut sum = Tally::default();
        (first..seeds).step_by(threads as usize).for_each(|seed| sum.add(&run(seed)));
        sum
    };
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..threads).map(|first| scope.spawn(move || sum_of(first))).collect();
        let mut sum = Tally::default();
        runs.into_iter().for_each(|run| sum.add(&run.join().unwrap()));
        sum
    })
}

#[test]
fn every_acknowledged_view_is_counted_exactly_once() {
    let sum = run_all(SEEDS * number("HIGHWATER_CASES").unwrap_or(1), run);
    println!("{sum}");
    if sum.runs < SEEDS {
        return;
    }
    // A fault that never happens proves nothing, and neither does a simulation in which little goes on.
    for (text, count) in sum.faults.list().into_iter().chain(sum.progress.list()) {
        assert!(count > 0, "{text}: never\n{sum}");
    }
    let progress = sum.progress;
    let often = [progress.snapshots, progress.batches].into_iter().all(|count| count > 10 * SEEDS);
    let each = [
        progress.deaths,
        progress.many_cores,
        progress.questions,
        progress.duplicates,
        progress.cuts,
        progress.rollups,
        progress.lists_closed,
        progress.look_ups,
    ];
    assert!(often && each.into_iter().all(|count| count > SEEDS), "{sum}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        assert_eq!(run(seed), run(seed));
    }
}
