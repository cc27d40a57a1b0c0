//! The listener: connections in, within limits, until told to stop.
//!
//! Not the routes. Invariants: never more than `connections_max` connections and one at the door, each with a bounded
//! header, a bounded wait for it and a bounded life; after the stop signal no connection is accepted and running
//! answers get a moment to end.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::counts::{Counts, Ended};
use crate::door::{Door, Readers, subscriber};
use crate::router::{Shared, routes};
use crate::seats::{Seat, Seating, Seats};
use crate::source::SnapshotSource;

/// Pause after a failed accept, so that running out of descriptors does not become a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What one listener holds and takes at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Connections at a time, half of them from one address; beyond that the longest idle is closed for a new one.
    pub connections_max: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes_max: usize,
    /// Bytes of a request's path and query.
    pub uri_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Longest wait for a TLS handshake and for a whole header, also between two requests of one connection.
    pub header_timeout: Duration,
    /// Requests of one address in a second, health words aside; as many at once after a quiet second. Without it any
    /// number.
    pub requests_per_second_max: Option<NonZeroU32>,
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
            uri_bytes_max: 4 * 1024,
            headers_max: 64,
            header_timeout: Duration::from_secs(30),
            requests_per_second_max: None,
            connection_lifetime: Duration::from_secs(600),
            stop_timeout: Duration::from_secs(3),
        }
    }
}

/// Gives the TLS configuration that a new connection gets.
pub type TlsSource = Arc<dyn Fn() -> Arc<rustls::ServerConfig> + Send + Sync>;

/// How a listener serves.
#[derive(Clone, Default)]
pub struct HttpOptions {
    /// What it holds and takes at most.
    pub limits: HttpLimits,
    /// TLS; without it, plain HTTP.
    pub tls: Option<TlsSource>,
    /// Who may read; without it, everyone.
    pub readers: Option<Arc<dyn Readers>>,
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("HttpOptions")
            .field("limits", &self.limits)
            .field("tls", &self.tls.is_some())
            .field("readers", &self.readers.is_some())
            .finish()
    }
}

/// What all connections of a listener share.
struct House {
    router: TowerToHyperService<Router>,
    door: Door,
    counts: Arc<Counts>,
    limits: HttpLimits,
    tls: Option<TlsSource>,
}

/// Serves the sidecar's routes on `listener` until `shutdown` is done.
pub async fn serve<S: SnapshotSource>(
    listener: TcpListener,
    source: Arc<S>,
    options: HttpOptions,
    shutdown: impl Future<Output = ()>,
) {
    let HttpOptions { limits, tls, readers } = options;
    let shared = Shared::new(source);
    let house = Arc::new(House {
        router: TowerToHyperService::new(routes(shared.clone())),
        door: Door::new(limits.uri_bytes_max, limits.requests_per_second_max, readers),
        counts: shared.counts.clone(),
        limits,
        tls,
    });
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut seats = Seats::new(house.limits.connections_max);
    let mut at_door: Option<(TcpStream, IpAddr)> = None;
    let mut shutdown = std::pin::pin!(shutdown);
    let mut failing = false;
    loop {
        let mut again = None;
        if let Some((stream, address)) = at_door.take() {
            match seats.seat(address, Instant::now()) {
                Seating::Seated(number, seat) => {
                    connections.spawn(connection(stream, address, number, seat, house.clone(), stopped.clone()));
                }
                Seating::Later(then) => {
                    at_door = Some((stream, address));
                    again = Some(then);
                }
                Seating::Refused => house.counts.ended(Ended::Share),
            }
        }
        house.counts.connections_now(seats.taken(), seats.sent_away);
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => if let Ok(number) = ended { seats.leave(number) },
            accepted = listener.accept(), if at_door.is_none() => match accepted {
                Ok((stream, peer)) => {
                    failing = false;
                    at_door = Some((stream, subscriber(peer.ip())));
                }
                Err(error) => after_failed_accept(&error, &mut failing).await,
            },
            () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now).into()), if again.is_some() => {}
        }
    }
    drop((listener, at_door));
    // Fails only when no connection is left to hear it.
    let _ = stop.send(());
    let ended =
        tokio::time::timeout(house.limits.stop_timeout, async { while connections.join_next().await.is_some() {} });
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

/// Serves one connection to its end; returns its number.
async fn connection(
    stream: TcpStream,
    address: IpAddr,
    number: u64,
    seat: Arc<Seat>,
    house: Arc<House>,
    stopped: watch::Receiver<()>,
) -> u64 {
    // Only a hint for small answers.
    let _ = stream.set_nodelay(true);
    let leaving = seat.clone();
    tokio::select! {
        () = leaving.left() => {}
        () = talk(stream, address, seat, house, stopped) => {}
    }
    number
}

async fn talk(
    stream: TcpStream,
    address: IpAddr,
    seat: Arc<Seat>,
    house: Arc<House>,
    mut stopped: watch::Receiver<()>,
) {
    let Some(tls) = &house.tls else { return converse(stream, address, seat, house, stopped).await };
    let acceptor = TlsAcceptor::from(tls());
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(house.limits.header_timeout, acceptor.accept(stream)) => shaken,
        _ = stopped.changed() => return,
    };
    match shaken {
        Ok(Ok(stream)) => converse(stream, address, seat, house.clone(), stopped).await,
        Ok(Err(error)) => {
            house.counts.ended(Ended::Handshake);
            tracing::debug!(%error, %address, "a TLS handshake failed");
        }
        Err(_) => house.counts.ended(Ended::Slow),
    }
}

async fn converse<IO: AsyncRead + AsyncWrite + Unpin>(
    stream: IO,
    address: IpAddr,
    seat: Arc<Seat>,
    house: Arc<House>,
    mut stopped: watch::Receiver<()>,
) {
    let limits = &house.limits;
    let answering = service_fn(|request| answer(&house, &seat, address, request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(limits.header_bytes_max)
        .max_headers(limits.headers_max)
        .serve_connection(TokioIo::new(stream), answering);
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
        if error.is_timeout() {
            house.counts.ended(Ended::Slow);
        }
        tracing::debug!(%error, "an http connection ended early");
    }
}

async fn answer(
    house: &House,
    seat: &Seat,
    address: IpAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    seat.begin();
    let mut answer = match house.door.pass(request.uri(), request.headers(), address) {
        Ok(()) => house.router.call(request).await,
        Err(problem) => Ok(house.counts.answer("refused", problem.into_response())),
    };
    if let Ok(answer) = &mut answer
        && answer.status() == StatusCode::NOT_MODIFIED
    {
        // The router states a length of 0, which here would be that of the list (RFC 9110, section 8.6).
        answer.headers_mut().remove(header::CONTENT_LENGTH);
    }
    seat.end();
    answer
}
