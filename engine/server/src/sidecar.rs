//! `highwater sidecar`: serve an engine's rankings over HTTP from a process of its own.
//!
//! It holds the newest snapshot and nothing else. Invariant: once HTTP listens, the process lives until a signal,
//! whatever happens to the engine; `/readyz` says whether readers should be sent here.

use crate::access::Tokens;
use crate::args::SidecarArguments;
use crate::diagnostics::{http_connections, raise_open_files};
use crate::helpers::Helpers;
use crate::http::{admission, for_http, http_limits, listen_http, serve_http};
use crate::tls::{self, OwnCertificate};
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use highwater_client::ClientConfig;
use highwater_sidecar::{Admission, HttpOptions, Readers, RemoteSnapshots, TlsSource};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
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

/// A sidecar's certificate and the tokens of its readers, as they were last read.
struct Guard {
    certificate: Option<OwnCertificate>,
    token_file: Option<PathBuf>,
    in_force: ArcSwap<InForce>,
}

struct InForce {
    tls: Option<Arc<rustls::ServerConfig>>,
    tokens: Option<Tokens>,
}

impl Guard {
    fn new(arguments: &SidecarArguments) -> Result<Self> {
        let pair = arguments.tls_cert.clone().zip(arguments.tls_key.clone());
        let certificate = pair.map(|(certificate, key)| OwnCertificate { certificate, key });
        let token_file = arguments.reader_token_file.clone();
        let in_force = ArcSwap::from_pointee(InForce::read(certificate.as_ref(), token_file.as_deref())?);
        Ok(Self { certificate, token_file, in_force })
    }

    fn tls_source(self: Arc<Self>) -> TlsSource {
        Arc::new(move || {
            // It is asked for only where there is a certificate.
            self.in_force.load().tls.clone().expect("a sidecar without a certificate serves plain HTTP")
        })
    }

    /// Reads the files again; one that cannot be used changes nothing.
    fn reload(&self) {
        match InForce::read(self.certificate.as_ref(), self.token_file.as_deref()) {
            Ok(read) => {
                self.in_force.store(Arc::new(read));
                tracing::info!("read certificate and tokens again on request; new connections go by them");
            }
            Err(error) => tracing::error!("certificate and tokens stay as they were: {error:#}"),
        }
    }
}

impl InForce {
    fn read(certificate: Option<&OwnCertificate>, token_file: Option<&Path>) -> Result<Self> {
        let tls = certificate.map(tls::operators).transpose()?.map(|config| for_http(&config));
        Ok(Self { tls, tokens: token_file.map(Tokens::read).transpose()? })
    }
}

impl Readers for Guard {
    fn admit(&self, token: &[u8]) -> Admission {
        self.in_force.load().tokens.as_ref().map_or(Admission::Unknown, |tokens| admission(tokens, token))
    }
}

/// Serves until a signal.
///
/// # Errors
/// What is wrong with an address or the authority's file.
pub fn sidecar(arguments: &SidecarArguments) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals cannot be watched")?;
    if let Some(misfit) = arguments.check().into_iter().next() {
        return Err(misfit.into());
    }
    let guard = Arc::new(Guard::new(arguments)?);
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
    let options = HttpOptions {
        limits: http_limits(arguments.http_rate_max, connections_max),
        tls: arguments.tls_cert.as_ref().map(|_| guard.clone().tls_source()),
        readers: arguments.reader_token_file.as_ref().map(|_| guard.clone() as Arc<dyn Readers>),
    };
    let (stop, serving) = serve_http(&Helpers::new(&[], &[])?, runtime, listener, Arc::new(source), options)?;
    let ready = Ready { event: "ready", http, engine: &arguments.engine, pid: std::process::id() };
    let line = serde_json::to_string(&ready).context("the ready line cannot be written")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("stdout is closed; nobody would learn the address")?;
    drop(out);
    for signal in signals.forever() {
        if signal == SIGHUP {
            guard.reload();
            continue;
        }
        tracing::info!(signal, "shutting down");
        break;
    }
    // The receiver is gone only when the thread has ended by itself.
    let _ = stop.send(());
    serving.join().map_err(|_| anyhow::anyhow!("the HTTP thread panicked; its message is above"))
}
