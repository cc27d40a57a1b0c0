//! Calendar periods in UTC: which hour, day and month a minute lies in, and how late a view may come for each.
//!
//! Pure arithmetic; no clock. A test may use a calendar whose hours, days and months are shorter, so that months pass
//! in a moment. Invariant: hours divide days and days divide months, so for every time `end of hour ≤ end of day ≤
//! end of month`, and the finality classes are ordered. Calendar arithmetic after H. Hinnant, "chrono-Compatible
//! Low-Level Date Algorithms".

use std::ops::Range;

use crate::time::{FinalityClass, MINUTE_MS, Minute};

/// Calendar periods: hour, day, month.
pub const CALENDAR_PERIODS: usize = 3;

/// Minutes of a UTC day.
const DAY_MINUTES: u32 = 24 * 60;

/// A calendar period's kind, shortest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CalendarPeriod {
    /// A UTC hour.
    Hour = 0,
    /// A UTC day.
    Day = 1,
    /// A UTC month.
    Month = 2,
}

impl CalendarPeriod {
    /// Every kind, shortest first.
    pub const ALL: [Self; CALENDAR_PERIODS] = [Self::Hour, Self::Day, Self::Month];

    /// The latest class whose views count in a period of this kind: they came before its finality.
    #[must_use]
    pub const fn class_max(self) -> FinalityClass {
        FinalityClass(self as u8)
    }
}

/// How long a calendar's months are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MonthLength {
    /// As in UTC, with leap days.
    Utc,
    /// So many of the calendar's days.
    Days(u32),
}

/// How minutes fall into hours, days and months.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Minutes of an hour.
    hour_minutes: u32,
    /// Minutes of a day, a multiple of an hour's.
    day_minutes: u32,
    month: MonthLength,
}

impl Default for Calendar {
    fn default() -> Self {
        Self { hour_minutes: 60, day_minutes: DAY_MINUTES, month: MonthLength::Utc }
    }
}

impl Calendar {
    /// A calendar of shorter periods, for tests: so many minutes an hour, hours a day, days a month.
    ///
    /// # Panics
    /// When one is 0.
    #[must_use]
    pub const fn scaled(hour_minutes: u32, day_hours: u32, month_days: u32) -> Self {
        assert!(hour_minutes > 0 && day_hours > 0 && month_days > 0, "a period has at least a minute");
        Self { hour_minutes, day_minutes: hour_minutes * day_hours, month: MonthLength::Days(month_days) }
    }

    /// The period of a kind that `minute` lies in. One that would end after the last minute ends there.
    #[must_use]
    pub fn period_at(&self, kind: CalendarPeriod, minute: Minute) -> Range<Minute> {
        let (start, end) = match (kind, self.month) {
            (CalendarPeriod::Hour, _) => multiples(minute, self.hour_minutes),
            (CalendarPeriod::Day, _) => multiples(minute, self.day_minutes),
            (CalendarPeriod::Month, MonthLength::Days(days)) => multiples(minute, self.day_minutes * days),
            (CalendarPeriod::Month, MonthLength::Utc) => utc_month(minute),
        };
        Minute(u32::try_from(start).unwrap_or(u32::MAX))..Minute(u32::try_from(end).unwrap_or(u32::MAX))
    }

    /// Minutes of a period of this kind at most.
    #[must_use]
    pub fn minutes_max(&self, kind: CalendarPeriod) -> u32 {
        match (kind, self.month) {
            (CalendarPeriod::Hour, _) => self.hour_minutes,
            (CalendarPeriod::Day, _) => self.day_minutes,
            (CalendarPeriod::Month, MonthLength::Days(days)) => self.day_minutes * days,
            (CalendarPeriod::Month, MonthLength::Utc) => 31 * DAY_MINUTES,
        }
    }

    /// The class of a view of `event_ms` whose logged arrival is `arrival_ms`. Arrival exactly at a deadline is too
    /// late.
    #[must_use]
    pub fn class_of(&self, event_ms: u64, arrival_ms: u64, lateness_max_ms: u64) -> FinalityClass {
        let minute = Minute::of_ms(event_ms);
        let in_time = |kind: &CalendarPeriod| {
            let end = self.period_at(*kind, minute).end;
            arrival_ms < end.start_ms().saturating_add(lateness_max_ms)
        };
        // Nearly every view comes in time, and one that came before its minute was over is in time whatever its hour.
        if arrival_ms < event_ms.saturating_add(lateness_max_ms.min(MINUTE_MS)) {
            return FinalityClass::IN_HOUR;
        }
        CalendarPeriod::ALL.iter().find(|kind| in_time(kind)).map_or(FinalityClass::MAX, |kind| kind.class_max())
    }
}

/// The multiples of `length` around a minute.
fn multiples(minute: Minute, length: u32) -> (u64, u64) {
    let start = u64::from(minute.0 - minute.0 % length);
    (start, start + u64::from(length))
}

/// Start and end of the UTC month of a minute, in minutes.
fn utc_month(minute: Minute) -> (u64, u64) {
    let (year, month) = year_month_of_day(u64::from(minute.0 / DAY_MINUTES));
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let start_of = |year, month| day_of_month_start(year, month) * u64::from(DAY_MINUTES);
    (start_of(year, month), start_of(next_year, next_month))
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

    const HOUR_MS: u64 = 60 * MINUTE_MS;
    const DAY_MS: u64 = 24 * HOUR_MS;

    fn days_in_month(year: u64, month: u64) -> u32 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    #[test]
    fn every_month_until_2500_agrees_with_counting_days() {
        let calendar = Calendar::default();
        let mut day = 0;
        for year in 1970..2500 {
            for month in 1..=12 {
                let start = Minute(day * DAY_MINUTES);
                day += days_in_month(year, month);
                let end = Minute(day * DAY_MINUTES);
                for minute in [start, end.minus(1)] {
                    assert_eq!(calendar.period_at(CalendarPeriod::Month, minute), start..end, "{year}-{month}");
                }
            }
        }
    }

    #[test]
    fn hours_and_days_begin_at_their_multiples() {
        let calendar = Calendar::default();
        let minute = Minute(DAY_MINUTES * 100 + 61);
        let start = |minutes| Minute(DAY_MINUTES * 100 + minutes);
        assert_eq!(calendar.period_at(CalendarPeriod::Hour, minute), start(60)..start(120));
        assert_eq!(calendar.period_at(CalendarPeriod::Day, minute), start(0)..start(DAY_MINUTES));
        let scaled = Calendar::scaled(6, 4, 10);
        assert_eq!(scaled.period_at(CalendarPeriod::Hour, Minute(245)), Minute(240)..Minute(246));
        assert_eq!(scaled.period_at(CalendarPeriod::Day, Minute(245)), Minute(240)..Minute(264));
        assert_eq!(scaled.period_at(CalendarPeriod::Month, Minute(245)), Minute(240)..Minute(480));
        for kind in CalendarPeriod::ALL {
            assert_eq!(calendar.period_at(kind, Minute(u32::MAX)).end, Minute(u32::MAX), "it ends with time");
        }
    }

    #[test]
    fn classes_change_exactly_at_the_deadlines() {
        // 2024-02-29T22:30:00Z: hour, day and month end within 90 minutes of each other.
        let event_ms = 1_709_245_800_000;
        let lateness_ms = 600_000;
        let hour_end_ms = event_ms + 30 * MINUTE_MS;
        let month_end_ms = event_ms + 90 * MINUTE_MS;
        let class = |arrival_ms| Calendar::default().class_of(event_ms, arrival_ms, lateness_ms).0;
        assert_eq!(class(event_ms - 60_000), 0);
        assert_eq!(class(hour_end_ms + lateness_ms - 1), 0);
        assert_eq!(class(hour_end_ms + lateness_ms), 1);
        assert_eq!(class(month_end_ms + lateness_ms - 1), 1);
        assert_eq!(class(month_end_ms + lateness_ms), 3);
        // Ten days earlier the day ends long before the month.
        let event_ms = event_ms - 10 * DAY_MS;
        let day_end_ms = event_ms + 90 * MINUTE_MS;
        let class = |arrival_ms| Calendar::default().class_of(event_ms, arrival_ms, lateness_ms).0;
        assert_eq!(class(day_end_ms + lateness_ms), 2);
        assert_eq!(class(month_end_ms + lateness_ms), 3);
    }

    #[test]
    fn without_any_lateness_a_view_counts_until_its_period_ends() {
        let event_ms = 1_709_245_800_000;
        let class = |arrival_ms| Calendar::default().class_of(event_ms, arrival_ms, 0).0;
        assert_eq!(class(event_ms + 30 * MINUTE_MS - 1), 0);
        assert_eq!(class(event_ms + 30 * MINUTE_MS), 1);
    }

    #[test]
    fn classes_stop_at_the_end_of_time() {
        assert_eq!(Calendar::default().class_of(u64::MAX, u64::MAX, u64::MAX), FinalityClass::MAX);
    }
}
