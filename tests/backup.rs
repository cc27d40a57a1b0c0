//! Backups and what comes back from them: a copy of a stopped engine's directory, and a snapshot of the file system
//! that a running engine writes to.
//!
//! The snapshot is one of an ext4 image, frozen for the moment of the copy as a volume manager freezes it; that needs
//! root and a loop device. Invariant: what was acknowledged before a backup began is in it, and its counts are those of
//! whole batches.

use crate::support::{Engine, Load, Setup, wait_for};
use highwater_proto::Period;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Views of each batch.
const BATCH: u64 = 500;
const IMAGE_BYTES: u64 = 3 << 30;

fn output(program: &str, arguments: &[&Path]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program of the system; its last words are returned.
fn run(program: &str, arguments: &[&Path]) -> String {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn assert_sound(data: &Path) {
    let data_dir = format!("--data-dir={}", data.display());
    let output = crate::support::binaries::command("highwater").args(["check", &data_dir]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn all_views(engine: &Engine) -> u64 {
    engine.top(Period::AllTime, 1)["total_views"].as_u64().unwrap()
}

#[test]
fn a_copy_of_a_stopped_engine_is_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (data, copy) = (folder.path().join("data"), folder.path().join("copy"));
    let engine = Engine::start(&data);
    let load = ["run", "--rate=20000", "--duration=2s", "--videos=5000", "--batch=500", "--seed=9"];
    Load::verified(&engine, &load).finish().assert_verified();
    let (lists, total) = (engine.lists(), all_views(&engine));
    engine.terminate();
    run("cp", &[Path::new("-a"), &data, &copy]);
    // The original goes on, and is lost.
    let engine = Engine::start(&data);
    Load::unverified(&engine, &load).finish();
    engine.kill();
    std::fs::remove_dir_all(&data).unwrap();
    assert_sound(&copy);
    let engine = Engine::start(&copy);
    assert_eq!((engine.lists(), all_views(&engine)), (lists, total));
    Load::unverified(&engine, &load).finish();
    wait_for("the views of another load", || (all_views(&engine) == total + 40_000).then_some(()));
}

/// A mounted ext4 image.
struct Volume {
    image: PathBuf,
    place: PathBuf,
}

impl Volume {
    /// A new one in a folder; none where this process cannot make one.
    fn new(folder: &Path) -> Option<Self> {
        let volume = Self { image: folder.join("image"), place: folder.join("volume") };
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
            println!("skipped: snapshots of a file system need root and loop devices");
            return None;
        }
        std::fs::File::create(&volume.image).unwrap().set_len(IMAGE_BYTES).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), Path::new("-F"), &volume.image]);
        volume.mount();
        Some(volume)
    }

    fn mount(&self) {
        std::fs::create_dir_all(&self.place).unwrap();
        run("mount", &[Path::new("-o"), Path::new("loop"), &self.image, &self.place]);
    }

    /// The volume as it is at one moment, as another volume.
    fn snapshot(&self, folder: &Path) -> Self {
        let snapshot = Self { image: folder.join("image"), place: folder.join("volume") };
        run("fsfreeze", &[Path::new("-f"), &self.place]);
        let copied = output("cp", &[Path::new("--sparse=always"), &self.image, &snapshot.image]);
        run("fsfreeze", &[Path::new("-u"), &self.place]);
        assert!(copied.status.success(), "{copied:?}");
        snapshot.mount();
        snapshot
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, so that it goes as soon as nobody uses it, also after a failure.
        output("umount", &[Path::new("-l"), &self.place]);
    }
}

#[test]
fn an_atomic_snapshot_of_a_running_engines_file_system_is_a_backup() {
    let folder = tempfile::tempdir().unwrap();
    let Some(volume) = Volume::new(folder.path()) else { return };
    let small = vec!["--log-retention=256MiB".to_owned(), "--archive-retention=1h,128MiB".to_owned()];
    let setup = Setup { more: small, ..Setup::new(&volume.place.join("data")) };
    let engine = setup.start();
    let load = ["run", "--rate=20000", "--duration=12s", "--videos=5000", "--batch=500", "--seed=9"];
    let mut load = Load::verified(&engine, &load);
    let mut counted = 0;
    for number in 0..3 {
        counted = wait_for("more views", || {
            let now = engine.metric("views_counted_total");
            (now > counted + 10 * BATCH).then_some(now)
        });
        let of_snapshot = folder.path().join(number.to_string());
        std::fs::create_dir(&of_snapshot).unwrap();
        let snapshot = volume.snapshot(&of_snapshot);
        assert!(load.runs(), "the load was over before the snapshot");
        let data = snapshot.place.join("data");
        assert_sound(&data);
        let restored = Engine::start(&data);
        let total = all_views(&restored);
        assert!(total >= counted, "{counted} views were acknowledged, {total} restored");
        // Metrics tell of what was received up to a second later.
        wait_for("as many views as were restored", || (engine.metric("views_received_total") >= total).then_some(()));
        assert_eq!(total % BATCH, 0, "a batch was torn");
        restored.terminate();
        assert_sound(&data);
    }
    load.finish().assert_verified();
    engine.terminate();
}
