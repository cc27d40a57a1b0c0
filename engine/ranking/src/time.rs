//! Minutes of engine and event time, and the classes that tell how late a view came.
//!
//! Not which period a minute lies in, which is the calendar's. Invariant: times beyond what fits give the last minute.

/// Milliseconds of one minute.
pub(crate) const MINUTE_MS: u64 = 60_000;

/// A minute of UTC, counted from 1970-01-01T00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(pub u32);

impl Minute {
    /// The minute that `time_ms` (milliseconds UTC since 1970) lies in. Times beyond the last
    /// minute that fits (the year 10136) give that minute.
    #[must_use]
    pub fn of_ms(time_ms: u64) -> Self {
        Self(u32::try_from(time_ms / MINUTE_MS).unwrap_or(u32::MAX))
    }

    /// The minute `minutes` earlier, not before 1970.
    #[must_use]
    pub fn minus(self, minutes: u32) -> Self {
        Self(self.0.saturating_sub(minutes))
    }

    /// The first millisecond of this minute.
    #[must_use]
    pub fn start_ms(self) -> u64 {
        u64::from(self.0) * MINUTE_MS
    }

    /// The first millisecond after this minute.
    #[must_use]
    pub fn end_ms(self) -> u64 {
        self.start_ms() + MINUTE_MS
    }
}

/// Which of a view's calendar periods were not yet final when it arrived: 0 its hour (and so all
/// of them), 1 its day, 2 its month, 3 none. A period is final `lateness_max` after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FinalityClass(pub u8);

impl FinalityClass {
    /// Before the finality of its hour.
    pub const IN_HOUR: Self = Self(0);
    /// The largest class: after the finality of its month.
    pub const MAX: Self = Self(3);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_stop_at_both_ends_of_time() {
        assert_eq!(Minute::of_ms(59_999), Minute(0));
        assert_eq!(Minute::of_ms(60_000), Minute(1));
        assert_eq!(Minute::of_ms(u64::MAX), Minute(u32::MAX));
        assert_eq!(Minute(5).minus(6), Minute(0));
        assert_eq!(Minute(u32::MAX).end_ms(), (u64::from(u32::MAX) + 1) * MINUTE_MS);
    }
}
