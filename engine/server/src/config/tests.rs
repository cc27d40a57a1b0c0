//! Tests of what command line, variables and file say together.

use super::*;
use crate::args::ServeArguments;

/// What comes of a line and variables; `FILE` in either is a file with this text.
fn read_with(line: &[&str], variables: &[(&str, &str)], text: &str) -> Result<Invocation, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.toml");
    std::fs::write(&path, text).unwrap();
    let put = |word: &str| OsString::from(word.replace("FILE", path.to_str().unwrap()));
    let line = ["highwater"].into_iter().chain(line.iter().copied()).map(put);
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), put(value)));
    read(line, variables).map_err(|refusal| refusal.to_string())
}

fn serve(line: &[&str], variables: &[(&str, &str)], text: &str) -> (Box<ServeArguments>, Vec<Effective>) {
    let line: Vec<_> = ["serve", "--data-dir=d"].iter().chain(line).copied().collect();
    let invocation = read_with(&line, variables, text).unwrap();
    let Asked::Serve(serve) = invocation.command else { panic!("{:?}", invocation.command) };
    (serve, invocation.settings)
}

fn source(settings: &[Effective], key: &str) -> String {
    settings.iter().find(|setting| setting.key == key).unwrap().source.clone()
}

#[test]
fn a_flag_wins_over_a_variable_over_the_file_over_the_default() {
    let text = "[serve]\nmemory = \"1GiB\"\nshards = 4\nskew-max = \"5s\"\n";
    let variables = [("HIGHWATER_CONFIG", "FILE"), ("HIGHWATER_MEMORY", "2GiB"), ("HIGHWATER_SHARDS", "8")];
    let (found, settings) = serve(&["--memory=3gib"], &variables, text);
    assert_eq!((found.memory.as_u64() >> 30, found.shards, found.skew_max.as_secs()), (3, Some(8), 5));
    assert_eq!(found.log_retention.as_u64() >> 30, 8);
    assert_eq!(source(&settings, "memory"), "flag");
    assert_eq!(source(&settings, "shards"), "variable HIGHWATER_SHARDS");
    assert!(source(&settings, "skew-max").starts_with("file /") && source(&settings, "skew-max").ends_with("f.toml:4"));
    assert_eq!(source(&settings, "log-retention"), "default");
    let lines: Vec<String> = settings.iter().map(ToString::to_string).collect();
    assert!(lines.contains(&"memory = \"3GiB\"  # flag".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"advertise is not set  # default".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"cores = [0]  # default".to_owned()), "{lines:#?}");
    assert!(lines[0].starts_with("config = \"/") && lines[0].ends_with("# variable HIGHWATER_CONFIG"), "{lines:#?}");
}

#[test]
fn every_setting_is_told_once_and_as_it_would_stand_in_a_file() {
    let (_, settings) = serve(&["--tls-name=a,b", "--cores=0,1", "--accept-clock", "--skew-max=90s"], &[], "");
    let keys: std::collections::BTreeSet<_> = settings.iter().map(|setting| &setting.key).collect();
    assert_eq!(keys.len(), settings.len());
    let lines = settings.iter().filter(|setting| setting.key != "config" && setting.value.is_some());
    let text: String = lines.map(|setting| format!("{setting}\n")).collect();
    let (_, again) = serve(&["--config=FILE"], &[], &format!("[serve]\n{text}"));
    for (one, other) in settings.iter().zip(&again).filter(|(one, _)| one.key != "config") {
        assert_eq!((&one.key, &one.value), (&other.key, &other.value));
    }
}

#[test]
fn a_list_is_replaced_by_a_higher_source_not_added_to() {
    let text = "[serve]\ncores = [0, 1]\ntls-name = [\"a\", \"b\"]\n";
    let (found, _) = serve(&["--config=FILE", "--cores=5"], &[("HIGHWATER_TLS_NAME", "c,d,e")], text);
    assert_eq!((found.cores, found.tls_name), (vec![5], ["c", "d", "e"].map(str::to_owned).to_vec()));
}

#[test]
fn a_switch_can_be_turned_off_again() {
    let text = "[serve]\naccept-clock = true\n";
    let on = |line: &[&str], variables: &[(&str, &str)]| serve(line, variables, text).0.accept_clock;
    assert!(on(&["--config=FILE"], &[]));
    assert!(!on(&["--config=FILE"], &[("HIGHWATER_ACCEPT_CLOCK", "no")]));
    assert!(on(&["--config=FILE", "--accept-clock"], &[("HIGHWATER_ACCEPT_CLOCK", "no")]));
    assert!(!on(&["--config=FILE", "--accept-clock=false"], &[]));
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let variables = [("HIGHWATER_MEMORY", ""), ("HIGHWATER_CONFIG", ""), ("HIGHWATER_LOG", "")];
    let (found, settings) = serve(&[], &variables, "");
    assert_eq!((found.memory.as_u64() >> 30, source(&settings, "memory")), (4, "default".to_owned()));
}

#[test]
fn what_a_command_needs_may_come_from_the_file() {
    let text = "[top]\nengine = \"h:1\"\nca = \"c\"\nonce = true\n[serve]\ndata-dir = \"d\"\n";
    let invocation = read_with(&["top", "--config=FILE"], &[], text).unwrap();
    let Asked::Top(top) = invocation.command else { panic!("{:?}", invocation.command) };
    assert_eq!((top.engine.as_str(), top.once, top.rows), ("h:1", true, 10));
    assert!(read_with(&["serve", "--config=FILE"], &[], text).is_ok());
    let lacking = read_with(&["sidecar", "--config=FILE"], &[("HIGHWATER_CA", "c")], text).unwrap_err();
    assert!(lacking.contains("--engine <HOST:PORT>") && lacking.contains("(HIGHWATER_ENGINE)"), "{lacking}");
    assert!(lacking.contains("[sidecar]"), "{lacking}");
}

#[test]
fn the_whole_file_and_the_variables_of_the_command_must_be_right() {
    let text = "[serve]\nmemroy = 1\n[top]\nrows = 0\n";
    let variables = [("HIGHWATER_SHARDS", "0"), ("HIGHWATER_STALE", "1s"), ("HIGHWATER_LOG", "inof")];
    let refused = read_with(&["serve", "--config=FILE"], &variables, text).unwrap_err();
    let lines: Vec<_> = refused.lines().collect();
    assert_eq!(lines.len(), 5, "{refused}");
    for word in ["memory?", "rows = 0", "HIGHWATER_SHARDS=0", "HIGHWATER_STALE is no variable", "info?"] {
        assert!(refused.contains(word), "{word:?} is not said: {refused}");
    }
}

#[test]
fn what_does_not_fit_is_told_with_where_it_came_from() {
    let refused =
        read_with(&["serve", "--data-dir=d", "--cores=0,1"], &[("HIGHWATER_MEMORY", "512MiB")], "").unwrap_err();
    assert!(refused.contains("2 cores") && refused.contains("(from variable HIGHWATER_MEMORY)"), "{refused}");
    let line = ["serve", "--data-dir=d", "--config=FILE", "--tls-key=k"];
    assert!(read_with(&line, &[("HIGHWATER_TLS_CERT", "c")], "").is_ok());
    let refused = read_with(&line[..3], &[], "[serve]\ntls-cert = \"c\"\n").unwrap_err();
    assert!(refused.contains("--tls-key") && refused.contains("f.toml:2)"), "{refused}");
}

#[test]
fn commands_without_a_file_are_read_whatever_the_variables_say() {
    for line in [&["demo"][..], &["config", "example"], &["man"], &["completions", "bash"]] {
        let invocation = read_with(line, &[("HIGHWATER_STRANGE", "1")], "").unwrap();
        assert_eq!(invocation.settings, [], "{line:?}");
    }
}

#[test]
fn help_says_what_is_required_and_nothing_of_this_process() {
    let help = read_with(&["serve", "--help"], &[("HIGHWATER_DATA_DIR", "/secret")], "").unwrap_err();
    assert!(help.contains("--data-dir <DIR>") && help.contains("[env: HIGHWATER_DATA_DIR]"), "{help}");
    assert!(help.contains("Exit codes") && !help.contains("/secret"), "{help}");
    let short = read_with(&["serve", "-h"], &[], "").unwrap_err();
    assert!(short.lines().count() < help.lines().count() / 2, "{short}");
}
