//! Data directories that cannot be what they should: foreign, newer, damaged, unwritable, too full for the memory.
//!
//! Invariant: a refused start leaves every file as it was.

use super::{contents, refused, seal};
use crate::support::views::{MINUTE_MS, NEWEST_MS, write_csv};
use crate::support::{Engine, Load, Setup, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Refuses, and finds everything as it was.
fn refused_unchanged(deed: &str, setup: &Setup, folder: &Path, words: &[&str]) {
    let before = contents(folder);
    refused(deed, setup, words);
    assert_eq!(contents(folder), before, "{deed}");
}

fn load(engine: &Engine, folder: &Path) {
    let rows: Vec<_> = (0..3000).map(|row| (format!("video-{}", row % 300), NEWEST_MS - row * 10)).collect();
    let file = write_csv(folder, &rows);
    Load::verified(engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish().assert_verified();
}

fn first(folder: PathBuf, ending: &str) -> PathBuf {
    let mut found: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found.into_iter().find(|path| path.to_str().unwrap().ends_with(ending)).unwrap()
}

#[test]
fn a_data_directory_has_one_engine() {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Engine::start(folder.path());
    let path = folder.path().display().to_string();
    refused(
        "start a second engine on a data directory",
        &Setup::new(folder.path()),
        &["in use by another process", &path],
    );
    assert!(engine.runs());
    assert_eq!(engine.ask("/healthz").status, 200);
}

#[test]
fn the_number_of_shards_is_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { shards: 4, ..Setup::new(folder.path()) };
    setup.start().terminate();
    let other = Setup { shards: 8, ..setup.clone() };
    refused_unchanged("start with another number of shards", &other, folder.path(), &["shards", "4", "8"]);
    assert_eq!(setup.start().ready["shards"], 4);
}

#[test]
fn what_is_no_data_directory_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let words = [&*file.display().to_string(), "is no directory", "--data-dir"];
    refused_unchanged("name a file as the data directory", &Setup::new(&file), folder.path(), &words);
    refused_unchanged(
        "name a directory with files of others as the data directory",
        &Setup::new(folder.path()),
        folder.path(),
        &["\"file\"", "none of the engine's", "nothing was changed", "--data-dir"],
    );
    assert!(!folder.path().join("lock").exists());
    // A parent that is not there is made, like the directory itself.
    Engine::start(&folder.path().join("not/there/yet")).terminate();
}

#[test]
fn a_damaged_directory_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    Engine::start(folder.path()).terminate();
    let path = folder.path().join("directory.hw");
    let good = std::fs::read(&path).unwrap();
    let setup = Setup::new(folder.path());
    let mut bytes = good.clone();
    bytes[good.len() / 2] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let words = ["directory.hw", "checksum", "restore the data directory from a backup"];
    refused_unchanged("damage directory.hw", &setup, folder.path(), &words);
    std::fs::write(&path, &good[..7]).unwrap();
    refused_unchanged("cut directory.hw short", &setup, folder.path(), &["directory.hw", "7 bytes", "backup"]);
    std::fs::remove_file(&path).unwrap();
    refused_unchanged("remove directory.hw", &setup, folder.path(), &["directory.hw is missing", "backup"]);
    std::fs::write(&path, &good).unwrap();
    setup.start().terminate();
}

/// A directory whose log holds what no cut file does, and the lists of it: another one if a minute ended meanwhile.
fn only_in_the_log() -> (tempfile::TempDir, Vec<serde_json::Value>) {
    loop {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let engine = Engine::start(&data);
        load(&engine, folder.path());
        let lists = engine.lists();
        engine.kill();
        if std::fs::read_dir(data.join("cuts")).unwrap().next().is_none() {
            return (folder, lists);
        }
    }
}

#[test]
fn what_a_newer_engine_wrote_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let setup = Setup::new(&data);
    setup.start().terminate();
    for name in ["directory.hw", "state.hw"] {
        let path = data.join(name);
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        bytes[8..12].copy_from_slice(&2_u32.to_le_bytes());
        seal(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        let words = [name, "format version 2", "reads up to 1", "start the newer engine"];
        refused_unchanged(&format!("start on a {name} of a newer version"), &setup, &data, &words);
        std::fs::write(&path, &good).unwrap();
    }
    let (folder, lists) = only_in_the_log();
    let data = folder.path().join("data");
    let setup = Setup::new(&data);
    let newer = |path: &Path, version_at: usize, range: std::ops::Range<usize>, crc_at: usize| {
        let good = std::fs::read(path).unwrap();
        let mut bytes = good.clone();
        bytes[version_at] = 9;
        let crc = crc32c::crc32c(&bytes[range]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(path, &bytes).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let words = [name, "format version 9", "start the newer engine"];
        refused_unchanged(&format!("start on {name} of a newer version"), &setup, &data, &words);
        std::fs::write(path, good).unwrap();
    };
    // The format of a log's first record, whose checksum covers bytes 8 to 128.
    newer(&first(data.join("log-000"), "-s0000000000.seg"), 53, 8..128, 4);
    let engine = setup.start();
    assert_eq!(engine.lists(), lists, "nothing was lost");
    engine.terminate();
    newer(&first(data.join("cuts"), ".cut"), 8, 0..124, 124);
    assert_eq!(setup.start().lists(), lists);
}

#[test]
fn a_directory_that_may_not_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::new(folder.path());
    setup.start().terminate();
    let Some(user) = super::machines::somebody(&setup) else { return };
    // The directory is still root's.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let words = [&*folder.path().display().to_string(), "Permission denied", "chown -R"];
    refused_unchanged("start as a user who may not write the data directory", &user, folder.path(), &words);
    let read_only = folder.path().join("tls/read-only");
    std::fs::create_dir(&read_only).unwrap();
    let Some(_mount) = super::disks::Mount::bind_read_only(&read_only) else { return };
    let words = ["Read-only file system", "mount -o remount,rw"];
    refused("start on a read-only file system", &Setup::new(&read_only), &words);
}

/// 100 000 ids of 255 bytes fill the part of 512 MiB that is for long ids, and fit 1 GiB.
#[test]
fn memory_that_the_state_has_outgrown_is_refused_with_figures() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let large = Setup { memory: "1GiB", ..Setup::new(&data) };
    let engine = large.start();
    let rows: Vec<_> = (0..100_000).map(|row| (format!("{row:0255}"), NEWEST_MS - row % MINUTE_MS)).collect();
    let file = write_csv(folder.path(), &rows);
    let done =
        Load::unverified(&engine, &["replay", file.to_str().unwrap(), "--shift-to-now", "--batch=1000"]).finish();
    assert_eq!((done.code, done.figure("views_acked")), (Some(0), 100_000), "{done:?}");
    let all_known = |engine: &Engine| wait_for("all", || (engine.metric("videos") == 100_000).then_some(()));
    all_known(&engine);
    let lists = engine.lists();
    engine.terminate();
    let small = Setup { memory: "512MiB", ..large.clone() };
    let words =
        ["the state does not fit", "bytes of long video ids", "its arena has room for 1310720", "larger --memory"];
    refused_unchanged("start with less memory than the state needs", &small, &data, &words);
    let engine = large.start();
    all_known(&engine);
    assert_eq!(engine.lists(), lists);
}
