//! What a load is made of and how one producer sends it: fills, waits for the planned time, sends.
//!
//! Open loop: a batch's planned time does not depend on answers, and latency is measured from it, so waiting behind a
//! slow engine is not hidden. What the views are is the workload's. Invariant: batches are handed out in the workload's
//! order, each to exactly one producer.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use highwater_client::{ClientConfig, Producer};
use highwater_proto::{BatchBuilder, ENCODING_PLAIN_BIT, ENCODINGS};

use crate::campaign::Load;
use crate::error::LoadError;
use crate::oracle::{Row, VideoIds};
use crate::recurring::Recurring;
use crate::tally::Views;

/// Most producers of one load.
pub const PRODUCERS_MAX: u16 = 1000;
/// How long a wait for a planned time goes on before the wish to stop is looked at.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// The runtime's timer has a grain of a millisecond and rounds up: the rest of a wait passes between looks at sockets.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What columns of batches are made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// Whatever is smallest of what the engine takes.
    Compact,
    /// Each view's strings and time for itself, which every engine takes.
    Plain,
}

impl Encoding {
    /// What may be used, as bits of a welcome.
    #[must_use]
    pub fn encodings(self) -> u32 {
        match self {
            Self::Compact => ENCODINGS,
            Self::Plain => ENCODING_PLAIN_BIT,
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Compact => "compact",
            Self::Plain => "plain",
        })
    }
}

/// Where a load goes and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The engine's address, trust and patience, and the encodings of batches.
    pub client: ClientConfig,
    /// Producers, each with a connection of its own; 1 to [`PRODUCERS_MAX`].
    pub producers: u16,
    /// Views per batch, unless bytes or the end of the workload cut it short.
    pub batch_views: u32,
    /// The engine's HTTP address, where its answers shall be compared with exact counts.
    pub verify: Option<String>,
}

impl Target {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.producers == 0 || self.producers > PRODUCERS_MAX {
            return Err(LoadError::Option {
                option: "producers",
                value: self.producers.to_string(),
                reason: format!("1 to {PRODUCERS_MAX} are allowed"),
            });
        }
        if self.batch_views == 0 {
            return Err(LoadError::Option {
                option: "batch",
                value: "0".into(),
                reason: "a batch holds at least one view".into(),
            });
        }
        Ok(())
    }

    pub(crate) fn check_batch(&self, producer: &Producer) -> Result<(), LoadError> {
        let limit = producer.welcome().batch_views_max;
        if self.batch_views > limit {
            return Err(LoadError::Option {
                option: "batch",
                value: self.batch_views.to_string(),
                reason: format!("this engine takes at most {limit} views in a batch"),
            });
        }
        Ok(())
    }
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

/// The next batch of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// When it is to leave.
    pub due: Due,
    /// Number and time of a recurring batch; else the builder holds the batch.
    pub recurring: Option<(u32, u64)>,
}

/// A source of batches.
pub trait Workload: Send + 'static {
    /// Names of its videos.
    type Ids: VideoIds;

    /// The videos its rows refer to.
    fn ids(&self) -> &Self::Ids;

    /// Views it will send in all; 0 where only time ends it.
    fn views_planned(&self) -> u64;

    /// The batches that recur in it, if there are such.
    fn recurring(&self) -> Option<Arc<Recurring>> {
        None
    }

    /// The next batch: fills the empty builder, and `rows` with the same views, or names a recurring batch; `None` when
    /// there is none.
    ///
    /// # Errors
    /// As [`LoadError`] says; the load ends.
    fn fill(&mut self, batch: &mut BatchBuilder, rows: &mut Vec<Row>, start: Start) -> Result<Option<Next>, LoadError>;
}

/// One producer's loop; ends when the workload does and every batch has its answer.
pub(crate) async fn produce<W: Workload>(
    load: &Load<W>,
    index: u16,
    producer: &mut Producer,
    start: Start,
) -> Result<(), LoadError> {
    let recurring = load.workload.lock().unwrap_or_else(PoisonError::into_inner).recurring();
    let batch = BatchBuilder::new(load.batch_views, producer.welcome().batch_bytes_max);
    let mut batch = batch.with_encodings(producer.encodings());
    let mut reconnects = u64::from(producer.reconnects());
    let room = load.in_flight_max.min(producer.welcome().in_flight_batches_max);
    load.tally().open(index, room, start.instant);
    for token in 0.. {
        let mut rows = load.tally().rows();
        let next = {
            let mut workload = load.workload.lock().unwrap_or_else(PoisonError::into_inner);
            workload.fill(&mut batch, &mut rows, start)?
        };
        let Some(Next { due, recurring: number }) = next else {
            break;
        };
        let due_at = match due {
            Due::AtOnce => None,
            Due::After(wait) => Some(start.instant + wait),
        };
        let planned_at = due_at.unwrap_or_else(Instant::now);
        if !wait_until(planned_at, load).await {
            break;
        }
        let views = match (number, &recurring) {
            (Some((number, timestamp_ms)), Some(recurring)) => {
                let views = recurring.videos(number).len() as u64;
                load.tally().send(index, token, Views::Recurring { number, timestamp_ms }, planned_at);
                producer.send_prepared(recurring.batch(number), timestamp_ms, token).await?;
                views
            }
            _ => {
                let views = rows.len() as u64;
                load.tally().send(index, token, Views::Rows(rows), planned_at);
                producer.send(&mut batch, token).await?;
                views
            }
        };
        load.tally().leave(index, due_at, Instant::now());
        load.progress.sent(views);
        let seen = u64::from(producer.reconnects());
        load.progress.reconnected(seen - reconnects);
        reconnects = seen;
        // With room in flight nothing above waits, and the connection shares this thread.
        tokio::task::yield_now().await;
    }
    producer.settled().await?;
    load.progress.reconnected(u64::from(producer.reconnects()) - reconnects);
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
        match left.checked_sub(TIMER_GRAIN) {
            Some(long) if !long.is_zero() => tokio::time::sleep(long.min(STOP_CHECK)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}
