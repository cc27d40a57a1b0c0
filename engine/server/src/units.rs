//! Values with units, read and written: sizes, durations, switches, addresses, CPUs, host names.
//!
//! What it is not: a list of settings; which of them takes what is said in `args.rs`. Invariant: every refusal says
//! what is allowed and gives an example, and what [`size_text`] and [`duration_text`] write is read back as the same
//! value.

use crate::config::nearest::did_you_mean;
use bytesize::ByteSize;
use highwater_proto::limits::HOST_BYTES_MAX;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rustls_pki_types::ServerName;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Units of sizes with their bytes; read in whatever case.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Units of durations with their milliseconds. The library that reads them knows more, among them `M` for months.
const DURATION_UNITS: [(&str, u128); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Words for switches.
const SWITCH_WORDS: [(&str, bool); 6] =
    [("true", true), ("false", false), ("1", true), ("0", false), ("yes", true), ("no", false)];

/// Reads a size such as `4GiB` or `1.5 GB`, within `allowed` bytes.
///
/// # Errors
/// A text that says what is allowed.
pub fn size(text: &str, allowed: RangeInclusive<u64>) -> Result<ByteSize, String> {
    let (number, unit) = split_unit(text);
    let units = SIZE_UNITS.map(|(name, _)| name);
    let example = if number.is_empty() { "4" } else { number };
    let choice = format!("allowed are {}, such as {example}GiB", units.join(", "));
    if number.is_empty() {
        return Err(format!("a size is a number with its unit: {choice}"));
    }
    if unit.is_empty() {
        return Err(format!("its unit is missing: {choice}"));
    }
    let Some((_, unit_bytes)) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)) else {
        let tip = did_you_mean(unit, units);
        return Err(format!("unit {unit:?} is unknown: {choice}{tip}"));
    };
    let bytes = scaled(number, *unit_bytes)
        .ok_or_else(|| format!("{number:?} {unit} is no whole number of bytes: {choice}"))?;
    let limits = || format!("{} to {} are allowed", size_text(*allowed.start()), size_text(*allowed.end()));
    match u64::try_from(bytes) {
        Ok(bytes) if allowed.contains(&bytes) => Ok(ByteSize::b(bytes)),
        _ => Err(limits()),
    }
}

/// A size in the largest binary unit that is whole, such as `4GiB`.
pub fn size_text(bytes: u64) -> String {
    let whole = SIZE_UNITS.iter().take(5).rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

/// Number and unit of a text, without the space around them.
fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A decimal number times a unit, if that is whole bytes.
fn scaled(number: &str, unit_bytes: u64) -> Option<u128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    // More digits than these would not fit, and no size needs them.
    if part.is_empty() || part.len() > 9 {
        return None;
    }
    let whole = u128::from(whole.parse::<u64>().ok()?) * u128::from(unit_bytes);
    let parts = 10u128.pow(part.len() as u32);
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(unit_bytes);
    part.is_multiple_of(parts).then_some(whole + part / parts)
}

/// Reads a duration such as `60s` or `1m 30s`, of whole milliseconds within `allowed`.
///
/// # Errors
/// A text that says what is allowed.
pub fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    use humantime::DurationError;
    let (number, _) = split_unit(text);
    let example = if number.is_empty() { "10" } else { number };
    let known = DURATION_UNITS.map(|(name, _)| name);
    let choice = format!("allowed are {}, such as {example}s", known.join(", "));
    let units = text.split(|one: char| one.is_ascii_digit() || one == '.' || one.is_whitespace());
    if let Some(unit) = units.filter(|unit| !unit.is_empty()).find(|unit| !known.contains(unit))
        && !number.is_empty()
    {
        return Err(format!("unit {unit:?} is unknown: {choice}{}", did_you_mean(unit, known)));
    }
    if number == text.trim() && !number.is_empty() {
        return Err(format!("its unit is missing: {choice}"));
    }
    let found = humantime::parse_duration(text).map_err(|error| match error {
        DurationError::UnknownUnit { .. } => format!("its unit is missing: {choice}"),
        _ => format!("a duration is a number with its unit: {choice}"),
    })?;
    if !allowed.contains(&found) {
        let (least, most) = (duration_text(*allowed.start()), duration_text(*allowed.end()));
        return Err(format!("{least} to {most} are allowed"));
    }
    if !found.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("only whole milliseconds are counted: round it to ms".to_owned());
    }
    Ok(found)
}

/// A duration in the largest unit that is whole, such as `90s`; parts of a millisecond are left out.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let whole =
        DURATION_UNITS.iter().rev().find(|(_, unit)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    whole.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", milliseconds / unit))
}

/// How much of something is kept: by age and by size, whichever is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// For how long.
    pub age: Duration,
    /// How many bytes.
    pub size: ByteSize,
}

/// What may be asked to be kept. A file of the archive is at most a little longer than a segment, and fits.
const KEPT_AGE: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(3650 * 24 * 3600);
const KEPT_BYTES: RangeInclusive<u64> = 128 << 20..=1 << 50;
const _: () = assert!(*KEPT_BYTES.start() >= 2 * highwater_storage::SEGMENT_BYTES_DEFAULT);

/// Reads a duration and a size with a comma between, in either order, such as `24h,10GiB`.
///
/// # Errors
/// A text that says what is allowed.
pub fn kept(text: &str) -> Result<Kept, String> {
    let choice = "what is kept is a duration and a size with a comma between, such as 24h,10GiB";
    let Some((one, other)) = text.split_once(',').filter(|(_, other)| !other.contains(',')) else {
        return Err(choice.to_owned());
    };
    let is_duration = |text: &str| DURATION_UNITS.iter().any(|(name, _)| text.trim().ends_with(name));
    let (age, bytes) = if is_duration(one) || !is_duration(other) { (one, other) } else { (other, one) };
    let age = duration(age, KEPT_AGE).map_err(|error| format!("{:?}: {error}; {choice}", age.trim()))?;
    let size = size(bytes, KEPT_BYTES).map_err(|error| format!("{:?}: {error}; {choice}", bytes.trim()))?;
    Ok(Kept { age, size })
}

/// Reads a time in whole milliseconds since 1970: RFC 3339, or a date, which stands for its first moment in UTC.
///
/// # Errors
/// A text that says what is allowed.
pub fn time_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let is_date = text.len() == "2024-07-15".len();
    let found: Option<Timestamp> = if is_date {
        let date: Option<Date> = text.parse().ok();
        date.and_then(|date| date.to_zoned(TimeZone::UTC).ok()).map(|zoned| zoned.timestamp())
    } else {
        text.parse().ok()
    };
    let Some(found) = found else {
        return Err("a time is RFC 3339 or a date in UTC, such as 2024-07-15T18:00:00Z or 2024-07-15".to_owned());
    };
    if found.subsec_nanosecond() % 1_000_000 != 0 {
        return Err("only whole milliseconds are kept: round it to three digits behind the second".to_owned());
    }
    u64::try_from(found.as_millisecond()).map_err(|_| "times before 1970 are not counted".to_owned())
}

/// A time as RFC 3339 in UTC, with as many digits behind the second as it needs.
pub fn time_text(time_ms: u64) -> String {
    let time = i64::try_from(time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

/// Reads what a switch is set to.
///
/// # Errors
/// A text that says what is allowed.
pub fn switch(text: &str) -> Result<bool, String> {
    let known = SWITCH_WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim()));
    let words = SWITCH_WORDS.map(|(word, _)| word).join(", ");
    known.map(|(_, value)| *value).ok_or_else(|| format!("a switch is on or off: allowed are {words}"))
}

/// Reads an address to listen on: no name, since a name may stand for several.
///
/// # Errors
/// A text that says what is allowed.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "an address to listen on is an IP address and a port up to 65535, such as 127.0.0.1:8080, 0.0.0.0:8080 or \
         [::1]:8080"
            .to_owned()
    })
}

/// Reads an address to dial: a host and a port.
///
/// # Errors
/// A text that says what is allowed.
pub fn remote(text: &str) -> Result<String, String> {
    let parts = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
    let is_host =
        |host: &str| !host.is_empty() && (!host.contains(':') || host.starts_with('[') && host.ends_with(']'));
    if parts.is_some_and(|(host, _)| is_host(host)) {
        return Ok(text.to_owned());
    }
    Err("an address to dial is a host and a port, such as engine.example:4433, 127.0.0.1:4433 or [::1]:4433".to_owned())
}

/// Reads where HTTP is answered, without a path.
///
/// # Errors
/// A text that says what is allowed.
pub fn http_url(text: &str) -> Result<String, String> {
    let url = text.trim_end_matches('/');
    let is_plain = |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
    if url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).is_some_and(is_plain) {
        return Ok(url.to_owned());
    }
    Err("where HTTP is answered is http:// or https://, a host and a port, such as http://127.0.0.1:8080".to_owned())
}

/// Reads a name that a certificate may bear: of a host, or an IP address.
///
/// # Errors
/// A text that says what is allowed.
pub fn certificate_name(text: &str) -> Result<String, String> {
    let name = text.trim();
    match ServerName::try_from(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => {
            Err("a certificate bears names of hosts and IP addresses, such as engine.example,10.0.0.1".to_owned())
        }
    }
}

/// Reads the number of a CPU.
///
/// # Errors
/// A text that says what is allowed.
pub fn cpu(text: &str) -> Result<usize, String> {
    text.trim().parse().map_err(|_| "CPUs are numbers from 0, with a comma between two, such as 0,1".to_owned())
}

/// Reads a host that clients are told: a name or an address without a port.
///
/// # Errors
/// A text that says what is allowed.
pub fn host(text: &str) -> Result<String, String> {
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if text.len() <= HOST_BYTES_MAX && (is_address || is_name) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "a host is a name or an IP address of up to {HOST_BYTES_MAX} characters without port, such as engine.example"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_SIZE: RangeInclusive<u64> = 0..=u64::MAX;
    const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

    #[test]
    fn times_are_read_with_their_offset_and_dates_in_utc() {
        for (text, time, canonical) in [
            ("2024-02-29", 1_709_164_800_000, "2024-02-29T00:00:00Z"),
            ("2024-02-29T01:30:00+01:30", 1_709_164_800_000, "2024-02-29T00:00:00Z"),
            ("2024-02-29t00:00:00.25z", 1_709_164_800_250, "2024-02-29T00:00:00.25Z"),
            ("1970-01-01", 0, "1970-01-01T00:00:00Z"),
            ("9999-12-30", 253_402_128_000_000, "9999-12-30T00:00:00Z"),
        ] {
            assert_eq!(time_ms(text), Ok(time), "{text}");
            assert_eq!(time_text(time), canonical, "{text}");
            assert_eq!(time_ms(canonical), Ok(time), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_an_example() {
        for text in
            ["", "now", "2024", "2024-02-30", "20240715", "2024-07-15T18:00", "2024-07-15T18:00:00", "1720000000"]
        {
            let refused = time_ms(text).unwrap_err();
            assert!(refused.contains("2024-07-15T18:00:00Z"), "{text}: {refused}");
        }
        assert!(time_ms("1969-12-31T23:59:59Z").unwrap_err().contains("before 1970"));
        assert!(time_ms("2024-07-15T18:00:00.0001Z").unwrap_err().contains("whole milliseconds"));
    }

    #[test]
    fn sizes_are_read_in_any_case_and_written_in_one() {
        for (text, bytes, canonical) in [
            ("4GiB", 4 << 30, "4GiB"),
            ("4gib", 4 << 30, "4GiB"),
            ("4 GIB", 4 << 30, "4GiB"),
            ("4096MiB", 4 << 30, "4GiB"),
            ("1.5GiB", 3 << 29, "1536MiB"),
            ("1gb", 1_000_000_000, "1000000000B"),
            ("1024kB", 1_024_000, "1000KiB"),
            ("0B", 0, "0B"),
        ] {
            assert_eq!(size(text, ANY_SIZE).unwrap().as_u64(), bytes, "{text}");
            assert_eq!(size_text(bytes), canonical, "{text}");
            assert_eq!(size(canonical, ANY_SIZE).unwrap().as_u64(), bytes, "{text}");
        }
    }

    #[test]
    fn a_size_without_its_unit_or_with_another_is_refused_with_those_allowed() {
        for (text, words) in [
            ("4", &["unit is missing", "KiB", "TB", "4GiB"][..]),
            ("4G", &["\"G\" is unknown", "GiB"]),
            ("4GiBi", &["\"GiBi\" is unknown", "did you mean GiB?"]),
            ("1.2.3GiB", &["no whole number"]),
            ("1.5B", &["no whole number of bytes"]),
            ("-4GiB", &["a number with its unit", "4GiB"]),
            ("much", &["a number with its unit"]),
            ("", &["a number with its unit"]),
            ("99999999TiB", &["0B to", "are allowed"]),
        ] {
            let refused = size(text, ANY_SIZE).unwrap_err();
            words.iter().for_each(|word| assert!(refused.contains(word), "{text}: {word:?} is not said: {refused}"));
        }
        assert_eq!(size("2MiB", 0..=1 << 20).unwrap_err(), "0B to 1MiB are allowed");
    }

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds, canonical) in
            [("60s", 60_000, "1m"), ("1m 30s", 90_000, "90s"), ("250ms", 250, "250ms"), ("0s", 0, "0s")]
        {
            let read = duration(text, ANY_TIME).unwrap();
            assert_eq!((read.as_millis(), duration_text(read).as_str()), (milliseconds, canonical));
            assert_eq!(duration(canonical, ANY_TIME).unwrap(), read);
        }
    }

    #[test]
    fn a_duration_without_its_unit_or_with_another_is_refused_with_those_allowed() {
        for (text, words) in [
            ("7", &["unit is missing", "ms, s, m, h, d", "7s"][..]),
            ("7sx", &["\"sx\" is unknown", "did you mean s?"]),
            ("soon", &["a number with its unit", "10s"]),
            ("", &["a number with its unit"]),
            ("-1s", &["a number with its unit"]),
            ("2h", &["0s to 1h are allowed"]),
            ("500us", &["\"us\" is unknown", "ms, s, m, h, d"]),
            ("0.5ms", &["whole milliseconds"]),
            ("5M", &["\"M\" is unknown", "did you mean m?"]),
            ("1month", &["\"month\" is unknown"]),
            ("0", &["unit is missing"]),
            ("99999999999999999999s", &["a number with its unit"]),
        ] {
            let refused = duration(text, ANY_TIME).unwrap_err();
            words.iter().for_each(|word| assert!(refused.contains(word), "{text}: {word:?} is not said: {refused}"));
        }
    }

    #[test]
    fn what_is_kept_is_a_duration_and_a_size_in_either_order() {
        let expected = Kept { age: Duration::from_secs(24 * 3600), size: ByteSize::gib(10) };
        for text in ["24h,10GiB", "10GiB,24h", " 1d , 10 gib "] {
            assert_eq!(kept(text), Ok(expected), "{text}");
        }
        for (text, words) in [
            ("24h", &["a comma between", "24h,10GiB"][..]),
            ("10GiB", &["a comma between"]),
            ("24h,10GiB,1s", &["a comma between"]),
            ("24,10GiB", &["\"24\"", "unit is missing"]),
            ("24h,10", &["\"10\"", "unit is missing", "GiB"]),
            ("1s,10GiB", &["\"1s\"", "1m to 3650d are allowed"]),
            ("24h,1MiB", &["\"1MiB\"", "128MiB to 1024TiB are allowed"]),
            ("24h,2h", &["\"2h\"", "GiB"]),
        ] {
            let refused = kept(text).unwrap_err();
            words.iter().for_each(|word| assert!(refused.contains(word), "{text}: {word:?} is not said: {refused}"));
        }
    }

    #[test]
    fn plain_http_addresses_are_read() {
        assert_eq!(http_url("http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(http_url("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        assert_eq!(http_url("https://engine:8080/").unwrap(), "https://engine:8080");
        for wrong in ["127.0.0.1:8080", "ftp://engine:8080", "http://", "http:///", "http://engine/metrics"] {
            assert!(http_url(wrong).unwrap_err().contains("http://127.0.0.1:8080"), "{wrong}");
        }
    }

    #[test]
    fn switches_hosts_and_addresses_are_read() {
        assert_eq!([switch("yes"), switch("FALSE"), switch("1")], [Ok(true), Ok(false), Ok(true)]);
        assert!(switch("on").unwrap_err().contains("true, false, 1, 0, yes, no"));
        assert!(["engine.example", "10.0.0.1", "::1"].iter().all(|text| host(text).is_ok()));
        assert!(["", "engine:4433", "a b"].iter().all(|text| host(text).is_err()));
        assert!(address("localhost:1").unwrap_err().contains("127.0.0.1:8080"));
        assert!(["engine:4433", "127.0.0.1:1", "[::1]:65535"].iter().all(|text| remote(text).is_ok()));
        assert!(
            ["engine", ":1", "engine:", "engine:0", "engine:65536", "::1:4433"]
                .iter()
                .all(|text| remote(text).is_err())
        );
        assert_eq!(certificate_name(" engine.example ").unwrap(), "engine.example");
        assert!(["", "a b", "engine:1"].iter().all(|text| certificate_name(text).is_err()));
        assert!(cpu("first").unwrap_err().contains("0,1"));
    }
}
