//! The query of a top list, checked in full before anything is done.
//!
//! Invariant: a query that was taken has known parameters only, each once, each in its range.

use std::time::Duration;

use axum::extract::Query;
use axum::http::Uri;
use highwater_proto::{Epoch, Period, TOP_K_MAX, Window};

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
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::invalid("query", &error.to_string(), &PARAMETERS))?
            .0;
        let mut values: [Option<&str>; PARAMETERS.len()] = [None; PARAMETERS.len()];
        for (name, value) in &pairs {
            let Some(index) = PARAMETERS.iter().position(|known| known == name) else {
                return Err(Problem::unknown(name, value, &PARAMETERS));
            };
            if values[index].replace(value).is_some() {
                return Err(Problem::repeated(name, value));
            }
        }
        let [period, k, window, min_epoch] = values;
        let period = period.ok_or_else(|| Problem::missing("period", &PERIODS))?;
        let period = period.parse().map_err(|_| Problem::invalid("period", period, &PERIODS))?;
        check_window(window)?;
        Ok(Self { period, k: parse_k(k)?, min_epoch: parse_min_epoch(min_epoch)? })
    }
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
