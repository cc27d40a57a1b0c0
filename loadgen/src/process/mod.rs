//! Engines as child processes, each confined to a CPU: what measurements of whole engines start and watch.

pub mod cpu;
pub mod engine;
pub mod probe;
