//! History as it is asked for: the final lists of closed calendar hours, days and months.
//!
//! What it is not: how periods are closed and kept; see the storage crate. Invariants: a list never changes once it is
//! final; periods that are listed stand newest first and do not overlap.

use super::{BoardRow, InstanceId, Period};

/// The final ranking of one closed UTC hour, day or month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedList {
    /// Hour, day or month; never all-time.
    pub period: Period,
    /// When the period begins, inclusive, milliseconds since 1970 (UTC).
    pub start_ms: u64,
    /// When it ends, exclusive.
    pub end_ms: u64,
    /// The views of all videos in the period, listed or not; at least 1, and at least the sum of the rows.
    pub total_views: u64,
    /// The top rows, in the order of a board's.
    pub rows: Vec<BoardRow>,
}

/// One closed period that has a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedPeriod {
    /// When it begins, inclusive, milliseconds since 1970 (UTC).
    pub start_ms: u64,
    /// When it ends, exclusive.
    pub end_ms: u64,
    /// Views in it, at least 1.
    pub total_views: u64,
}

/// How far history reaches for one period, when a question was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistoryBounds {
    /// Each period that ends at this time or before is final, and has a list if it had a view; 0 = none is yet.
    pub closed_until_ms: u64,
    /// Start of the oldest period that has a list; none where no period has one.
    pub oldest_start_ms: Option<u64>,
    /// How long after its end a period is final.
    pub lateness_max_ms: u64,
}

/// The engine has what was asked for and cannot read it; its log says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The answer to a question for one closed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryAnswer {
    /// The data directory it came from.
    pub instance: InstanceId,
    /// The period asked for.
    pub period: Period,
    /// The start asked for.
    pub start_ms: u64,
    /// How far history reached before the list was looked for.
    pub bounds: HistoryBounds,
    /// The list, if there is one.
    pub list: Result<Option<ClosedList>, Unreadable>,
}

/// The answer to a question for the closed periods there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeriodsAnswer {
    /// The data directory it came from.
    pub instance: InstanceId,
    /// The period asked for.
    pub period: Period,
    /// How far history reached.
    pub bounds: HistoryBounds,
    /// What there is.
    pub periods: Result<ClosedPeriods, Unreadable>,
}

/// Closed periods of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedPeriods {
    /// The newest first.
    pub periods: Vec<ClosedPeriod>,
    /// Whether there are older ones.
    pub more: bool,
}
