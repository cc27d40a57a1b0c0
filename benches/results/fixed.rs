//! A server of one fixed answer: what the HTTP stack itself can do, beside which the engine's lists are seen.
//!
//! The same hyper with the settings of the engine's listener, on one thread of the engine's CPU, but no route, no
//! query, no limit and no snapshot. Invariant: it gives the engine's own headers and body, byte for byte.

use anyhow::{Context, Result};
use bytes::Bytes;
use highwater_loadgen::process::cpu;
use highwater_sidecar::HttpLimits;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, DATE, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// An answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Asks for it, whether it may be compressed or not.
    ///
    /// # Errors
    /// When there is none, or not with success.
    pub(crate) fn of(url: &str, gzip: bool) -> Result<Self> {
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        let encoding = if gzip { "gzip" } else { "identity" };
        let mut answer = agent.get(url).header("accept-encoding", encoding).call().with_context(|| url.to_owned())?;
        let mut headers = answer.headers().clone();
        // Those that hyper adds by itself.
        headers.remove(DATE);
        headers.remove(CONTENT_LENGTH);
        let body = answer.body_mut().read_to_vec().with_context(|| url.to_owned())?;
        Ok(Self { headers, body: body.into() })
    }

    /// Whether it was compressed.
    pub(crate) fn is_compressed(&self) -> bool {
        self.headers.contains_key("content-encoding")
    }
}

/// The running server; ends with its handle.
pub(crate) struct Fixed {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Fixed {
    /// Starts it on a CPU.
    ///
    /// # Errors
    /// When it has no address or no thread.
    pub(crate) fn start(cpu: usize, answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("no address for the fixed answer")?;
        listener.set_nonblocking(true).context("the fixed answer's socket")?;
        let address = listener.local_addr().context("the fixed answer's address")?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            cpu::confine_current_thread(&[cpu])?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
            runtime.block_on(serve(listener, Arc::new(answer), stopped))
        };
        let thread = std::thread::Builder::new().spawn(run).context("no thread")?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}

impl Drop for Fixed {
    fn drop(&mut self) {
        // It has ended by itself if nobody hears this.
        self.stop.take().map(|stop| stop.send(()));
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("results: the server of the fixed answer: {error:#}");
        }
    }
}

async fn serve(listener: TcpListener, answer: Arc<Answer>, mut stopped: oneshot::Receiver<()>) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("the fixed answer's socket")?;
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("the fixed answer's connections")?,
            _ = &mut stopped => return Ok(()),
        };
        // Only a hint, as in the engine.
        let _ = stream.set_nodelay(true);
        let (answer, limits) = (answer.clone(), HttpLimits::default());
        tokio::spawn(async move {
            let answering = service_fn(|_: Request<Incoming>| {
                let mut response = Response::new(Full::new(answer.body.clone()));
                *response.headers_mut() = answer.headers.clone();
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header_timeout)
                .max_buf_size(limits.header_bytes_max)
                .max_headers(limits.headers_max)
                .serve_connection(TokioIo::new(stream), answering);
            // It ends when its client does.
            let _ = serving.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_what_it_was_given() {
        let set = rustix::thread::sched_getaffinity(None).unwrap();
        let cpu = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| set.is_set(*cpu)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", "no-store".parse().unwrap());
        let given = Answer { headers, body: Bytes::from_static(b"{\"a\": 1}") };
        let fixed = Fixed::start(cpu, given.clone()).unwrap();
        let got = Answer::of(&fixed.url(), true).unwrap();
        assert_eq!((got.headers.clone(), got.body.clone()), (given.headers, given.body));
        assert!(!got.is_compressed());
    }
}
