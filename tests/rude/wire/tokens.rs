//! Tokens: files that are none, hellos without one or with a wrong one. No token is ever shown.

use super::forge::{hello, hello_with, lookup, subscribe, token};
use super::{Victim, told};
use crate::support::raw::Line;
use crate::support::{Setup, block_on, wait_for};
use highwater_proto::CloseReason::{LimitExceeded, Malformed, Unauthorized, UnexpectedFrame};
use highwater_proto::{FrameKind, HelloMode, ProducerId, TOKEN_BYTES_MAX};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const FILE: &str = "# since March\n\n  s3cret one \ns3cret-two\n";

/// Writes a file that only its owner can read.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn with_file(setup: Setup, path: &Path) -> Setup {
    Setup { more: vec![format!("--token-file={}", path.display())], ..setup }
}

/// An engine that asks for a token, and the file.
fn guarded(cores: usize) -> (Victim, PathBuf) {
    let mut file = PathBuf::new();
    let victim = Victim::of(|setup| {
        file = setup.data_dir.with_file_name("tokens");
        write(&file, FILE);
        with_file(Setup { cores, memory: "1GiB", ..setup }, &file)
    });
    (victim, file)
}

#[test]
fn a_hello_without_the_right_token_is_refused() {
    let (mut victim, file) = guarded(1);
    let remedy = "ask its operator";
    let words = ["the hello has no token", "this engine asks", remedy];
    let bytes = hello(victim.id());
    victim.first("no token where one is asked for", &bytes, Unauthorized, &words);
    let wrong: [&[u8]; 5] = [b"S3cret one", b"s3cret", b"s3cret one ", b"# since March", &[b'x'; TOKEN_BYTES_MAX]];
    for token in wrong {
        let bytes = hello_with(victim.id(), HelloMode::New, token);
        let (deed, found) = (format!("a wrong token of {} bytes", token.len()), format!("{} bytes", token.len()));
        victim.first(&deed, &bytes, Unauthorized, &[&found, "none that this engine takes", remedy]);
    }
    let bytes = hello_with(victim.id(), HelloMode::Resume, b"wrong");
    victim.first("a wrong token with resume", &bytes, Unauthorized, &["5 bytes", remedy]);
    let bytes = hello_with(victim.id(), HelloMode::New, &[b'x'; TOKEN_BYTES_MAX + 1]);
    let words = ["HELLO payload of 1049 bytes", "1048", "send less"];
    victim.first("a token of 1025 bytes", &bytes, LimitExceeded, &words);
    for token in ["s3cret one", "s3cret-two"] {
        let bytes = hello_with(victim.id(), HelloMode::New, token.as_bytes());
        let kind = block_on(async { Line::open(&victim.engine).await.ask(&bytes).await.0 });
        assert_eq!(kind, FrameKind::Welcome, "{token}");
    }
    for (question, answer) in [(lookup(1, b"v"), FrameKind::LookupAnswer), (subscribe(), FrameKind::Snapshot)] {
        let deed = format!("a question for a {answer} without a token");
        victim.first(&deed, &question, Unauthorized, &["has no token", "this engine asks", remedy]);
        let bytes = [token(b"s3cret one"), question].concat();
        let kind = block_on(async { Line::open(&victim.engine).await.ask(&bytes).await.0 });
        assert_eq!(kind, answer);
    }
    let words = ["the TOKEN's token of 5 bytes", "none that this engine takes", remedy];
    victim.first("a wrong token before a question", &token(b"wrong"), Unauthorized, &words);
    let twice = [token(b"s3cret one"), token(b"s3cret one")].concat();
    victim.first("a token twice", &twice, UnexpectedFrame, &["TOKEN cannot come behind a TOKEN", "LOOKUP"]);
    let bytes = [token(b"s3cret one"), hello_with(victim.id(), HelloMode::New, b"s3cret one")].concat();
    victim.first(
        "a hello behind a token",
        &bytes,
        UnexpectedFrame,
        &["HELLO cannot come behind a TOKEN", "in its HELLO"],
    );
    victim.first("a token of no bytes", &token(b""), Malformed, &["token length is 0", "1 to 1024"]);
    let log = victim.engine.log();
    assert!(!log.contains("s3cret") && !log.contains("chmod"), "{log}");
    let other = file.with_file_name("one-token");
    write(&other, "s3cret-two\n");
    victim.recover(&[&format!("--token-file={}", other.display())]);
}

#[test]
fn every_core_asks_for_the_token_before_it_sends_a_producer_home() {
    let (mut victim, file) = guarded(2);
    let cores = victim.engine.ready["listen"].as_array().unwrap().len() as u128;
    for home in 0..cores {
        for asked in 0..cores {
            let closed = block_on(async {
                let mut line = Line::open_at(&victim.engine, asked as usize).await;
                line.send(&hello(ProducerId(5000 * cores + home))).await;
                line.closed().await
            });
            let deed = format!("no token at core {asked}, home is core {home}");
            victim.closed(&deed, &closed, Unauthorized, &["no token"]);
        }
    }
    let other = file.with_file_name("one-token");
    write(&other, "s3cret-two\n");
    victim.recover(&["--producers=4", &format!("--token-file={}", other.display())]);
}

#[test]
fn a_file_that_holds_no_tokens_refuses_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let path = folder.path().join("tokens");
    let refuse = |deed: &str, path: &Path, words: &[&str]| {
        let refused = with_file(Setup::new(&data), path).refused();
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let said = refused.log.lines().last().unwrap_or_default().to_owned();
        told(deed, &said, "exit 1", &[&[&*path.display().to_string()], words].concat());
        assert!(!refused.log.contains("s3cret"), "{}", refused.log);
        assert!(!data.exists(), "nothing is made by a start that is refused");
    };
    refuse("a token file that is not there", &path, &["No such file", "check --token-file"]);
    refuse("a folder for a token file", folder.path(), &["directory", "check --token-file"]);
    write(&path, "\n# s3cret\n  \n");
    refuse("a token file without a token", &path, &["holds no token", "one a line"]);
    write(&path, format!("s3cret\n{}\n", "s3cret".repeat(200)));
    refuse("a token of 1200 bytes in the file", &path, &["line 2", "1200 bytes", "1 to 1024", "shorter"]);
    write(&path, "s3cret\n".repeat(65));
    refuse("65 tokens in the file", &path, &["line 65", "1 to 64", "remove"]);
    write(&path, b"s3cret\ns3cret\x00\xff\n");
    refuse("a token file that is no text", &path, &["line 2", "UTF-8", "plain text"]);
    write(&path, "#\n".repeat(100_000));
    refuse("a token file of 200 kB", &path, &["167936 bytes", "one token a line"]);
}

#[test]
fn a_token_file_that_others_can_read_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    write(&path, FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let engine = with_file(Setup::new(&folder.path().join("data")), &path).start();
    let said = wait_for("the warning", || engine.log().lines().find(|line| line.contains("chmod")).map(str::to_owned));
    told("a token file that others can read", &said, "starts, and warns once", &["chmod 600", "644"]);
    let ended = engine.terminate();
    assert_eq!((ended.code, ended.log.matches("chmod").count()), (Some(0), 1), "{}", ended.log);
}
