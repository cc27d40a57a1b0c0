//! `highwater top` from outside: what a person at a terminal, or a script that reads its output, gets to see.
//!
//! Its stdout is a pipe here, so pictures come one after the other; what a terminal is sent is tested beside the
//! drawing. Invariant: what is shown is compared with views that were acknowledged before.

use crate::support::binaries::command;
use crate::support::views::{NEWEST_MS, write_csv};
use crate::support::{Engine, Load, SOON, wait_for};
use highwater_proto::Period;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

fn top_command(engine: &str, ca: &str, more: &[&str]) -> Command {
    let mut command = command("highwater");
    command.arg("top").arg(format!("--engine={engine}")).arg(format!("--ca={ca}")).args(more).stdin(Stdio::null());
    command
}

/// The picture that `--once` prints, as the words of its lines.
fn once(engine: &Engine, more: &[&str]) -> Vec<Vec<String>> {
    let output = top_command(engine.address(), engine.ca(), more).arg("--once").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "a pipe is sent no commands for a terminal: {text:?}");
    text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Sends each video as many views as its number says; all happen now, are acknowledged and published.
fn send(engine: &Engine, folder: &Path, videos: &[(&str, u64)]) {
    let views = |(video_id, count): &(&str, u64)| vec![((*video_id).to_owned(), NEWEST_MS); *count as usize];
    let rows: Vec<_> = videos.iter().flat_map(views).collect();
    let file = write_csv(folder, &rows);
    let done = Load::unverified(engine, &["replay", file.to_str().unwrap(), "--shift-to-now"]).finish();
    assert_eq!((done.code, done.figure("refused")), (Some(0), 0), "{done:?}");
    // The batch was acknowledged whole, so it is in a snapshot whole, a second or two later.
    wait_for("a snapshot with the views", || {
        let list = engine.top(Period::Hour, 1)["top_videos"].clone();
        list.as_array().unwrap().iter().any(|row| row["video_id"] == videos[0].0).then_some(())
    });
}

/// A `top` that runs until it is told to end; never outlives its handle.
struct Top {
    child: Child,
    lines: Receiver<String>,
}

impl Top {
    fn start(engine: &Engine) -> Self {
        let mut command = top_command(engine.address(), engine.ca(), &["--period=all-time"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (told, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Whoever listened may be gone.
                let _ = told.send(line);
            }
        });
        Self { child, lines }
    }

    /// Reads on until a line contains `what`.
    fn wait_for_line(&self, what: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON).unwrap_or_else(|error| panic!("no line with {what:?}: {error}"));
            if line.contains(what) {
                return line;
            }
        }
    }

    fn interrupt(mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        wait_for("the end of highwater top", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_picture_has_the_right_rows_in_the_right_order() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let empty = once(&engine, &[]);
    assert_eq!(empty[1].join(" "), "no views yet", "{empty:?}");
    send(&engine, folder.path(), &[("carol", 2), ("alice", 2), ("bob", 3), ("d\u{1b}[2J", 1), ("erin", 1)]);
    for period in ["hour", "all-time"] {
        let picture = once(&engine, &[&format!("--period={period}"), "--rows=4"]);
        let header = picture[0].join(" ");
        assert!(header.starts_with(&format!("top 4 · {period} · epoch ")), "{header}");
        assert!(header.contains("as of 20") && header.ends_with('Z'), "{header}");
        assert_eq!(picture[1], ["rank", "move", "video", "views", "views/s"]);
        let rows = [["1", "bob", "3"], ["2", "alice", "2"], ["3", "carol", "2"], ["4", "d\\u{1b}[2J", "1"]];
        assert_eq!(picture[2..], rows, "{picture:?}");
    }
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn pictures_follow_each_other_over_a_restart_until_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    let again = engine.same_place();
    send(&engine, folder.path(), &[("alice", 2)]);
    let top = Top::start(&engine);
    let epoch = |line: &str| -> u64 {
        let words: Vec<_> = line.split_whitespace().collect();
        words[words.iter().position(|word| *word == "epoch").unwrap() + 1].parse().unwrap()
    };
    let first = epoch(&top.wait_for_line("epoch"));
    let second = epoch(&top.wait_for_line("epoch"));
    assert!(second > first, "{first}, then {second}");
    let row = top.wait_for_line("alice");
    assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["1", "=", "alice", "2", "0.0"]);
    drop(engine.kill());
    let lost = top.wait_for_line("lost");
    assert!(lost.contains("reconnecting"), "{lost}");
    let engine = again.start();
    let third = epoch(&top.wait_for_line("epoch"));
    assert!(third > second, "{second}, then {third}");
    send(&engine, folder.path(), &[("bob", 3)]);
    top.wait_for_line("bob");
    assert_eq!(top.interrupt(), Some(0));
    assert_eq!(engine.terminate().code, Some(0));
}

#[test]
fn an_engine_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::start(&folder.path().join("data"));
    // A port that is taken, but where nobody speaks QUIC.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = top_command(&address, engine.ca(), &["--once"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{text}");
    assert!(text.contains(&address) && text.contains("check that the engine runs"), "{text}");
}
