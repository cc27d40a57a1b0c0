//! `restart`: what a start costs after a long load on many videos, by SIGKILL and by a clean end, and bytes on disk.
//!
//! One directory, one engine after the other: load as fast as the engine answers, SIGKILL, start, clean end, start.
//! Invariant: what was acknowledged is counted before the first end, the lists of each start are those of before, and
//! the directory passes `highwater check` in the end; if not, it is an error.

use anyhow::{Context, Result, bail};
use clap::Parser;
use highwater_benches::flags::LoadFlags;
use highwater_loadgen::process::cpu;
use highwater_loadgen::process::engine::{Engine, new_folder};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const PERIODS: [&str; 4] = ["hour", "day", "month", "all-time"];
/// Longest wait for the snapshot that has all acknowledged views.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL_EVERY: Duration = Duration::from_millis(20);

/// Measures how long an engine takes to start after a load, and what it keeps on disk.
///
/// Exit codes: 0 done, 1 not, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "restart", version, about, max_term_width = 100)]
struct Arguments {
    /// How long the load lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Distinct videos.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    videos: u32,
    /// Zipf exponent of their popularity: the less, the more of them are viewed.
    #[arg(long, value_name = "EXPONENT", default_value_t = 0.8)]
    zipf: f64,
    /// Views each second, or max.
    #[arg(long, value_name = "VIEWS|max", default_value = "max")]
    rate: String,
    /// What the engine's `--memory` is given.
    #[arg(long, value_name = "SIZE", default_value = "8GiB")]
    memory: String,
    /// The engine and its load.
    #[command(flatten)]
    flags: LoadFlags,
}

fn main() -> ExitCode {
    match restart(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("restart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn restart(arguments: &Arguments) -> Result<()> {
    let loadgen = arguments.flags.loadgen()?;
    let setup = arguments.flags.engine.setup(&arguments.memory)?;
    let folder = new_folder()?;
    let start = || Engine::start_in(&folder, &setup, "thread");

    let engine = start()?;
    say_start("of an empty directory", &engine);
    let acked = load(&engine, &loadgen, arguments)?;
    wait_until_counted(&engine, acked)?;
    say_figures(&engine)?;
    let before = lists(&engine)?;
    engine.kill()?;
    let data = folder.path().join("data");
    say_disk(&data, acked)?;

    for after in ["after SIGKILL", "after a clean end"] {
        let engine = start()?;
        say_start(after, &engine);
        same_lists(&before, &lists(&engine)?).with_context(|| format!("at the start {after}"))?;
        let began = Instant::now();
        engine.stop()?;
        say("clean end", began.elapsed().as_secs_f64(), "s");
    }
    let checked = Command::new(&setup.binary).arg("check").arg(format!("--data-dir={}", data.display())).output()?;
    if !checked.status.success() {
        bail!("`highwater check` ended with {}\n{}", checked.status, String::from_utf8_lossy(&checked.stdout));
    }
    Ok(())
}

/// Prints a line of the table.
fn say(what: &str, value: f64, unit: &str) {
    println!("{what:<48} {value:>16.2} {unit}");
}

fn say_start(after: &str, engine: &Engine) {
    let start = engine.started();
    say(&format!("start {after}: ready"), start.ready.as_secs_f64(), "s");
    say(&format!("start {after}: first snapshot"), start.snapshot.as_secs_f64(), "s");
}

/// Loads the engine and returns how many views it acknowledged.
fn load(engine: &Engine, loadgen: &Path, arguments: &Arguments) -> Result<u64> {
    let report = engine.folder().join("report.json");
    let mut command = Command::new(loadgen);
    command
        .args(["run", "--producers=2", "--batch=4096"])
        .arg(format!("--engine={}", engine.client()?.engine))
        .arg(format!("--ca={}", engine.ca()?))
        .arg(format!("--rate={}", arguments.rate))
        .arg(format!("--duration={}s", arguments.seconds))
        .arg(format!("--videos={}", arguments.videos))
        .arg(format!("--zipf={}", arguments.zipf))
        .arg(format!("--report={}", report.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let status = cpu::spawn_on(&[arguments.flags.engine.load_cpu], &mut command)?
        .wait()
        .context("loadgen cannot be waited for")?;
    if !status.success() {
        bail!("loadgen ended with {status}\n{}", engine.log_tail());
    }
    let text = std::fs::read_to_string(&report).context("loadgen wrote no report")?;
    let report: Value = serde_json::from_str(&text).context("the report is no JSON")?;
    let acked = report["views_acked"].as_u64().context("the report misses views_acked")?;
    say(&format!("load of {} s: acknowledged", arguments.seconds), acked as f64, "views");
    Ok(acked)
}

/// Waits for a snapshot with as many views as were acknowledged.
fn wait_until_counted(engine: &Engine, acked: u64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let wait = |what: &str| {
        if Instant::now() > end {
            bail!("the {acked} acknowledged views were not {what} in {PATIENCE:?}");
        }
        std::thread::sleep(POLL_EVERY);
        Ok(())
    };
    while engine.metric("highwater_views_counted_total")? < acked as f64 {
        wait("counted")?;
    }
    // What is counted by now is in the snapshot after next at the latest.
    let last = epoch(engine)? + 2;
    while epoch(engine)? < last {
        wait("shown")?;
    }
    Ok(())
}

fn epoch(engine: &Engine) -> Result<u64> {
    let answer: Value = serde_json::from_str(&engine.ask("/v1/videos/top?period=hour&k=1")?)?;
    answer["epoch"].as_u64().context("the answer has no epoch")
}

fn say_figures(engine: &Engine) -> Result<()> {
    say("videos", engine.metric("highwater_videos")?, "");
    say("memory, most", mib(engine.memory()?.peak_bytes), "MiB");
    Ok(())
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Prints what the directory takes on disk, by the names in it, and of that a view.
fn say_disk(data: &Path, views: u64) -> Result<()> {
    let entries = std::fs::read_dir(data).with_context(|| format!("{} cannot be read", data.display()))?;
    let mut total = 0;
    for entry in entries {
        let path = entry?.path();
        let bytes = allocated_bytes(&path).with_context(|| path.display().to_string())?;
        total += bytes;
        // Keys, locks and the like are not worth a line.
        if bytes >= 1 << 20 {
            say(&format!("on disk: {}", path.strip_prefix(data)?.display()), mib(bytes), "MiB");
        }
    }
    say("on disk", mib(total), "MiB");
    say("on disk, of a view", total as f64 / views as f64, "bytes");
    Ok(())
}

/// The bytes that a file, or all files below a directory, have been given by the file system.
fn allocated_bytes(path: &Path) -> std::io::Result<u64> {
    let metadata = path.symlink_metadata()?;
    // The unit of st_blocks, whatever the block size of the file system: stat(3type).
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return Ok(own);
    }
    path.read_dir()?.try_fold(own, |sum, entry| Ok(sum + allocated_bytes(&entry?.path())?))
}

/// The longest list of each period.
fn lists(engine: &Engine) -> Result<Vec<Value>> {
    let list = |period: &&str| {
        let text = engine.ask(&format!("/v1/videos/top?period={period}&k=1000"))?;
        let mut answer: Value = serde_json::from_str(&text).context("the list is no JSON")?;
        Ok(answer["top_videos"].take())
    };
    PERIODS.iter().map(list).collect()
}

/// All but the hour, which may lose minutes of the load meanwhile, is what it was.
fn same_lists(before: &[Value], after: &[Value]) -> Result<()> {
    for (period, (before, after)) in PERIODS.iter().zip(before.iter().zip(after)).skip(1) {
        if before != after {
            bail!("the list of the period {period} is not that of before");
        }
    }
    Ok(())
}
