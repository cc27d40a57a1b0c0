//! `highwater sidecar`: serve an engine's rankings over HTTP from a process of its own.
//!
//! It holds the newest snapshot and nothing else. Invariant: once HTTP listens, the process lives until a signal,
//! whatever happens to the engine; `/readyz` says whether readers should be sent here.

use crate::args::SidecarArguments;
use crate::diagnostics::{http_connections, raise_open_files};
use crate::helpers::Helpers;
use crate::http::{http_options, listen_http, serve_http};
use anyhow::{Context, Result};
use highwater_client::ClientConfig;
use highwater_sidecar::RemoteSnapshots;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An engine that is silent for this long is dialled again; its packets come each second.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What is said on stdout when HTTP listens.
#[derive(Debug, Serialize)]
struct Ready<'a> {
    event: &'static str,
    http: SocketAddr,
    engine: &'a str,
    pid: u32,
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong with an address or the authority's file.
pub fn sidecar(arguments: &SidecarArguments) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let connections_max = http_connections(raise_open_files(), 0)?;
    let config = ClientConfig {
        server_name: arguments.server_name.clone(),
        idle_timeout: SILENCE_MAX.min(arguments.stale_after),
        ..ClientConfig::with_ca_file(&arguments.engine, &arguments.ca)?
    };
    let config = arguments.credentials.apply(config)?;
    let listener = listen_http(arguments.http)?;
    let http = listener.local_addr().context("the TCP socket has no address")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no HTTP runtime")?;
    let source = {
        let _entered = runtime.enter();
        RemoteSnapshots::start(config, arguments.stale_after)?
    };
    let options = http_options(arguments.http_rate_max, connections_max);
    let (stop, serving) = serve_http(&Helpers::new(&[], &[])?, runtime, listener, Arc::new(source), options)?;
    let ready = Ready { event: "ready", http, engine: &arguments.engine, pid: std::process::id() };
    let line = serde_json::to_string(&ready).context("the ready line cannot be written")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("stdout is closed; nobody would learn the address")?;
    drop(out);
    if let Some(signal) = signals.forever().next() {
        tracing::info!(signal, "shutting down");
    }
    // The receiver is gone only when the thread has ended by itself.
    let _ = stop.send(());
    serving.join().map_err(|_| anyhow::anyhow!("the HTTP thread panicked; its message is above"))
}
