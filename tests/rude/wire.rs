//! Producers and readers that break the protocol, each closed with its reason; what they did harms nobody else.
//!
//! Every case here opens a connection of its own. Invariant: after all that an engine has suffered, its metrics say
//! exactly how often it closed for which reason, received = counted + duplicate + refused, and a load that behaves
//! is acknowledged in full.

mod batches;
mod clients;
mod forge;
mod frames;
mod sessions;
mod streams;
mod tokens;
mod verdicts;

use super::told;
use crate::support::raw::{Closed, Line};
use crate::support::{Engine, Load, Setup, block_on, wait_for};
use forge::{hello, hello_with};
use highwater_proto::{Ack, CloseReason, FrameKind, HelloMode, ProducerId, ViewRefusal, Welcome};
use std::collections::BTreeMap;
use tempfile::TempDir;

const LOAD: [&str; 5] = ["run", "--rate=20000", "--duration=1s", "--videos=2000", "--batch=500"];

const LOAD_VIEWS: u64 = 20_000;

/// Longest text of a close; a small packet has room for it.
const REASON_BYTES_MAX: usize = 200;

/// An engine that is treated badly, and what it should have said and counted.
struct Victim {
    engine: Engine,
    folder: TempDir,
    producers: u128,
    closed: BTreeMap<&'static str, u64>,
    counted: u64,
    duplicate: u64,
    refused: BTreeMap<&'static str, u64>,
}

/// A welcomed producer's line.
struct Welcomed {
    line: Line,
    id: ProducerId,
    welcome: Welcome,
}

impl Victim {
    fn new() -> Self {
        Self::of(|setup| setup)
    }

    /// An engine started in another way.
    fn of(change: impl FnOnce(Setup) -> Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = change(Setup::new(&folder.path().join("data"))).start();
        let (closed, refused) = (BTreeMap::new(), BTreeMap::new());
        Self { engine, folder, producers: 0, closed, counted: 0, duplicate: 0, refused }
    }

    /// A producer id that was not used yet.
    fn id(&mut self) -> ProducerId {
        self.producers += 1;
        ProducerId(self.producers)
    }

    /// The engine must have closed for this reason, in words that help.
    fn closed(&mut self, deed: &str, closed: &Closed, reason: CloseReason, words: &[&str]) {
        let Closed { reason: found, text } = closed;
        assert_eq!(*found, reason, "{deed}: {text}");
        assert!(text.len() <= REASON_BYTES_MAX, "{deed}: {} bytes: {text}", text.len());
        told(deed, text, format!("close {} {reason}", reason.code()), words);
        *self.closed.entry(reason.as_str()).or_default() += 1;
    }

    /// Sends these bytes on a new connection, and must be closed.
    fn first(&mut self, deed: &str, bytes: &[u8], reason: CloseReason, words: &[&str]) {
        let closed = block_on(async {
            let mut line = Line::open(&self.engine).await;
            line.send(bytes).await;
            line.closed().await
        });
        self.closed(deed, &closed, reason, words);
    }

    /// As [`Victim::first`], and then ends the stream.
    fn first_and_last(&mut self, deed: &str, bytes: &[u8], reason: CloseReason, words: &[&str]) {
        let closed = block_on(async {
            let mut line = Line::open(&self.engine).await;
            line.send(bytes).await;
            line.send.finish().unwrap();
            line.closed().await
        });
        self.closed(deed, &closed, reason, words);
    }

    /// Sends these bytes as a welcomed new producer, and must be closed.
    fn welcomed(&mut self, deed: &str, bytes: impl FnOnce(ProducerId) -> Vec<u8>, reason: CloseReason, words: &[&str]) {
        let id = self.id();
        let closed = block_on(async {
            let mut producer = Welcomed::open(&self.engine, id, HelloMode::New).await;
            producer.line.send(&bytes(id)).await;
            producer.line.closed().await
        });
        self.closed(deed, &closed, reason, words);
    }

    /// Views that were acknowledged.
    fn acknowledged(&mut self, ack: &Ack) {
        self.counted += u64::from(ack.counted);
        self.duplicate += u64::from(ack.duplicate);
        for range in &ack.refused {
            *self.refused.entry(range.reason.as_str()).or_default() += u64::from(range.count);
        }
    }

    /// A load that behaves is acknowledged in full, and verified where nothing was counted before; then the metrics
    /// must say what happened, and no more.
    fn recover(mut self, more: &[&str]) {
        let arguments: Vec<&str> = LOAD.into_iter().chain(more.iter().copied()).collect();
        if self.counted == 0 {
            Load::verified(&self.engine, &arguments).finish().assert_verified();
        } else {
            let done = Load::unverified(&self.engine, &arguments).finish();
            assert_eq!((done.code, done.figure("views_acked")), (Some(0), LOAD_VIEWS), "{done:?}");
        }
        self.counted += LOAD_VIEWS;
        self.settle();
    }

    /// The metrics must say what happened, and no more.
    fn settle(mut self) {
        let page = wait_for("all views in the metrics", || {
            let page = self.engine.ask("/metrics").body;
            (sample(&page, "views_counted_total", None) == self.counted).then_some(page)
        });
        let refused: u64 = ViewRefusal::ALL
            .iter()
            .map(|reason| {
                let expected = self.refused.get(reason.as_str()).copied().unwrap_or_default();
                let found = sample(&page, "views_refused_total", Some(reason.as_str()));
                assert_eq!(found, expected, "refused for {}", reason.as_str());
                found
            })
            .sum();
        assert_eq!(sample(&page, "views_duplicate_total", None), self.duplicate);
        let received = sample(&page, "views_received_total", None);
        assert_eq!(received, self.counted + self.duplicate + refused, "received = counted + duplicate + refused");
        for reason in CloseReason::ALL {
            let expected = self.closed.get(reason.as_str()).copied().unwrap_or_default();
            assert_eq!(sample(&page, "sessions_closed_total", Some(reason.as_str())), expected, "closed for {reason}");
        }
        assert!(self.engine.runs());
        let ended = self.engine.terminate();
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(!ended.log.contains("panicked"), "{}", ended.log);
        drop(self.folder);
    }
}

impl Welcomed {
    async fn open(engine: &Engine, id: ProducerId, mode: HelloMode) -> Self {
        let mut line = Line::open(engine).await;
        let (kind, payload) = line.ask(&hello_with(id, mode, b"")).await;
        assert_eq!(kind, FrameKind::Welcome);
        Self { line, id, welcome: Welcome::decode(&payload).unwrap() }
    }

    /// Sends a batch and reads its acknowledgement.
    async fn acked(&mut self, batch: &[u8]) -> Ack {
        let (kind, payload) = self.line.ask(batch).await;
        assert_eq!(kind, FrameKind::Ack);
        Ack::decode(&payload).unwrap()
    }
}

/// A metric, of one reason where it has some.
fn sample(page: &str, name: &str, reason: Option<&str>) -> u64 {
    let label = reason.map_or_else(String::new, |reason| format!("{{reason=\"{reason}\"}}"));
    let key = format!("highwater_{name}{label} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&key));
    line.unwrap_or_else(|| panic!("no {key}in the metrics:\n{page}")).parse().unwrap()
}

#[test]
fn what_was_not_taken_in_is_not_in_the_metrics() {
    let mut victim = Victim::new();
    let frame = hello(victim.id());
    victim.first_and_last(
        "half a HELLO, then the end of the stream",
        &frame[..20],
        CloseReason::Malformed,
        &["12 of 24 bytes", "HELLO", "send whole frames"],
    );
    victim.recover(&[]);
}
