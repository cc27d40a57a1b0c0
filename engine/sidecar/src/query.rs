//! The queries of a top list and of a video, checked in full before anything is done.
//!
//! Invariant: a query that was taken has known parameters only, each once, each in its range.

use std::time::Duration;

use axum::http::Uri;
use highwater_proto::{Epoch, Period, TOP_K_MAX, VIDEO_ID_BYTES_MAX, Window};

use crate::problem::Problem;

/// Rows when `k` is not given.
pub const K_DEFAULT: usize = 100;
/// Most rows that can be asked for.
pub const K_MAX: usize = TOP_K_MAX;
/// How long `min_epoch` waits for its epoch.
pub const MIN_EPOCH_WAIT: Duration = Duration::from_secs(2);

const _: () = assert!(K_DEFAULT <= K_MAX);

const PARAMETERS: [&str; 4] = ["period", "k", "window", "min_epoch"];
const PERIODS: [&str; 4] =
    [Period::ALL[0].as_str(), Period::ALL[1].as_str(), Period::ALL[2].as_str(), Period::ALL[3].as_str()];

/// What a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopQuery {
    pub(crate) period: Period,
    pub(crate) k: usize,
    pub(crate) min_epoch: Option<Epoch>,
}

impl TopQuery {
    /// Checks the query of a URI.
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Problem> {
        let values = values(uri, PARAMETERS)?;
        let [period, k, window, min_epoch] = values;
        let period = period.ok_or_else(|| Problem::missing("period", &PERIODS))?;
        let period = period.parse().map_err(|_| Problem::invalid("period", &period, &PERIODS))?;
        check_window(window.as_deref())?;
        Ok(Self { period, k: parse_k(k.as_deref())?, min_epoch: parse_min_epoch(min_epoch.as_deref())? })
    }
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

fn check_window(window: Option<&str>) -> Result<(), Problem> {
    let allowed = [Window::Sliding.as_str()];
    match window {
        None => Ok(()),
        Some(word) if word == Window::Sliding.as_str() => Ok(()),
        Some(word) if word == Window::Tumbling.as_str() => Err(Problem::not_yet("window", word, &allowed)),
        Some(word) => Err(Problem::invalid("window", word, &allowed)),
    }
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
