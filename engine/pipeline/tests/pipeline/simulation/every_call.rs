//! Short runs, in each of which the power fails at every single changing call of the disk.
//!
//! A first run of a seed counts the calls; then the same run is made once for each of them, its power failing there.
//! Nothing else goes wrong in these runs, so that what fails is the call's.

use super::events::Rerun;
use super::tally::Tally;
use super::{Simulation, number, run_all, setup};
use crate::engine::Died;

/// Seeds, each with as many runs as it makes calls.
const SEEDS: u64 = 100;
const STEPS: u32 = 16;

impl Simulation {
    /// A small engine with few clients, to which nothing happens by itself.
    fn short(seed: u64) -> Self {
        let mut simulation = Self::new(seed);
        simulation.is_calm = true;
        setup::shrink(&mut simulation.setup);
        simulation.clients.truncate(2);
        simulation
    }

    /// A step in which much goes on, for a run that has few.
    fn short_step(&mut self) -> Result<(), Died> {
        self.events.begin_step(self.monotonic_ms);
        match self.below(10) {
            0..5 => {
                for index in 0..self.clients.len() {
                    self.act(index);
                }
                (0..self.below(12)).for_each(|_| self.deliver());
                self.turn();
            }
            5..9 => {
                self.round()?;
            }
            _ => self.pass_time(),
        }
        Ok(())
    }

    /// Starts again on what is there and compares a snapshot, and every video.
    fn check_once_more(&mut self) {
        self.drain();
        let snapshots = self.tally.progress.snapshots;
        while self.tally.progress.snapshots == snapshots {
            self.pass(1000);
            for _ in 0..10 {
                self.round().unwrap();
            }
        }
        self.look_all_up();
        self.check_history().unwrap();
    }
}

/// Runs a seed, the power failing at one call if one is given; says how many calls there were until a clean stop.
fn run_short(seed: u64, fail_at: Option<u64>) -> (u64, Tally) {
    let mut simulation = Simulation::short(seed);
    let test = "every_single_write_and_sync";
    let _rerun = Rerun { seed, test, events: simulation.events.clone() };
    if let Some(call) = fail_at {
        simulation.disk.fail_after(call);
    }
    simulation.start();
    let has_failed = |simulation: &Simulation| simulation.disk.faults().power_cuts > 0;
    for _ in 0..STEPS {
        if has_failed(&simulation) {
            break;
        }
        if let Err(Died(why)) = simulation.short_step() {
            simulation.die(&why);
        }
    }
    if !has_failed(&simulation) {
        simulation.drain_and_stop();
        let calls = simulation.disk.calls();
        if fail_at.is_none() {
            return (calls, simulation.sum_up());
        }
        assert!(has_failed(&simulation), "the power does not fail at call {fail_at:?} of {calls}");
        simulation.die("stopped");
    }
    simulation.check_once_more();
    (0, simulation.sum_up())
}

#[test]
fn a_power_cut_at_every_single_write_and_sync_costs_nothing_acknowledged() {
    let sum = run_all(SEEDS * number("HIGHWATER_CASES").unwrap_or(1), |seed| {
        let (calls, mut sum) = run_short(seed, None);
        for call in 0..calls {
            sum.add(&run_short(seed, Some(call)).1);
        }
        sum
    });
    println!("{sum}");
    if sum.runs < SEEDS {
        return;
    }
    assert!(sum.runs > 20 * SEEDS && sum.faults.power_cuts >= sum.runs - SEEDS, "{sum}");
}
