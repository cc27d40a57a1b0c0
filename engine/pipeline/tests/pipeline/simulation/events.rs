//! The last events of a simulation, kept for the seed that fails.
//!
//! Not a log: what is older is gone. Nothing is made into text before it is printed.

use highwater_pipeline::SessionId;
use highwater_proto::ProducerId;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Events kept.
const EVENTS_MAX: usize = 40;

/// Something that happened.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "shown in failures")]
pub(super) enum Event {
    Started { cores: usize, issued_before: u64 },
    StartRefused(String),
    Died(String),
    PowerCut { seed: u64 },
    Killed,
    Turned { settled: u64 },
    Written,
    Errand,
    Answered,
    Published { epoch: u64, time_ms: u64 },
    Passed { ms: u64 },
    RolledUp,
    Closed { lists: usize },
    Connects { session: SessionId, producer: ProducerId },
    HelloArrives { session: SessionId },
    PieceArrives { session: SessionId, bytes: usize },
    BatchArrives { session: SessionId, sequence: u64, fate: &'static str },
    Told { session: SessionId, answer: &'static str, sequence: u64 },
    Hears { session: SessionId, answer: &'static str },
    ClientLeaves { session: SessionId },
    EngineLoses { session: SessionId },
    Fault(&'static str),
    Damaged { path: String, byte: usize, kind: &'static str },
}

#[derive(Debug, Default)]
struct Ring {
    step: u64,
    time_ms: u64,
    events: VecDeque<(u64, u64, Option<usize>, Event)>,
}

/// The last events; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Events(Rc<RefCell<Ring>>);

impl Events {
    /// Another step begins, at a virtual time.
    pub(super) fn begin_step(&self, time_ms: u64) {
        let mut ring = self.0.borrow_mut();
        ring.step += 1;
        ring.time_ms = time_ms;
    }

    /// Notes what happened, and on which core, if on one.
    pub(super) fn note(&self, core: Option<usize>, event: Event) {
        let mut ring = self.0.borrow_mut();
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        let (step, time_ms) = (ring.step, ring.time_ms);
        ring.events.push_back((step, time_ms, core, event));
    }

    fn print(&self) {
        eprintln!("{:>8} {:>14} {:>5}  its last events", "step", "ms", "core");
        for (step, time_ms, core, event) in &self.0.borrow().events {
            let core = core.map_or(String::new(), |core| core.to_string());
            eprintln!("{step:>8} {time_ms:>14} {core:>5}  {event:?}");
        }
    }
}

/// Prints how to rerun a seed that failed, and what happened last.
pub(super) struct Rerun {
    pub(super) seed: u64,
    pub(super) test: &'static str,
    pub(super) events: Events,
}

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { seed, test, events } = self;
            events.print();
            let rerun = format!("cargo test -p highwater-pipeline --test pipeline {test}");
            eprintln!("seed {seed} failed; rerun it by\n  HIGHWATER_SEED={seed} {rerun}");
        }
    }
}
