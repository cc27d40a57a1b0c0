//! Minutes of engine and event time, and how late a view may come before a period is final.
//!
//! Pure arithmetic on UTC; no clock. Invariant: `end of hour ≤ end of day ≤ end of month` for
//! every time, so the finality classes are ordered. Calendar arithmetic after H. Hinnant,
//! "chrono-Compatible Low-Level Date Algorithms".

/// Milliseconds of one minute.
pub(crate) const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

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

    /// The class of a view of `event_ms` whose logged arrival is `arrival_ms`. Arrival exactly at
    /// the deadline is too late.
    #[must_use]
    pub fn of(event_ms: u64, arrival_ms: u64, lateness_max_ms: u64) -> Self {
        let in_time = |end_ms: u64| arrival_ms < end_ms.saturating_add(lateness_max_ms);
        if in_time(next_multiple(event_ms, HOUR_MS)) {
            Self(0)
        } else if in_time(next_multiple(event_ms, DAY_MS)) {
            Self(1)
        } else if in_time(month_end_ms(event_ms)) {
            Self(2)
        } else {
            Self(3)
        }
    }
}

/// The end of the period of `length_ms` that `time_ms` lies in.
fn next_multiple(time_ms: u64, length_ms: u64) -> u64 {
    (time_ms / length_ms).saturating_add(1).saturating_mul(length_ms)
}

/// The first millisecond after the UTC month that `time_ms` lies in.
fn month_end_ms(time_ms: u64) -> u64 {
    let (year, month) = year_month_of_day(time_ms / DAY_MS);
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    day_of_month_start(year, month).saturating_mul(DAY_MS)
}

/// Year and month (1 to 12) of a day counted from 1970-01-01.
fn year_month_of_day(day: u64) -> (u64, u64) {
    let shifted = day + 719_468; // days since 0000-03-01
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153; // 0 is March
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month)
}

/// The day, counted from 1970-01-01, that a month of 1970 or later starts on.
fn day_of_month_start(year: u64, month: u64) -> u64 {
    let march_year = if month <= 2 { year - 1 } else { year };
    let era = march_year / 400;
    let year_of_era = march_year % 400;
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * march_month + 2) / 5;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn days_in_month(year: u64, month: u64) -> u64 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 => 28 + u64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn every_month_end_until_2500_agrees_with_counting_days() {
        let mut day = 0;
        for year in 1970..2500 {
            for month in 1..=12 {
                let start_ms = day * DAY_MS;
                day += days_in_month(year, month);
                assert_eq!(month_end_ms(start_ms), day * DAY_MS, "{year}-{month}");
                assert_eq!(month_end_ms(day * DAY_MS - 1), day * DAY_MS, "{year}-{month}");
            }
        }
    }

    #[test]
    fn classes_change_exactly_at_the_deadlines() {
        // 2024-02-29T22:30:00Z: hour, day and month end within 90 minutes of each other.
        let event_ms = 1_709_245_800_000;
        let lateness_ms = 600_000;
        let hour_end_ms = event_ms + 30 * MINUTE_MS;
        let month_end_ms = event_ms + 90 * MINUTE_MS;
        let class = |arrival_ms| FinalityClass::of(event_ms, arrival_ms, lateness_ms).0;
        assert_eq!(class(event_ms - 60_000), 0);
        assert_eq!(class(hour_end_ms + lateness_ms - 1), 0);
        assert_eq!(class(hour_end_ms + lateness_ms), 1);
        assert_eq!(class(month_end_ms + lateness_ms - 1), 1);
        assert_eq!(class(month_end_ms + lateness_ms), 3);
        // Ten days earlier the day ends long before the month.
        let event_ms = event_ms - 10 * DAY_MS;
        let day_end_ms = event_ms + 90 * MINUTE_MS;
        let class = |arrival_ms| FinalityClass::of(event_ms, arrival_ms, lateness_ms).0;
        assert_eq!(class(day_end_ms + lateness_ms), 2);
        assert_eq!(class(month_end_ms + lateness_ms), 3);
    }

    #[test]
    fn minutes_stop_at_both_ends_of_time() {
        assert_eq!(Minute::of_ms(59_999), Minute(0));
        assert_eq!(Minute::of_ms(60_000), Minute(1));
        assert_eq!(Minute::of_ms(u64::MAX), Minute(u32::MAX));
        assert_eq!(Minute(5).minus(6), Minute(0));
        assert_eq!(Minute(u32::MAX).end_ms(), (u64::from(u32::MAX) + 1) * MINUTE_MS);
        assert_eq!(FinalityClass::of(u64::MAX, u64::MAX, u64::MAX), FinalityClass::MAX);
    }
}
