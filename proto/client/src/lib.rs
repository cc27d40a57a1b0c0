//! The Rust client of Highwater: producers that send batches of views, subscribers that read snapshots, and questions
//! for one video's counts and for closed lists.
//!
//! What it is for: everything PROTOCOL.md asks of a client (home core, one fence per producer, retries of the same
//! bytes under the same sequence) behind three types. What it is not: a source of views, and no exactly-once store of
//! its own: a process that dies loses what was not acknowledged.
//!
//! Invariant: each batch accepted by [`Producer::send`] has exactly one [`Fate`], or the producer ends with an error
//! that says why.
//!
//! ```no_run
//! use highwater_client::{ClientConfig, Producer};
//! use highwater_proto::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, View};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = ClientConfig::with_ca_file("127.0.0.1:4433", "data/tls/ca.pem")?;
//! let mut producer = Producer::connect(config, |fate| println!("{} is durable", fate.sequence.0)).await?;
//! let mut batch = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
//! batch.push(&View { video_id: "lML9dik8QNw", timestamp_ms: 1_720_000_000_000, user_id: "", region: "", device: ""
//! })?; producer.send(&mut batch, 0).await?;
//! producer.finish().await?;
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod backoff;
mod config;
mod credentials;
mod dial;
mod error;
mod in_flight;
mod lookup;
mod producer;
mod session;
mod sockets;
mod stream;
mod subscriber;

pub use config::ClientConfig;
pub use credentials::{ClientCertificate, read_token_file};
pub use error::ClientError;
pub use in_flight::Fate;
pub use lookup::{LOOKUPS_MAX, LookupClient};
pub use producer::{Producer, ProducerSummary};
pub use subscriber::{Link, Subscriber};
