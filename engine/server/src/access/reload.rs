//! The files that say who the engine is and who may come in, read again while it runs.
//!
//! A helper's thread: it reads them on request (SIGHUP), and by itself when they have changed and then stayed as they
//! are for a moment. Invariants: what is in force was read whole and found sound, all files together; a file that is
//! not leaves everything as it was, with an error in the log and a count in the metrics; a connection that stands goes
//! on, unless its token is taken back.

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Access, TokenFileError, Tokens, certificates};
use crate::args::ServeArguments;
use crate::runtime::Waker;
use crate::tls::{self, OwnCertificate, ServerTls, TlsError};

/// Between two looks at the files. One that has changed is read when the next look finds it as the last one did, so
/// that a certificate and its key are not read between the writing of the one and of the other.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the cores go by: the engine's certificate, and who may come in.
#[derive(Debug)]
pub struct Rules {
    /// For new connections.
    pub tls: Arc<rustls::ServerConfig>,
    /// For new streams, and for those whose token is taken back.
    pub access: Access,
}

/// How often the files were read again. Orders nothing.
#[derive(Debug, Default)]
pub struct ReloadFigures {
    /// With success.
    pub done: AtomicU64,
    /// Without, so that what was in force before stays.
    pub failed: AtomicU64,
    /// Whether the last time was such a one.
    pub out_of_date: AtomicBool,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A certificate, a key or an authority.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The tokens.
    #[error(transparent)]
    Tokens(#[from] TokenFileError),
}

/// Where everything is read from.
#[derive(Debug, Clone)]
pub struct Sources {
    directory: PathBuf,
    names: Vec<String>,
    own: Option<OwnCertificate>,
    client_ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
}

impl Sources {
    /// Those of an engine's settings.
    pub fn new(arguments: &ServeArguments) -> Self {
        let own = match (&arguments.tls_cert, &arguments.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(OwnCertificate { certificate: certificate.clone(), key: key.clone() })
            }
            _ => None,
        };
        Self {
            directory: arguments.data_dir.join("tls"),
            names: arguments.tls_name.clone(),
            own,
            client_ca: arguments.client_ca.clone(),
            token_file: arguments.token_file.clone(),
        }
    }

    /// Who may come in. It makes no file, so that a start with a bad one leaves nothing behind.
    ///
    /// # Errors
    /// [`SourceError`]: the file, what is wrong and what to do.
    pub fn access(&self) -> Result<Access, SourceError> {
        let tokens = self.token_file.as_deref().map(Tokens::read).transpose()?;
        let certificates = self.client_ca.as_deref().map(certificates::verifier).transpose()?;
        if let Some(tokens) = &tokens {
            tracing::info!(tokens = tokens.count(), "clients must send a token");
        }
        if let Some(path) = &self.client_ca {
            tracing::info!(authorities = %path.display(), "clients must show a certificate");
        }
        Ok(Access { tokens, certificates })
    }

    /// Who the engine is; makes its own certificate where it has none or needs a new one.
    ///
    /// # Errors
    /// [`SourceError`]: the file, what is wrong and what to do.
    pub fn tls(&self, access: &Access) -> Result<ServerTls, SourceError> {
        let clients = access.certificates.clone();
        Ok(tls::prepare(&self.directory, &self.names, self.own.as_ref(), clients, SystemTime::now())?)
    }

    /// What tells each of the operator's files from a changed one.
    fn marks(&self) -> Vec<Option<Mark>> {
        let own = self.own.iter().flat_map(|own| [&own.certificate, &own.key]);
        own.chain(&self.client_ca).chain(&self.token_file).map(|path| Mark::of(path)).collect()
    }
}

/// What the file system says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Mark {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// The helper.
pub struct Reloader {
    sources: Sources,
    rules: Arc<ArcSwap<Rules>>,
    figures: Arc<ReloadFigures>,
    requests: Receiver<()>,
    wakers: Vec<Waker>,
    stop: Arc<AtomicBool>,
    seen: Vec<Option<Mark>>,
    /// The last look found a change.
    unsettled: bool,
}

impl Reloader {
    /// A helper for files that were just read.
    pub fn new(
        sources: Sources,
        rules: Arc<ArcSwap<Rules>>,
        figures: Arc<ReloadFigures>,
        requests: Receiver<()>,
        wakers: Vec<Waker>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let seen = sources.marks();
        Self { sources, rules, figures, requests, wakers, stop, seen, unsettled: false }
    }

    /// Runs until the engine stops.
    pub fn run(mut self) {
        loop {
            let asked = match self.requests.recv_timeout(LOOK_EVERY) {
                Ok(()) => true,
                Err(RecvTimeoutError::Timeout) => false,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let due = self.look();
            if asked || due {
                self.unsettled = false;
                self.reload(if asked { "on request" } else { "because they have changed" });
            }
        }
    }

    /// Whether the files have changed, and are at rest again.
    fn look(&mut self) -> bool {
        let marks = self.sources.marks();
        let changed = marks != self.seen;
        self.seen = marks;
        let due = self.unsettled && !changed;
        self.unsettled = changed;
        due
    }

    fn reload(&self, why: &str) {
        let read = || -> Result<Rules, SourceError> {
            let access = self.sources.access()?;
            Ok(Rules { tls: self.sources.tls(&access)?.config, access })
        };
        match read() {
            Ok(rules) => {
                self.rules.store(Arc::new(rules));
                self.figures.out_of_date.store(false, Ordering::Relaxed);
                self.figures.done.fetch_add(1, Ordering::Relaxed);
                self.wakers.iter().for_each(Waker::wake);
                tracing::info!("read certificates and tokens again {why}; new connections go by them");
            }
            Err(error) => {
                self.figures.out_of_date.store(true, Ordering::Relaxed);
                self.figures.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!("certificates and tokens stay as they were, read again {why}: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    #[test]
    fn a_changed_file_is_read_once_it_is_at_rest_and_a_bad_one_changes_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokens");
        std::fs::write(&path, "one").unwrap();
        let data = format!("--data-dir={}", place.path().join("data").display());
        let tokens = format!("--token-file={}", path.display());
        let sources = Sources::new(&ServeArguments::from_flags([data, tokens]).unwrap());
        let access = sources.access().unwrap();
        let tls = sources.tls(&access).unwrap().config;
        let rules = Arc::new(ArcSwap::from_pointee(Rules { tls, access }));
        let (_requests, received) = unbounded();
        let figures = Arc::default();
        let mut reloader =
            Reloader::new(sources, Arc::clone(&rules), Arc::clone(&figures), received, Vec::new(), Arc::default());
        let takes = |token: &[u8]| rules.load().access.grant(token, "hello").is_ok();
        assert!(!reloader.look(), "nothing has changed");
        std::fs::write(&path, "other").unwrap();
        assert!(!reloader.look(), "it may be written still");
        assert!(reloader.look() && !reloader.look(), "once");
        reloader.reload("");
        assert!(takes(b"other") && !takes(b"one"));
        std::fs::write(&path, "# none").unwrap();
        reloader.reload("");
        assert!(takes(b"other"), "what was in force stays");
        let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        assert_eq!((count(&figures.done), count(&figures.failed)), (1, 1));
        assert!(figures.out_of_date.load(Ordering::Relaxed));
        std::fs::write(&path, "third").unwrap();
        reloader.reload("");
        assert!(takes(b"third") && !figures.out_of_date.load(Ordering::Relaxed));
    }
}
