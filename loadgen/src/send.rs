//! Carries a workload to the engine: connects, paces, sends, waits for every answer, then has the result checked.
//!
//! Open loop: a batch's planned time does not depend on answers, and latency is measured from it, so waiting behind a
//! slow engine is not hidden. What the views are is the workload's. Invariant: batches are handed out in the workload's
//! order, each to exactly one producer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use highwater_client::{ClientConfig, Producer};
use highwater_proto::BatchBuilder;

use crate::error::LoadError;
use crate::http::Shown;
use crate::oracle::{Row, VideoIds};
use crate::progress::Progress;
use crate::report::{Outcome, Report};
use crate::tally::Tally;
use crate::verify::{Verification, Verifier};

/// Most producers of one load.
pub const PRODUCERS_MAX: u16 = 64;
/// How long a wait for a planned time goes on before the wish to stop is looked at.
const STOP_CHECK: Duration = Duration::from_millis(100);

/// Where a load goes and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The engine's address, trust and patience.
    pub client: ClientConfig,
    /// Producers, each with a connection of its own; 1 to 64.
    pub producers: u16,
    /// Views per batch, unless bytes or the end of the workload cut it short.
    pub batch_views: u32,
    /// The engine's HTTP address, where its answers shall be compared with exact counts.
    pub verify: Option<String>,
}

/// The beginning of a load on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Monotonic.
    pub instant: Instant,
    /// Wall clock, milliseconds UTC since 1970.
    pub wall_ms: u64,
}

impl Start {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self { instant: Instant::now(), wall_ms: wall_ms() }
    }
}

/// Milliseconds UTC since 1970 by the wall clock.
#[must_use]
pub fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// When a filled batch is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// So long after the start.
    After(Duration),
    /// As soon as there is room.
    AtOnce,
}

/// A source of batches.
pub trait Workload: Send + 'static {
    /// Names of its videos.
    type Ids: VideoIds;

    /// The videos its rows refer to.
    fn ids(&self) -> &Self::Ids;

    /// Views it will send in all; 0 where only time ends it.
    fn views_planned(&self) -> u64;

    /// Fills the empty builder with the next batch and `rows` with the same views; `None` when there is none.
    ///
    /// # Errors
    /// As [`LoadError`] says; the load ends.
    fn fill(&mut self, batch: &mut BatchBuilder, rows: &mut Vec<Row>, start: Start) -> Result<Option<Due>, LoadError>;
}

/// What all producers of a load share.
struct Load<W> {
    workload: Mutex<W>,
    tally: Mutex<Tally>,
    failure: Mutex<Option<LoadError>>,
    failed: AtomicBool,
    progress: Arc<Progress>,
    start: Start,
}

impl<W> Load<W> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: LoadError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    fn stopping(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.progress.stopping()
    }
}

/// Checks that the engine is empty where a comparison is asked for, sends the whole workload, compares, and reports.
/// Runs a single-threaded runtime of its own: call it outside of any.
///
/// # Errors
/// What keeps the load from starting. What goes wrong later is in [`Outcome::failure`], beside the figures so far.
pub fn carry_out<W: Workload>(
    target: &Target,
    workload: W,
    progress: &Arc<Progress>,
    shift_ms: i64,
) -> Result<Outcome, LoadError> {
    check(target)?;
    let shown = Shown {
        ca_pem: &target.client.ca_pem,
        token: &target.client.token,
        certificate: target.client.client_certificate.as_ref(),
    };
    let verifier = target.verify.as_deref().map(|url| Verifier::new(url, &shown)).transpose()?;
    if let Some(verifier) = &verifier {
        verifier.check_empty()?;
    }
    progress.plan(workload.views_planned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| LoadError::Runtime(error.to_string()))?;
    let load = runtime.block_on(send_all(target, workload, progress))?;
    drop(runtime);
    let Some(load) = Arc::into_inner(load) else {
        return Err(LoadError::Runtime("a producer outlived its load".into()));
    };
    let workload = load.workload.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tally = load.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut failure = load.failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verification = match (&verifier, &tally.oracle, &failure) {
        (Some(verifier), Some(oracle), None) => {
            progress.verify();
            match verifier.compare(oracle, workload.ids(), tally.visible_epoch) {
                Ok(verification) => Some(verification),
                Err(error) => {
                    failure = Some(error);
                    Some(Verification::default())
                }
            }
        }
        (Some(_), ..) => Some(Verification::default()),
        (None, ..) => None,
    };
    let report =
        Report::new(&tally, load.start, progress.reconnects(), shift_ms, verification.as_ref(), failure.as_ref());
    let differences = verification.map(|verification| verification.differences).unwrap_or_default();
    Ok(Outcome { report, differences, failure })
}

fn check(target: &Target) -> Result<(), LoadError> {
    if target.producers == 0 || target.producers > PRODUCERS_MAX {
        return Err(LoadError::Option {
            option: "producers",
            value: target.producers.to_string(),
            reason: format!("1 to {PRODUCERS_MAX} are allowed"),
        });
    }
    if target.batch_views == 0 {
        return Err(LoadError::Option {
            option: "batch",
            value: "0".into(),
            reason: "a batch holds at least one view".into(),
        });
    }
    Ok(())
}

/// Connects all producers, then lets them share out the workload until it ends, fails or is stopped.
async fn send_all<W: Workload>(
    target: &Target,
    workload: W,
    progress: &Arc<Progress>,
) -> Result<Arc<Load<W>>, LoadError> {
    let tally = Tally::new(target.producers, workload.ids().video_count(), target.verify.is_some())?;
    let mut load = Load {
        workload: Mutex::new(workload),
        tally: Mutex::new(tally),
        failure: Mutex::new(None),
        failed: AtomicBool::new(false),
        progress: Arc::clone(progress),
        start: Start::now(),
    };
    let mut connected = Vec::new();
    let fates = Arc::new(FateSlot::<W>::default());
    for index in 0..target.producers {
        let fates = Arc::clone(&fates);
        let on_fate = move |fate| fates.settle(index, &fate);
        let producer = Producer::connect(target.client.clone(), on_fate).await?;
        check_batch(target, &producer)?;
        connected.push(producer);
    }
    load.start = Start::now();
    let load = Arc::new(load);
    fates.fill(&load);
    let mut tasks = tokio::task::JoinSet::new();
    for (index, producer) in (0..).zip(connected) {
        let load = Arc::clone(&load);
        let batch_views = target.batch_views;
        tasks.spawn(async move {
            if let Err(error) = produce(&load, index, producer, batch_views).await {
                load.fail(error);
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            load.fail(LoadError::Runtime(error.to_string()));
        }
    }
    fates.empty();
    Ok(load)
}

/// Where fates find their load: producers connect before the load's clock starts, so the slot is filled afterwards.
struct FateSlot<W>(Mutex<Option<Arc<Load<W>>>>);

impl<W> Default for FateSlot<W> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<W> FateSlot<W> {
    fn fill(&self, load: &Arc<Load<W>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(load));
    }

    fn empty(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn settle(&self, producer: u16, fate: &highwater_client::Fate) {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(load) = slot.as_ref() else {
            return;
        };
        let settled = load.tally().settle(producer, fate);
        load.progress.acked(u64::from(fate.view_count));
        if let Err(error) = settled {
            load.fail(error);
        }
    }
}

fn check_batch(target: &Target, producer: &Producer) -> Result<(), LoadError> {
    let limit = producer.welcome().batch_views_max;
    if target.batch_views > limit {
        return Err(LoadError::Option {
            option: "batch",
            value: target.batch_views.to_string(),
            reason: format!("this engine takes at most {limit} views in a batch"),
        });
    }
    Ok(())
}

/// One producer's loop: fill, wait for the planned time, send.
async fn produce<W: Workload>(
    load: &Load<W>,
    index: u16,
    mut producer: Producer,
    batch_views: u32,
) -> Result<(), LoadError> {
    let mut batch = BatchBuilder::new(batch_views, producer.welcome().batch_bytes_max);
    let mut reconnects = 0;
    for token in 0.. {
        let mut rows = load.tally().rows();
        let due = {
            let mut workload = load.workload.lock().unwrap_or_else(PoisonError::into_inner);
            workload.fill(&mut batch, &mut rows, load.start)?
        };
        let planned_at = match due {
            None => break,
            Some(Due::AtOnce) => Instant::now(),
            Some(Due::After(wait)) => load.start.instant + wait,
        };
        if !wait_until(planned_at, load).await {
            break;
        }
        let views = rows.len() as u64;
        load.tally().send(index, token, rows, planned_at);
        producer.send(&mut batch, token).await?;
        load.progress.sent(views);
        let seen = u64::from(producer.reconnects());
        load.progress.reconnected(seen - reconnects);
        reconnects = seen;
        // With room in flight nothing above waits, and the connection shares this thread.
        tokio::task::yield_now().await;
    }
    let summary = producer.finish().await?;
    load.progress.reconnected(u64::from(summary.reconnects) - reconnects);
    Ok(())
}

/// Waits for a planned time; false if the load is to stop instead.
async fn wait_until<W>(planned_at: Instant, load: &Load<W>) -> bool {
    loop {
        if load.stopping() {
            return false;
        }
        let left = planned_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        tokio::time::sleep(left.min(STOP_CHECK)).await;
    }
}
