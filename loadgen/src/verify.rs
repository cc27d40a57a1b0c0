//! Compares what the engine serves over HTTP with the oracle's exact counts: every window's full list, its order,
//! ranks, counts, totals and bounds.
//!
//! It knows the engine only by its public answers. Invariant: `verified` is true only if all seven windows were
//! answered for an epoch that holds everything acknowledged, and agree in every row.

use std::time::{Duration, Instant};

use highwater_proto::{Epoch, LISTS, Period, TOP_K_MAX, Window};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::error::LoadError;
use crate::http::{HttpClient, Shown};
use crate::oracle::{ExpectedRow, MinuteIndex, Oracle, VideoIds};

/// How long an engine may take to answer at all before the load.
const READY_WAIT: Duration = Duration::from_secs(15);
/// How long the snapshot that holds everything may take.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(60);
const RETRY_EVERY: Duration = Duration::from_millis(200);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Differences told per list.
const DIFFERENCES_MAX: usize = 10;
/// Largest answer read: a full list of the longest ids, escaped.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The engine's answer to a question for a top list.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    /// Echo of the period asked for.
    pub period: String,
    /// `sliding` or `tumbling`.
    pub window: String,
    /// Start of the window, RFC 3339; null for all-time.
    pub start_time: Option<String>,
    /// End of the window, exclusive.
    pub end_time: Option<String>,
    /// Engine time of the answer.
    pub as_of: String,
    /// Snapshot epoch.
    pub epoch: u64,
    /// Views of all videos in the window.
    pub total_views: u64,
    /// Those of videos that are not in the list.
    pub other_views: u64,
    /// The list.
    pub top_videos: Vec<AnswerRow>,
}

/// One row of an [`Answer`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AnswerRow {
    /// From 1.
    pub rank: u64,
    /// The video.
    pub video_id: String,
    /// Its views in the window.
    pub view_count: u64,
}

/// The result of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Whether everything agrees.
    pub verified: bool,
    /// The oldest epoch among the answers.
    pub epoch: Option<u64>,
    /// What differs, the first few per period.
    pub differences: Vec<String>,
}

/// Asks one engine over HTTP.
#[derive(Debug)]
pub struct Verifier {
    http: HttpClient,
}

impl Verifier {
    /// A verifier for `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// [`LoadError::Option`] if that is no such address, or what is shown to it cannot be used.
    pub fn new(url: &str, shown: &Shown<'_>) -> Result<Self, LoadError> {
        let unusable = |reason| LoadError::Option { option: "verify", value: url.to_owned(), reason };
        Ok(Self { http: HttpClient::new(url, shown, REQUEST_TIMEOUT).map_err(unusable)? })
    }

    /// Makes sure that the engine holds no view yet: what it acknowledged before this call is in the next snapshot but
    /// one at the latest, so that one is looked at.
    ///
    /// # Errors
    /// [`LoadError::EngineNotEmpty`] if it does, [`LoadError::Http`] if it does not answer.
    pub fn check_empty(&self) -> Result<(), LoadError> {
        let all_time = (Period::AllTime, Window::Sliding);
        let first = self.top(all_time, 1, None, READY_WAIT)?;
        let settled = Epoch(first.epoch.saturating_add(2));
        let answer = self.top(all_time, 1, Some(settled), READY_WAIT)?;
        match answer.top_videos.into_iter().next() {
            None => Ok(()),
            Some(row) => Err(LoadError::EngineNotEmpty {
                url: self.http.url().to_owned(),
                video_id: row.video_id,
                view_count: row.view_count,
            }),
        }
    }

    /// Compares every window's full list as of `epoch` or later with the oracle.
    ///
    /// # Errors
    /// [`LoadError::Http`] if an answer cannot be had; differences are no error.
    pub fn compare(&self, oracle: &Oracle, ids: &dyn VideoIds, epoch: Epoch) -> Result<Verification, LoadError> {
        let mut differences = Vec::new();
        let mut oldest: Option<u64> = None;
        for list in LISTS {
            let answer = self.top(list, TOP_K_MAX, Some(epoch), SNAPSHOT_WAIT)?;
            oldest = Some(oldest.map_or(answer.epoch, |oldest| oldest.min(answer.epoch)));
            let found = compare_answer(list, epoch, &answer, oracle, ids).into_iter().take(DIFFERENCES_MAX);
            differences.extend(found.map(|text| format!("{} {}: {text}", list.1, list.0)));
        }
        if oracle.undecidable_views() > 0 {
            differences.push(format!(
                "{} views are in batches whose refusals the engine no longer knows in detail, so their count is undecidable",
                oracle.undecidable_views()
            ));
        }
        Ok(Verification { verified: differences.is_empty(), epoch: oldest, differences })
    }

    /// Asks for a list, again while the engine is not reachable or not so far (503).
    fn top(
        &self,
        (period, window): (Period, Window),
        k: usize,
        epoch: Option<Epoch>,
        wait: Duration,
    ) -> Result<Answer, LoadError> {
        let mut path = format!("/v1/videos/top?period={period}&window={window}&k={k}");
        if let Some(epoch) = epoch {
            path.push_str(&format!("&min_epoch={}", epoch.0));
        }
        let url = format!("{}{path}", self.http.url());
        let started = Instant::now();
        loop {
            let reason = match self.http.get(&path) {
                Ok(mut response) => {
                    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
                    match (response.status().as_u16(), body) {
                        (200, Ok(body)) => return parse(&url, &body),
                        (503, Ok(body)) => format!("not ready (503): {}", body.trim()),
                        (status, Ok(body)) => {
                            return Err(failed(&url, format!("status {status}: {}", body.trim())));
                        }
                        (_, Err(error)) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            if started.elapsed() >= wait {
                return Err(failed(&url, format!("after {wait:?}: {reason}")));
            }
            std::thread::sleep(RETRY_EVERY);
        }
    }
}

fn failed(url: &str, reason: String) -> LoadError {
    LoadError::Http { url: url.to_owned(), reason }
}

fn parse(url: &str, body: &str) -> Result<Answer, LoadError> {
    serde_json::from_str(body).map_err(|error| LoadError::Http {
        url: url.to_owned(),
        reason: format!("the answer is not as promised: {error}"),
    })
}

/// The first minute of a window at a minute of engine time, none for all-time; and the one behind the last of a
/// calendar period. Views of the current period came before its end, so all of them count.
fn due((period, window): (Period, Window), now: u64) -> (Option<u64>, Option<u64>) {
    const DAY: u64 = 24 * 60;
    match (period, window) {
        (Period::AllTime, _) => (None, None),
        (Period::Hour, Window::Sliding) => (Some(now.saturating_sub(60)), None),
        (Period::Day, Window::Sliding) => (Some(now.saturating_sub(DAY)), None),
        // Whole hours.
        (Period::Month, Window::Sliding) => (Some(now.saturating_sub(30 * DAY) / 60 * 60), None),
        (Period::Hour, Window::Tumbling) => (Some(now / 60 * 60), Some(now / 60 * 60 + 60)),
        (Period::Day, Window::Tumbling) => (Some(now / DAY * DAY), Some(now / DAY * DAY + DAY)),
        (Period::Month, Window::Tumbling) => {
            let minutes = |time: &jiff::Zoned| u64::try_from(time.timestamp().as_second()).unwrap_or(0) / 60;
            let at = Timestamp::from_second(i64::try_from(now * 60).unwrap_or(0)).unwrap_or(Timestamp::MAX);
            let first = at.to_zoned(TimeZone::UTC).first_of_month().and_then(|day| day.start_of_day());
            let next = first.as_ref().ok().and_then(|first| first.checked_add(jiff::Span::new().months(1)).ok());
            (first.as_ref().ok().map(minutes), next.as_ref().map(minutes))
        }
    }
}

/// Everything in which the answer is not what the oracle says.
#[must_use]
pub fn compare_answer(
    list: (Period, Window),
    epoch: Epoch,
    answer: &Answer,
    oracle: &Oracle,
    ids: &dyn VideoIds,
) -> Vec<String> {
    let mut differences = Vec::new();
    let (period, window) = list;
    if answer.period != period.as_str() || answer.window != window.as_str() {
        differences
            .push(format!("the answer is for {} ({}), not for a {window} {period}", answer.period, answer.window));
    }
    if answer.epoch < epoch.0 {
        differences.push(format!("epoch {} was answered where {} or later was asked for", answer.epoch, epoch.0));
    }
    match bounds(list, answer, oracle) {
        Err(text) => differences.push(text),
        Ok((bounds, wrong)) => {
            differences.extend(wrong);
            let expected = oracle.top(bounds.clone(), TOP_K_MAX, ids);
            compare_rows(&answer.top_videos, &expected, &mut differences);
            let total: u64 = oracle.totals(bounds).iter().sum();
            let listed: u64 = expected.iter().map(|row| row.view_count).sum();
            if (answer.total_views, answer.other_views) != (total, total - listed) {
                differences.push(format!(
                    "{} views in all and {} of others where {total} and {} were due",
                    answer.total_views,
                    answer.other_views,
                    total - listed
                ));
            }
        }
    }
    differences
}

/// The answer's bounds, and what is wrong with them given its engine time and the latest minute counted.
fn bounds(
    list: (Period, Window),
    answer: &Answer,
    oracle: &Oracle,
) -> Result<(std::ops::Range<MinuteIndex>, Vec<String>), String> {
    let as_of = time("as_of", &answer.as_of)?;
    let end = answer.end_time.as_deref().ok_or("end_time is null")?;
    let end_ms = time("end_time", end)?;
    let start_ms = answer.start_time.as_deref().map(|start| time("start_time", start)).transpose()?;
    let now = MinuteIndex::of_ms(as_of).0;
    let (start, end_of_period) = due(list, now);
    let expected_start = start.map(|minute| minute * 60_000);
    let behind_latest = oracle.minute_max().map_or(now, |latest| latest.0.max(now)) + 1;
    let expected_end = end_of_period.unwrap_or(behind_latest) * 60_000;
    let mut wrong = Vec::new();
    if start_ms != expected_start {
        wrong.push(format!(
            "start_time {:?} where {} was due as of {}",
            answer.start_time,
            expected_start.map_or("null".into(), rfc3339),
            answer.as_of
        ));
    }
    if end_ms != expected_end {
        wrong.push(format!("end_time {end} where {} was due as of {}", rfc3339(expected_end), answer.as_of));
    }
    let start = MinuteIndex(start_ms.unwrap_or(0).div_ceil(60_000));
    let end = MinuteIndex(end_ms.div_ceil(60_000));
    Ok((start..end, wrong))
}

fn time(name: &str, text: &str) -> Result<u64, String> {
    let parsed = text.parse::<Timestamp>().map_err(|error| format!("{name} {text:?} is no RFC 3339 time: {error}"))?;
    u64::try_from(parsed.as_millisecond()).map_err(|_| format!("{name} {text:?} lies before 1970"))
}

fn rfc3339(time_ms: u64) -> String {
    let timestamp = i64::try_from(time_ms).ok().and_then(|time_ms| Timestamp::from_millisecond(time_ms).ok());
    timestamp.map_or_else(|| format!("{time_ms} ms"), |timestamp| timestamp.to_string())
}

fn compare_rows(found: &[AnswerRow], expected: &[ExpectedRow], differences: &mut Vec<String>) {
    if found.len() != expected.len() {
        differences.push(format!("{} rows where {} were due", found.len(), expected.len()));
    }
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let rank = index as u64 + 1;
        if found.rank != rank {
            differences.push(format!("row {rank} bears rank {}", found.rank));
        }
        if found.video_id != expected.video_id || found.view_count != expected.view_count {
            differences.push(format!(
                "rank {rank}: {:?} with {} views where {:?} with {} was due",
                found.video_id, found.view_count, expected.video_id, expected.view_count
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;
    use crate::oracle::{Row, VideoIndex};

    struct Names;

    impl VideoIds for Names {
        fn video_count(&self) -> u32 {
            3
        }
        fn write_id(&self, video: VideoIndex, out: &mut String) {
            out.push_str(["a", "b", "c"][video.0 as usize]);
        }
    }

    const HOUR_MS: u64 = 3_600_000;

    /// a: two views now; b: one now, one 59 minutes ago; c: one two hours ago.
    fn oracle() -> (Oracle, u64) {
        let now_ms = 500_000 * HOUR_MS + 30_500;
        let row = |video, timestamp_ms| Row { video: VideoIndex(video), timestamp_ms };
        let mut oracle = Oracle::new(3);
        let rows = [(0, 0), (0, 1000), (1, 0), (1, 59 * 60_000), (2, 2 * HOUR_MS)];
        oracle.add_batch(&rows.map(|(video, ago_ms)| row(video, now_ms - ago_ms)), &[]);
        (oracle, now_ms)
    }

    fn hour_answer(now_ms: u64) -> Answer {
        let row = |rank, video_id: &str, view_count| AnswerRow { rank, video_id: video_id.into(), view_count };
        Answer {
            period: "hour".into(),
            window: "sliding".into(),
            start_time: Some(rfc3339(now_ms - 30_500 - HOUR_MS)),
            end_time: Some(rfc3339(now_ms - 30_500 + 60_000)),
            as_of: rfc3339(now_ms),
            epoch: 9,
            total_views: 4,
            other_views: 0,
            top_videos: vec![row(1, "a", 2), row(2, "b", 2)],
        }
    }

    fn differences(change: impl FnOnce(&mut Answer)) -> Vec<String> {
        let (oracle, now_ms) = oracle();
        let mut answer = hour_answer(now_ms);
        change(&mut answer);
        compare_answer((Period::Hour, Window::Sliding), Epoch(9), &answer, &oracle, &Names)
    }

    #[test]
    fn a_right_answer_has_no_difference() {
        assert_eq!(differences(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_wrong_answer_is_told() {
        type Change = fn(&mut Answer);
        let wrong: [(&str, Change); 12] = [
            ("2 views where", |answer| answer.top_videos.swap(0, 1)),
            ("3 views where", |answer| answer.top_videos[0].view_count = 3),
            ("bears rank 7", |answer| answer.top_videos[1].rank = 7),
            ("1 rows where 2", |answer| answer.top_videos.truncate(1)),
            ("epoch 8", |answer| answer.epoch = 8),
            ("start_time", |answer| answer.start_time = None),
            ("end_time", |answer| answer.end_time = Some(rfc3339(0))),
            ("RFC 3339", |answer| answer.as_of = "yesterday".into()),
            ("day", |answer| answer.period = "day".into()),
            ("tumbling", |answer| answer.window = "tumbling".into()),
            ("5 views in all", |answer| answer.total_views = 5),
            ("1 of others", |answer| answer.other_views = 1),
        ];
        for (expected, change) in wrong {
            let texts = differences(change).join("; ");
            assert!(texts.contains(expected), "{expected:?} not in {texts:?}");
        }
    }

    #[test]
    fn all_time_starts_at_null() {
        let (oracle, now_ms) = oracle();
        let mut answer = hour_answer(now_ms);
        answer.period = "all-time".into();
        answer.start_time = None;
        answer.total_views = 5;
        answer.top_videos.push(AnswerRow { rank: 3, video_id: "c".into(), view_count: 1 });
        let found = compare_answer((Period::AllTime, Window::Sliding), Epoch(1), &answer, &oracle, &Names);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn windows_begin_and_end_where_the_calendar_says() {
        // 2024-02-29T22:31Z, and the first minute of the next month.
        let now = 1_709_245_860 / 60;
        let (leap_day, march) = (1_709_164_800 / 60, 1_709_251_200 / 60);
        let tumbling = |period, now| due((period, Window::Tumbling), now);
        assert_eq!(tumbling(Period::Hour, now), (Some(now - 31), Some(now + 29)));
        assert_eq!(tumbling(Period::Day, now), (Some(leap_day), Some(march)));
        assert_eq!(tumbling(Period::Month, now), (Some(leap_day - 28 * 1440), Some(march)));
        assert_eq!(tumbling(Period::Month, march), (Some(march), Some(march + 31 * 1440)));
        assert_eq!(due((Period::Month, Window::Sliding), now), (Some(now - 31 - 43_200), None));
        assert_eq!(due((Period::AllTime, Window::Sliding), now), (None, None));
    }

    /// Answers each connection with the next of these (status line, body).
    fn serve(answers: Vec<(&'static str, String)>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let _read = stream.read(&mut request).unwrap();
                let length = body.len();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                    .unwrap();
            }
        });
        url
    }

    fn body(rows: &str) -> String {
        format!(
            r#"{{"period":"all-time","window":"sliding","start_time":null,"end_time":"2024-07-15T12:01:00Z",
               "as_of":"2024-07-15T12:00:00.123Z","epoch":3,"total_views":0,"other_views":0,"top_videos":[{rows}],"later_field":1}}"#
        )
    }

    #[test]
    fn an_engine_that_holds_views_is_refused_and_one_not_ready_is_waited_for() {
        let unready = || ("503 Service Unavailable", "{}".to_owned());
        let url = serve(vec![unready(), ("200 OK", body("")), unready(), ("200 OK", body(""))]);
        Verifier::new(&url, &Shown::default()).unwrap().check_empty().unwrap();
        // The views were acknowledged just before: the first list does not hold them yet.
        let url = serve(vec![("200 OK", body("")), ("200 OK", body(r#"{"rank":1,"video_id":"x","view_count":5}"#))]);
        let error = Verifier::new(&format!("{url}/"), &Shown::default()).unwrap().check_empty().unwrap_err();
        assert!(
            matches!(&error, LoadError::EngineNotEmpty { video_id, view_count: 5, .. } if video_id == "x"),
            "{error}"
        );
        let url = serve(vec![("400 Bad Request", "no such period".into())]);
        let error = Verifier::new(&url, &Shown::default()).unwrap().check_empty().unwrap_err();
        assert!(error.to_string().contains("no such period"), "{error}");
    }

    #[test]
    fn only_http_addresses_are_taken() {
        for bad in ["127.0.0.1:8080", "https://x", "http://"] {
            assert!(Verifier::new(bad, &Shown::default()).unwrap_err().is_usage(), "{bad}");
        }
    }
}
