//! Every target over its corpus, and over seeded mutations of it: the short form of what the fuzzer does at length.
//!
//! A failure tells target, seed and how to run that input alone. `HIGHWATER_FUZZ_SEED` sets the seed,
//! `HIGHWATER_FUZZ_FACTOR` multiplies the number of mutations. Invariant: the same seed gives the same inputs.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_fuzz_targets::{TARGETS, Target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The longest input that a mutation makes.
const INPUT_BYTES_MAX: usize = 32 << 10;
/// What lengths, counts and times are set to, in as many bytes as they have.
const EXTREMES: [u64; 10] =
    [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX.cast_unsigned(), u64::MAX];

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// The inputs in a folder of corpora.
fn corpus(folder: &Path, target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = folder.join(target.name);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    let read = |path: PathBuf| fs::read(&path).map(|bytes| (path, bytes)).expect("the corpus can be read");
    paths.into_iter().map(read).collect()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn check(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("the target is there");
    let corpus = corpus(&kept(), target);
    assert!(!corpus.is_empty(), "{name} has no corpus: make one by `cargo run -p highwater-fuzz-targets --bin seeds`");
    for (path, bytes) in &corpus {
        let outcome = catch_unwind(|| (target.run)(bytes));
        assert!(outcome.is_ok(), "target {name} fails on {}", path.display());
    }
    let seed = number("HIGHWATER_FUZZ_SEED", 1);
    let cases = u64::from(target.mutations) * number("HIGHWATER_FUZZ_FACTOR", 1);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for case in 0..cases {
        let input = mutated(&corpus, &mut random);
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let path = std::env::temp_dir().join(format!("highwater-{name}-{seed}-{case}"));
            let kept = fs::write(&path, &input);
            panic!(
                "target {name} fails on mutation {case} of seed {seed}; kept ({kept:?}) as {}; again by \
                 HIGHWATER_FUZZ_SEED={seed} cargo test -p highwater-fuzz-targets --test corpus {name}, or alone by \
                 copying it into tests/fuzz/corpus/{name}",
                path.display()
            );
        }
    }
}

fn pick<'c>(corpus: &'c [(PathBuf, Vec<u8>)], random: &mut ChaCha8Rng) -> &'c [u8] {
    &corpus[random.random_range(0..corpus.len())].1
}

fn mutated(corpus: &[(PathBuf, Vec<u8>)], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut input = pick(corpus, random).to_vec();
    for _ in 0..random.random_range(1..=4u32) {
        mutate(&mut input, corpus, random);
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[(PathBuf, Vec<u8>)], random: &mut ChaCha8Rng) {
    let at = random.random_range(0..=input.len());
    match random.random_range(0..8u32) {
        0 => input.truncate(at),
        1 => {
            let other = pick(corpus, random);
            let from = random.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        2 => {
            let end = input.len().min(at + random.random_range(1..=32usize));
            let piece = input[at..end].to_vec();
            input.splice(at..at, piece);
        }
        3 => {
            let end = input.len().min(at + random.random_range(1..=32usize));
            input.drain(at..end);
        }
        4 | 5 => {
            let bytes = EXTREMES[random.random_range(0..EXTREMES.len())].to_le_bytes();
            let len = [1, 2, 4, 8][random.random_range(0..4usize)].min(input.len() - at);
            input[at..at + len].copy_from_slice(&bytes[..len]);
        }
        6 if at < input.len() => input[at] = random.random(),
        _ if at < input.len() => input[at] ^= 1 << random.random_range(0..8u32),
        _ => input.push(random.random()),
    }
}

/// A format that has moved on refuses what was written before, and nothing behind that refusal is tried any more.
#[test]
fn the_kept_seeds_are_what_the_writers_write_today() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let made = Command::new(env!("CARGO_BIN_EXE_seeds")).arg(folder.path()).status().expect("seeds can be made");
    assert!(made.success());
    let seeds = |folder: &Path, target: &Target| -> BTreeMap<OsString, Vec<u8>> {
        let all = corpus(folder, target).into_iter();
        let named = all.map(|(path, bytes)| (path.file_name().expect("it is a file").to_owned(), bytes));
        named.filter(|(name, _)| name.as_encoded_bytes().starts_with(b"seed-")).collect()
    };
    for target in TARGETS {
        let [kept, made] = [kept().as_path(), folder.path()].map(|folder| seeds(folder, target));
        let other = kept.keys().chain(made.keys()).find(|name| kept.get(*name) != made.get(*name));
        assert_eq!(
            other, None,
            "of {}: write the seeds anew by `cargo run -p highwater-fuzz-targets --bin seeds`, remove those that are no \
             more, and look whether the target still holds what it should; after a new zstd that of `archive` is other \
             bytes, and no more",
            target.name
        );
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_tested_and_has_a_fuzzer() {
            let tested = [$(stringify!($name)),*];
            let fuzzers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz_targets");
            for target in TARGETS {
                assert!(tested.contains(&target.name), "{} has no test here", target.name);
                assert!(fuzzers.join(format!("{}.rs", target.name)).exists(), "{} has no fuzzer", target.name);
            }
            assert_eq!(tested.len(), TARGETS.len());
        }
    };
}

targets! { frames batches log cuts rollups producers history state archive config replay_csv queries headers }
