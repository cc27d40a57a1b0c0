//! Engines as child processes, each confined to a CPU: what the comparisons of whole engines start and watch.

pub mod cpu;
pub mod engine;
