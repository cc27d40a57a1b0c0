//! The HTTP listener of an engine or a sidecar apart: its address, its thread, and what readers must show.
//!
//! Not the answers, which are the sidecar's. Invariant: it runs on a helper's thread, never on a core's.

use crate::access::{Rules, Tokens};
use crate::helpers::Helpers;
use crate::quic::bind_remedy;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use highwater_proto::Scope;
use highwater_sidecar::{Admission, HttpLimits, HttpOptions, Readers, SnapshotSource, TlsSource};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// What HTTP clients are offered within TLS.
const ALPN: &[u8] = b"http/1.1";

/// The limits of a listener that takes so many requests a second from one address, and so many connections.
pub(crate) fn http_limits(requests_per_second_max: u32, connections_max: usize) -> HttpLimits {
    let requests_per_second_max = NonZeroU32::new(requests_per_second_max);
    HttpLimits { connections_max, requests_per_second_max, ..HttpLimits::default() }
}

/// What a token is good for over HTTP.
pub(crate) fn admission(tokens: &Tokens, token: &[u8]) -> Admission {
    match tokens.admit(token) {
        None => Admission::Unknown,
        Some(grant) if grant.scopes().contains(Scope::Read) => Admission::Admitted,
        Some(_) => Admission::NotReader,
    }
}

/// The readers that an engine's rules permit.
pub(crate) struct RuledReaders(pub(crate) Arc<ArcSwap<Rules>>);

impl Readers for RuledReaders {
    fn admit(&self, token: &[u8]) -> Admission {
        // Whether tokens are asked for never changes while an engine runs.
        self.0.load().access.tokens.as_ref().map_or(Admission::Unknown, |tokens| admission(tokens, token))
    }
}

/// A certificate's configuration for HTTP in place of QUIC.
pub(crate) fn for_http(config: &rustls::ServerConfig) -> Arc<rustls::ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// TLS with the certificate of an engine's rules, whichever is in force.
pub(crate) fn ruled_tls(rules: Arc<ArcSwap<Rules>>) -> TlsSource {
    let quic = rules.load().tls.clone();
    let latest = Mutex::new((for_http(&quic), quic));
    Arc::new(move || {
        let rules = rules.load();
        let mut latest = latest.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&latest.1, &rules.tls) {
            *latest = (for_http(&rules.tls), rules.tls.clone());
        }
        latest.0.clone()
    })
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
