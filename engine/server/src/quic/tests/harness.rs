//! An engine of the driver alone on a thread of its own, told what to do by messages, and a quinn client for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::quic::{
    Application, ConnectionKey, LossReason, QuicDriver, QuicLimits, QuicStats, StreamKey, StreamReader, WriteOutcome,
};
use crate::runtime::{Parking, Waker};
use crate::tls::{self, ServerTls};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What the engine does with what it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Writes it back, and finishes when the peer does.
    Echo,
    /// Only counts it.
    Sink,
    /// For every chunk read writes 64 KiB.
    Amplify,
}

pub(super) type Act = Box<dyn FnOnce(&mut QuicDriver, &mut App) + Send>;

/// What the tests look at.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) opened: Vec<ConnectionKey>,
    pub(super) streams: Vec<StreamKey>,
    pub(super) read: HashMap<StreamKey, Vec<u8>>,
    pub(super) finished: Vec<StreamKey>,
    pub(super) resets: Vec<u64>,
    pub(super) stops: Vec<u64>,
    pub(super) lost: Vec<(ConnectionKey, LossReason)>,
    pub(super) outcomes: Vec<WriteOutcome>,
    pub(super) turns: u64,
    pub(super) stats: QuicStats,
    pub(super) connections: usize,
    pub(super) idle: bool,
}

pub(super) struct App {
    mode: Mode,
    /// Readers are left alone while set.
    pub(super) paused: bool,
    pub(super) waiting: Vec<StreamKey>,
    writes: Vec<(StreamKey, Bytes)>,
    finishes: Vec<StreamKey>,
    seen: Arc<Mutex<Seen>>,
}

impl App {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Application for App {
    fn connection_opened(&mut self, connection: ConnectionKey, _: SocketAddr, _: Option<&CertificateDer<'static>>) {
        self.seen().opened.push(connection);
    }

    fn stream_opened(&mut self, stream: StreamKey) {
        self.seen().streams.push(stream);
    }

    fn stream_readable(&mut self, stream: StreamKey, reader: &mut StreamReader<'_>) {
        if self.paused {
            self.waiting.push(stream);
            return;
        }
        while let Some(bytes) = reader.chunk(10_000) {
            self.seen().read.entry(stream).or_default().extend_from_slice(&bytes);
            match self.mode {
                Mode::Echo => self.writes.push((stream, bytes)),
                Mode::Amplify => self.writes.push((stream, Bytes::from(vec![7; 64 * 1024]))),
                Mode::Sink => {}
            }
        }
    }

    fn stream_finished(&mut self, stream: StreamKey) {
        self.finishes.push(stream);
        self.seen().finished.push(stream);
    }

    fn stream_reset(&mut self, _: StreamKey, code: u64) {
        self.seen().resets.push(code);
    }

    fn stream_stopped(&mut self, _: StreamKey, code: u64) {
        self.seen().stops.push(code);
    }

    fn connection_lost(&mut self, connection: ConnectionKey, reason: &LossReason) {
        let mut seen = self.seen();
        assert!(seen.opened.contains(&connection), "lost before opened");
        assert!(seen.lost.iter().all(|(key, _)| *key != connection), "lost twice");
        seen.lost.push((connection, reason.clone()));
    }
}

/// A driver on its own thread. Dropped, it stops at once without closing anything, like a killed process.
pub(super) struct Engine {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    acts: Option<Sender<Act>>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start(tls: &ServerTls, limits: QuicLimits, mode: Mode) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), tls, limits, mode)
    }

    pub(super) fn start_at(address: SocketAddr, tls: &ServerTls, limits: QuicLimits, mode: Mode) -> Self {
        let driver = QuicDriver::bind(address, tls, 3, limits).unwrap();
        let address = driver.local_addr().unwrap();
        let mut parking = Parking::new().unwrap();
        let waker = parking.waker();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let app = App {
            mode,
            paused: false,
            waiting: Vec::new(),
            writes: Vec::new(),
            finishes: Vec::new(),
            seen: seen.clone(),
        };
        let (acts, orders) = mpsc::channel();
        let thread = std::thread::spawn(move || run(driver, app, &mut parking, &orders));
        Self { address, seen, acts: Some(acts), waker, thread: Some(thread) }
    }

    /// Runs `act` on the engine's thread between two turns, and returns when it is done.
    pub(super) fn act(&self, act: impl FnOnce(&mut QuicDriver, &mut App) + Send + 'static) {
        let (done, wait) = mpsc::channel();
        let order: Act = Box::new(move |driver, app| {
            act(driver, app);
            done.send(()).unwrap();
        });
        self.acts.as_ref().unwrap().send(order).unwrap();
        self.waker.wake();
        wait.recv_timeout(PATIENCE).unwrap();
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until the engine has seen what `test` asks for.
    pub(super) async fn wait_for(&self, what: &str, test: impl Fn(&Seen) -> bool) {
        let start = Instant::now();
        while !test(&self.seen()) {
            assert!(start.elapsed() < PATIENCE, "no {what}: {:?}", self.seen());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.acts = None;
        self.waker.wake();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the engine's thread panicked");
    }
}

fn run(mut driver: QuicDriver, mut app: App, parking: &mut Parking, orders: &Receiver<Act>) {
    loop {
        let mut worked = driver.turn(Instant::now(), &mut app).worked;
        for (stream, bytes) in std::mem::take(&mut app.writes) {
            let outcome = driver.write(stream, bytes);
            if outcome != WriteOutcome::Taken {
                app.seen().outcomes.push(outcome);
            }
            worked = true;
        }
        for stream in std::mem::take(&mut app.finishes) {
            driver.finish(stream);
            worked = true;
        }
        loop {
            match orders.try_recv() {
                Ok(act) => {
                    act(&mut driver, &mut app);
                    worked = true;
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
        driver.flush(Instant::now());
        {
            let mut seen = app.seen();
            seen.turns += 1;
            seen.stats = driver.stats();
            seen.connections = driver.connections();
            seen.idle = driver.is_idle();
        }
        if !worked {
            let deadline = driver.poll_deadline().unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            // There is no ring: the socket stands in for it.
            parking.wait(driver.udp_fd(), driver.wants_write(), driver.udp_fd(), deadline).unwrap();
        }
    }
}

pub(super) fn identity(place: &Path) -> ServerTls {
    tls::prepare(place, &[], None, None, SystemTime::now()).unwrap()
}

/// A quinn client that trusts the engine's authority.
pub(super) fn client(tls: &ServerTls) -> quinn::Endpoint {
    client_with(tls, quinn::TransportConfig::default())
}

pub(super) fn client_with(tls: &ServerTls, mut transport: quinn::TransportConfig) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls.ca_path.as_ref().unwrap()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut crypto = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    crypto.alpn_protocols = vec![highwater_proto::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    transport.keep_alive_interval(Some(Duration::from_millis(500)));
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

pub(super) async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr) -> quinn::Connection {
    tokio::time::timeout(PATIENCE, endpoint.connect(address, "localhost").unwrap()).await.unwrap().unwrap()
}

/// Bytes that differ from stream to stream and along a stream.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
