//! Flags, variables and configuration files that are wrong, and which of them wins when all are right.
//!
//! Invariant: wrong settings exit with 2 before anything is opened or made, with nothing on stdout; what was wrong,
//! what is allowed and what comes near it is said on stderr.

use super::told;
use crate::support::binaries::command;
use crate::support::process::{Child, Said};
use crate::support::wait_for;
use rustix::process::Signal;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A deed, with the words that its answer must have.
type Row<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

/// A place where nothing may appear.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn file(&self, text: &[u8]) -> PathBuf {
        let path = self.folder.path().join("f.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `highwater serve` on a new data directory with more flags and variables, which must be refused.
    fn refused(&self, deed: &str, flags: &[&str], variables: &[(&str, &str)], words: &[&str]) {
        let mut command = command("highwater");
        command.arg("serve").arg(format!("--data-dir={}", self.data().display())).args(flags);
        command.envs(variables.iter().copied());
        self.assert_refused(deed, &command.output().unwrap(), words);
    }

    fn assert_refused(&self, deed: &str, output: &std::process::Output, words: &[&str]) {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{deed}: {output:?}");
        assert!(output.stdout.is_empty() && !self.data().exists(), "{deed}: {output:?}");
        told(deed, &text, "exit 2", words);
    }
}

#[test]
fn wrong_flags_are_refused_with_what_is_allowed() {
    let place = Place::new();
    let rows: &[Row] = &[
        ("misspelt flag", &["--memroy=4GiB"], &["--memroy", "similar", "'--memory'"]),
        ("flag of another command", &["--rows=3"], &["unexpected argument '--rows'"]),
        ("flag given twice", &["--memory=4GiB", "--memory=5GiB"], &["cannot be used multiple times"]),
        ("flag without a value", &["--memory"], &["--memory", "value is required"]),
        ("memory without unit", &["--memory=4"], &["'4'", "--memory", "unit is missing", "KiB, MiB, GiB", "4GiB"]),
        ("memory with half a unit", &["--memory=4G"], &["\"G\" is unknown", "GiB, TiB, kB, MB, GB"]),
        ("memory with a misspelt unit", &["--memory=4GiBB"], &["did you mean GiB?"]),
        ("memory in words", &["--memory=much"], &["'much'", "a number with its unit"]),
        ("negative memory", &["--memory=-4GiB"], &["a number with its unit"]),
        ("more memory than there are addresses", &["--memory=65TiB"], &["0B to 64TiB are allowed"]),
        ("too little memory", &["--memory=100MiB"], &["--memory", "104857600", "512MiB"]),
        ("too little memory for the cores", &["--memory=512MiB", "--cores=0,1"], &["536870912", "2 cores"]),
        ("too little memory for the shards", &["--memory=512MiB", "--shards=256"], &["256 shards", "give it more"]),
        ("log retention without unit", &["--log-retention=8"], &["--log-retention", "unit is missing", "8GiB"]),
        ("skew without unit", &["--skew-max=7"], &["--skew-max", "unit is missing", "ms, s, m, h, d", "7s"]),
        ("skew with an unknown unit", &["--skew-max=7sx"], &["\"sx\" is unknown", "did you mean s?"]),
        ("skew of a day", &["--skew-max=1d"], &["0s to 1h are allowed"]),
        ("skew in microseconds", &["--skew-max=10us"], &["\"us\" is unknown", "did you mean ms?"]),
        ("skew below the grain", &["--skew-max=0.5ms"], &["whole milliseconds"]),
        ("no shard", &["--shards=0"], &["--shards", "1..=256"]),
        ("too many shards", &["--shards=257"], &["1..=256"]),
        ("half a shard", &["--shards=1.5"], &["--shards", "1.5"]),
        ("unknown runtime", &["--runtime=tread"], &["glommio, thread", "'thread'"]),
        ("CPU by name", &["--cores=first"], &["CPUs are numbers from 0", "0,1"]),
        ("one CPU twice", &["--cores=0,0", "--memory=4GiB"], &["--cores=[0, 0]", "twice"]),
        ("address without port", &["--listen=127.0.0.1"], &["--listen", "127.0.0.1:8080"]),
        ("name as address", &["--http=localhost:8080"], &["--http", "IP address"]),
        ("port beyond the last", &["--http=127.0.0.1:65536"], &["65535"]),
        ("no ports left", &["--listen=127.0.0.1:65535", "--cores=0,1"], &["core 1", "up to 65534"]),
        ("advertised host with port", &["--advertise=engine.example:4433"], &["without port", "engine.example"]),
        ("certificate without key", &["--tls-cert=c.pem"], &["--tls-cert", "without --tls-key", "give both"]),
        ("key without certificate", &["--tls-key=k.pem"], &["--tls-key", "without --tls-cert"]),
        ("switch that is neither", &["--accept-clock=maybe"], &["true, false, 1, 0, yes, no"]),
        ("argument too many", &["data"], &["unexpected argument 'data'"]),
    ];
    for (deed, flags, words) in rows {
        place.refused(deed, flags, &[], words);
    }
    let cores = format!("--cores={}", (0..65).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(","));
    place.refused("65 cores", &[&cores], &[], &["65 CPUs", "1 to 64"]);
}

#[test]
fn wrong_commands_are_refused_with_the_nearest() {
    let place = Place::new();
    let rows: &[Row] = &[
        ("misspelt command", &["sevre"], &["'sevre'", "'serve'"]),
        ("no data directory", &["serve"], &["--data-dir <DIR>", "HIGHWATER_DATA_DIR", "[serve]"]),
        ("sidecar without its engine", &["sidecar", "--ca=c"], &["--engine <HOST:PORT>", "HIGHWATER_ENGINE"]),
        ("engine without a port", &["sidecar", "--engine=localhost", "--ca=c"], &["a host and a port", "[::1]:4433"]),
        ("sidecar that is never ready", &["sidecar", "--engine=h:1", "--ca=c", "--stale-after=999ms"], &["1s to 1h"]),
        ("top of a week", &["top", "--engine=h:1", "--ca=c", "--period=week"], &["hour, day, month, all-time"]),
        ("top of no row", &["top", "--engine=h:1", "--ca=c", "--rows=0"], &["1..=1000"]),
        ("demo without unit", &["demo", "--duration=10"], &["unit is missing", "10s"]),
        ("load without unit", &["demo", "--rate=1k"], &["--rate", "1k"]),
        ("completions of an unknown shell", &["completions", "bsh"], &["bash, elvish, fish", "'bash'"]),
        ("config without a deed", &["config"], &["check", "example"]),
    ];
    for (deed, line, words) in rows {
        place.assert_refused(deed, &command("highwater").args(*line).output().unwrap(), words);
    }
    for (deed, line) in
        [("load with an unknown flag", ["run", "--unknown=1"]), ("replay in words", ["replay", "--speed=x"])]
    {
        place.assert_refused(
            deed,
            &command("loadgen").args(line).output().unwrap(),
            &[line[1].split('=').next().unwrap()],
        );
    }
}

#[test]
fn wrong_variables_are_refused_by_their_names() {
    let place = Place::new();
    for (deed, name, value, words) in [
        ("misspelt variable", "HIGHWATER_MEMROY", "4GiB", &["HIGHWATER_MEMROY", "did you mean HIGHWATER_MEMORY?"][..]),
        ("variable of nothing", "HIGHWATER_STRANGE_THING", "1", &["HIGHWATER_STRANGE_THING", "unset it"]),
        ("misspelt variable, empty", "HIGHWATER_SHRADS", "", &["did you mean HIGHWATER_SHARDS?"]),
        ("port as if from Kubernetes", "HIGHWATER_HTTP_PORT", "8080", &["HIGHWATER_HTTP_PORT is no variable"]),
        ("memory by variable without unit", "HIGHWATER_MEMORY", "4", &["HIGHWATER_MEMORY=4", "unit is missing"]),
        ("switch by variable", "HIGHWATER_ACCEPT_CLOCK", "on", &["true, false, 1, 0, yes, no"]),
        ("runtime by variable", "HIGHWATER_RUNTIME", "tread", &["glommio, thread", "did you mean thread?"]),
        ("misspelt level of the log", "HIGHWATER_LOG", "debgu", &["did you mean debug?"]),
        ("filter that is none", "HIGHWATER_LOG", "highwater=loud", &["HIGHWATER_LOG", "info,highwater=debug"]),
        ("certificate alone by variable", "HIGHWATER_TLS_CERT", "c", &["--tls-key", "variable HIGHWATER_TLS_CERT"]),
    ] {
        place.refused(deed, &[], &[(name, value)], words);
    }
    let mut command = command("highwater");
    command.arg("serve").arg(format!("--data-dir={}", place.data().display()));
    command.env("HIGHWATER_MEMORY", std::ffi::OsString::from_vec(vec![0xff]));
    place.assert_refused("memory in no UTF-8", &command.output().unwrap(), &["HIGHWATER_MEMORY", "not UTF-8"]);
}

#[test]
fn wrong_files_are_refused_by_line_and_column() {
    let place = Place::new();
    let rows: &[(&str, &[u8], &[&str])] = &[
        ("misspelt key", b"[serve]\nmemroy = \"4GiB\"\n", &["f.toml:2:1", "did you mean memory?", "allowed are"]),
        ("key with underscore", b"[serve]\ndata_dir = \"d\"\n", &["f.toml:2:1", "did you mean data-dir?"]),
        ("key above the tables", b"memory = \"4GiB\"\n", &["f.toml:1:1", "belongs below [serve]"]),
        ("key of another table", b"[serve]\nrows = 3\n", &["belongs below [top]"]),
        ("misspelt table", b"[server]\n", &["f.toml:1:2", "did you mean serve?"]),
        ("table twice", b"[serve]\n[serve]\n", &["f.toml:2:", "given twice"]),
        ("key twice", b"[top]\nrows = 3\nrows = 4\n", &["f.toml:3:1", "rows is given twice"]),
        ("number without unit", b"[serve]\nmemory = 4\n", &["f.toml:2:10", "needs a unit", "\"4GiB\""]),
        ("number in quotes", b"[serve]\nshards = \"16\"\n", &["f.toml:2:10", "without quotes"]),
        ("switch in quotes", b"[serve]\naccept-clock = \"yes\"\n", &["true or false, without quotes"]),
        ("value without quotes", b"[serve]\nmemory = 4GiB\n", &["f.toml:2:", "no TOML"]),
        ("quote left open", b"[serve]\nmemory = \"4GiB\n", &["f.toml:2:", "no TOML"]),
        ("runtime in a file", b"[serve]\nruntime = \"tread\"\n", &["f.toml:2:11", "did you mean thread?"]),
        ("wrong table of another command", b"[top]\nrows = 0\n", &["f.toml:2:8", "1..=1000"]),
        ("file in Latin-1", b"# \xe4\n", &["f.toml:1:3", "not UTF-8"]),
        ("key without certificate in a file", b"[serve]\ntls-key = \"k\"\n", &["--tls-cert", "f.toml:2"]),
    ];
    for (deed, text, words) in rows {
        let path = place.file(text).display().to_string();
        place.refused(deed, &[&format!("--config={path}")], &[], words);
        place.refused(&format!("{deed}, by variable"), &[], &[("HIGHWATER_CONFIG", &path)], words);
    }
    let folder = place.folder.path().display().to_string();
    let flag = format!("--config={folder}");
    place.refused("directory as file", &[&flag], &[], &[&folder, "is a directory"]);
    place.refused("file that is not there", &[&format!("{flag}/no.toml")], &[], &["no.toml", "cannot be read"]);
    let long = place.file(&vec![b'\n'; (1 << 20) + 1]).display().to_string();
    place.refused("file of more than 1 MiB", &[&format!("--config={long}")], &[], &[&long, "longer than 1MiB"]);
}

/// What `highwater config check` says of a file, and how it ends.
fn check(path: &Path) -> (Option<i32>, String, String) {
    let output = command("highwater").args(["config", "check"]).arg(path).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_check_tells_all_that_is_wrong_with_a_file_at_once() {
    let place = Place::new();
    let path = place.file(b"memory = 4\n[serve]\ncores = [0, 0]\nlisten =\n[sidecar]\nstale-after = \"2h\"\n[tpo]\n");
    let (code, out, text) = check(&path);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{text}");

    assert_eq!(text.lines().count(), 5, "{text}");
    for word in ["toml:1:1: ", "toml:3:1: ", "toml:4:", "toml:6:15: ", "toml:7:2: ", "twice", "1s to 1h", "mean top?"] {
        assert!(text.contains(word), "{word:?} is not said: {text}");
    }
    told("file with five faults, checked", &text, "exit 1", &[]);
    let (code, out, text) =
        check(&place.file(b"[serve]\nmemory = \"4GiB\"\n[top]\nrows = 3\nengine = \"h:1\"\nca = \"c\"\n"));
    assert_eq!((code, text.as_str()), (Some(0), ""));
    let told = "serve: 1 setting, sound; still needs --data-dir or HIGHWATER_DATA_DIR\ntop: 3 settings, sound\n";
    assert_eq!(out, told);
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_and_the_start_says_so() {
    let place = Place::new();
    let text = format!(
        "[serve]\ndata-dir = {:?}\nhttp = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\nshards = 4\nmemory = \"1GiB\"\n\
         skew-max = \"90s\"\n[top]\nrows = 3\n",
        place.data()
    );
    let path = place.file(text.as_bytes());
    let mut command = command("highwater");
    command.args(["serve", "--shards=16", "--runtime=thread"]);
    command.envs([("HIGHWATER_SHARDS", "8"), ("HIGHWATER_MEMORY", "768MiB"), ("HIGHWATER_SKEW_MAX", "")]);
    // What Kubernetes makes for a service of that name is no setting.
    command.env("HIGHWATER_CONFIG", &path).env("HIGHWATER_SERVICE_HOST", "10.0.0.1");
    command.env("HIGHWATER_PORT_4433_UDP", "udp://10.0.0.1:4433");
    let (engine, ready) = match Child::start(&mut command) {
        Said::Ready(engine, ready) => (engine, ready),
        Said::Ended(ended) => panic!("{ended:?}"),
    };
    assert_eq!((ready["shards"].as_u64(), ready["runtime"].as_str()), (Some(16), Some("thread")), "{ready}");
    assert_eq!(ready["data_dir"].as_str(), place.data().to_str());
    let file = path.display();
    let wanted = [
        format!("config = \"{file}\"  # variable HIGHWATER_CONFIG"),
        format!("data-dir = \"{}\"  # file {file}:2", place.data().display()),
        "shards = 16  # flag".to_owned(),
        "memory = \"768MiB\"  # variable HIGHWATER_MEMORY".to_owned(),
        format!("skew-max = \"90s\"  # file {file}:7"),
        "log-retention = \"8GiB\"  # default".to_owned(),
        "advertise is not set  # default".to_owned(),
    ];
    let log = wait_for("the effective configuration", || {
        let log = engine.log();
        wanted.iter().all(|line| log.contains(line)).then_some(log)
    });
    for line in &wanted {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    assert_eq!(engine.end_by(Signal::TERM).code, Some(0));
}
