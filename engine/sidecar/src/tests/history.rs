//! Calendar periods over HTTP: the current ones, closed ones, and why there is no list.

use super::*;
use highwater_proto::ClosedList;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// 2024-07-15T00:00:00Z.
const TODAY_MS: u64 = NOON_MS - 12 * HOUR_MS;

/// The snapshot of the other tests with the current hour, day and month beside.
fn with_tumbling(epoch: u64, rows: u64) -> Arc<Snapshot> {
    let mut snapshot = Arc::unwrap_or_clone(snapshot(epoch, rows));
    let bounds = [
        (Period::Hour, NOON_MS, NOON_MS + HOUR_MS),
        (Period::Day, TODAY_MS, TODAY_MS + DAY_MS),
        (Period::Month, TODAY_MS - 14 * DAY_MS, TODAY_MS + 17 * DAY_MS),
    ];
    for (period, start_ms, end_ms) in bounds {
        let row = |index| BoardRow { video_id: format!("v{index:03}").into(), view_count: 30 };
        let (window, rows) = (Window::Tumbling, (0..rows).map(row).collect());
        snapshot.boards.push(Board { period, window, start_ms: Some(start_ms), end_ms, total_views: 100_000, rows });
    }
    Arc::new(snapshot)
}

/// The list of the day that began so many days ago.
fn day(ago: u64) -> ClosedList {
    let row = |(index, video_id): (u64, &str)| BoardRow { video_id: video_id.into(), view_count: 500 - index };
    let start_ms = TODAY_MS - ago * DAY_MS;
    ClosedList {
        period: Period::Day,
        start_ms,
        end_ms: start_ms + DAY_MS,
        total_views: 2000 + ago,
        rows: (0..).zip(["é", "b", "c"]).map(row).collect(),
    }
}

/// Serves the tumbling boards, and the lists of the days that began so many days ago, the oldest first.
pub(super) async fn with_days(ago: &[u64]) -> Served {
    let served = start(Some(with_tumbling(7, 2)), HttpLimits::default()).await;
    let mut closed = served.source.history.lock().unwrap();
    closed.lists = ago.iter().map(|ago| day(*ago)).collect();
    closed.closed_until_ms = TODAY_MS;
    drop(closed);
    served
}

async fn top(served: &Served, start: &str) -> Answer {
    get(served, &format!("/v1/videos/top?period=day&window=tumbling&start={start}")).await
}

#[tokio::test]
async fn a_current_period_is_a_list_that_is_not_final() {
    let served = with_days(&[]).await;
    let answer = get(&served, "/v1/videos/top?period=month&window=tumbling&k=1").await;
    let expected = concat!(
        r#"{"period":"month","window":"tumbling","start_time":"2024-07-01T00:00:00Z","#,
        r#""end_time":"2024-08-01T00:00:00Z","final":false,"as_of":"2024-07-15T12:00:59.007Z","epoch":7,"#,
        r#""total_views":100000,"other_views":99970,"#,
        r#""top_videos":[{"rank":1,"video_id":"v000","view_count":30}]}"#
    );
    assert_eq!((answer.status, answer.text()), (200, expected));
    // The windows of one period are kept apart, and each k has its own rest.
    let sliding = get(&served, "/v1/videos/top?period=hour&k=1").await.json();
    let tumbling = get(&served, "/v1/videos/top?period=hour&window=tumbling&k=1").await.json();
    assert_eq!((&sliding["window"], sliding.get("final")), (&json!("sliding"), None));
    assert_eq!((&tumbling["window"], &tumbling["other_views"]), (&json!("tumbling"), &json!(99_970)));
    let two = get(&served, "/v1/videos/top?period=hour&window=tumbling&k=2").await.json();
    assert_eq!((&two["other_views"], two["top_videos"].as_array().unwrap().len()), (&json!(99_940), 2));
    // Its own start asks for the same.
    let named = get(&served, "/v1/videos/top?period=month&window=tumbling&k=1&start=2024-07-01Z").await;
    assert_eq!((named.status, named.text()), (200, expected));
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 0);
}

#[tokio::test]
async fn a_closed_period_is_a_final_list_that_is_read_once() {
    let served = with_days(&[3, 1]).await;
    let answer = get(&served, "/v1/videos/top?period=day&window=tumbling&k=2&start=2024-07-14T00:00:00Z").await;
    let expected = concat!(
        r#"{"period":"day","window":"tumbling","start_time":"2024-07-14T00:00:00Z","#,
        r#""end_time":"2024-07-15T00:00:00Z","final":true,"total_views":2001,"other_views":1002,"#,
        r#""top_videos":[{"rank":1,"video_id":"é","view_count":500},{"rank":2,"video_id":"b","view_count":499}]}"#
    );
    assert_eq!((answer.status, answer.text()), (200, expected));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    for (start, k, rows) in [("2024-07-14Z", 1, 1), ("2024-07-14T02:00:00+02:00", 1000, 3)] {
        let answer = top(&served, &format!("{start}&k={k}")).await.json();
        assert_eq!((answer["top_videos"].as_array().unwrap().len(), &answer["final"]), (rows, &json!(true)), "{start}");
    }
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 1, "it is kept");
    // More lists than are kept: the one used longest ago is read again.
    served.source.history.lock().unwrap().lists = (1..=60).rev().map(day).collect();
    for ago in 2..=40 {
        let start = crate::time::rfc3339(TODAY_MS - ago * DAY_MS);
        assert_eq!(top(&served, &start).await.json()["total_views"], 2000 + ago);
    }
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 40);
    assert_eq!(top(&served, "2024-07-14Z").await.status, 200);
    assert_eq!(served.source.history.lock().unwrap().lists_asked, 41);
}

#[tokio::test]
async fn why_there_is_no_list_is_told() {
    let served = with_days(&[5, 3]).await;
    let told = async |start: &str, kind: &str, words: &[&str]| {
        let answer = top(&served, start).await;
        let problem = answer.json();
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")), "{start}");
        assert_eq!(problem["type"], format!("urn:highwater:problem:{kind}"), "{start}");
        assert_eq!((&problem["parameter"], &problem["value"]), (&json!("start"), &json!(start)), "{start}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(words.iter().all(|word| detail.contains(word)), "{start}: {detail}");
        (answer.header("retry-after").map(str::to_owned), problem["final_time"].as_str().map(str::to_owned))
    };
    let none = (None, None);
    let empty = ["2024-07-11T00:00:00Z", "no view of it"];
    assert_eq!(told("2024-07-11Z", "no-list", &empty).await, none);
    let old = ["2024-07-01T00:00:00Z", "the oldest that is begins at 2024-07-10T00:00:00Z"];
    assert_eq!(told("2024-07-01Z", "no-list", &old).await, none);
    let ahead = ["2024-07-16T00:00:00Z has not begun", "2024-07-15T12:00:59.007Z"];
    assert_eq!(told("2024-07-16Z", "no-list", &ahead).await, none);
    served.source.history.lock().unwrap().lists.clear();
    assert_eq!(told("2024-07-11Z", "no-list", &["no list of a day is kept"]).await, none);

    // Yesterday is over, but not yet closed: first its time has not come, then its list has not.
    served.source.history.lock().unwrap().closed_until_ms = TODAY_MS - DAY_MS;
    let mut early = Arc::unwrap_or_clone(with_tumbling(8, 1));
    early.as_of_ms = TODAY_MS + 8 * 60_000 + 500;
    served.source.latest.send_replace(Some(Arc::new(early)));
    let until = Some("2024-07-15T00:10:00Z".to_owned());
    let not_final = ["from 2024-07-14T00:00:00Z is final at 2024-07-15T00:10:00Z", "it is 2024-07-15T00:08:00.500Z"];
    assert_eq!(told("2024-07-14Z", "not-final", &not_final).await, (Some("120".to_owned()), until.clone()));
    served.source.latest.send_replace(Some(with_tumbling(9, 1)));
    let closing = ["2024-07-14T00:00:00Z is being closed"];
    assert_eq!(told("2024-07-14Z", "not-final", &closing).await, (Some("10".to_owned()), until.clone()));
    served.source.history.lock().unwrap().closed_until_ms = 0;
    let first = ["no day has been closed yet"];
    assert_eq!(told("2024-07-14Z", "not-final", &first).await, (Some("10".to_owned()), until));
}

#[tokio::test]
async fn a_source_that_cannot_tell_is_no_missing_list() {
    let served = with_days(&[1]).await;
    served.source.history.lock().unwrap().busy = true;
    for path in ["/v1/videos/top?period=day&window=tumbling&start=2024-07-14Z", "/v1/periods?period=day"] {
        let answer = get(&served, path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
    }
    served.source.history.lock().unwrap().busy = false;
    served.source.history.lock().unwrap().unreadable = true;
    for path in ["/v1/videos/top?period=day&window=tumbling&start=2024-07-14Z", "/v1/periods?period=day"] {
        let answer = get(&served, path).await;
        assert_eq!((answer.status, answer.header("retry-after")), (500, None), "{path}");
        assert_eq!(answer.json()["type"], "urn:highwater:problem:history-unreadable", "{path}");
    }
    // Without tumbling boards in the snapshot the current period is still known not to be closed.
    served.source.latest.send_replace(Some(snapshot(8, 1)));
    let answer = get(&served, "/v1/videos/top?period=month&window=tumbling&start=2024-07-01Z").await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("holds no list of period month, window tumbling"), "{}", answer.text());
}

#[tokio::test]
async fn a_start_that_is_none_names_the_nearest() {
    let served = with_days(&[1]).await;
    let times = vec![crate::time::ALLOWED];
    let cases = [
        ("period=hour&start=2024-07-15T11:00:00Z", "window", None, vec!["tumbling"]),
        ("period=day&window=sliding&start=2024-07-15Z", "window", Some("sliding"), vec!["tumbling"]),
        ("period=all-time&start=2024-07-15Z", "period", Some("all-time"), vec!["hour", "day", "month"]),
        ("period=all-time&window=tumbling&start=2024-07-15Z", "period", Some("all-time"), vec!["hour", "day", "month"]),
        ("period=day&window=tumbling&start=", "start", Some(""), times.clone()),
        ("period=day&window=tumbling&start=monday", "start", Some("monday"), times.clone()),
        ("period=day&window=tumbling&start=2024-07-15", "start", Some("2024-07-15"), times.clone()),
        ("period=day&window=tumbling&start=1969-01-01Z", "start", Some("1969-01-01Z"), times),
        (
            "period=hour&window=tumbling&start=2024-07-15T11:00:00.0001Z",
            "start",
            Some("2024-07-15T11:00:00.0001Z"),
            vec!["2024-07-15T11:00:00Z", "2024-07-15T12:00:00Z"],
        ),
        (
            "period=day&window=tumbling&start=2024-07-15T00:00:00-05:00",
            "start",
            Some("2024-07-15T00:00:00-05:00"),
            vec!["2024-07-15T00:00:00Z", "2024-07-16T00:00:00Z"],
        ),
        (
            "period=month&window=tumbling&start=2024-07-15Z",
            "start",
            Some("2024-07-15Z"),
            vec!["2024-07-01T00:00:00Z", "2024-08-01T00:00:00Z"],
        ),
    ];
    for (query, parameter, value, allowed) in cases {
        let answer = get(&served, &format!("/v1/videos/top?{query}")).await;
        let problem = answer.json();
        let kind = if value.is_some() { "invalid-parameter" } else { "missing-parameter" };
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(problem["type"], format!("urn:highwater:problem:{kind}"), "{query}");
        assert_eq!((&problem["parameter"], &problem["value"]), (&json!(parameter), &json!(value)), "{query}");
        assert_eq!(problem["allowed"], json!(allowed), "{query}");
    }
}

#[tokio::test]
async fn the_periods_there_are_come_page_by_page() {
    let served = with_days(&[9, 4, 3, 1]).await;
    let answer = get(&served, "/v1/periods?period=day&limit=2").await;
    let expected = concat!(
        r#"{"period":"day","as_of":"2024-07-15T12:00:59.007Z","epoch":7,"periods":["#,
        r#"{"start_time":"2024-07-15T00:00:00Z","end_time":"2024-07-16T00:00:00Z","total_views":100000,"final":false},"#,
        r#"{"start_time":"2024-07-14T00:00:00Z","end_time":"2024-07-15T00:00:00Z","total_views":2001,"final":true}],"#,
        r#""next_before":"2024-07-14T00:00:00Z"}"#
    );
    assert_eq!((answer.status, answer.text()), (200, expected));
    for limit in 1..=6 {
        let (mut starts, mut before, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = get(&served, &format!("/v1/periods?period=day&limit={limit}{before}")).await.json();
            let periods = page["periods"].as_array().unwrap();
            assert!(periods.len() <= limit && !periods.is_empty(), "{page}");
            starts.extend(periods.iter().map(|one| one["start_time"].as_str().unwrap()[8..10].to_owned()));
            pages += 1;
            let Some(next) = page["next_before"].as_str() else { break };
            before = format!("&before={next}");
        }
        assert_eq!(starts, ["15", "14", "12", "11", "06"], "limit {limit}");
        assert_eq!(pages, 5_usize.div_ceil(limit), "limit {limit}");
    }
    let none = get(&served, "/v1/periods?period=day&before=2024-07-06Z").await.json();
    assert_eq!((&none["periods"], &none["next_before"]), (&json!([]), &Value::Null));
    // Part of a millisecond later than its start, a period is before.
    let just = get(&served, "/v1/periods?period=day&before=2024-07-06T00:00:00.0001Z").await.json();
    assert_eq!(just["periods"].as_array().unwrap().len(), 1);
    let hours = get(&served, "/v1/periods?period=hour").await.json();
    assert_eq!((hours["periods"].as_array().unwrap().len(), &hours["next_before"]), (1, &Value::Null));
    // A snapshot that has stood still says of a day that is closed by now that it is the current one.
    served.source.history.lock().unwrap().lists.push(day(0));
    let stale = get(&served, "/v1/periods?period=day&limit=1").await.json();
    assert_eq!((&stale["periods"][0]["final"], stale["periods"].as_array().unwrap().len()), (&json!(true), 1));
    let metrics = get(&served, "/metrics").await;
    assert!(metrics.text().contains("highwater_http_answers_total{route=\"periods\",status=\"200\"} "));
}

#[tokio::test]
async fn every_wrong_question_for_periods_is_named() {
    let served = with_days(&[]).await;
    let calendar = json!(["hour", "day", "month"]);
    let limits = json!(["1 to 1000"]);
    let parameters = json!(["period", "limit", "before"]);
    let cases = [
        ("", "missing-parameter", "period", Value::Null, &calendar),
        ("?period=all-time", "invalid-parameter", "period", json!("all-time"), &calendar),
        ("?period=week", "invalid-parameter", "period", json!("week"), &calendar),
        ("?period=day&limit=0", "invalid-parameter", "limit", json!("0"), &limits),
        ("?period=day&limit=1001", "invalid-parameter", "limit", json!("1001"), &limits),
        ("?period=day&limit=65537", "invalid-parameter", "limit", json!("65537"), &limits),
        ("?period=day&before=x", "invalid-parameter", "before", json!("x"), &json!([crate::time::ALLOWED])),
        ("?period=day&k=5", "unknown-parameter", "k", json!("5"), &parameters),
        ("?period=day&window=tumbling", "unknown-parameter", "window", json!("tumbling"), &parameters),
        ("?period=day&period=day", "repeated-parameter", "period", json!("day"), &json!([])),
    ];
    for (query, kind, parameter, value, allowed) in cases {
        let answer = get(&served, &format!("/v1/periods{query}")).await;
        let problem = answer.json();
        assert_eq!((answer.status, &problem["parameter"]), (400, &json!(parameter)), "{query}");
        assert_eq!(problem["type"], format!("urn:highwater:problem:{kind}"), "{query}");
        assert_eq!((&problem["value"], problem.get("allowed").unwrap_or(&json!([]))), (&value, allowed), "{query}");
    }
    served.source.latest.send_replace(None);
    let early = get(&served, "/v1/periods?period=day").await;
    assert_eq!((early.status, early.header("retry-after")), (503, Some("1")));
    let answer = ask(served.address, "POST", "/v1/periods?period=day").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")));
}
