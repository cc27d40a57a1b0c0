//! `highwater export` from outside: what is printed, and what wrong uses are told.
//!
//! What is in the files is tested where they are written. Invariant: wrong usage exits with 2 before anything is
//! opened, what cannot be done with 1; neither leaves a file behind or changes the data directory.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

use highwater_disk::FileDisk;
use highwater_proto::{Epoch, InstanceId};
use highwater_ranking::{CoreCut, Minute, ShardCut, SlotCount};
use highwater_storage::{
    CorePart, Directory, DirectoryId, LogNumber, LogPosition, OpenOptions, PreparedCut, ProducerTableImage,
    StorageError, Store,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// 2024-07-15T18:00Z.
const MINUTE: Minute = Minute(28_684_440);

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A data directory with three views of one minute, in one cut.
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let directory = Directory {
            id: DirectoryId(7),
            instance: InstanceId(5),
            hash_seed: 77,
            shards: 1,
            lateness_max_ms: 600_000,
            segment_bytes: 1 << 20,
        };
        let disk = FileDisk::open(&place.data()).unwrap();
        let mut store = Store::open(disk, OpenOptions::new(directory)).unwrap();
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        let generation = store.open_generations(1).unwrap();
        let shard = ShardCut {
            shard: 0,
            minute: MINUTE,
            first_slot: 0,
            id_lens: vec![4, 1],
            id_bytes: b"\"a\",b".to_vec(),
            current: vec![SlotCount { slot: 0, count: 2 }, SlotCount { slot: 1, count: 1 }],
            late: Vec::new(),
        };
        let time_ms = MINUTE.end_ms() + 250;
        let cut = CoreCut { epoch: Epoch(9), time_ms, minute: MINUTE, arrivals_from_ms: time_ms, shards: vec![shard] };
        let position = LogPosition { generation, position: 4096 };
        let producers = ProducerTableImage::default();
        store.write_cut(&PreparedCut::new(vec![CorePart { log: LogNumber(0), position, cut, producers }])).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs an export of the data directory.
    fn export(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HIGHWATER_")) {
            command.env_remove(name);
        }
        command.arg("export").current_dir(self.folder.path()).args(arguments);
        if !arguments.iter().any(|argument| argument.starts_with("--data-dir")) {
            command.arg("--data-dir=data");
        }
        command.output().expect("the binary can be started")
    }

    /// An export that must end with `code` and say these words, and nothing else.
    fn refused(&self, code: i32, arguments: &[&str], words: &[&str]) {
        let before = contents(self.folder.path());
        let output = self.export(arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
        assert!(!told.contains("panicked"), "{arguments:?}: {told}");
        assert!(output.stdout.is_empty() || arguments.contains(&"--out=-"), "{arguments:?}: {:?}", output.stdout);
        for word in words {
            assert!(told.contains(word), "{arguments:?}: {word:?} is not said: {told}");
        }
        assert_eq!(contents(self.folder.path()), before, "{arguments:?}");
    }
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn a_table_goes_to_a_file_and_a_summary_to_stdout() {
    let place = Place::new();
    let before = contents(&place.data());
    let output = place.export(&["--table=hour", "--from=2024-07-15", "--out=hour.csv"]);
    let (told, wrong) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{wrong}");
    let file = "video_id,date,hour,view_count,start_time\n\
                \"\"\"a\"\",\",2024-07-15,18,2,2024-07-15T18:00:00Z\n\
                b,2024-07-15,18,1,2024-07-15T18:00:00Z\n";
    assert_eq!(std::fs::read_to_string(place.path("hour.csv")).unwrap(), file);
    let summary = format!(
        "{{\"table\":\"hour\",\"format\":\"csv\",\"rows\":2,\"views\":3,\"from\":\"2024-07-15T00:00:00Z\",\
         \"to\":\"2024-07-15T19:00:00Z\",\"as_of\":\"2024-07-15T18:01:00.25Z\",\"epoch\":9,\"bytes\":{}}}\n",
        file.len()
    );
    assert_eq!(told, summary);
    let output = place.export(&["--table=hour", "--from=2024-07-15", "--out=-"]);
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), output.status.code()), (file, Some(0)));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), summary);
    let output = place.export(&["--table=minute", "--format=parquet", "--out=-"]);
    assert!(output.stdout.starts_with(b"PAR1") && output.stdout.ends_with(b"PAR1"), "{output:?}");
    assert_eq!(contents(&place.data()), before, "the data directory is as it was");
}

#[test]
fn wrong_usage_is_told_before_anything_is_opened() {
    let place = Place::new();
    let day = "--table=day";
    let rows: &[(&[&str], &[&str])] = &[
        (&["--out=a.csv"], &["--table"]),
        (&[day], &["--out"]),
        (&["--table=week", "--out=a.csv"], &["'week'", "minute, hour, day, top, views"]),
        (&["--table=days", "--out=a.csv"], &["'days'", "similar", "'day'"]),
        (&[day, "--out=a.csv", "--format=json"], &["'json'", "parquet, csv"]),
        (&[day, "--out=a.txt"], &["a.txt", ".parquet", ".csv", "--format"]),
        (&[day, "--out=a.csv", "--from=yesterday"], &["'yesterday'", "--from", "RFC 3339", "2024-07-15T18:00:00Z"]),
        (&[day, "--out=a.csv", "--to=2024-07-15T18:00"], &["--to", "RFC 3339"]),
        (&[day, "--out=a.csv", "--from=1969-12-31"], &["before 1970"]),
        (
            &[day, "--out=a.csv", "--from=2024-07-16", "--to=2024-07-16"],
            &["--from=2024-07-16T00:00:00Z is not before --to=2024-07-16T00:00:00Z"],
        ),
        (
            &[day, "--out=a.csv", "--from=2024-07-15T18:00:00Z"],
            &["--from=2024-07-15T18:00:00Z", "no whole day", "choose 2024-07-15T00:00:00Z or 2024-07-16T00:00:00Z"],
        ),
        (
            &["--table=hour", "--out=a.csv", "--to=2024-07-15T18:00:00+05:30"],
            &["--to=2024-07-15T12:30:00Z", "no whole hour", "2024-07-15T13:00:00Z"],
        ),
        (&["--table=top", "--out=a.csv", "--to=2024-07-15T18:30:00Z"], &["no whole hour"]),
        (&["--table=minute", "--out=a.csv", "--to=2024-07-15T18:30:01Z"], &["no whole minute"]),
        (&[day, "--out=a.csv", "--from=2024-07-15T18:00:00.0001Z"], &["whole milliseconds"]),
        (&[day, "--out=a.csv", "more"], &["unexpected argument 'more'"]),
    ];
    for (arguments, words) in rows {
        place.refused(2, arguments, words);
    }
}

#[test]
fn what_cannot_be_done_is_told_with_what_to_do() {
    let place = Place::new();
    std::fs::write(place.path("there.csv"), "mine").unwrap();
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::create_dir(place.path("thesis")).unwrap();
    std::fs::write(place.path("thesis/chapter.txt"), "mine").unwrap();
    let day = "--table=day";
    let rows: &[(&[&str], &[&str])] = &[
        (&[day, "--out=there.csv"], &["--out=there.csv exists", "--force"]),
        (&[day, "--out=empty", "--format=csv"], &["is a directory", "name a file"]),
        (&[day, "--out=/dev/null", "--format=csv", "--force"], &["/dev/null is no file", "--out=-"]),
        (&[day, "--out=no/where.csv"], &["no/where.csv", "no file can be made in no", "No such file"]),
        (&[day, "--out=a.csv", "--data-dir=none"], &["data directory none is not there", "--data-dir"]),
        (&[day, "--out=a.csv", "--data-dir=there.csv"], &["is no directory"]),
        (&[day, "--out=a.csv", "--data-dir=empty"], &["directory.hw is missing", "right directory"]),
        (&[day, "--out=a.csv", "--data-dir=thesis"], &["is no data directory", "chapter.txt"]),
    ];
    for (arguments, words) in rows {
        place.refused(1, arguments, words);
    }
    let output = place.export(&[day, "--out=there.csv", "--force"]);
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read_to_string(place.path("there.csv")).unwrap().starts_with("video_id,date,"));
}

#[test]
fn a_damaged_file_is_named() {
    let place = Place::new();
    let cut = place.data().join("cuts/cut-0000000001.cut");
    let sound = std::fs::read(&cut).unwrap();
    for at in [0, 140, sound.len() / 2, sound.len() - 1] {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        std::fs::write(&cut, bytes).unwrap();
        for table in ["--table=minute", "--table=day"] {
            place.refused(1, &[table, "--out=a.parquet"], &["cuts/cut-0000000001.cut", "restore"]);
        }
    }
    std::fs::write(&cut, sound).unwrap();
    std::fs::write(place.data().join("directory.hw"), "").unwrap();
    place.refused(1, &["--table=top", "--out=a.parquet"], &["directory.hw", "restore"]);
}

#[test]
fn a_reader_that_goes_away_is_an_error_and_no_panic() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(["export", "--data-dir=data", "--table=minute", "--out=-"]).current_dir(place.folder.path());
    let output = command.stdout(writer).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("stdout") && told.contains("Broken pipe") && !told.contains("panicked"), "{told}");
}
