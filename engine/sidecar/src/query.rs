//! The queries of a top list, of a video and of the periods there are, checked in full before anything is done.
//!
//! Invariant: a query that was taken has known parameters only, each once, each in its range.

use std::time::Duration;

use axum::http::Uri;
use highwater_proto::{Epoch, PERIODS_MAX, Period, TOP_K_MAX, VIDEO_ID_BYTES_MAX, Window};

use crate::problem::Problem;
use crate::time::{self, period_at, rfc3339};

/// Rows when `k` is not given.
pub const K_DEFAULT: usize = 100;
/// Most rows that can be asked for.
pub const K_MAX: usize = TOP_K_MAX;
/// Periods when `limit` is not given.
pub const LIMIT_DEFAULT: u16 = 100;
/// Most periods that can be asked for.
pub const LIMIT_MAX: u16 = PERIODS_MAX as u16;
/// How long `min_epoch` waits for its epoch.
pub const MIN_EPOCH_WAIT: Duration = Duration::from_secs(2);

const _: () = assert!(K_DEFAULT <= K_MAX && LIMIT_DEFAULT <= LIMIT_MAX && PERIODS_MAX <= u16::MAX as usize);

const PARAMETERS: [&str; 5] = ["period", "k", "window", "min_epoch", "start"];
const PERIODS: [&str; 4] =
    [Period::ALL[0].as_str(), Period::ALL[1].as_str(), Period::ALL[2].as_str(), Period::ALL[3].as_str()];
/// Those that end.
const CALENDAR: [&str; 3] = [PERIODS[0], PERIODS[1], PERIODS[2]];
const WINDOWS: [&str; 2] = [Window::ALL[0].as_str(), Window::ALL[1].as_str()];

/// What a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopQuery {
    pub(crate) period: Period,
    pub(crate) window: Window,
    pub(crate) k: usize,
    pub(crate) min_epoch: Option<Epoch>,
    pub(crate) asked: Option<Asked>,
}

/// One calendar period that a reader asks for by its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Hour, day or month.
    pub(crate) period: Period,
    /// Where such a period starts.
    pub(crate) start_ms: u64,
    pub(crate) end_ms: u64,
    /// The start as the reader wrote it.
    pub(crate) written: String,
}

/// Which periods a reader wants to know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeriodsQuery {
    /// Hour, day or month.
    pub(crate) period: Period,
    pub(crate) before_ms: Option<u64>,
    pub(crate) limit: u16,
}

impl TopQuery {
    /// Checks the query of a URI.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Problem> {
        let [period, k, window, min_epoch, start] = values(uri, PARAMETERS)?;
        let period = parse_period(period.as_deref(), &PERIODS)?;
        if period == Period::AllTime && start.is_some() {
            let detail = "start is given, but all-time never ends; ask for hour, day or month, or leave start out";
            return Err(Problem::unfit("period", Some(period.as_str()), &CALENDAR, detail));
        }
        let given = window.as_deref();
        let window = parse_window(given, period)?;
        if start.is_some() && window != Window::Tumbling {
            let tumbling = Window::Tumbling.as_str();
            let detail = "start asks for a calendar period, so it needs window=tumbling; add it, or leave start out";
            return Err(Problem::unfit("window", given, &[tumbling], detail));
        }
        let (k, min_epoch) = (parse_k(k.as_deref())?, parse_min_epoch(min_epoch.as_deref())?);
        let asked = start.map(|written| Asked::parse(period, written)).transpose()?;
        Ok(Self { period, window, k, min_epoch, asked })
    }
}

impl Asked {
    fn parse(period: Period, written: String) -> Result<Self, Problem> {
        let time = time::parse(&written).ok_or_else(|| Problem::invalid("start", &written, &[time::ALLOWED]))?;
        let around = period_at(period, time.ms);
        let (start_ms, end_ms) = around.ok_or_else(|| Problem::invalid("period", period.as_str(), &CALENDAR))?;
        if start_ms == time.ms && !time.and_a_part {
            return Ok(Self { period, start_ms, end_ms, written });
        }
        let (before, after) = (rfc3339(start_ms), rfc3339(end_ms));
        let detail = format!("no {period} (UTC) starts at that time; the nearest start at {before} and {after}");
        Err(Problem::unfit("start", Some(&written), &[&before, &after], &detail))
    }
}

impl PeriodsQuery {
    /// Checks the query of a URI.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Problem> {
        let [period, limit, before] = values(uri, ["period", "limit", "before"])?;
        let period = parse_period(period.as_deref(), &CALENDAR)?;
        let before_ms = before.map(|before| {
            let time = time::parse(&before).ok_or_else(|| Problem::invalid("before", &before, &[time::ALLOWED]))?;
            // What starts within the millisecond starts before a part of it is over.
            Ok(time.ms + u64::from(time.and_a_part))
        });
        let limit = match limit.as_deref() {
            None => LIMIT_DEFAULT,
            Some(text) => {
                let limit = digits(text).and_then(|limit| u16::try_from(limit).ok());
                let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit.ok_or_else(|| Problem::invalid("limit", text, &[&format!("1 to {LIMIT_MAX}")]))?
            }
        };
        Ok(Self { period, before_ms: before_ms.transpose()?, limit })
    }
}

fn parse_period(period: Option<&str>, allowed: &[&str]) -> Result<Period, Problem> {
    let text = period.ok_or_else(|| Problem::missing("period", allowed))?;
    let period = allowed.contains(&text).then(|| text.parse().ok()).flatten();
    period.ok_or_else(|| Problem::invalid("period", text, allowed))
}

/// The video that a reader asks for, from the query of a URI: 1 to 255 bytes of UTF-8.
pub(crate) fn parse_video_id(uri: &Uri) -> Result<String, Problem> {
    let [video_id] = values(uri, ["video_id"])?;
    let allowed = format!("1 to {VIDEO_ID_BYTES_MAX} bytes of UTF-8");
    let video_id = video_id.ok_or_else(|| Problem::missing("video_id", &[&allowed]))?;
    if video_id.is_empty() || video_id.len() > VIDEO_ID_BYTES_MAX {
        return Err(Problem::invalid("video_id", &video_id, &[&allowed]));
    }
    Ok(video_id)
}

/// The value of each parameter of `known`, decoded; none but these may stand in the query, and each once.
fn values<const N: usize>(uri: &Uri, known: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decoded = decode(name).and_then(|name| known.iter().position(|one| *one == name));
        let Some(index) = decoded else {
            let name = decode(name).unwrap_or_else(|| name.to_owned());
            return Err(Problem::unknown(&name, &decode(value).unwrap_or_else(|| value.to_owned()), &known));
        };
        let Some(value) = decode(value) else {
            return Err(Problem::invalid(known[index], value, &["UTF-8, with %XX for bytes that a query cannot hold"]));
        };
        if values[index].is_some() {
            return Err(Problem::repeated(known[index], &value));
        }
        values[index] = Some(value);
    }
    Ok(values)
}

/// Decodes `%XX` and `+`; `None` if a `%` has no two hexadecimal digits or what comes out is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (digit(rest.next())? * 16 + digit(rest.next())?) as u8,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

fn parse_window(window: Option<&str>, period: Period) -> Result<Window, Problem> {
    let Some(text) = window else { return Ok(Window::Sliding) };
    let window = text.parse().map_err(|_| Problem::invalid("window", text, &WINDOWS))?;
    if window == Window::Tumbling && period == Period::AllTime {
        let detail = "all-time has one window only; leave window out, or ask for hour, day or month";
        return Err(Problem::unfit("window", Some(text), &WINDOWS[..1], detail));
    }
    Ok(window)
}

fn parse_k(k: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = k else { return Ok(K_DEFAULT) };
    digits(text)
        .and_then(|k| usize::try_from(k).ok())
        .filter(|k| (1..=K_MAX).contains(k))
        .ok_or_else(|| Problem::invalid("k", text, &[&format!("1 to {K_MAX}")]))
}

fn parse_min_epoch(min_epoch: Option<&str>) -> Result<Option<Epoch>, Problem> {
    let Some(text) = min_epoch else { return Ok(None) };
    let epoch = digits(text).ok_or_else(|| Problem::invalid("min_epoch", text, &[&format!("0 to {}", u64::MAX)]))?;
    Ok(Some(Epoch(epoch)))
}

/// A number in decimal digits only: no sign, no space.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
