//! What is fuzzed: every decoder of Highwater, as a function of bytes.
//!
//! What it is not: the search for bytes, which is the fuzzer's (`tests/fuzz/run`) and, on every run of the tests, that
//! of `tests/corpus.rs`. Invariants: a target is a pure function of its input; it returns when the decoders keep their
//! promises and panics when one does not. Beyond not panicking they promise: what decodes comes back from its encoder,
//! two readers of the same bytes agree, every error names something, and no more memory is taken than the input and a
//! constant account for.
#![forbid(unsafe_code)]

mod archive;
mod batches;
mod bounds;
mod closed_files;
#[cfg(feature = "config")]
mod config;
mod directory;
mod frames;
mod headers;
mod log;
mod queries;
mod replay_csv;
pub mod seals;
mod served;
mod small_files;

pub use directory::{DIRECTORY, SEGMENT_BYTES, SHARDS, directory, state_file};

/// One decoder, or a family of them.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of its corpus, its fuzzer and its test.
    pub name: &'static str,
    /// Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Mutations that the tests try: so many that they take about half a second unoptimized.
    pub mutations: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames::run, mutations: 100_000 },
    Target { name: "batches", run: batches::run, mutations: 50_000 },
    Target { name: "log", run: log::run, mutations: 10_000 },
    Target { name: "cuts", run: closed_files::cuts, mutations: 5000 },
    Target { name: "rollups", run: closed_files::rollups, mutations: 5000 },
    Target { name: "producers", run: closed_files::producers, mutations: 5000 },
    Target { name: "history", run: small_files::history, mutations: 20_000 },
    Target { name: "state", run: small_files::state, mutations: 10_000 },
    Target { name: "archive", run: archive::run, mutations: 5000 },
    #[cfg(feature = "config")]
    Target { name: "config", run: config::run, mutations: 300 },
    Target { name: "replay_csv", run: replay_csv::run, mutations: 5000 },
    Target { name: "queries", run: queries::run, mutations: 5000 },
    Target { name: "headers", run: headers::run, mutations: 5000 },
];

/// Runs the target of that name.
///
/// # Panics
/// When a promise is broken, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("there is no target {name:?}")).run)(data);
}
