//! Cases with a story: what must be refused, what must stop the engine, and the shapes that
//! simpler designs get wrong.

use highwater_proto::{Epoch, Period, Window};

use super::invariants;
use crate::*;

const NOW: Minute = Minute(28_000_000);

fn config(top_k: usize) -> RankingConfig {
    RankingConfig {
        shards_total: 1,
        owned: vec![0],
        hash_seed: 1,
        videos_per_shard_max: 10_000,
        id_arena_bytes_per_shard: 1000,
        late_rows_max: 10,
        top_k,
        windows: WindowLengths::default(),
    }
}

fn ready(top_k: usize) -> CoreRanking {
    let mut core = CoreRanking::new(config(top_k), NOW).unwrap();
    core.finish_restore();
    core
}

const NEW: Row = Row { hash: 0, minute: NOW, class: FinalityClass(0), views: 1 };

fn view(core: &mut CoreRanking, id: &str, minute: Minute, class: u8, times: usize) {
    let mut cells = Vec::new();
    for _ in 0..times {
        let row = Row { hash: core.id_hash().hash(id), minute, class: FinalityClass(class), views: 1 };
        push_row(&mut cells, row, id);
    }
    core.apply(&cells);
}

fn marker_at(epoch: u64, minute: Minute, cut: bool) -> Marker {
    let time_ms = minute.start_ms() + epoch;
    Marker { epoch: Epoch(epoch), time_ms, cut, log_generation: 0, log_position: 0, oldest_arrival_ms: 0 }
}

/// Runs a marker to its end; every leaving run of `stored`, and of the cut just closed, falls.
fn run_marker(core: &mut CoreRanking, marker: &Marker, stored: &mut Vec<Run>) -> CoreTop {
    core.begin_marker(marker);
    loop {
        match core.step(64) {
            MarkerStep::Closed(cut) => stored.extend(cut.shards.into_iter().flat_map(|shard| shard.into_runs().1)),
            MarkerStep::NeedRuns(requests) => {
                for request in requests {
                    let is_meant = |run: &&Run| request.minutes.contains(&run.minute) && run.class <= request.class_max;
                    for run in stored.iter().filter(is_meant) {
                        match request.change {
                            RunChange::Leave => core.subtract(request.window, 0, &run.entries),
                            RunChange::Enter => core.add(request.window, 0, &run.entries),
                        }
                    }
                }
                core.runs_done();
            }
            MarkerStep::Working => {}
            MarkerStep::Waiting => panic!("nobody waits here"),
            MarkerStep::Top(top) => return top,
        }
    }
}

fn rows(top: &CoreTop, period: Period) -> Vec<(&str, u64)> {
    rows_of(top, period, Window::Sliding)
}

fn rows_of(top: &CoreTop, period: Period, window: Window) -> Vec<(&str, u64)> {
    let board = top.boards.iter().find(|board| (board.period, board.window) == (period, window)).unwrap();
    board.rows.iter().map(|(id, count)| (&**id, *count)).collect()
}

/// A list of 2K candidates loses here: the 2K leaders all fall at once, and the videos that come
/// to lead were never among them.
#[test]
fn leaders_that_all_fall_leave_the_others_in_exact_order() {
    let mut core = ready(2);
    let mut stored = Vec::new();
    for leader in 0..40 {
        view(&mut core, &format!("leader-{leader:02}"), NOW.minus(60), 0, 9);
    }
    for quiet in 0..40 {
        view(&mut core, &format!("quiet-{quiet:02}"), NOW, 0, 1 + quiet % 3);
    }
    let top = run_marker(&mut core, &marker_at(1, NOW, false), &mut stored);
    assert_eq!(rows(&top, Period::Hour), [("leader-00", 9), ("leader-01", 9)]);
    let top = run_marker(&mut core, &marker_at(2, Minute(NOW.0 + 1), false), &mut stored);
    assert_eq!(rows(&top, Period::Hour), [("quiet-02", 3), ("quiet-05", 3)]);
    assert_eq!(rows(&top, Period::AllTime), [("leader-00", 9), ("leader-01", 9)]);
    invariants::check(&core);
}

#[test]
fn thousands_tied_at_one_are_ranked_by_id_and_keep_the_board_small() {
    let mut core = ready(4);
    let mut stored = Vec::new();
    for video in (0..9000).rev() {
        view(&mut core, &format!("tied-{video:05}"), NOW, 0, 1);
    }
    let top = run_marker(&mut core, &marker_at(1, NOW, true), &mut stored);
    let expected = [("tied-00000", 1), ("tied-00001", 1), ("tied-00002", 1), ("tied-00003", 1)];
    for period in Period::ALL {
        assert_eq!(rows(&top, period), expected);
    }
    invariants::check(&core);
}

/// A view ahead of the engine counts at once, and falls by its own minute, not by its arrival.
#[test]
fn a_view_ahead_of_time_falls_by_its_own_minute() {
    let mut core = ready(4);
    let mut stored = Vec::new();
    view(&mut core, "ahead", Minute(NOW.0 + 1), 0, 1);
    view(&mut core, "now", NOW, 0, 1);
    let top = run_marker(&mut core, &marker_at(1, NOW, false), &mut stored);
    assert_eq!(rows(&top, Period::Hour), [("ahead", 1), ("now", 1)]);
    assert_eq!(top.minute_max, Minute(NOW.0 + 1));
    let top = run_marker(&mut core, &marker_at(2, Minute(NOW.0 + 61), false), &mut stored);
    assert_eq!(rows(&top, Period::Hour), [("ahead", 1)]);
    let top = run_marker(&mut core, &marker_at(3, Minute(NOW.0 + 62), false), &mut stored);
    assert_eq!(rows(&top, Period::Hour), []);
    assert_eq!(rows(&top, Period::Day).len(), 2);
}

/// 2023-12-31T23:59: the next minute opens an hour, a day, a month and a year at once. A view ahead of time counts at
/// once in the sliding windows, and in each tumbling one when it opens; one that came after the finality of its hour
/// counts in its day, after that of its day in its month, and after that nowhere but in the sliding ones.
#[test]
fn tumbling_windows_open_with_what_came_early_and_leave_out_what_came_late() {
    let last = Minute(28_401_119);
    let mut core = CoreRanking::new(config(4), last).unwrap();
    core.finish_restore();
    let mut stored = Vec::new();
    view(&mut core, "old", last, 0, 5);
    view(&mut core, "new", Minute(last.0 + 1), 0, 2);
    let all = [Period::Hour, Period::Day, Period::Month];
    let top = run_marker(&mut core, &marker_at(1, last, false), &mut stored);
    for period in all {
        assert_eq!(rows_of(&top, period, Window::Tumbling), [("old", 5)], "{period}");
        assert_eq!(rows(&top, period), [("old", 5), ("new", 2)]);
    }
    let new_year = Minute(last.0 + 1);
    let top = run_marker(&mut core, &marker_at(2, new_year, false), &mut stored);
    for period in all {
        assert_eq!(rows_of(&top, period, Window::Tumbling), [("new", 2)], "{period}");
        assert_eq!(rows(&top, period), [("old", 5), ("new", 2)]);
    }
    view(&mut core, "old", last, 0, 1);
    for class in 0..=3 {
        view(&mut core, "late", new_year, class, 1);
    }
    let counts: Vec<_> = core.lookup("late").unwrap().into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [4, 4, 4, 4, 1, 2, 3]);
    let counts: Vec<_> = core.lookup("old").unwrap().into_iter().map(|(_, count)| count).collect();
    assert_eq!(counts, [6, 6, 6, 6, 0, 0, 0]);
    let top = run_marker(&mut core, &marker_at(3, Minute(new_year.0 + 60), false), &mut stored);
    let found = all.map(|period| rows_of(&top, period, Window::Tumbling));
    assert_eq!(found, [vec![], vec![("late", 2), ("new", 2)], vec![("late", 3), ("new", 2)]]);
    let total = |period| {
        let of = (period, Window::Tumbling);
        top.boards.iter().find(|board| (board.period, board.window) == of).unwrap().total_views
    };
    assert_eq!(all.map(total), [0, 4, 5]);
    invariants::check(&core);
}

/// The sliding month moves by hours: it holds whole hours, and all of one leave together.
#[test]
fn the_sliding_month_moves_by_hours() {
    let hour = Minute(NOW.0 - NOW.0 % 60);
    let mut core = CoreRanking::new(config(4), Minute(hour.0 + 59)).unwrap();
    core.finish_restore();
    let mut stored = Vec::new();
    let edge = hour.minus(43_200);
    view(&mut core, "before", edge.minus(1), 0, 1);
    view(&mut core, "first", edge, 0, 1);
    view(&mut core, "last", Minute(edge.0 + 59), 0, 1);
    let top = run_marker(&mut core, &marker_at(1, Minute(hour.0 + 59), true), &mut stored);
    assert_eq!(rows(&top, Period::Month), [("first", 1), ("last", 1)]);
    let top = run_marker(&mut core, &marker_at(2, Minute(hour.0 + 60), false), &mut stored);
    assert_eq!(rows(&top, Period::Month), []);
}

#[test]
fn a_marker_may_pass_months() {
    let mut core = ready(4);
    let mut stored = Vec::new();
    view(&mut core, "once", NOW, 0, 3);
    let top = run_marker(&mut core, &marker_at(1, Minute(NOW.0 + 100_000), false), &mut stored);
    assert_eq!(rows(&top, Period::AllTime), [("once", 3)]);
    for period in [Period::Hour, Period::Day, Period::Month] {
        assert_eq!(rows(&top, period), []);
    }
    invariants::check(&core);
}

/// Ids are compared in full: here all hashes are equal, also for ids of one length.
#[test]
fn ids_of_one_hash_are_counted_apart() {
    let mut core = ready(8);
    let ids = ["a", "b", "a-long-id-of-20-bytes", "b-long-id-of-20-bytes"];
    let mut cells = Vec::new();
    for _ in 0..2 {
        for (index, id) in ids.iter().enumerate() {
            for _ in 0..=index {
                push_row(&mut cells, Row { hash: 5, ..NEW }, id);
            }
        }
        core.apply(&cells);
    }
    assert_eq!(core.videos(), 4);
    let top = run_marker(&mut core, &marker_at(1, NOW, false), &mut Vec::new());
    // The second time applies the rows of both.
    assert_eq!(rows(&top, Period::Hour), [(ids[3], 12), (ids[2], 9), (ids[1], 6), (ids[0], 3)]);
}

#[test]
fn late_views_ask_for_a_cut_and_then_for_a_stop() {
    let mut core = ready(4);
    view(&mut core, "late", NOW.minus(1), 0, 9);
    assert!(!core.late_full());
    view(&mut core, "late", NOW, 1, 1);
    assert!(core.late_full() && !core.late_hard_full());
    view(&mut core, "late", NOW.minus(1), 0, 10);
    assert!(core.late_hard_full());
    let mut stored = Vec::new();
    run_marker(&mut core, &marker_at(1, NOW, true), &mut stored);
    assert_eq!(core.late_rows(), 0);
    let heads: Vec<_> = stored.iter().map(|run| (run.minute, run.class.0, run.entries[0].count)).collect();
    assert_eq!(heads, [(NOW.minus(1), 0, 19), (NOW, 1, 1)]);
}

/// A count that does not fit the line goes on as late views, and the runs add up.
#[test]
fn a_minute_count_at_its_limit_goes_on_in_late_views() {
    let mut core = ready(4);
    view(&mut core, "hot", NOW, 0, 1);
    core.shards[0].videos.lines[0].set_minute_count(u32::MAX);
    view(&mut core, "hot", NOW, 0, 2);
    let cut = core.cut_now(Epoch(1), 0);
    let (_, runs) = cut.shards.into_iter().next().unwrap().into_runs();
    let counts: Vec<_> = runs.iter().map(|run| (run.minute, run.class.0, run.entries[0].count)).collect();
    assert_eq!(counts, [(NOW, 0, u32::MAX), (NOW, 0, 2)]);
}

#[test]
fn room_is_by_slots_and_by_bytes_of_long_ids() {
    let mut core = ready(4);
    assert!(core.room_for(0, 10_000, 1000));
    assert!(!core.room_for(0, 10_001, 0) && !core.room_for(0, 1, 1001));
    view(&mut core, &"x".repeat(16), NOW, 0, 1);
    assert_eq!((core.slots_free(0), core.id_arena_free(0)), (9_999, 984));
    let hash = core.id_hash().hash("y");
    assert!(!core.contains(hash, "y"));
    view(&mut core, "y", NOW, 0, 1);
    assert!(core.contains(hash, "y"));
    assert!(core.lookup("z").is_none() && core.lookup("").is_none());
}

#[test]
fn state_that_does_not_fit_is_refused_with_the_figures() {
    let mut small = config(4);
    small.videos_per_shard_max = 2;
    small.id_arena_bytes_per_shard = 30;
    let mut core = CoreRanking::new(small.clone(), NOW).unwrap();
    let error = core.restore_ids(0, &[1, 1, 1], b"abc").unwrap_err().to_string();
    assert!(error.contains("at least 3 videos") && error.contains("room for 2") && error.contains("--memory"));
    let mut core = CoreRanking::new(small, NOW).unwrap();
    let ids = ["x".repeat(20), "y".repeat(20)].concat();
    let error = core.restore_ids(0, &[20, 20], ids.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("at least 40 bytes") && error.contains("room for 30"), "{error}");
}

#[test]
fn state_that_contradicts_itself_is_refused() {
    let what = |lens: &[u8], bytes: &[u8], shards_total| {
        let mut two = config(4);
        two.shards_total = shards_total;
        let mut core = CoreRanking::new(two, NOW).unwrap();
        core.restore_ids(0, lens, bytes).unwrap_err().to_string()
    };
    assert!(what(&[1, 1], b"aa", 1).contains("comes twice"));
    assert!(what(&[2], b"a", 1).contains("cut short"));
    assert!(what(&[1], b"ab", 1).contains("bytes are left"));
    assert!(what(&[0], b"", 1).contains("is empty"));
    assert!(what(&[1], &[0xFF], 1).contains("not UTF-8"));
    let foreign = (0u32..).map(|n| n.to_string()).find(|id| shard_of(IdHash::new(1).hash(id), 2) == 1).unwrap();
    assert!(what(&[foreign.len() as u8], foreign.as_bytes(), 2).contains("another shard"));
    let mut core = CoreRanking::new(config(4), NOW).unwrap();
    core.restore_ids(0, &[1], b"a").unwrap();
    let run = |core: &mut CoreRanking, slot, count| {
        core.restore_run(0, NOW, FinalityClass(0), &[SlotCount { slot, count }]).map_err(|error| error.to_string())
    };
    assert!(run(&mut core, 1, 1).unwrap_err().contains("beyond the last id"));
    assert!(run(&mut core, 0, 0).unwrap_err().contains("count of 0"));
    assert!(run(&mut core, 0, 1).is_ok());
}

#[test]
fn a_configuration_outside_its_limits_is_refused_by_name() {
    let refused = |change: fn(&mut RankingConfig)| {
        let mut config = config(4);
        change(&mut config);
        CoreRanking::new(config, NOW).unwrap_err().to_string()
    };
    assert!(refused(|config| config.top_k = 0).contains("top_k is 0"));
    assert!(refused(|config| config.top_k = 1001).contains("allowed is 1 to 1000"));
    assert!(refused(|config| config.videos_per_shard_max = SLOTS_MAX + 1).contains("videos_per_shard_max"));
    assert!(refused(|config| config.owned = vec![0, 0]).contains("owned twice"));
    assert!(refused(|config| config.owned = vec![1]).contains("shard 1"));
    assert!(refused(|config| config.windows.day = 0).contains("windows.day"));
}

#[test]
#[should_panic(expected = "bug: window 0 of slot 0 of shard 0 holds 1 views, and 2 are to leave")]
fn underflow_stops_the_engine() {
    let mut core = ready(4);
    view(&mut core, "a", NOW.minus(60), 0, 1);
    core.begin_marker(&marker_at(1, Minute(NOW.0 + 1), false));
    while !matches!(core.step(10), MarkerStep::NeedRuns(_)) {}
    core.subtract(0, 0, &[SlotCount { slot: 0, count: 2 }]);
}

#[test]
#[should_panic(expected = "while a marker is at work")]
fn rows_wait_while_a_marker_is_at_work() {
    let mut core = ready(4);
    core.begin_marker(&marker_at(1, NOW, false));
    view(&mut core, "a", NOW, 0, 1);
}

#[test]
#[should_panic(expected = "came after")]
fn epochs_never_go_back() {
    let mut core = ready(4);
    run_marker(&mut core, &marker_at(2, NOW, false), &mut Vec::new());
    core.begin_marker(&marker_at(1, NOW, false));
}

#[test]
#[should_panic(expected = "cells too few")]
fn a_torn_row_stops_the_engine() {
    let mut core = ready(4);
    let mut cells = Vec::new();
    push_row(&mut cells, NEW, &"x".repeat(100));
    core.apply(&cells[..2]);
}
