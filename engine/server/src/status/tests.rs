//! What a page of metrics comes to: figures, problems with their remedies, exit codes.

use super::facts::Facts;
use super::page::Page;
use super::problems::{Problem, problems};
use super::{State, TROUBLED};
use std::time::Duration;

/// The page of an engine that is well.
const GOOD: &str = "\
highwater_engine_info{version=\"0.1.0\",instance=\"0a\"} 1
highwater_epoch 7
highwater_snapshot_age_ms 300
highwater_core_busy_permille{core=\"0\"} 120
highwater_core_busy_permille{core=\"10\"} 130
highwater_core_busy_permille{core=\"2\"} 800
highwater_connections{core=\"0\"} 3
highwater_loop_turn_us_max{core=\"0\"} 400
highwater_lane_cells_waiting{core=\"0\"} 5
highwater_connections_max 300
highwater_videos 80
highwater_videos_max 100
highwater_resident_bytes 1048576
highwater_memory_limit_bytes 4194304
highwater_views_received_total 100
highwater_views_counted_total 80
highwater_views_duplicate_total 15
highwater_views_refused_total{reason=\"table_full\"} 5
highwater_views_refused_total{reason=\"malformed\"} 0
highwater_disk_free_bytes 1099511627776
highwater_files{kind=\"cut\"} 12
highwater_file_bytes{kind=\"cut\"} 4096
highwater_cut_number 240
highwater_base_number 0
highwater_archive_paused 0
highwater_access_out_of_date 0
highwater_archive_segments_given_up_total 3
";

fn facts(before: &str, now: &str, not_ready: Option<&str>) -> Facts {
    let [before, now] = [before, now].map(|text| Page::parse(text).unwrap());
    let facts = Facts::new("http://e", &before, &now, Duration::from_secs(2));
    let facts = facts.with_readiness(not_ready.map(str::to_owned)).with_lists(None, Vec::new());
    let problems = problems(&facts, &before, &now);
    Facts { problems, ..facts }
}

#[test]
fn an_engine_that_is_well_has_no_problem() {
    let facts = facts(GOOD, GOOD, None);
    assert_eq!(facts.problems, []);
    assert_eq!((State::of(&facts), State::of(&facts).exit_code()), (State::Good, 0));
    let text = facts.text();
    for words in [
        "http://e  ready  version 0.1.0  instance 0a",
        "epoch 7  as of -  300 ms old",
        "12.0 %",
        "80 of 100 videos (80 %)",
        "1.0 MiB of 4.0 MiB (25 %)",
        "received 100 (0/s)",
        "views: table_full 5",
        "batches: none",
        "cut 12 (4.0 KiB)",
        "3 given up",
        "problems  none",
    ] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    let cores: Vec<&str> = facts.cores.iter().map(|one| one.core.as_str()).collect();
    assert_eq!(cores, ["0", "2", "10"], "by number");
    let json = serde_json::to_value(&facts).unwrap();
    assert_eq!((&json["ready"], &json["cores"][0]["busy_permille"]), (&true.into(), &120.into()));
    assert!(json["snapshot"]["as_of"].is_null(), "what is not known is null: {json}");
}

#[test]
fn each_wrong_figure_is_told_with_its_remedy() {
    let cases = [
        ("highwater_snapshot_age_ms 300", "highwater_snapshot_age_ms 5001", "5001 ms old", "disk is full"),
        ("permille{core=\"2\"} 800", "permille{core=\"2\"} 801", "core 2 is 80.1 % busy", "more --cores"),
        ("us_max{core=\"0\"} 400", "us_max{core=\"0\"} 100001", "100001 µs", "keep other work off"),
        ("waiting{core=\"0\"} 5", "waiting{core=\"0\"} 524288", "lanes into core 0 are 50 % full", "more --cores"),
        ("connections{core=\"0\"} 3", "connections{core=\"0\"} 81", "81 % of its connections", "refused"),
        ("highwater_videos 80", "highwater_videos 81", "81 % full", "more --memory"),
        ("resident_bytes 1048576", "resident_bytes 4194304", "100 % of --memory", "run out of memory"),
        ("free_bytes 1099511627776", "free_bytes 1000", "below the reserve of 256.0 MiB", "free space"),
        ("file_bytes{kind=\"cut\"} 4096", "file_bytes{kind=\"cut\"} 1000000000000", "below twice", "free space"),
        ("cut_number 240", "cut_number 241", "241 cut files", "--helper-cores"),
        ("archive_paused 0", "archive_paused 1", "archive waits", "free space"),
        ("out_of_date 0", "out_of_date 1", "earlier ones are in force", "the engine's log"),
        ("given_up_total 3", "given_up_total 5", "2 log segments", "exports and audits"),
        ("views_duplicate_total 15", "views_duplicate_total 14", "100 views were received, but 99", "a bug"),
    ];
    for (good, bad, what, remedy) in cases {
        assert!(GOOD.contains(good), "{good}");
        let facts = facts(GOOD, &GOOD.replace(good, bad), None);
        let [Problem { what: told, remedy: advice }] = facts.problems.as_slice() else {
            panic!("{bad}: {:?}", facts.problems)
        };
        assert!(told.contains(what) && advice.contains(remedy), "{bad}: {told}; {advice}");
        assert_eq!(State::of(&facts).exit_code(), TROUBLED);
        let text = facts.text();
        assert!(text.contains(&format!("PROBLEM   {told}\n          -> {advice}\n")), "{text}");
    }
    let refused = GOOD.replace("total{reason=\"table_full\"} 5", "total{reason=\"table_full\"} 9");
    let refused = refused.replace("received_total 100", "received_total 104");
    let facts = facts(GOOD, &refused, None);
    assert_eq!(facts.views.received_per_s, Some(2));
    assert_eq!(facts.problems.len(), 1, "{:?}", facts.problems);
    assert!(facts.problems[0].what.contains("4 views refused as table_full"), "{:?}", facts.problems);
}

#[test]
fn one_that_is_not_ready_says_why() {
    let facts = facts(GOOD, GOOD, Some("no snapshot\u{1b}[2J has been published yet"));
    assert_eq!(State::of(&facts).exit_code(), 1);
    let text = facts.text();
    assert!(text.contains("NOT READY") && text.contains("PROBLEM   not ready: no snapshot"), "{text}");
    assert!(!text.contains('\u{1b}'), "nothing moves the cursor: {text:?}");
}

#[test]
fn what_is_not_there_is_no_problem() {
    let facts = facts("highwater_snapshot_age_ms 1\n", "highwater_snapshot_age_ms 1\n", None);
    assert_eq!(facts.problems, []);
    let text = facts.text();
    assert!(text.contains("- of - videos (-)") && text.contains("version -"), "{text}");
}
