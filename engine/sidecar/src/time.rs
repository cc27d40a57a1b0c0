//! Times as readers write and read them, and the calendar periods that they lie in.
//!
//! What it is not: a clock; what time it is says the snapshot. Invariant: hours, days and months are those of UTC, and
//! every time is between 1970 and 9999. Source: RFC 3339.

use highwater_proto::Period;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// What a time may be, for people.
pub(crate) const ALLOWED: &str = "a time of RFC 3339 from 1970 on, such as 2024-07-15T00:00:00Z or 2024-07-15Z";

const MS_NS: i128 = 1_000_000;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// A time that a reader has written: milliseconds since 1970, and whether it lies a little beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) ms: u64,
    pub(crate) and_a_part: bool,
}

/// Reads a date and time with any offset, or a date alone with `Z`. A `+` that a query has turned into a space is taken
/// for what it was.
pub(crate) fn parse(text: &str) -> Option<Written> {
    let date_alone = text.strip_suffix(['Z', 'z']).filter(|date| date.len() == "2024-07-15".len());
    let time = if let Some(date) = date_alone {
        date.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()
    } else {
        let date_and_time = text.contains(['T', 't']) && !text.contains('[');
        let plus = text.len().checked_sub("+00:00".len()).filter(|at| text.as_bytes().get(*at) == Some(&b' '));
        let restored = plus.map(|at| format!("{}+{}", &text[..at], &text[at + 1..]));
        date_and_time.then(|| restored.as_deref().unwrap_or(text).parse::<Timestamp>().ok()).flatten()?
    };
    let ns = time.as_nanosecond();
    let ms = u64::try_from(ns.div_euclid(MS_NS)).ok()?;
    Some(Written { ms, and_a_part: ns.rem_euclid(MS_NS) > 0 })
}

/// RFC 3339 in UTC, with milliseconds only where there are any.
pub(crate) fn rfc3339(time_ms: u64) -> String {
    let time = timestamp(time_ms);
    if time_ms.is_multiple_of(1000) { format!("{time:.0}") } else { format!("{time:.3}") }
}

/// RFC 3339 in UTC, always with milliseconds.
pub(crate) fn rfc3339_ms(time_ms: u64) -> String {
    format!("{:.3}", timestamp(time_ms))
}

/// Start and end of the hour, day or month that a time lies in; an end that cannot be written is the last time that
/// can. All-time has neither start nor end.
pub(crate) fn period_at(period: Period, time_ms: u64) -> Option<(u64, u64)> {
    let multiple = |length_ms: u64| {
        let start = time_ms - time_ms % length_ms;
        Some((start, start.saturating_add(length_ms)))
    };
    match period {
        Period::Hour => multiple(HOUR_MS),
        Period::Day => multiple(DAY_MS),
        Period::Month => {
            let first = timestamp(time_ms).to_zoned(TimeZone::UTC).date().first_of_month();
            let next = first.checked_add(1.month()).ok().and_then(start_of);
            Some((start_of(first)?, next.unwrap_or_else(|| Timestamp::MAX.as_millisecond().unsigned_abs())))
        }
        Period::AllTime => None,
    }
}

/// When a day of 1970 or later begins in UTC.
fn start_of(date: Date) -> Option<u64> {
    let time = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(time.as_millisecond()).ok()
}

/// Times beyond what can be written are written as the last that can.
fn timestamp(time_ms: u64) -> Timestamp {
    i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-07-15T00:00:00Z.
    const DAY_START_MS: u64 = 1_721_001_600_000;

    #[test]
    fn every_way_to_write_a_time_gives_the_same() {
        for text in [
            "2024-07-15T00:00:00Z",
            "2024-07-15t00:00:00z",
            "2024-07-15Z",
            "2024-07-15z",
            "2024-07-15T00:00:00.000Z",
            "2024-07-15T00:00:00+00:00",
            "2024-07-15T00:00:00-00:00",
            "2024-07-15T02:00:00+02:00",
            "2024-07-15T02:00:00 02:00",
            "2024-07-14T18:30:00-05:30",
        ] {
            assert_eq!(parse(text), Some(Written { ms: DAY_START_MS, and_a_part: false }), "{text}");
        }
        let later = parse("2024-07-15T00:00:00.0070001Z");
        assert_eq!(later, Some(Written { ms: DAY_START_MS + 7, and_a_part: true }));
    }

    #[test]
    fn what_is_no_time_or_has_no_zone_is_refused() {
        for text in [
            "",
            "Z",
            "now",
            "1721001600000",
            "2024-07-15",
            "2024-07-15T00:00:00",
            "2024-07-15 00:00:00Z",
            "2024-07-15 00:00",
            "2024-07-15 00:00:00 00:00",
            "2024-02-30Z",
            "2024-07-15T25:00:00Z",
            "2024-07-15T00:00:00Z[Europe/Berlin]",
            "1969-12-31Z",
            "1969-12-31T23:59:59.9999Z",
            "2024-07-15T00:00:00Zé",
            "éééééééééZ",
            "2024-07-15T00:00:0é 0000",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn months_are_as_long_as_they_are() {
        let month =
            |text: &str| period_at(Period::Month, parse(text).unwrap().ms).map(|(a, b)| (rfc3339(a), rfc3339(b)));
        let bounds = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(month("2024-02-29T23:59:59.999Z"), bounds("2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"));
        assert_eq!(month("2024-12-01Z"), bounds("2024-12-01T00:00:00Z", "2025-01-01T00:00:00Z"));
        assert_eq!(month("1970-01-01Z"), bounds("1970-01-01T00:00:00Z", "1970-02-01T00:00:00Z"));
        assert_eq!(period_at(Period::Hour, DAY_START_MS + HOUR_MS - 1), Some((DAY_START_MS, DAY_START_MS + HOUR_MS)));
        assert_eq!(period_at(Period::Day, DAY_START_MS), Some((DAY_START_MS, DAY_START_MS + DAY_MS)));
        assert_eq!(period_at(Period::AllTime, DAY_START_MS), None);
        for period in [Period::Hour, Period::Day, Period::Month] {
            let (start, end) = period_at(period, u64::MAX).unwrap();
            assert!(start < end, "{period}");
        }
    }
}
