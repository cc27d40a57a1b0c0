//! The listener: connections in, within limits, until told to stop.
//!
//! Not the routes. Invariants: never more than `connections_max` connections, each with a bounded header, a bounded
//! wait for it and a bounded life; after the stop signal no connection is accepted and running answers get a moment to
//! end.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::router::{Shared, routes};
use crate::source::SnapshotSource;

/// Pause after a failed accept, so that running out of descriptors does not become a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What one listener holds at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Longest wait for a whole header, also between two requests of one connection.
    pub header_timeout: Duration,
    /// Longest life of a connection; clients reconnect. Bounds those that read slowly.
    pub connection_lifetime: Duration,
    /// How long running answers may go on after the stop signal.
    pub stop_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            header_bytes_max: 16 * 1024,
            headers_max: 64,
            header_timeout: Duration::from_secs(30),
            connection_lifetime: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(3),
        }
    }
}

/// Serves the sidecar's routes on `listener` until `shutdown` is done, with the default limits.
pub async fn serve<S: SnapshotSource>(listener: TcpListener, source: Arc<S>, shutdown: impl Future<Output = ()>) {
    serve_with(listener, source, HttpLimits::default(), shutdown).await;
}

/// Serves the sidecar's routes on `listener` until `shutdown` is done.
pub async fn serve_with<S: SnapshotSource>(
    listener: TcpListener,
    source: Arc<S>,
    limits: HttpLimits,
    shutdown: impl Future<Output = ()>,
) {
    let shared = Shared::new(source);
    let router = routes(shared.clone());
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut failing = false;
    loop {
        shared.counts.connections_now(connections.len());
        let has_room = connections.len() < limits.connections_max;
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    connections.spawn(connection(stream, router.clone(), limits.clone(), stopped.clone()));
                }
                Err(error) => after_failed_accept(&error, &mut failing).await,
            },
        }
    }
    drop(listener);
    // Fails only when no connection is left to hear it.
    let _ = stop.send(());
    let ended = tokio::time::timeout(limits.stop_timeout, async { while connections.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tracing::debug!(left = connections.len(), "cut http connections that did not end in time");
    }
}

/// Waits a moment, and says why once until one is accepted again.
async fn after_failed_accept(error: &io::Error, failing: &mut bool) {
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        if !std::mem::replace(failing, true) {
            tracing::warn!(%error, "cannot accept http connections; if descriptors have run out, raise `ulimit -n`");
        }
        tokio::time::sleep(ACCEPT_RETRY).await;
    }
}

async fn connection(stream: TcpStream, router: Router, limits: HttpLimits, mut stopped: watch::Receiver<()>) {
    // Only a hint for small answers.
    let _ = stream.set_nodelay(true);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let lifetime = tokio::time::sleep(limits.connection_lifetime);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        _ = stopped.changed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
        () = lifetime => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(limits.stop_timeout, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an http connection ended early");
    }
}
