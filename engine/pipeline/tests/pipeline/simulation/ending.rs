//! How a simulation ends: everything is acknowledged, the engine stops, and its next life finds all of it.

use super::{Simulation, Tally};
use crate::client::{Client, Link};
use crate::engine::Died;
use highwater_proto::ProducerId;
use std::hash::Hasher;

/// Rounds after which an engine that does not come to an end is taken to be stuck.
const ROUNDS_MAX: u32 = 20_000;

impl Simulation {
    /// Lets every client have its way; ends when all batches are acknowledged.
    pub(super) fn drain(&mut self) {
        self.jump_ms = 0;
        self.make_room();
        if !self.is_calm {
            self.disk.restart();
        }
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "some batch is never acknowledged: {:?}", self.stuck());
            // A write that failed before may come back only now.
            let mut worked = match self.round() {
                Ok(worked) => worked,
                Err(Died(why)) => {
                    self.die(&why);
                    continue;
                }
            };
            worked |= self.deliver_all();
            self.network.sessions().into_iter().for_each(|session| self.engine_times_out(session));
            for index in 0..self.clients.len() {
                self.client_times_out(index);
                if self.clients[index].link == Link::Down {
                    self.connect(index);
                }
                self.send_next(index, false);
            }
            let done = |client: &Client| client.unacked.is_empty() && client.welcomed;
            if !worked && self.clients.iter().all(done) && self.network.is_quiet() {
                return;
            }
            self.pass(40);
        }
    }

    /// Looks every video up at the core that counts it.
    pub(super) fn look_all_up(&mut self) {
        for id in self.ids.clone() {
            let cores = self.engine().cores.len();
            let found: Vec<_> =
                (0..cores).filter_map(|core| self.engine().cores[core].pipeline.handle_lookup(&id).ok()).collect();
            let [counts] = found.as_slice() else { panic!("{id} is counted by {} cores", found.len()) };
            self.oracle.check_look_up(counts, u64::MAX);
        }
    }

    /// Closes every period that is final as of the last cut.
    fn close_all(&mut self) {
        while self.engine().close_periods(10, u64::MAX).unwrap().is_more_due {}
        self.check_history().unwrap();
    }

    /// What each client waits for: for failures.
    fn stuck(&self) -> Vec<(ProducerId, Link, usize, u64)> {
        let of = |client: &Client| (client.producer, client.link, client.unacked.len(), client.sequence_next);
        self.clients.iter().map(of).collect()
    }

    /// Stops the engine, which must have acknowledged everything.
    fn stop(&mut self) -> Result<(), Died> {
        self.engine().stop();
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the engine does not stop");
            self.round()?;
            if self.engine().is_stopped() {
                break;
            }
            self.pass(40);
        }
        Ok(())
    }

    /// Everything acknowledged, and a clean stop, whatever fails on the way.
    pub(super) fn drain_and_stop(&mut self) {
        loop {
            self.drain();
            match self.stop() {
                Ok(()) => return,
                Err(Died(why)) => self.die(&why),
            }
        }
    }

    /// A clean end, and one more life that must find everything without reading the log.
    pub(super) fn finish(mut self) -> Tally {
        self.drain_and_stop();
        let cut = self.engine().store.last_cut().map(|cut| cut.number);
        self.die("stopped");
        self.make_room();
        assert_eq!(
            self.engine().store.last_cut().map(|cut| cut.number),
            cut,
            "records were replayed after a clean stop"
        );
        let snapshots = self.tally.progress.snapshots;
        while self.tally.progress.snapshots < snapshots + 2 {
            self.pass(1000);
            for _ in 0..200 {
                self.round().unwrap();
            }
        }
        self.look_all_up();
        self.close_all();
        self.sum_up()
    }

    /// What this run came to.
    pub(super) fn sum_up(mut self) -> Tally {
        self.tally.runs = 1;
        self.tally.progress.batches = self.ledger.acked;
        self.tally.faults.add_disk(&self.disk.faults());
        self.tally.digest = self.digest.finish();
        self.tally
    }
}
