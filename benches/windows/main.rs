//! `windows`: what a minute's edge, a roll-up and a start cost, and how boards fare while traffic decays.
//!
//! It runs the rooms without I/O, and the store on a real file system, one piece after the other, and prints a table.
//! Not a test of what they count, which the packages' own tests hold to oracles. Invariant: the same arguments give the
//! same work.

mod decay;
mod edge;
mod rolling;

use anyhow::{Context, Result};
use clap::Parser;
use highwater_ranking::{RankingConfig, WindowLengths};
use std::path::PathBuf;
use std::process::ExitCode;

/// Shards of everything that is measured.
const SHARDS: u16 = 16;
/// Entries of one slice, as the engine takes them between two polls of its socket.
const SLICE_ENTRIES: usize = 8192;
const HASH_SEED: u64 = 1;

/// Measures minute edges, roll-ups, a start and boards under decay.
///
/// Exit codes: 0 done, 1 not, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "windows", version, about, max_term_width = 100)]
struct Arguments {
    /// Videos that are known.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    videos: u32,
    /// Videos that are viewed in the minute that ends, and in the one that leaves.
    #[arg(long, value_name = "N", default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    distinct: u32,
    /// Cut files that are rolled up.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=240))]
    cuts: u32,
    /// Videos that each of them counts.
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    cut_videos: u32,
    /// Views of each minute of the decay.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    minute_views: u32,
    /// Where files are made, below a folder that is removed in the end; by default the system's temporary folder.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A line of the table.
struct Row {
    what: String,
    value: f64,
    unit: &'static str,
}

fn row(what: impl Into<String>, value: f64, unit: &'static str) -> Row {
    Row { what: what.into(), value, unit }
}

/// A core that owns all shards.
fn config(videos: u32, windows: WindowLengths) -> RankingConfig {
    RankingConfig {
        shards_total: SHARDS,
        owned: (0..SHARDS).collect(),
        hash_seed: HASH_SEED,
        // Shards are not equally full: room for a quarter more than the mean, and some for few videos.
        videos_per_shard_max: videos / u32::from(SHARDS) * 5 / 4 + 1000,
        id_arena_bytes_per_shard: 1 << 20,
        late_rows_max: 1 << 24,
        top_k: 1000,
        windows,
    }
}

/// Prints a piece of the table.
fn print(rows: &[Row]) {
    for Row { what, value, unit } in rows {
        println!("{what:<64} {value:>12.2} {unit}");
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { videos, distinct, cuts, cut_videos, minute_views, dir } = arguments;
    let (distinct, cut_videos) = ((*distinct).min(*videos), (*cut_videos).min(*videos));
    print(&edge::measure(*videos, distinct)?);
    let builder = tempfile::Builder::new();
    let folder = match dir {
        Some(dir) => builder.tempdir_in(dir),
        None => builder.tempdir(),
    };
    let folder = folder.context("no folder can be made for the files; name another by --dir")?;
    print(&rolling::measure(folder.path(), *videos, *cuts, cut_videos)?);
    for traffic in decay::Traffic::ALL {
        print(&decay::measure(traffic, *videos, *minute_views)?);
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windows: {error:#}");
            ExitCode::FAILURE
        }
    }
}
