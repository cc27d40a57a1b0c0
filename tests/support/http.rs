//! Questions over HTTP, answered with whatever status.
//!
//! Invariant: an answer is read whole, within a time limit, and never through a proxy.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) retry_after: Option<String>,
    pub(crate) etag: Option<String>,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Asks.
pub(crate) fn get(url: &str) -> Answer {
    get_as(url, None)
}

/// Asks as who bears a token.
pub(crate) fn get_as(url: &str, token: Option<&str>) -> Answer {
    try_get_as(url, token).unwrap_or_else(|error| panic!("{url}: {error}"))
}

/// Asks something that may not be there.
pub(crate) fn try_get(url: &str) -> Result<Answer, ureq::Error> {
    try_get_as(url, None)
}

fn try_get_as(url: &str, token: Option<&str>) -> Result<Answer, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .proxy(None)
        .build();
    let mut request = ureq::Agent::from(config).get(url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response = request.call()?;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (content_type, retry_after) = (header("content-type").unwrap_or_default(), header("retry-after"));
    let (status, etag) = (response.status().as_u16(), header("etag"));
    Ok(Answer { status, content_type, retry_after, etag, body: response.body_mut().read_to_string()? })
}

/// Sends these bytes, or none and that there will be none, and returns all that comes back until the server closes.
pub(crate) fn raw(url: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if bytes.is_empty() {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    // The server may have closed before it has read everything; what it said comes first.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut some) {
        answer.extend_from_slice(&some[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of an answer that [`raw`] returned, if it is one.
pub(crate) fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// The sum of a metric over its labels in a page of metrics; 0 when it is not there.
pub(crate) fn metric(page: &str, name: &str) -> u64 {
    let wanted = format!("highwater_{name}");
    let samples = page.lines().filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(key, _)| key.split('{').next() == Some(&wanted))
        .map(|(_, value)| value.parse::<u64>().unwrap())
        .sum()
}
