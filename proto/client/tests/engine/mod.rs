//! A small engine for tests: speaks the producer protocol on one UDP port, keeps batches in memory, and misbehaves as
//! told.
//!
//! It ranks nothing. Invariant: a batch is logged once, in sequence; a repeated sequence must bring the same bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use highwater_client::ClientConfig;
use highwater_proto::*;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig};
use rustls_pki_types::PrivateKeyDer;
use tokio::runtime::Runtime;

/// What the engine keeps over restarts, and how it misbehaves.
#[derive(Default)]
pub(crate) struct Book {
    /// Payloads logged per producer, in sequence.
    pub(crate) logged: HashMap<u128, Vec<Vec<u8>>>,
    /// Views logged, over all producers.
    pub(crate) views: u64,
    /// Answer hellos with this redirect.
    pub(crate) redirect: Option<Redirect>,
    /// Close hellos for this reason.
    pub(crate) close_hello: Option<CloseReason>,
    /// After logging this many more batches without acknowledging them, close for this reason.
    pub(crate) lose_after: Option<(u32, CloseReason)>,
    /// Refuse this sequence this many times.
    pub(crate) refuse: Option<(u64, BatchRefusal, u32)>,
    /// Log, but answer nothing.
    pub(crate) mute: bool,
    /// Report this as last instead of the truth.
    pub(crate) last_told: Option<u64>,
    /// Limits told in the welcome.
    pub(crate) in_flight_batches_max: u16,
    /// Encodings told in the welcome.
    pub(crate) encodings: u32,
    /// Hellos seen, with their modes.
    pub(crate) hellos: Vec<HelloMode>,
    /// Batches answered as duplicates.
    pub(crate) duplicates: u32,
    /// The newest snapshot's epoch; 0 for none yet. Subscribers are told of every change that they see.
    pub(crate) epoch: u64,
    /// Where not 0: each subscription publishes so many epochs more, and is ended after them.
    pub(crate) epochs_per_subscription: u64,
    /// The data directory that snapshots and look-ups are of.
    pub(crate) instance: u128,
    /// Answer look-ups with this redirect.
    pub(crate) lookup_redirect: Option<Redirect>,
    /// Look-ups seen.
    pub(crate) lookups: u32,
    /// Final lists, the oldest first.
    pub(crate) closed: Vec<ClosedList>,
    /// Questions for closed periods seen.
    pub(crate) history_asked: u32,
    /// Connections accepted.
    pub(crate) connections: u32,
}

impl Book {
    fn new() -> Self {
        Self { in_flight_batches_max: IN_FLIGHT_BATCHES_MAX, encodings: ENCODINGS, instance: 9, ..Self::default() }
    }
}

/// One running endpoint over a book.
pub(crate) struct Engine {
    pub(crate) address: SocketAddr,
    pub(crate) book: Arc<Mutex<Book>>,
    endpoint: Option<Endpoint>,
    identity: Identity,
    runtime: Option<Runtime>,
    open: Arc<Mutex<Vec<Connection>>>,
}

/// What is left of an engine that died.
pub(crate) struct Remains {
    identity: Identity,
    book: Arc<Mutex<Book>>,
}

impl Remains {
    pub(crate) fn restart(self, address: SocketAddr) -> Engine {
        Engine::start_on(address, self.identity, self.book)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The port of a dead engine becomes free when its last task is gone.
fn bind(identity: &Identity, address: SocketAddr) -> Endpoint {
    let started = Instant::now();
    loop {
        match Endpoint::server(identity.server.clone(), address) {
            Ok(endpoint) => return endpoint,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(5), "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Certificate and key, the same over restarts.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) ca_pem: String,
    server: ServerConfig,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        let mut transport = TransportConfig::default();
        transport.max_concurrent_uni_streams(0_u8.into());
        server.transport_config(Arc::new(transport));
        Self { ca_pem: made.cert.pem(), server }
    }
}

impl Engine {
    pub(crate) fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().unwrap(), Identity::new(), Arc::new(Mutex::new(Book::new())))
    }

    /// Another endpoint of the same engine.
    pub(crate) fn another_core(&self) -> Self {
        let book = Arc::new(Mutex::new(Book::new()));
        Self::start_on("127.0.0.1:0".parse().unwrap(), self.identity.clone(), book)
    }

    pub(crate) fn start_on(address: SocketAddr, identity: Identity, book: Arc<Mutex<Book>>) -> Self {
        // A runtime of its own, so that the engine can die without a word.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = {
            let _entered = runtime.enter();
            bind(&identity, address)
        };
        let address = endpoint.local_addr().unwrap();
        let accepting = endpoint.clone();
        let accepting_book = Arc::clone(&book);
        let open = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&open);
        runtime.spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                let (book, accepted) = (Arc::clone(&accepting_book), Arc::clone(&accepted));
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.await {
                        accepted.lock().unwrap().push(connection.clone());
                        serve(connection, book).await;
                    }
                });
            }
        });
        Self { address, book, endpoint: Some(endpoint), identity, runtime: Some(runtime), open }
    }

    /// Dies without a word, as by kill -9, and comes back on the same port with the same book.
    pub(crate) fn die_and_restart(self) -> Self {
        let address = self.address;
        self.die().restart(address)
    }

    /// Dies without a word; what is left can come back.
    pub(crate) fn die(mut self) -> Remains {
        self.endpoint = None;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        Remains { identity: self.identity.clone(), book: Arc::clone(&self.book) }
    }

    /// Closes every connection there is, for a reason to come again; new ones are taken.
    pub(crate) fn reset_connections(&self) {
        for connection in self.open.lock().unwrap().drain(..) {
            close(&connection, CloseReason::Overloaded);
        }
    }

    /// Closes every connection for this reason.
    pub(crate) fn close_all(&self, reason: CloseReason) {
        if let Some(endpoint) = &self.endpoint {
            endpoint.close(reason.code().into(), b"as the test asked");
        }
    }

    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new(self.address.to_string(), self.identity.ca_pem.as_bytes())
    }

    pub(crate) fn views(&self) -> u64 {
        self.book.lock().unwrap().views
    }
}

async fn frame(receive: &mut RecvStream) -> Option<(FrameKind, Vec<u8>)> {
    let mut header = [0; FRAME_HEADER_BYTES];
    receive.read_exact(&mut header).await.ok()?;
    let header = FrameHeader::decode(&header).unwrap();
    let mut payload = vec![0; header.payload_bytes as usize];
    receive.read_exact(&mut payload).await.ok()?;
    Some((header.kind, payload))
}

async fn serve(connection: Connection, book: Arc<Mutex<Book>>) {
    book.lock().unwrap().connections += 1;
    while let Ok((send, receive)) = connection.accept_bi().await {
        tokio::spawn(serve_stream(connection.clone(), send, receive, Arc::clone(&book)));
    }
}

async fn serve_stream(connection: Connection, mut send: SendStream, mut receive: RecvStream, book: Arc<Mutex<Book>>) {
    let Some((kind, payload)) = frame(&mut receive).await else {
        return;
    };
    match kind {
        FrameKind::Hello => produce(&connection, &book, &mut send, &mut receive, &payload).await,
        FrameKind::Lookup | FrameKind::History | FrameKind::Periods => {
            let answer = match kind {
                FrameKind::Lookup => look_up(&mut book.lock().unwrap(), &payload),
                kind => look_back(&mut book.lock().unwrap(), kind, &payload),
            };
            let Some(answer) = answer else { return };
            // A client that asks no more is what some tests want.
            let _ = send.write_all(&answer).await;
            let _ = send.finish();
        }
        FrameKind::Subscribe => subscribe(&connection, &book, &mut send, &payload).await,
        kind => panic!("a stream cannot start with {kind}"),
    }
}

/// `None` where the engine is mute.
fn look_up(book: &mut Book, payload: &[u8]) -> Option<Vec<u8>> {
    let asked = Lookup::decode(payload).unwrap();
    book.lookups += 1;
    let mut answer = Vec::new();
    if let Some(redirect) = &book.lookup_redirect {
        redirect.encode(&mut answer);
        return Some(answer);
    }
    let count = PeriodCount { period: Period::Day, window: Window::Sliding, view_count: 5, rank: Some(2) };
    VideoCounts {
        instance: InstanceId(book.instance),
        video_id: asked.video_id,
        epoch: Epoch(book.epoch),
        as_of_ms: 1000,
        counts: vec![count],
    }
    .encode(&mut answer);
    (!book.mute).then_some(answer)
}

/// `None` where the engine is mute.
fn look_back(book: &mut Book, kind: FrameKind, payload: &[u8]) -> Option<Vec<u8>> {
    book.history_asked += 1;
    let instance = InstanceId(book.instance);
    let bounds = |period| {
        let mut of_period = book.closed.iter().filter(|list| list.period == period);
        let closed_until_ms = of_period.clone().next_back().map_or(0, |list| list.end_ms);
        HistoryBounds {
            closed_until_ms,
            oldest_start_ms: of_period.next().map(|list| list.start_ms),
            lateness_max_ms: 600_000,
        }
    };
    let mut answer = Vec::new();
    if kind == FrameKind::History {
        let History { period, start_ms } = History::decode(payload).unwrap();
        let list = book.closed.iter().find(|list| (list.period, list.start_ms) == (period, start_ms)).cloned();
        HistoryAnswer { instance, period, start_ms, bounds: bounds(period), list: Ok(list) }.encode(&mut answer);
    } else {
        let Periods { period, limit, before_ms } = Periods::decode(payload).unwrap();
        let older = book.closed.iter().rev().filter(|list| list.period == period && list.start_ms < before_ms);
        let of_list = |list: &ClosedList| ClosedPeriod {
            start_ms: list.start_ms,
            end_ms: list.end_ms,
            total_views: list.total_views,
        };
        let mut periods: Vec<ClosedPeriod> = older.map(of_list).collect();
        let more = periods.len() > usize::from(limit);
        periods.truncate(limit.into());
        let periods = Ok(ClosedPeriods { periods, more });
        PeriodsAnswer { instance, period, bounds: bounds(period), periods }.encode(&mut answer);
    }
    (!book.mute).then_some(answer)
}

async fn subscribe(connection: &Connection, book: &Mutex<Book>, send: &mut SendStream, payload: &[u8]) {
    let from = Subscribe::decode(payload).unwrap().from_epoch.0;
    let own = book.lock().unwrap().epochs_per_subscription;
    let mut published = 0;
    let mut sent = None;
    loop {
        let (instance, epoch) = {
            let book = book.lock().unwrap();
            (book.instance, book.epoch)
        };
        if epoch > 0 && epoch >= from && sent < Some(epoch) {
            let mut out = Vec::new();
            Snapshot { instance: InstanceId(instance), epoch: Epoch(epoch), as_of_ms: epoch, boards: vec![] }
                .encode(&mut out);
            if send.write_all(&out).await.is_err() {
                return;
            }
            sent = Some(epoch);
        }
        if own > 0 && published == own {
            break;
        }
        if own > 0 {
            published += 1;
            book.lock().unwrap().epoch += 1;
        } else {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    send.finish().unwrap();
    connection.closed().await;
}

fn close(connection: &Connection, reason: CloseReason) {
    connection.close(reason.code().into(), b"as the test asked");
}

async fn produce(
    connection: &Connection,
    book: &Mutex<Book>,
    send: &mut SendStream,
    receive: &mut RecvStream,
    hello: &[u8],
) {
    let hello = Hello::decode(hello).unwrap();
    let answer = match greet(&hello, &mut book.lock().unwrap()) {
        Ok(answer) => answer,
        Err(reason) => return close(connection, reason),
    };
    send.write_all(&answer).await.unwrap();
    let mut refused_since: Option<u64> = None;
    while let Some((kind, payload)) = frame(receive).await {
        assert_eq!(kind, FrameKind::Batch);
        Batch::verify(&payload, PROTOCOL_VERSION, hello.producer).unwrap();
        let outcome = take(&hello, payload, &mut book.lock().unwrap(), &mut refused_since);
        match outcome {
            Outcome::Answer(bytes) => {
                if send.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Outcome::Silence => {}
            Outcome::Close(reason) => return close(connection, reason),
        }
    }
}

fn greet(hello: &Hello, book: &mut Book) -> Result<Vec<u8>, CloseReason> {
    book.hellos.push(hello.mode);
    if let Some(reason) = book.close_hello {
        return Err(reason);
    }
    let mut answer = Vec::new();
    if let Some(redirect) = &book.redirect {
        redirect.encode(&mut answer);
        return Ok(answer);
    }
    let log = match hello.mode {
        HelloMode::New => book.logged.entry(hello.producer.0).or_default(),
        HelloMode::Resume => book.logged.get_mut(&hello.producer.0).ok_or(CloseReason::ProducerUnknown)?,
    };
    Welcome {
        version: PROTOCOL_VERSION,
        producer: hello.producer,
        instance: InstanceId(9),
        last: Sequence(book.last_told.unwrap_or(log.len() as u64)),
        home_core: 0,
        ports: vec![4433],
        host: String::new(),
        batch_views_max: BATCH_VIEWS_MAX,
        batch_bytes_max: BATCH_BYTES_MAX as u32,
        in_flight_batches_max: book.in_flight_batches_max,
        skew_max_ms: 60_000,
        encodings: book.encodings,
    }
    .encode(&mut answer);
    Ok(answer)
}

enum Outcome {
    Answer(Vec<u8>),
    Silence,
    Close(CloseReason),
}

fn take(hello: &Hello, payload: Vec<u8>, book: &mut Book, refused_since: &mut Option<u64>) -> Outcome {
    let batch = Batch::decode(&payload).unwrap();
    let (sequence, view_count) = (batch.sequence(), batch.view_count());
    let log = book.logged.get_mut(&hello.producer.0).unwrap();
    let mut answer = Vec::new();
    if let Some(kept) = log.get(sequence.0 as usize - 1) {
        assert!(*kept == payload, "sequence {} came again with other bytes", sequence.0);
        book.duplicates += 1;
        ack(sequence, 0, view_count).encode(&mut answer);
        return Outcome::Answer(answer);
    }
    if let Some(refusal) = refusal(sequence, book, refused_since) {
        refusal.encode(&mut answer);
        return Outcome::Answer(answer);
    }
    let log = book.logged.get_mut(&hello.producer.0).unwrap();
    assert_eq!(sequence.0, log.len() as u64 + 1, "a gap with no refusal pending");
    log.push(payload);
    book.views += u64::from(view_count);
    if let Some((left, reason)) = &mut book.lose_after {
        *left -= 1;
        let reason = *reason;
        if *left == 0 {
            book.lose_after = None;
            return Outcome::Close(reason);
        }
        return Outcome::Silence;
    }
    if book.mute {
        return Outcome::Silence;
    }
    ack(sequence, view_count, 0).encode(&mut answer);
    Outcome::Answer(answer)
}

fn refusal(sequence: Sequence, book: &mut Book, refused_since: &mut Option<u64>) -> Option<BatchRefused> {
    if refused_since.is_some_and(|since| sequence.0 > since) {
        return Some(refused(sequence, BatchRefusal::AfterRefusal));
    }
    *refused_since = None;
    let (at, reason, times) = book.refuse.as_mut()?;
    if *at != sequence.0 || *times == 0 {
        return None;
    }
    *times -= 1;
    *refused_since = Some(sequence.0);
    Some(refused(sequence, *reason))
}

fn refused(sequence: Sequence, reason: BatchRefusal) -> BatchRefused {
    BatchRefused { sequence, reason, retry_after_ms: 30 }
}

fn ack(sequence: Sequence, counted: u32, duplicate: u32) -> Ack {
    Ack { sequence, visible_epoch: Epoch(sequence.0), counted, duplicate, refused: vec![], detail_complete: true }
}
