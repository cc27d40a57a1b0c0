//! Engines that die: killed under load, killed after an acknowledgement, damaged behind their back.
//!
//! `HIGHWATER_KILLS` sets how often the engine is killed under one load (default 6) and `HIGHWATER_KILL_SEED` when, and
//! on how many cores and which runtime it starts again; a failure names both. What it is not: a power cut; those are
//! simulated in the storage crate.

use crate::support::views::{MINUTE_MS, NEWEST_MS, rows, write_csv};
use crate::support::{Engine, Load, RECOVERED, RUNTIMES, Setup, now_ms, wait_for};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a kill waits after the engine was seen to count, at most: long enough to meet every moment between two
/// markers.
const KILL_DELAY_MS_MAX: u64 = 1500;

/// What a number in the environment says.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn killed_under_load_again_and_again_it_loses_nothing_and_counts_nothing_twice() {
    let kills = setting("HIGHWATER_KILLS", 6);
    let seed = setting("HIGHWATER_KILL_SEED", u64::from(std::process::id()));
    println!("rerun with HIGHWATER_KILLS={kills} HIGHWATER_KILL_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { memory: "1GiB", ..Setup::new(folder.path()) };
    let cores_max = std::thread::available_parallelism().unwrap().get().min(3);
    let mut next = || {
        let runtime = Some(RUNTIMES[random.random_range(0..RUNTIMES.len())]);
        let cores = random.random_range(1..=cores_max);
        // Not to wait for anything: to meet the engine at another moment each time.
        let delay = Duration::from_millis(random.random_range(0..KILL_DELAY_MS_MAX));
        (Setup { runtime, cores, ..setup.clone() }, delay)
    };
    let (first, mut delay) = next();
    let mut engine = first.start();
    // Each kill takes at most the delay, a restart and a second or two until the first counts are seen.
    let duration = format!("--duration={}s", 3 + 5 * kills);
    let load = ["run", "--rate=20000", &duration, "--videos=30000", "--producers=2", "--batch=500", "--seed=3"];
    let mut load = Load::verified(&engine, &load);
    for kill in 1..=kills {
        wait_for("the first views of this start", || (engine.metric("views_counted_total") > 0).then_some(()));
        std::thread::sleep(delay);
        assert!(load.runs(), "the load was over before kill {kill} of {kills}: raise its duration");
        let ended = engine.kill();
        assert_eq!(ended.code, None, "the engine ended by itself before kill {kill}:\n{}", ended.log);
        let (again, its_delay) = next();
        delay = its_delay;
        engine = again.start();
    }
    let done = load.finish();
    done.assert_verified();
    println!("{kills} kills: {} views acknowledged, every one counted once", done.figure("views_acked"));
    assert!(done.figure("reconnects") >= kills, "{done:?}");
    assert!(done.figure("retries") >= 1, "{done:?}");
}

#[test]
fn what_was_acknowledged_before_a_kill_is_served_after_it() {
    // The edge of a minute makes a cut, and leaves nothing to replay: then there is another try.
    while killed_after_a_load() / MINUTE_MS != now_ms() / MINUTE_MS {}
}

/// Returns when the load began, in milliseconds since 1970.
fn killed_after_a_load() -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let began_ms = now_ms();
    load_recent(&engine, folder.path());
    let lists = engine.lists();
    let again = engine.same_place();
    engine.kill();
    let engine = again.start();
    let line = engine.log_line(RECOVERED);
    let was_one_minute = began_ms / MINUTE_MS == now_ms() / MINUTE_MS;
    assert!(!was_one_minute || !line.contains(" records=0 "), "the log was not replayed: {line}");
    assert_eq!(engine.lists(), lists);
    // A start ends with a cut of its own, so that killing it at once loses nothing and replays nothing again.
    engine.kill();
    let engine = again.start();
    let line = engine.log_line(RECOVERED);
    assert!(line.contains(" records=0 "), "{line}");
    assert_eq!(engine.lists(), lists);
    began_ms
}

#[test]
fn a_torn_last_write_is_cut_off_silently() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = Engine::start(&data);
    load_recent(&engine, folder.path());
    let lists = engine.lists();
    let again = engine.same_place();
    engine.kill();
    // What a cut leaves of a group that was never acknowledged: bytes behind the last whole record.
    let segment = written_segment(&data);
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap().next_multiple_of(4096);
    bytes[end..end + 3000].fill(0xA5);
    std::fs::write(&segment, bytes).unwrap();
    let engine = again.start();
    assert_eq!(engine.lists(), lists);
}

#[test]
fn a_damaged_cut_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let engine = Engine::start(&data);
    load_recent(&engine, folder.path());
    engine.terminate();
    let cuts = files(&data.join("cuts"));
    let cut = cuts.iter().max_by_key(|path| path.metadata().unwrap().len()).expect("a stop leaves a cut file");
    flip(cut, cut.metadata().unwrap().len() / 2);
    assert_refused(&data, cut);
    flip(cut, cut.metadata().unwrap().len() / 2);
    Engine::start(&data);
}

#[test]
fn a_damaged_acknowledged_record_is_refused_by_name() {
    let (folder, data) = killed_within_a_minute();
    let segment = written_segment(&data);
    let offset = within_a_batch(&segment);
    flip(&segment, offset);
    assert_refused(&data, &segment);
    flip(&segment, offset);
    Engine::start(&data);
    drop(folder);
}

/// The directory of an engine that was killed after a load, and all of whose records are to be replayed: the edge of a
/// minute makes a cut, behind which a start reads none, and then there is another try.
fn killed_within_a_minute() -> (tempfile::TempDir, PathBuf) {
    loop {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let began_ms = now_ms();
        let engine = Engine::start(&data);
        load_recent(&engine, folder.path());
        engine.kill();
        if began_ms / MINUTE_MS == now_ms() / MINUTE_MS {
            return (folder, data);
        }
    }
}

/// Counts views that no window's edge passes while a test runs.
fn load_recent(engine: &Engine, folder: &Path) {
    let times = (0..20_000).map(|index| NEWEST_MS - index * 997 % (30 * MINUTE_MS));
    let file = write_csv(folder, &rows(times, 3000));
    let load = ["replay", file.to_str().unwrap(), "--shift-to-now", "--batch=900"];
    Load::verified(engine, &load).finish().assert_verified();
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// The one segment of the log that holds records.
fn written_segment(data: &Path) -> PathBuf {
    let has_records = |path: &PathBuf| std::fs::read(path).unwrap().iter().take(4096).any(|byte| *byte != 0);
    let mut written = files(&data.join("log-000")).into_iter().filter(has_records);
    let segment = written.next().expect("the log holds records");
    assert_eq!(written.next(), None, "the views fit one segment");
    segment
}

/// A place within the ids of the first batch: what stands before it may be small records, each in a block of its own.
fn within_a_batch(segment: &Path) -> u64 {
    let bytes = std::fs::read(segment).unwrap();
    let place = bytes.windows(64).position(|some| some.iter().all(|byte| *byte != 0));
    place.expect("a batch has ids one behind the other") as u64
}

/// Inverts one bit.
fn flip(path: &Path, offset: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[offset as usize] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

fn assert_refused(data: &Path, damaged: &Path) {
    let refused = Setup::new(data).refused();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(refused.log.contains(name), "{name} is not named:\n{}", refused.log);
}
