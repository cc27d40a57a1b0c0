//! How a simulation ends: everything is acknowledged, the engine stops, and its next life finds all of it.

use super::{Simulation, Tally};
use crate::client::{Client, Link};
use highwater_proto::ProducerId;
use std::hash::Hasher;

impl Simulation {
    /// Lets every client have its way; ends when all batches are acknowledged.
    pub(super) fn drain(&mut self) {
        self.jump_ms = 0;
        self.make_room();
        self.disk.restart();
        for round in 0.. {
            assert!(round < 20_000, "some batch is never acknowledged: {:?}", self.stuck());
            // A write that failed before may come back only now.
            let Ok(worked) = self.round() else {
                self.die();
                continue;
            };
            for index in 0..self.clients.len() {
                if self.clients[index].link == Link::Down {
                    self.connect(index);
                }
                self.clients[index].hear();
                self.send_next(index, false);
            }
            let done = |client: &Client| client.unacked.is_empty() && client.inbox.is_empty() && client.welcomed;
            if !worked && self.clients.iter().all(done) {
                return;
            }
            self.wall_ms += 40;
            self.monotonic_ms += 40;
        }
    }

    /// Looks every video up at the core that counts it.
    fn look_all_up(&mut self) {
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

    /// A clean end, and one more life that must find everything without reading the log.
    pub(super) fn finish(mut self) -> Tally {
        self.drain();
        self.engine().stop();
        for round in 0.. {
            assert!(round < 20_000, "the engine does not stop");
            self.round().unwrap();
            if self.engine().is_stopped() {
                break;
            }
            self.wall_ms += 40;
            self.monotonic_ms += 40;
        }
        let cut = self.engine().store.last_cut().map(|cut| cut.number);
        self.die();
        assert_eq!(
            self.engine().store.last_cut().map(|cut| cut.number),
            cut,
            "records were replayed after a clean stop"
        );
        let snapshots = self.tally.snapshots;
        while self.tally.snapshots < snapshots + 2 {
            self.wall_ms += 1000;
            self.monotonic_ms += 1000;
            for _ in 0..200 {
                self.round().unwrap();
            }
        }
        self.look_all_up();
        self.close_all();
        self.tally.batches = self.ledger.acked;
        self.tally.digest = self.digest.finish();
        self.tally
    }
}
