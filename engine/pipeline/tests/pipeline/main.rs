//! The pipeline over a disk in memory: directed tests of each rule, and a simulated world, from a seed, against a naive
//! oracle.
//!
//! One thread, virtual time, no system calls. `HIGHWATER_SEED=n` runs one seed of the simulation,
//! `HIGHWATER_CASES=m` multiplies the number of seeds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

mod client;
mod closing;
mod cores;
mod durability;
mod edges;
mod engine;
mod hellos;
mod ledger;
mod oracle;
mod refusals;
mod rolling;
mod sequences;
mod simulation;
mod stopping;
mod world;
