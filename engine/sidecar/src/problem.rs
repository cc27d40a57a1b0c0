//! Refusals as problem details (RFC 9457): one shape for everything that is not an answer.
//!
//! Invariant: a problem names the parameter, its value and what is allowed wherever there is one, and echoes no more
//! than [`VALUE_CHARS_MAX`] characters of what the client sent.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::json;

/// The media type of a problem.
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// How to be admitted (RFC 6750).
const CHALLENGE: &str = "Bearer realm=\"highwater\"";

/// Longest echo of a client's value.
const VALUE_CHARS_MAX: usize = 100;

/// What is wrong, for machines (`type`, `status`) and for people (`title`, `detail`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A constant URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The kind in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// This case in words, with the remedy.
    pub detail: Box<str>,
    /// The query parameter at fault, where it is one.
    #[serde(flatten)]
    pub about: Option<Box<About>>,
    /// When what is asked for will be final.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_time: Option<Box<str>>,
    /// Seconds after which to try again; sent as the header `Retry-After`.
    #[serde(skip)]
    pub retry_after_s: Option<u32>,
}

/// A query parameter at fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct About {
    /// Its name.
    pub parameter: Box<str>,
    /// The value that it had; null when it was missing.
    pub value: Option<String>,
    /// What is allowed instead.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub allowed: Box<[String]>,
}

impl Problem {
    fn new(kind: &'static str, title: &'static str, status: StatusCode, detail: String) -> Self {
        Self {
            kind,
            title,
            status: status.as_u16(),
            detail: detail.into(),
            about: None,
            final_time: None,
            retry_after_s: None,
        }
    }

    fn about(mut self, parameter: &str, value: Option<&str>, allowed: &[&str]) -> Self {
        self.about = Some(Box::new(About {
            parameter: shortened(parameter).into(),
            value: value.map(shortened),
            allowed: allowed.iter().map(|&word| word.to_owned()).collect(),
        }));
        self
    }

    /// A parameter has a value that it cannot have.
    pub(crate) fn invalid(parameter: &str, value: &str, allowed: &[&str]) -> Self {
        let detail = format!("{parameter} is {:?}; allowed is {}", shortened(value), allowed.join(", "));
        Self::new("urn:highwater:problem:invalid-parameter", "Invalid parameter", StatusCode::BAD_REQUEST, detail)
            .about(parameter, Some(value), allowed)
    }

    /// A parameter that must be there is not.
    pub(crate) fn missing(parameter: &str, allowed: &[&str]) -> Self {
        let detail = format!("{parameter} is missing; allowed is {}", allowed.join(", "));
        Self::new("urn:highwater:problem:missing-parameter", "Missing parameter", StatusCode::BAD_REQUEST, detail)
            .about(parameter, None, allowed)
    }

    /// A parameter that nobody knows.
    pub(crate) fn unknown(parameter: &str, value: &str, allowed: &[&str]) -> Self {
        let detail = format!("{:?} is no parameter here; allowed are {}", shortened(parameter), allowed.join(", "));
        Self::new("urn:highwater:problem:unknown-parameter", "Unknown parameter", StatusCode::BAD_REQUEST, detail)
            .about(parameter, Some(value), allowed)
    }

    /// A parameter stands twice, so it is not clear which value is meant.
    pub(crate) fn repeated(parameter: &str, value: &str) -> Self {
        let detail = format!("{parameter} stands more than once; give it once");
        Self::new("urn:highwater:problem:repeated-parameter", "Repeated parameter", StatusCode::BAD_REQUEST, detail)
            .about(parameter, Some(value), &[])
    }

    /// A parameter has a value that another parameter rules out, for a reason in words.
    pub(crate) fn unfit(parameter: &str, value: Option<&str>, allowed: &[&str], detail: &str) -> Self {
        let (kind, title) = match value {
            Some(_) => ("urn:highwater:problem:invalid-parameter", "Invalid parameter"),
            None => ("urn:highwater:problem:missing-parameter", "Missing parameter"),
        };
        Self::new(kind, title, StatusCode::BAD_REQUEST, detail.to_owned()).about(parameter, value, allowed)
    }

    /// The period that starts there has no final list, for a reason in words.
    pub(crate) fn no_list(detail: String, start: &str) -> Self {
        Self::new("urn:highwater:problem:no-list", "No list", StatusCode::NOT_FOUND, detail).about(
            "start",
            Some(start),
            &[],
        )
    }

    /// The period that starts there has ended, but views of it still count.
    pub(crate) fn not_final(detail: String, start: &str, final_time: String, retry_after_s: u32) -> Self {
        let mut problem = Self::no_list(detail, start);
        problem.kind = "urn:highwater:problem:not-final";
        problem.title = "Not final";
        problem.final_time = Some(final_time.into());
        problem.retry_after_s = Some(retry_after_s);
        problem
    }

    /// The engine has what is asked for but cannot read it.
    pub(crate) fn unreadable() -> Self {
        let detail = "the engine cannot read its history; its log names the file and the remedy".to_owned();
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new("urn:highwater:problem:history-unreadable", "History unreadable", status, detail)
    }

    /// There is nothing at this path.
    pub(crate) fn not_found(path: &str, paths: &[&str]) -> Self {
        let detail = format!("there is nothing at {}; see {}", shortened(path), paths.join(", "));
        Self::new("urn:highwater:problem:not-found", "Not found", StatusCode::NOT_FOUND, detail)
    }

    /// The path takes another method.
    pub(crate) fn method_not_allowed(method: &str) -> Self {
        let detail = format!("{} is not possible here; use GET or HEAD", shortened(method));
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Self::new("urn:highwater:problem:method-not-allowed", "Method not allowed", status, detail)
    }

    /// A request's path and query are too long.
    pub(crate) fn uri_too_long(bytes: usize, allowed: usize) -> Self {
        let detail = format!("path and query have {bytes} bytes; allowed are {allowed}");
        Self::new("urn:highwater:problem:uri-too-long", "URI too long", StatusCode::URI_TOO_LONG, detail)
    }

    /// An address asks more often than it may.
    pub(crate) fn too_many_requests(allowed: u32) -> Self {
        let detail = format!("more than {allowed} requests a second from this address; ask less often");
        let status = StatusCode::TOO_MANY_REQUESTS;
        let mut problem = Self::new("urn:highwater:problem:too-many-requests", "Too many requests", status, detail);
        problem.retry_after_s = Some(1);
        problem
    }

    /// A request bears no token, or one that nobody knows.
    pub(crate) fn unauthorized(detail: &str) -> Self {
        let status = StatusCode::UNAUTHORIZED;
        Self::new("urn:highwater:problem:unauthorized", "Unauthorized", status, detail.to_owned())
    }

    /// A request's token is known, but not for reading.
    pub(crate) fn not_a_reader() -> Self {
        let detail = "the token has no scope read; send one that has".to_owned();
        Self::new("urn:highwater:problem:forbidden", "Forbidden", StatusCode::FORBIDDEN, detail)
    }

    /// The answer will be there soon.
    pub(crate) fn unavailable(detail: String) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut problem = Self::new("urn:highwater:problem:not-ready", "Not ready", status, detail);
        problem.retry_after_s = Some(1);
        problem
    }

    /// A list was asked for on a condition that none meets.
    pub(crate) fn precondition_failed() -> Self {
        let detail = "If-Match is met by strong tags only, and lists have weak ones; use If-None-Match".to_owned();
        let status = StatusCode::PRECONDITION_FAILED;
        Self::new("urn:highwater:problem:precondition-failed", "Precondition failed", status, detail)
    }

    /// The epoch asked for was not published in time.
    pub(crate) fn epoch_not_reached(wanted: u64, latest: Option<u64>) -> Self {
        let have = latest.map_or("no snapshot yet".to_owned(), |epoch| format!("epoch {epoch}"));
        let detail = format!("min_epoch is {wanted}, but there is {have}; try again");
        let mut problem = Self::unavailable(detail);
        problem.kind = "urn:highwater:problem:epoch-not-reached";
        problem.title = "Epoch not reached";
        problem.about("min_epoch", Some(&wanted.to_string()), &[])
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json::to_vec(&self);
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_CONTENT_TYPE)], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
        }
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
