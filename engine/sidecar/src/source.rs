//! Where the sidecar gets what it serves.
//!
//! Not how: the engine's own process, a subscription to it, or a test. Invariant that an implementation keeps: the
//! epoch of [`SnapshotSource::latest`] never decreases.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use highwater_proto::{Epoch, HistoryAnswer, Period, PeriodsAnswer, Snapshot, VideoCounts};

/// How long a look-up or a question for closed periods may take.
pub const LOOKUP_WAIT: Duration = Duration::from_secs(2);

/// Gives snapshots, newest first and only, looks single videos up, and knows what is closed.
pub trait SnapshotSource: Send + Sync + 'static {
    /// The newest snapshot; `None` before the first.
    fn latest(&self) -> Option<Arc<Snapshot>>;

    /// Waits until the newest snapshot's epoch is `epoch` or later, for `timeout` at most. Returns whether it is.
    fn wait_for(&self, epoch: Epoch, timeout: Duration) -> impl Future<Output = bool> + Send;

    /// One video's counts, from the core that counts it. The id has 1 to 255 bytes; the answer comes within
    /// [`LOOKUP_WAIT`].
    ///
    /// # Errors
    /// [`LookupError`] when there is no answer to be had now.
    fn lookup(&self, video_id: &str) -> impl Future<Output = Result<VideoCounts, LookupError>> + Send;

    /// The final list of the hour, day or month that starts at `start_ms`, or how far history reaches; within
    /// [`LOOKUP_WAIT`].
    ///
    /// # Errors
    /// [`LookupError`] when there is no answer to be had now.
    fn closed_list(
        &self,
        period: Period,
        start_ms: u64,
    ) -> impl Future<Output = Result<HistoryAnswer, LookupError>> + Send;

    /// The closed hours, days or months that start before `before_ms` (any where there is none) and have a list, the
    /// newest first, at most `limit` (1 to 1000); within [`LOOKUP_WAIT`].
    ///
    /// # Errors
    /// [`LookupError`] when there is no answer to be had now.
    fn closed_periods(
        &self,
        period: Period,
        before_ms: Option<u64>,
        limit: u16,
    ) -> impl Future<Output = Result<PeriodsAnswer, LookupError>> + Send;

    /// Whether readers should be sent here.
    fn status(&self) -> SourceStatus;

    /// Metrics of the source in the Prometheus text format, to which the sidecar adds its own.
    fn metrics(&self) -> String;
}

/// Why a question has no answer; all of them may pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// As many questions wait as may.
    #[error("the engine has as many questions to answer as it takes; ask again")]
    Busy,
    /// The engine was asked and said nothing.
    #[error("the engine did not answer within {} s; ask again", LOOKUP_WAIT.as_secs())]
    Late,
    /// The engine cannot be asked, for a reason in words.
    #[error("the engine cannot be asked: {0}")]
    Unreachable(String),
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
