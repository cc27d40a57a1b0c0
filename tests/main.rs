//! The whole of Highwater from outside: the real binaries on real sockets and files, and the rules of the source tree.
//!
//! Nothing here reaches into a crate that the binaries are made of. Invariant: each test has its own data directory and
//! free ports, and waits for what can be observed, never for time to pass.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod access;
mod answers;
mod backup;
mod cores;
mod crash;
mod deploy;
mod e2e;
mod history;
mod hostile;
mod licenses;
mod live;
mod lossy;
mod operating;
mod overload;
mod restart;
mod results;
mod rude;
mod runtimes;
mod sidecars;
mod support;
mod sweeps;
mod tidy;
