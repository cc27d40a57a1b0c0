//! What readers are told of closed periods: a final list, that there is none and why, or which there are.
//!
//! Not the current periods' lists, which are the snapshot's. Invariants: a body is a pure function of what the source
//! answered and of the snapshot; at most [`LISTS_MAX`] lists are kept, each with [`BODIES_MAX`] bodies, which is safe
//! because a final list never changes.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_proto::{Board, ClosedList, HistoryBounds, Period, PeriodsAnswer, Snapshot, Unreadable, Window};
use lru::LruCache;
use serde::Serialize;

use crate::answer::closed_body;
use crate::body::{Body, Shelf};
use crate::json;
use crate::problem::Problem;
use crate::query::{Asked, PeriodsQuery};
use crate::source::SnapshotSource;
use crate::time::{period_at, rfc3339, rfc3339_ms};

/// Lists kept, those used last: readers mostly ask for the newest. One has at most 1000 rows, 300 KB with the longest
/// ids.
const LISTS_MAX: NonZeroUsize = NonZeroUsize::new(32).unwrap();
/// Bodies kept of each, and their plain bytes: readers mostly ask for the same few `k`.
const BODIES_MAX: usize = 4;
const BODIES_BYTES_MAX: usize = 1 << 20;

/// When to ask again for a list whose time has come but that is not made yet.
const LIST_DUE_RETRY_S: u32 = 10;

/// Final lists that were read before, by period and start.
pub(crate) struct Lists {
    kept: Mutex<LruCache<(Period, u64), Arc<KeptList>>>,
}

/// A final list, and what was made of it, by rows.
struct KeptList {
    list: ClosedList,
    bodies: Mutex<Shelf<usize>>,
}

impl Default for Lists {
    fn default() -> Self {
        Self { kept: Mutex::new(LruCache::new(LISTS_MAX)) }
    }
}

impl Lists {
    /// The body for the first `k` rows of the list of a period that has ended.
    pub(crate) async fn body<S: SnapshotSource>(
        &self,
        source: &S,
        snapshot: &Snapshot,
        asked: &Asked,
        k: usize,
    ) -> Result<Arc<Body>, Problem> {
        let key = (asked.period, asked.start_ms);
        let kept = self.kept().get(&key).cloned();
        if let Some(list) = kept {
            return Ok(list.body(k));
        }
        let answer = source.closed_list(asked.period, asked.start_ms).await;
        let answer = answer.map_err(|error| Problem::unavailable(error.to_string()))?;
        match answer.list {
            Ok(Some(list)) => {
                let bodies = Mutex::new(Shelf::new(BODIES_MAX, BODIES_BYTES_MAX));
                let list = Arc::new(KeptList { list, bodies });
                self.kept().put(key, list.clone());
                Ok(list.body(k))
            }
            Ok(None) => Err(without_list(answer.bounds, snapshot, asked)),
            Err(Unreadable) => Err(Problem::unreadable()),
        }
    }

    /// What is kept; a panic elsewhere leaves it whole, because what is put in is whole before.
    fn kept(&self) -> MutexGuard<'_, LruCache<(Period, u64), Arc<KeptList>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptList {
    /// The body for the first `k` rows.
    fn body(&self, k: usize) -> Arc<Body> {
        let key = k.min(self.list.rows.len());
        // As of the lists that are kept.
        let bodies = || self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = bodies().find(&key);
        kept.unwrap_or_else(|| {
            let body = closed_body(&self.list, k);
            bodies().put(key, body)
        })
    }
}

/// When the current period of a kind began: as its list says, else as the time of the snapshot does.
pub(crate) fn current_start(snapshot: &Snapshot, asked: &Asked) -> u64 {
    let board = snapshot.board(asked.period, Window::Tumbling);
    let computed = || period_at(asked.period, snapshot.as_of_ms).map_or(snapshot.as_of_ms, |(start, _)| start);
    board.and_then(|board| board.start_ms).unwrap_or_else(computed)
}

/// The period has not begun.
pub(crate) fn not_begun(snapshot: &Snapshot, asked: &Asked) -> Problem {
    let (period, start) = (asked.period, rfc3339(asked.start_ms));
    let now = rfc3339_ms(snapshot.as_of_ms);
    Problem::no_list(format!("the {period} from {start} has not begun: it is {now}"), &asked.written)
}

/// Why a period that has ended has no list.
fn without_list(bounds: HistoryBounds, snapshot: &Snapshot, asked: &Asked) -> Problem {
    let (period, start) = (asked.period, rfc3339(asked.start_ms));
    if asked.end_ms > bounds.closed_until_ms {
        let final_ms = asked.end_ms.saturating_add(bounds.lateness_max_ms);
        let left_s = final_ms.saturating_sub(snapshot.as_of_ms).div_ceil(1000);
        let (final_time, now) = (rfc3339(final_ms), rfc3339_ms(snapshot.as_of_ms));
        let (detail, retry_s) = match (left_s, bounds.closed_until_ms) {
            (0, 0) => (format!("no {period} has been closed yet; ask again"), LIST_DUE_RETRY_S),
            (0, _) => (format!("the {period} from {start} is being closed; ask again"), LIST_DUE_RETRY_S),
            (left_s, _) => {
                let until = format!("is final at {final_time}, and it is {now}; ask again then");
                (format!("the {period} from {start} {until}"), u32::try_from(left_s).unwrap_or(u32::MAX))
            }
        };
        return Problem::not_final(detail, &asked.written, final_time, retry_s);
    }
    let detail = match bounds.oldest_start_ms {
        None => format!("no list of a {period} is kept: none had a view yet, or all were older than what is kept"),
        Some(oldest_ms) if asked.start_ms < oldest_ms => {
            let oldest = rfc3339(oldest_ms);
            format!("no list of the {period} from {start} is kept; the oldest that is begins at {oldest}")
        }
        Some(_) => format!("the {period} from {start} has no list: no view of it came before it was final"),
    };
    Problem::no_list(detail, &asked.written)
}

#[derive(Serialize)]
struct Listed {
    period: &'static str,
    as_of: String,
    epoch: u64,
    periods: Vec<ListedPeriod>,
    next_before: Option<String>,
}

#[derive(Serialize)]
struct ListedPeriod {
    start_time: String,
    end_time: String,
    total_views: u64,
    r#final: bool,
}

/// The body of the periods that there are, the current one first where it is asked for.
pub(crate) async fn periods_body<S: SnapshotSource>(
    source: &S,
    snapshot: &Snapshot,
    query: &PeriodsQuery,
) -> Result<Bytes, Problem> {
    let answer = source.closed_periods(query.period, query.before_ms, query.limit).await;
    let answer = answer.map_err(|error| Problem::unavailable(error.to_string()))?;
    let PeriodsAnswer { periods: Ok(closed), .. } = &answer else { return Err(Problem::unreadable()) };
    let newest_closed_ms = closed.periods.first().map(|newest| newest.start_ms);
    // A snapshot that has stood still for long may call current what is closed by now.
    let current = snapshot.board(query.period, Window::Tumbling).and_then(of_board).filter(|(start_ms, _)| {
        query.before_ms.is_none_or(|before_ms| *start_ms < before_ms)
            && newest_closed_ms.is_none_or(|one| one < *start_ms)
    });
    let of_closed = |closed: &highwater_proto::ClosedPeriod| {
        let (start_time, end_time) = (rfc3339(closed.start_ms), rfc3339(closed.end_ms));
        ListedPeriod { start_time, end_time, total_views: closed.total_views, r#final: true }
    };
    let mut periods: Vec<ListedPeriod> =
        current.into_iter().map(|(_, listed)| listed).chain(closed.periods.iter().map(of_closed)).collect();
    let more = closed.more || periods.len() > usize::from(query.limit);
    periods.truncate(query.limit.into());
    let next_before = periods.last().filter(|_| more).map(|last| last.start_time.clone());
    let (period, as_of, epoch) = (query.period.as_str(), rfc3339_ms(snapshot.as_of_ms), snapshot.epoch.0);
    Ok(json::to_vec(&Listed { period, as_of, epoch, periods, next_before }).into())
}

/// Start and entry of a current period.
fn of_board(board: &Board) -> Option<(u64, ListedPeriod)> {
    let start_ms = board.start_ms?;
    let (start_time, end_time) = (rfc3339(start_ms), rfc3339(board.end_ms));
    Some((start_ms, ListedPeriod { start_time, end_time, total_views: board.total_views, r#final: false }))
}
