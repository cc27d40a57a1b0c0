//! Tests of the file: what is read, and how what is wrong is told.

use super::*;
use crate::args::definition;

fn parse(text: &str) -> SettingsFile {
    SettingsFile::parse(Path::new("f.toml"), text, &definition())
}

/// The problems, each as it is told.
fn told(text: &str) -> Vec<String> {
    parse(text).problems.iter().map(|problem| problem.within(Path::new("f.toml"))).collect()
}

#[test]
fn values_of_every_kind_are_read_as_their_flags_would_be() {
    let file = parse(
        "[serve]\ndata-dir = 'd'\ncores = [0, 1]\nhelper-cores = \"2,3\"\nmemory = \"4GiB\"\nshards = 0x10\n\
         accept-clock = true\ntls-name = [\"a\", \"b\"]\nskew-max = \"1m 30s\"\n[top]\nrows = 5\n",
    );
    assert_eq!(file.problems, []);
    let given = &file.tables[0].given;
    let words = |key: &str| given[key].words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!((words("cores"), words("helper-cores")), (vec!["0", "1"], vec!["2", "3"]));
    assert_eq!((words("memory"), words("shards")), (vec!["4GiB"], vec!["16"]));
    assert_eq!((words("accept-clock"), words("tls-name")), (vec!["true"], vec!["a", "b"]));
    assert_eq!(given["cores"].source.to_string(), "file f.toml:3");
    assert_eq!((file.tables[1].name.as_str(), file.tables[1].given.len()), ("top", 1));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_remedy() {
    for (text, words) in [
        ("[serve]\nmemory = 4\n", &["f.toml:2:10: memory = 4: ", "needs a unit", "\"4GiB\""][..]),
        ("[serve]\nmemory = \"4\"\n", &["f.toml:2:10: memory = \"4\": ", "unit is missing", "4GiB"]),
        ("[serve]\nskew-max = 60\n", &["needs a unit", "\"60s\""]),
        ("[serve]\nskew-max = \"2h\"\n", &["0s to 1h are allowed"]),
        ("[serve]\nshards = \"16\"\n", &["2:10", "whole number, without quotes"]),
        ("[serve]\nshards = 300\n", &["1..=256"]),
        ("[serve]\nshards = 99999999999999999999999999999999999999999\n", &["2:10"]),
        ("[serve]\naccept-clock = \"yes\"\n", &["true or false, without quotes"]),
        ("[serve]\nlisten = 4433\n", &["text in quotes", "\"127.0.0.1:4433\""]),
        ("[serve]\ncores = []\n", &["empty"]),
        ("[serve]\ncores = [[0]]\n", &["list in a list"]),
        ("[serve]\ncores = [\"first\"]\n", &["numbers from 0"]),
        ("[serve]\nmemory = [\"4GiB\"]\n", &["one value is taken"]),
        ("[serve]\nmemory.max = 4\n", &["a table, but a value"]),
        ("[serve]\ndata-dir = \"\"\n", &["a value is missing"]),
        ("[serve]\nruntime = \"tread\"\n", &["allowed are glommio, thread", "did you mean thread?"]),
        ("[serve]\ndata_dir = \"d\"\n", &["f.toml:2:1: key data_dir in [serve] is unknown", "did you mean data-dir?"]),
        ("[serve]\nrows = 3\n", &["it belongs below [top]"]),
        ("[serve]\nconfig = \"f\"\n", &["cannot name another file"]),
        ("[serve]\nnothing-alike = 1\n", &["is unknown; allowed are data-dir"]),
        ("[server]\n", &["f.toml:1:2: table [server] is unknown (did you mean serve?)", "[serve], [sidecar], [top]"]),
        ("[[serve]]\n", &["serve is no table"]),
        ("serve = 1\n", &["serve is no table"]),
        ("memory = \"4GiB\"\n[serve]\n", &["f.toml:1:1: memory stands above every table", "below [serve]"]),
        ("engine = \"h:1\"\n", &["[sidecar] or [top]"]),
        ("data_dir = \"d\"\n", &["data-dir belongs below [serve]"]),
        ("nothing-alike = 1\n", &["key nothing-alike is unknown"]),
        ("[serve]\nmemory = \"4GiB\"\nmemory = \"8GiB\"\n", &["f.toml:3:1: memory is given twice"]),
        ("[serve]\n[serve]\n", &["f.toml:2:", "given twice"]),
        ("[serve]\nmemory = 4GiB\n", &["f.toml:2:", "no TOML"]),
        ("[serve]\nmemory\n", &["f.toml:2:", "no TOML"]),
        ("[serve\n", &["f.toml:1:", "no TOML"]),
        ("[serve]\nmemory = \"4GiB\n", &["f.toml:2:", "no TOML"]),
    ] {
        let found = told(text);
        let all = found.join("\n");
        assert_eq!(found.len(), 1, "{text}: {all}");
        words.iter().for_each(|word| assert!(all.contains(word), "{text}: {word:?} is not said: {all}"));
    }
}

#[test]
fn a_file_of_something_else_is_neither_shown_nor_told_without_end() {
    let tokens = "s3cret-one\ns3cret = = two\n".repeat(1000);
    let found = told(&tokens);
    assert_eq!(found.len(), 21, "{found:?}");
    assert!(found.iter().all(|line| !line.contains("s3cret-one") && !line.contains("two")), "{found:?}");
    let found = told("\"\\u001b[31mx\" = 1\n[\"\\u009b\"]\n[serve]\n\"\\u001b\" = 1\nmemory = \"\"\"a\u{9b}\"\"\"\n");
    assert!(found.len() >= 4 && found.iter().all(|line| !line.contains(char::is_control)), "{found:?}");
}

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    let found = told("memory = 1\n[serve]\nmemroy = 4\nlisten = \n[sidecar]\nstale-after = 1\n[tip]\n");
    let places: Vec<_> = found.iter().map(|line| line.split(':').nth(1).unwrap()).collect();
    assert_eq!(places, ["1", "3", "4", "6", "7"], "{}", found.join("\n"));
}

#[test]
fn files_that_are_none_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    for (path, words) in [
        (folder.path().join("nothing.toml"), &["nothing.toml: ", "cannot be read", "--config"][..]),
        (folder.path().to_owned(), &["is a directory"]),
        (write("long.toml", &vec![b' '; (1 << 20) + 1]), &["longer than 1MiB"]),
        (write("latin.toml", b"# ok\n# \xe4\n"), &["latin.toml:2:3: ", "not UTF-8"]),
    ] {
        let file = SettingsFile::read(&path, &definition());
        let all: Vec<_> = file.problems.iter().map(|problem| problem.within(&path)).collect();
        assert_eq!(all.len(), 1, "{all:?}");
        words.iter().for_each(|word| assert!(all[0].contains(word), "{word:?} is not said: {all:?}"));
    }
    let file = SettingsFile::read(&write("whole.toml", &vec![b'\n'; 1 << 20]), &definition());
    assert_eq!(file.problems, []);
}
