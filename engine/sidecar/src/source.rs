//! Where the sidecar gets what it serves.
//!
//! Not how: the engine's own process, a subscription to it, or a test. Invariant that an implementation keeps: the
//! epoch of [`SnapshotSource::latest`] never decreases.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{Epoch, Snapshot};

/// Gives snapshots, newest first and only.
pub trait SnapshotSource: Send + Sync + 'static {
    /// The newest snapshot; `None` before the first.
    fn latest(&self) -> Option<Arc<Snapshot>>;

    /// Waits until the newest snapshot's epoch is `epoch` or later, for `timeout` at most. Returns whether it is.
    fn wait_for(&self, epoch: Epoch, timeout: Duration) -> impl Future<Output = bool> + Send;

    /// Whether readers should be sent here.
    fn status(&self) -> SourceStatus;

    /// Metrics of the source in the Prometheus text format, to which the sidecar adds its own.
    fn metrics(&self) -> String;
}

/// Whether a source is fit to serve, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// Fit to serve.
    pub ready: bool,
    /// Why not, for people; empty when ready.
    pub reason: Cow<'static, str>,
}

impl SourceStatus {
    /// Fit to serve.
    #[must_use]
    pub fn ready() -> Self {
        Self { ready: true, reason: Cow::Borrowed("") }
    }

    /// Not fit, for a reason that people can act on.
    #[must_use]
    pub fn not_ready(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { ready: false, reason: reason.into() }
    }
}
