//! Who may come in over QUIC: scopes of tokens, client certificates, owners of producers, and both files read again.
//!
//! What it is not: single frames out of place, which are with the rude ones. Invariant: each refusal is told to the
//! client by reason, counted, and no token is ever in the log.

mod certificates;
mod http;
mod owners;
mod reload;
mod scopes;

use crate::support::{Engine, Setup, block_on, now_ms};
use highwater_client::{ClientConfig, ClientError, LookupClient, Producer, Subscriber};
use highwater_proto::{CloseReason, Period, ProducerId, Pushed, View};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Writes a file that only its owner can read.
fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// An engine that logs everything and asks for these tokens; and their file.
fn with_tokens(folder: &Path, text: &str) -> (Engine, PathBuf) {
    let file = folder.join("tokens");
    write_private(&file, text);
    let more = vec![format!("--token-file={}", file.display())];
    let shell = "export HIGHWATER_LOG=trace; exec";
    (Setup { more, shell, ..Setup::new(&folder.join("data")) }.start(), file)
}

/// A client with this token.
fn bearer(engine: &Engine, token: &str) -> ClientConfig {
    let limit = Duration::from_secs(20);
    ClientConfig { token: token.into(), reconnect_timeout: limit, lookup_timeout: limit, ..engine.client() }
}

/// Sends one view as a new producer, waits for its acknowledgement, and returns the producer's id.
async fn produce(config: ClientConfig) -> Result<ProducerId, ClientError> {
    let producer = Producer::connect(config, |_| {}).await?;
    let id = producer.id();
    send_one(producer).await.map(|()| id)
}

/// The same as a producer that was there before.
async fn produce_again(config: ClientConfig, id: ProducerId) -> Result<(), ClientError> {
    send_one(Producer::resume(config, id, |_| {}).await?).await
}

async fn send_one(mut producer: Producer) -> Result<(), ClientError> {
    let mut batch = producer.batch_builder();
    let view = View { video_id: "v", timestamp_ms: now_ms(), user_id: "", region: "", device: "" };
    assert_eq!(batch.push(&view)?, Pushed::Added);
    producer.send(&mut batch, 0).await?;
    producer.finish().await.map(|_| ())
}

/// Looks a video up, asks for the past both ways, and reads one snapshot: everything that a reader can do.
async fn read(config: ClientConfig) -> [Result<(), ClientError>; 4] {
    let lookups = LookupClient::new(config.clone()).unwrap();
    let counts = lookups.lookup("v").await.map(drop);
    let list = lookups.history(Period::Hour, 0).await.map(drop);
    let periods = lookups.periods(Period::Hour, None, 1).await.map(drop);
    let snapshot = match Subscriber::connect(config).await {
        Ok(mut subscriber) => subscriber.next().await.map(drop),
        Err(error) => Err(error),
    };
    [counts, list, periods, snapshot]
}

/// Why the engine closed.
fn reason<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> CloseReason {
    match outcome {
        Err(ClientError::Closed { reason, .. }) => reason,
        other => panic!("not closed for a reason, but {other:?}"),
    }
}

/// Ends an engine in order; nothing of these may be in its log.
fn end_without_secrets(engine: Engine, secrets: &[&str]) {
    let ended = engine.terminate();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for secret in secrets {
        assert!(!ended.log.contains(secret), "a secret is in the log:\n{}", ended.log);
    }
}
