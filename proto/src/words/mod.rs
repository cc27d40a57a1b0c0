//! The shared words: one type for each thing that several parts of Highwater speak of.
//!
//! What it is for: ids, times, periods, views, verdicts and rankings as plain data. What it is not: their bytes on the
//! wire, which the frame modules own. Invariant: a word's text form (`as_str`, `Display`) is the one that users see in
//! JSON, metrics and logs.

mod history;
mod ids;
mod period;
mod ranking;
mod verdict;
mod view;

pub use history::{ClosedList, ClosedPeriod, ClosedPeriods, HistoryAnswer, HistoryBounds, PeriodsAnswer, Unreadable};
pub use ids::{Epoch, InstanceId, ProducerId, Sequence, TimestampMs};
pub use period::{LISTS, Period, Window};
pub use ranking::{Board, BoardRow, PeriodCount, Snapshot, VideoCounts};
pub use verdict::{BatchRefusal, RefusedRange, ViewRefusal};
pub use view::View;
