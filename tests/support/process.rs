//! A child process that says when it is ready: one line of JSON on stdout, everything else on stderr.
//!
//! Invariant: the process is killed and reaped when the handle is dropped, and its log is shown when a test fails.

use super::engine::Ended;
use super::{SOON, wait_for};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A running process.
pub(crate) struct Child {
    child: std::process::Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
    /// The whole command, for failures.
    name: String,
}

/// What came of a start.
pub(crate) enum Said {
    /// It is ready and printed this line.
    Ready(Child, Value),
    /// It ended without one.
    Ended(Ended),
}

impl Child {
    /// Starts it and waits for its first line, or for its end.
    pub(crate) fn start(command: &mut Command) -> Said {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (lines, stdout) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                // Whoever listened may be gone.
                let _ = lines.send(line);
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let reader = collect(child.stderr.take().unwrap(), log.clone());
        let child = Self { child, log, reader: Some(reader), name };
        match stdout.recv_timeout(SOON) {
            Ok(line) => {
                let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
                assert_eq!(ready["event"], "ready", "{line}");
                Said::Ready(child, ready)
            }
            Err(RecvTimeoutError::Disconnected) => Said::Ended(child.wait()),
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing in {SOON:?}", child.name),
        }
    }

    /// What it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The first line of its log with these words, once it is there: stderr may be read later than stdout.
    pub(crate) fn log_line(&self, words: &str) -> String {
        wait_for(words, || self.log().lines().find(|line| line.contains(words)).map(str::to_owned))
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        self.wait()
    }

    /// Asks it to end, by this signal, and waits until it has.
    pub(crate) fn end_by(self, signal: rustix::process::Signal) -> Ended {
        self.signal(signal);
        self.wait()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn wait(mut self) -> Ended {
        let status = wait_for("the end of a process", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Ended { code: status.code(), log: self.log() }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
    }
}

/// Reads a pipe to its end into `log`.
fn collect(mut pipe: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut bytes) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    })
}
