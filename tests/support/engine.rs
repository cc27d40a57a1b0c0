//! An engine as a child process: `highwater serve` on a data directory.
//!
//! Invariant: a start in its place takes the same ports, which no other program is given meanwhile.

use super::binaries::{binary, command, program};
use super::http::{self, Answer};
use super::process::{Child, Said};
use super::wait_for;
use highwater_client::ClientConfig;
use highwater_proto::{Period, Scope, TokenLine};
use serde_json::Value;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

/// Below those that Linux gives to whoever asks for any (`net.ipv4.ip_local_port_range`).
const PORTS: Range<u16> = 16_384..32_768;
/// For the cores of one engine.
const PORTS_EACH: u16 = 8;

/// How an engine is started.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: String,
    pub(crate) http: String,
    /// How many; as many as there are CPUs if those are fewer. 0 leaves it to `more`.
    pub(crate) cores: usize,
    /// What runs the cores; by default one and the other in turn.
    pub(crate) runtime: Option<&'static str>,
    pub(crate) shards: u16,
    pub(crate) memory: &'static str,
    pub(crate) more: Vec<String>,
    /// What a shell does before it becomes the engine, such as `ulimit -n 100;`, and how it starts it, by `exec`.
    pub(crate) shell: &'static str,
}

/// A running engine.
pub(crate) struct Engine {
    child: Child,
    /// The line that it printed when it was ready.
    pub(crate) ready: Value,
    setup: Setup,
    /// See [`Engine::bearers`].
    bearers: Mutex<Vec<String>>,
}

/// An engine that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// What it wrote to stderr.
    pub(crate) log: String,
}

impl Setup {
    /// A small engine on ports of its own.
    pub(crate) fn new(data_dir: &Path) -> Self {
        let port = free_ports();
        Self {
            data_dir: data_dir.to_owned(),
            listen: format!("127.0.0.1:{port}"),
            http: format!("127.0.0.1:{port}"),
            cores: 1,
            runtime: None,
            shards: 16,
            memory: "512MiB",
            more: Vec::new(),
            shell: "",
        }
    }

    /// Starts an engine and waits until it is ready.
    pub(crate) fn start(&self) -> Engine {
        self.try_start().unwrap_or_else(|ended| panic!("the engine ended with {:?}:\n{}", ended.code, ended.log))
    }

    /// Starts an engine that is expected to refuse, and returns what it said.
    pub(crate) fn refused(&self) -> Ended {
        match self.try_start() {
            Ok(_) => panic!("the engine started with {self:?}"),
            Err(ended) => ended,
        }
    }

    fn command(&self) -> Command {
        let mut command = match self.shell {
            "" => command("highwater"),
            shell => {
                let mut command = program("sh");
                command.args(["-c", &format!("{shell} \"$@\""), "sh"]).arg(binary("highwater"));
                command
            }
        };
        command
            .arg("serve")
            .arg(format!("--data-dir={}", self.data_dir.display()))
            .arg(format!("--listen={}", self.listen))
            .arg(format!("--http={}", self.http))
            .arg(format!("--shards={}", self.shards))
            .arg(format!("--memory={}", self.memory))
            .args(&self.more);
        command.arg(format!("--runtime={}", self.runtime.unwrap_or_else(next_runtime)));
        if self.cores > 0 {
            command.arg(format!("--cores={}", next_cpus(self.cores)));
        }
        command
    }

    /// Starts an engine, which may refuse.
    pub(crate) fn try_start(&self) -> Result<Engine, Ended> {
        match Child::start(&mut self.command()) {
            Said::Ready(child, ready) => {
                let engine = Engine { child, ready, setup: self.clone(), bearers: Mutex::default() };
                // Those in force now, whatever becomes of the file.
                engine.bearers();
                Ok(engine)
            }
            Said::Ended(ended) => Err(ended),
        }
    }
}

impl Engine {
    /// A small engine on ports of its own.
    pub(crate) fn start(data_dir: &Path) -> Self {
        Setup::new(data_dir).start()
    }

    /// `HOST:PORT` for producers.
    pub(crate) fn address(&self) -> &str {
        self.ready["listen"][0].as_str().unwrap()
    }

    /// `http://HOST:PORT`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.ready["http"].as_str().unwrap())
    }

    /// The authority's certificate.
    pub(crate) fn ca(&self) -> &str {
        self.ready["ca"].as_str().unwrap()
    }

    /// How this engine was started: for a start in its place.
    pub(crate) fn same_place(&self) -> Setup {
        self.setup.clone()
    }

    /// For the Rust client.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig::with_ca_file(self.address(), self.ca()).unwrap()
    }

    /// One answer over HTTP.
    pub(crate) fn ask(&self, path: &str) -> Answer {
        let url = format!("{}{path}", self.url());
        let tokens = self.bearers();
        let answers = tokens.iter().rev().map(|token| http::get_as(&url, Some(token)));
        answers.into_iter().find(|answer| answer.status != 401).unwrap_or_else(|| http::get(&url))
    }

    /// The first tokens that may read of its file, where it asks for tokens, as that was at each question: the last may
    /// not be in force yet.
    fn bearers(&self) -> Vec<String> {
        let path = self.setup.more.iter().find_map(|flag| flag.strip_prefix("--token-file="));
        let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| TokenLine::parse(line).ok()?);
        let first = lines.filter(|line| line.scopes.contains(Scope::Read)).map(|line| line.token.to_owned()).next();
        let mut bearers = self.bearers.lock().unwrap();
        if let Some(first) = first.filter(|first| !bearers.contains(first)) {
            bearers.push(first);
        }
        bearers.clone()
    }

    /// A period's full list, as JSON, as of `epoch` or later.
    pub(crate) fn top(&self, period: Period, epoch: u64) -> Value {
        wait_for("a snapshot", || {
            let answer = self.ask(&format!("/v1/videos/top?period={period}&k=1000&min_epoch={epoch}"));
            (answer.status == 200).then(|| answer.json())
        })
    }

    /// The rows of every period's list.
    pub(crate) fn lists(&self) -> Vec<Value> {
        Period::ALL.iter().map(|period| self.top(*period, 1)["top_videos"].clone()).collect()
    }

    /// The sum of a metric over its labels, by its name without the prefix `highwater_`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        http::metric(&self.ask("/metrics").body, name)
    }

    /// What it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.child.log()
    }

    /// The first line of its log with these words, once it is there.
    pub(crate) fn log_line(&self, words: &str) -> String {
        self.child.log_line(words)
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(self) -> Ended {
        self.child.kill()
    }

    /// Asks it to end, by SIGTERM, and waits until it has.
    pub(crate) fn terminate(self) -> Ended {
        self.child.end_by(rustix::process::Signal::TERM)
    }

    /// Sends it a signal that does not end it.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.child.signal(signal);
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.runs()
    }
}

/// Both runtimes.
pub(crate) const RUNTIMES: [&str; 2] = ["thread", "glommio"];

fn next_runtime() -> &'static str {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    RUNTIMES[NEXT.fetch_add(1, Ordering::Relaxed) % RUNTIMES.len()]
}

/// The first of [`PORTS_EACH`] ports of the loopback interface that nobody uses. The kernel gives none of them to a
/// program that asks for any port, so that an engine which was killed finds its own free again.
fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = PORTS.start + (std::process::id() % 997) as u16 * PORTS_EACH;
    let is_free = |port: &u16| {
        let local = |port| (Ipv4Addr::LOCALHOST, port);
        TcpListener::bind(local(*port)).is_ok()
            && (*port..port + PORTS_EACH).all(|port| UdpSocket::bind(local(port)).is_ok())
    };
    let next = || first + NEXT.fetch_add(PORTS_EACH, Ordering::Relaxed) % (PORTS.end - first);
    std::iter::repeat_with(next).take(1000).find(is_free).unwrap_or_else(|| panic!("no ports of {PORTS:?} are free"))
}

/// So many of the CPUs that this process may use, in turn, as a list.
fn next_cpus(count: usize) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    if count > cpus.len() {
        println!("{count} cores were wanted, {} CPUs are there", cpus.len());
    }
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    let chosen = cpus.iter().cycle().skip(first % cpus.len()).take(count.min(cpus.len()));
    chosen.map(usize::to_string).collect::<Vec<_>>().join(",")
}
