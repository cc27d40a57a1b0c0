//! What the tests stand on: binaries, a running engine, sidecar or generator, HTTP, views in files, raw QUIC.
//!
//! No assertion about the engine's promises is made here. Invariant: a child process never outlives its handle.

pub(crate) mod authority;
pub(crate) mod binaries;
pub(crate) mod engine;
pub(crate) mod http;
pub(crate) mod loadgen;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod sidecar;
pub(crate) mod views;

pub(crate) use engine::{Engine, RUNTIMES, Setup};
pub(crate) use loadgen::Load;
pub(crate) use sidecar::Sidecar;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything that should happen soon; a loaded machine with two cores is given time.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What the log's line about a recovery says first.
pub(crate) const RECOVERED: &str = "recovered videos=";

const POLL_EVERY: Duration = Duration::from_millis(10);

/// Asks until there is an answer, for at most `limit`.
pub(crate) fn wait_within<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        std::thread::sleep(POLL_EVERY);
    }
}

/// Asks until there is an answer, for at most [`SOON`].
pub(crate) fn wait_for<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    wait_within(what, SOON, ask)
}

/// Milliseconds since 1970 by the wall clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Runs a future on a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(SOON, future).await.expect("the client's work took too long") })
}
