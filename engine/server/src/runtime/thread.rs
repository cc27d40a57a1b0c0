//! A core on a plain thread: it sleeps in one ppoll over the socket, the log's ring and the wake-up.

use super::park::Parking;
use super::pin_current_thread;
use crate::core::{CoreLoop, Turned};
use crate::fatal::fatal;
use anyhow::{Context, Result};
use crossbeam_channel::bounded;
use std::thread::JoinHandle;

/// Starts the thread and waits until it is pinned.
pub(super) fn spawn(
    name: &str,
    cpu: usize,
    parking: Parking,
    make: impl FnOnce() -> CoreLoop + Send + 'static,
) -> Result<JoinHandle<()>> {
    let (pinned, is_pinned) = bounded(1);
    let thread = crate::helpers::spawn(name, move || {
        let outcome = pin_current_thread(cpu);
        let failed = outcome.is_err();
        // The receiver waits for exactly this message.
        let _ = pinned.send(outcome);
        if !failed {
            run(make(), parking);
        }
    })?;
    is_pinned.recv().context("a core's thread ended before it was pinned")??;
    Ok(thread)
}

fn run(mut core: CoreLoop, mut parking: Parking) {
    loop {
        match core.turn() {
            Turned::Worked => {}
            Turned::Idle(rest) => {
                let (socket, ring) = (core.udp_fd(), core.ring_fd());
                if let Err(error) = parking.wait(socket, rest.socket_writable, ring, rest.deadline) {
                    fatal("the core cannot wait for its descriptors", &error);
                }
                core.rested(rest);
            }
            Turned::Stopped => return core.close(),
        }
    }
}
