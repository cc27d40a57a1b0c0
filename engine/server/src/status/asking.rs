//! Asking an engine over HTTP.
//!
//! Not the judging of what it says. Invariant: every question ends within a time limit, never goes through a proxy, and
//! names its URL when it fails.

use super::page::Page;
use crate::args::StatusArguments;
use anyhow::{Context, Result, anyhow, bail};
use highwater_client::{ClientCertificate, read_token_file};
use highwater_loadgen::http::{HttpClient, Shown};
use serde::Deserialize;
use std::time::Duration;

/// Longest wait for one answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// The kinds of closed periods.
const PERIODS: [&str; 3] = ["hour", "day", "month"];

/// The HTTP side of an engine.
pub(super) struct Asking {
    http: HttpClient,
}

/// What a list says of itself.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct TopHead {
    pub(super) epoch: u64,
    pub(super) as_of: String,
    pub(super) total_views: u64,
}

/// A period that is closed, or the current one.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PeriodHead {
    pub(super) start_time: String,
    pub(super) total_views: u64,
    pub(super) r#final: bool,
}

#[derive(Deserialize)]
struct Periods {
    periods: Vec<PeriodHead>,
}

/// What a refusal says.
#[derive(Deserialize)]
struct Detail {
    detail: String,
}

impl Asking {
    pub(super) fn new(arguments: &StatusArguments) -> Result<Self> {
        let ca_pem = arguments
            .ca
            .as_ref()
            .map(|path| std::fs::read(path).with_context(|| format!("--ca={} cannot be read", path.display())));
        let ca_pem = ca_pem.transpose()?.unwrap_or_default();
        let token = arguments.token_file.as_ref().map(read_token_file).transpose()?.unwrap_or_default();
        let certificate = match (&arguments.client_cert, &arguments.client_key) {
            (Some(chain), Some(key)) => Some(ClientCertificate::read(chain, key)?),
            _ => None,
        };
        let shown = Shown { ca_pem: &ca_pem, token: &token, certificate: certificate.as_ref() };
        let http = HttpClient::new(&arguments.engine, &shown, ANSWER_TIME_MAX);
        Ok(Self { http: http.map_err(|error| anyhow!("--engine={}: {error}", arguments.engine))? })
    }

    fn url(&self) -> &str {
        self.http.url()
    }

    fn get(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("{}{path}", self.url());
        let asked = || -> Result<(u16, String), ureq::Error> {
            let mut answer = self.http.get(path)?;
            let status = answer.status().as_u16();
            Ok((status, answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?))
        };
        asked().map_err(|error| {
            anyhow!(
                "no engine answers at {url}: {error}; is it running, and is this the address of its --http? Its ready \
                 line and its log say"
            )
        })
    }

    /// Why the engine is not ready; none when it is.
    pub(super) fn not_ready(&self) -> Result<Option<String>> {
        match self.get("/readyz")? {
            (200, _) => Ok(None),
            (503, body) => {
                let detail = serde_json::from_str(&body).map(|Detail { detail }| detail);
                Ok(Some(detail.unwrap_or_else(|_| "it does not say why".to_owned())))
            }
            (status, _) => {
                bail!("{}/readyz answers with status {status}: that is no engine and no sidecar", self.url())
            }
        }
    }

    /// The metrics.
    pub(super) fn metrics(&self) -> Result<Page> {
        let (status, body) = self.get("/metrics")?;
        if let (401 | 403, Ok(Detail { detail })) = (status, serde_json::from_str(&body)) {
            bail!("{}/metrics: {detail}; give --token-file", self.url());
        }
        let page = Page::parse(&body).map_err(|error| anyhow!(error));
        let page = page.with_context(|| format!("{}/metrics answers with status {status}", self.url()))?;
        if status != 200 || page.is_empty() {
            bail!("{}/metrics answers with status {status} and no metric of an engine", self.url());
        }
        Ok(page)
    }

    /// What the list of all time says of itself; none while there is none.
    pub(super) fn top(&self) -> Result<Option<TopHead>> {
        let (status, body) = self.get("/v1/videos/top?period=all-time&k=1")?;
        if status != 200 {
            return Ok(None);
        }
        serde_json::from_str(&body).map(Some).with_context(|| format!("{}: the list is none", self.url()))
    }

    /// The newest closed period of each kind that had a view.
    pub(super) fn closed(&self) -> Result<Vec<(&'static str, PeriodHead)>> {
        let mut newest = Vec::new();
        for period in PERIODS {
            let (status, body) = self.get(&format!("/v1/periods?period={period}&limit=2"))?;
            if status != 200 {
                continue;
            }
            let listed: Periods =
                serde_json::from_str(&body).with_context(|| format!("{}: the periods are none", self.url()))?;
            newest.extend(listed.periods.into_iter().find(|one| one.r#final).map(|one| (period, one)));
        }
        Ok(newest)
    }
}
