//! The engine as a library: what the binary `highwater` is made of.
//!
//! The shell around the rooms that decide: arguments, threads, sockets, the log's ring, HTTP. What a view goes through
//! is decided in the pipeline, ranking and storage crates.

#![forbid(unsafe_code)]

pub mod access;
pub mod archivist;
pub mod args;
pub mod audit;
pub mod check;
pub mod checks;
pub mod closed_lists;
pub mod config;
pub mod core;
pub mod demo;
pub mod desks;
pub mod diagnostics;
pub mod engine;
pub mod export;
pub mod fatal;
pub mod helpers;
pub mod historian;
pub mod history;
pub mod http;
pub mod jobs;
pub mod live;
pub mod lookups;
pub mod metrics;
pub mod plan;
pub mod prefault;
pub mod publisher;
pub mod quic;
pub mod rollups;
pub mod room;
pub mod runtime;
pub mod screen;
pub mod segments;
pub mod serve;
pub mod sidecar;
pub mod snapshots;
pub mod status;
pub mod storekeeper;
pub mod streams;
pub mod tls;
pub mod top;
pub mod units;
