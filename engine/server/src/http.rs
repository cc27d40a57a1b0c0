//! The HTTP listener of an engine or a sidecar apart: its address and its thread.
//!
//! Not the answers, which are the sidecar's. Invariant: it runs on a helper's thread, never on a core's.

use crate::helpers::Helpers;
use crate::quic::bind_remedy;
use anyhow::{Context, Result};
use highwater_sidecar::{HttpLimits, HttpOptions, SnapshotSource};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// How a listener serves that takes so many requests a second from one address, and so many connections.
pub(crate) fn http_options(requests_per_second_max: u32, connections_max: usize) -> HttpOptions {
    let requests_per_second_max = NonZeroU32::new(requests_per_second_max);
    let limits = HttpLimits { connections_max, requests_per_second_max, ..HttpLimits::default() };
    HttpOptions { limits, ..HttpOptions::default() }
}

/// Takes the address for HTTP.
pub(crate) fn listen_http(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .map_err(|error| anyhow::anyhow!("cannot listen on tcp {address}: {error}; {}", bind_remedy(&error, "--http")))
}

/// Serves a source over HTTP on a thread of its own, until the sender is used.
pub(crate) fn serve_http<S: SnapshotSource>(
    helpers: &Helpers,
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    source: Arc<S>,
    options: HttpOptions,
) -> Result<(oneshot::Sender<()>, JoinHandle<()>)> {
    listener.set_nonblocking(true).context("the TCP socket cannot be made non-blocking")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = helpers.spawn("http", move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let shutdown = async {
                        // Sent, or the engine is gone: either way it is time to end.
                        let _ = stopped.await;
                    };
                    highwater_sidecar::serve(listener, source, options, shutdown).await;
                }
                Err(error) => crate::fatal::fatal("the HTTP listener cannot be used", &error),
            }
        });
    })?;
    Ok((stop, thread))
}
