//! Full disks, for real: a small file system of the test's own, a ballast file on it, and an engine under load.
//!
//! Where this process may not mount, the tests say so and return. Invariants: what was mounted is unmounted however the
//! test ends; whatever the disk does, nothing acknowledged is lost, and nothing is counted twice.

use super::{refused, told};
use crate::support::{Engine, Load, Setup, wait_for, wait_within};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const MIB: u64 = 1 << 20;

const BLOCK: u64 = 4096;

/// Room for two segments, the reserve for cut files, and what a journal takes.
const DISK_MIB: u64 = 700;

/// Longest wait for something that happens once a minute.
const A_MINUTE: Duration = Duration::from_secs(90);

/// A file system of a test's own.
pub(super) struct Mount {
    path: PathBuf,
}

impl Mount {
    /// An ext4 of so many MiB in a file, mounted below `folder`.
    fn ext4(folder: &Path, mib: u64) -> Option<Self> {
        let (image, path) = (folder.join("disk.img"), folder.join("disk"));
        File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        std::fs::create_dir(&path).unwrap();
        // Without blocks that only root may have, so that what is told to be free is all there is.
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str()?])?;
        run("mount", &["-o", "loop", image.to_str()?, path.to_str()?])?;
        Some(Self { path })
    }

    /// Makes a folder read-only, for everybody.
    pub(super) fn bind_read_only(folder: &Path) -> Option<Self> {
        let path = folder.to_str()?;
        run("mount", &["--bind", path, path])?;
        let mount = Self { path: folder.to_owned() };
        run("mount", &["-o", "remount,ro,bind", path])?;
        Some(mount)
    }

    fn free_bytes(&self) -> u64 {
        let figures = rustix::fs::statvfs(&self.path).unwrap();
        figures.f_bavail * figures.f_frsize
    }

    /// A file that leaves so many bytes free; with 0, not a block.
    fn fill(&self, leave_bytes: u64) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        let mut len = file.metadata().unwrap().len();
        let mut grow = |bytes| {
            let grown = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), len, bytes).is_ok();
            len += if grown { bytes } else { 0 };
            grown
        };
        for part in [MIB, BLOCK] {
            while self.free_bytes() >= leave_bytes + part && grow(part) {}
        }
        // What a file system says to be free and what it gives differ by a few blocks, and by what others have written
        // and it has found no place for yet.
        let block = [0xB5; BLOCK as usize];
        while leave_bytes == 0 && file.write_all(&block).and_then(|()| file.sync_all()).is_ok() {}
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.path.to_str().unwrap();
        if run("umount", &[path]).is_none() {
            // Someone is still in it; then it goes when they do.
            run("umount", &["--lazy", path]);
        }
    }
}

/// Runs a tool; none, with the reason printed, where it cannot.
fn run(tool: &str, arguments: &[&str]) -> Option<()> {
    match Command::new(tool).args(arguments).output() {
        Ok(output) if output.status.success() => Some(()),
        Ok(output) => {
            println!("skipped: {tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            println!("skipped: {tool}: {error}");
            None
        }
    }
}

/// An engine on a disk of its own, which is unmounted after it has ended. Where it is taken apart, the folder must be
/// named first: what is bound last is dropped first.
struct Place {
    setup: Setup,
    mount: Mount,
    _folder: tempfile::TempDir,
}

fn place() -> Option<Place> {
    let folder = tempfile::tempdir().unwrap();
    let mount = Mount::ext4(folder.path(), DISK_MIB)?;
    let setup = Setup::new(&mount.path.join("data"));
    Some(Place { setup, mount, _folder: folder })
}

fn refused_as_disk_full(engine: &Engine) -> u64 {
    let page = engine.ask("/metrics").body;
    let line = page.lines().find(|line| line.starts_with("highwater_batches_refused_total{reason=\"disk_full\"}"));
    line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn epoch(engine: &Engine) -> u64 {
    engine.ask("/v1/videos/top?period=all-time&k=1").json()["epoch"].as_u64().unwrap()
}

/// How often a line with these words was written.
fn said(engine: &Engine, words: &str) -> usize {
    engine.log().lines().filter(|line| line.contains(words)).count()
}

const NO_SEGMENT: &str = "no room for the log's next segment";

const WAITS: &str = "which is tried again";

/// Leaves not a block, whatever the engine gives back meanwhile, until that says what it cannot write.
fn fill_until_it_waits(engine: &Engine, mount: &Mount) -> PathBuf {
    wait_within("the errand of a new minute", A_MINUTE, || {
        let ballast = mount.fill(0);
        (said(engine, WAITS) > 0).then_some(ballast)
    })
}

/// The disk has no room for a further segment, but for cut files: batches are refused, all else goes on.
#[test]
fn a_disk_that_fills_under_load_refuses_batches_and_goes_on_when_there_is_room() {
    let Some(Place { _folder, mount, setup }) = place() else { return };
    // Room for one segment beside the reserve; the load needs more.
    let ballast = mount.fill((256 + 64 + 20) * MIB);
    let engine = setup.start();
    let load = ["run", "--rate=40000", "--duration=50s", "--videos=20000", "--producers=2", "--batch=20"];
    let mut load = Load::verified(&engine, &load);
    wait_within("the first refusal", A_MINUTE, || (refused_as_disk_full(&engine) > 0).then_some(()));
    let first = epoch(&engine);
    wait_for("snapshots that go on", || (epoch(&engine) > first + 2).then_some(()));
    wait_for("more refusals", || (refused_as_disk_full(&engine) > 20).then_some(()));
    let line = engine.log_line(NO_SEGMENT);
    assert_eq!(said(&engine, NO_SEGMENT), 1, "said once: {}", engine.log());
    assert_eq!(engine.ask("/readyz").status, 200);
    told("fill the disk under load", &line, "batches refused disk_full", &["batches will be refused", "free space"]);
    // Killed while the disk is full, it starts again, and refuses again.
    let again = engine.same_place();
    assert_eq!(engine.kill().code, None);
    let engine = again.start();
    wait_for("a refusal after the start", || (refused_as_disk_full(&engine) > 0).then_some(()));
    assert!(load.runs(), "the load waits");
    std::fs::remove_file(ballast).unwrap();
    wait_for("acceptance", || (said(&engine, "there is room for the log again") == 1).then_some(()));
    load.finish().assert_verified();
    assert_eq!(engine.terminate().code, Some(0));
}

/// Not a block is left, as another program can bring about: even what the engine keeps room for cannot be written.
#[test]
fn a_disk_without_a_block_left_is_waited_for() {
    let Some(Place { _folder, mount, setup }) = place() else { return };
    let engine = setup.start();
    let load = ["run", "--rate=2000", "--duration=95s", "--videos=3000", "--producers=2", "--batch=100"];
    let load = Load::verified(&engine, &load);
    wait_for("counted views", || (engine.metric("views_counted_total") > 0).then_some(()));
    let ballast = fill_until_it_waits(&engine, &mount);
    let line = engine.log_line(WAITS);
    told("leave not a block on the disk", &line, "waits", &["no room for the", "free space"]);
    assert_eq!(engine.ask("/v1/videos/top?period=hour&k=3").status, 200, "reads are served");
    // A shutdown does not wait for room, and a start finds none for what it must write: both say so, and lose nothing.
    let again = engine.same_place();
    let ended = engine.terminate();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line = ended.log.lines().rfind(|line| line.contains("No space left on device")).unwrap();
    told("shut down on a disk without a block left", line, "exit 1", &["could not be written", "free space"]);
    refused("start on a disk without a block left", &again, &["No space left on device", "free space"]);
    std::fs::remove_file(&ballast).unwrap();
    let engine = again.start();
    // Once more, and this time room is made while it runs.
    wait_for("counted views", || (engine.metric("views_counted_total") > 0).then_some(()));
    let ballast = fill_until_it_waits(&engine, &mount);
    let stood = epoch(&engine);
    std::fs::remove_file(ballast).unwrap();
    wait_for("snapshots that go on", || (epoch(&engine) > stood + 1).then_some(()));
    engine.log_line("there was room for");
    load.finish().assert_verified();
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn a_first_start_on_a_full_disk_leaves_nothing_that_a_later_one_stumbles_over() {
    let Some(Place { _folder, mount, setup }) = place() else { return };
    // From not a block to some: each start comes further, and each is a refusal or a start.
    let ballast = mount.fill(0);
    refused("start a new engine on a full disk", &setup, &["No space left on device", "free space"]);
    let mut starts = 0;
    for blocks in [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 32, 64] {
        File::options().write(true).open(&ballast).unwrap().set_len(0).unwrap();
        mount.fill(blocks * BLOCK);
        match setup.try_start() {
            Ok(engine) => {
                engine.log_line("no room for the log, batches will be refused");
                starts += 1;
                engine.kill();
            }
            Err(ended) => {
                assert_eq!(ended.code, Some(1), "{blocks} blocks: {ended:?}");
                assert!(ended.log.contains("No space left on device"), "{blocks} blocks: {ended:?}");
                assert!(!ended.log.contains("panicked"), "{blocks} blocks: {ended:?}");
            }
        }
    }
    assert!(starts > 0, "some room is enough to start, and to refuse batches");
    std::fs::remove_file(ballast).unwrap();
    let engine = setup.start();
    let load = ["run", "--rate=10000", "--duration=2s", "--videos=2000", "--batch=300"];
    Load::verified(&engine, &load).finish().assert_verified();
}
