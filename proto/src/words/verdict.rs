//! Verdicts: why a view or a whole batch was refused.
//!
//! What it is for: the closed lists of reasons, the same in acks, log records, metrics and reports. What it is not: the
//! decision itself, which the pipeline makes. Invariant: a reason's number never changes its meaning; 0 is no reason.

use std::fmt;

/// Why one view of an accepted batch was not counted. Final: a retry of the batch gets the same verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ViewRefusal {
    /// The event time is more than the engine's `skew_max` ahead of its clock.
    FutureBeyondSkew = 1,
    /// The video is new and the table of videos is full.
    TableFull = 2,
    /// The event time is beyond the year 9999.
    TimeOutOfRange = 3,
}

/// Why a whole batch was refused. Not final: its sequence is not used up, and the same bytes may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BatchRefusal {
    /// An earlier batch of this producer was refused and has not come back yet.
    AfterRefusal = 1,
    /// The log has no room on its disk.
    DiskFull = 2,
    /// The memory budget is used up.
    MemoryFull = 3,
    /// Intake has stopped because the engine's clocks disagree.
    ClockStopped = 4,
    /// The engine is shutting down.
    Stopping = 5,
}

impl ViewRefusal {
    /// Every reason, by ascending number.
    pub const ALL: [Self; 3] = [Self::FutureBeyondSkew, Self::TableFull, Self::TimeOutOfRange];

    /// The reason's name in metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FutureBeyondSkew => "future_beyond_skew",
            Self::TableFull => "table_full",
            Self::TimeOutOfRange => "time_out_of_range",
        }
    }

    /// The reason's number on the wire and on disk.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl BatchRefusal {
    /// Every reason, by ascending number.
    pub const ALL: [Self; 5] =
        [Self::AfterRefusal, Self::DiskFull, Self::MemoryFull, Self::ClockStopped, Self::Stopping];

    /// The reason's name in metrics and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AfterRefusal => "after_refusal",
            Self::DiskFull => "disk_full",
            Self::MemoryFull => "memory_full",
            Self::ClockStopped => "clock_stopped",
            Self::Stopping => "stopping",
        }
    }

    /// The reason's number on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The reason with that number.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

impl fmt::Display for ViewRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for BatchRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A run of neighbouring views of one batch refused for one reason.
///
/// A batch's ranges are ascending, disjoint and maximal: two that touch have different reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusedRange {
    /// Index of the first view in the batch, from 0; [`RefusedRange::FIRST_UNKNOWN`] where only totals by reason are
    /// known.
    pub first: u32,
    /// How many views, at least 1.
    pub count: u32,
    /// Why.
    pub reason: ViewRefusal,
}

impl RefusedRange {
    /// Stands for `first` where the engine no longer knows which views it refused.
    pub const FIRST_UNKNOWN: u32 = u32::MAX;

    /// The index after the last view of the range; meaningless where `first` is unknown.
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }

    /// Adds the verdict on view `index` to `ranges`, growing the last range where it continues it.
    ///
    /// # Panics
    /// In debug builds, if `index` is not beyond every range.
    pub fn push_view(ranges: &mut Vec<Self>, index: u32, reason: ViewRefusal) {
        if let Some(last) = ranges.last_mut() {
            debug_assert!(last.end() <= index, "views are judged in order");
            if last.end() == index && last.reason == reason {
                last.count += 1;
                return;
            }
        }
        ranges.push(Self { first: index, count: 1, reason });
    }

    /// How many views all `ranges` hold.
    pub fn total(ranges: &[Self]) -> u32 {
        ranges.iter().fold(0, |sum, range| sum.saturating_add(range.count))
    }

    /// Replaces `ranges` by one total per reason with unknown first views, by ascending reason: what an incomplete ack
    /// carries.
    pub fn totals(ranges: &[Self]) -> Vec<Self> {
        ViewRefusal::ALL
            .into_iter()
            .filter_map(|reason| {
                let of_reason = ranges.iter().filter(|range| range.reason == reason);
                let count = of_reason.fold(0u32, |sum, range| sum.saturating_add(range.count));
                (count > 0).then_some(Self { first: Self::FIRST_UNKNOWN, count, reason })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ViewRefusal::{FutureBeyondSkew, TableFull};

    #[test]
    fn every_reason_is_found_by_its_number() {
        for reason in ViewRefusal::ALL {
            assert_eq!(ViewRefusal::from_code(reason.code()), Some(reason));
        }
        for reason in BatchRefusal::ALL {
            assert_eq!(BatchRefusal::from_code(reason.code()), Some(reason));
        }
        assert_eq!((ViewRefusal::from_code(0), BatchRefusal::from_code(0)), (None, None));
        assert_eq!((ViewRefusal::from_code(4), BatchRefusal::from_code(6)), (None, None));
    }

    #[test]
    fn pushed_views_form_maximal_ranges() {
        let mut ranges = Vec::new();
        for (index, reason) in [(0, TableFull), (1, TableFull), (2, FutureBeyondSkew), (5, FutureBeyondSkew)] {
            RefusedRange::push_view(&mut ranges, index, reason);
        }
        let expected = [(0, 2, TableFull), (2, 1, FutureBeyondSkew), (5, 1, FutureBeyondSkew)];
        assert_eq!(ranges, expected.map(|(first, count, reason)| RefusedRange { first, count, reason }));
        assert_eq!(RefusedRange::total(&ranges), 4);
        let first = RefusedRange::FIRST_UNKNOWN;
        let totals =
            [(2, FutureBeyondSkew), (2, TableFull)].map(|(count, reason)| RefusedRange { first, count, reason });
        assert_eq!(RefusedRange::totals(&ranges), totals);
    }
}
