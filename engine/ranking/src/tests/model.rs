//! Seeds: random views, times, markers, scans and restarts against the oracle.

use rand::RngExt;

use super::harness::{Coverage, Harness, Plan};
use super::oracle::SeenView;
use crate::{Calendar, Minute, WindowLengths};

/// Prints how to rerun a seed when its case panics.
struct SeedGuard(&'static str, u64);

impl Drop for SeedGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(test, seed) = self;
            eprintln!("failed with seed {seed}; rerun: HIGHWATER_SEED={seed} cargo test -p highwater-ranking {test}");
        }
    }
}

/// Runs `cases` seeds (or the one in `HIGHWATER_SEED`; `HIGHWATER_CASES` multiplies the number).
fn run_seeds(test: &'static str, cases: u64, run: impl Fn(u64, &mut Coverage)) -> Coverage {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut total = Coverage::default();
    if let Some(seed) = number("HIGHWATER_SEED") {
        let _guard = SeedGuard(test, seed);
        run(seed, &mut total);
        return total;
    }
    let cases = cases * number("HIGHWATER_CASES").unwrap_or(1);
    for seed in 0..cases {
        let _guard = SeedGuard(test, seed);
        run(seed, &mut total);
    }
    eprintln!("{test}: {cases} cases, {total:?}");
    total
}

fn add(total: &mut Coverage, one: Coverage) {
    total.markers += one.markers;
    total.views += one.views;
    total.restores += one.restores;
    total.subtracted += one.subtracted;
    total.entered += one.entered;
    total.tumbling_views += one.tumbling_views;
    total.based += one.based;
    total.blocked += one.blocked;
    total.published_while_scanning += one.published_while_scanning;
    total.applied_while_scanning += one.applied_while_scanning;
    total.raised += one.raised;
    total.tied_at_k += one.tied_at_k;
}

/// A random minute: mostly now, often exactly around an edge, sometimes early, sometimes ancient.
fn random_minute(harness: &mut Harness, windows: &WindowLengths) -> Minute {
    let now = harness.minute();
    match harness.rng.random_range(0..100) {
        0..60 => now,
        60..66 => Minute(now.0 + harness.rng.random_range(1..=2)),
        66..90 => {
            let window = [windows.hour, windows.day, windows.month][harness.rng.random_range(0..3)];
            Minute(now.minus(window).0 + 1).minus(harness.rng.random_range(0..=2))
        }
        90..97 => now.minus(harness.rng.random_range(0..=windows.month + 2)),
        _ => now.minus(harness.rng.random_range(0..=now.0)),
    }
}

/// A batch: uniform, skewed, a walk over all videos that leaves ties, or one video.
fn random_views(harness: &mut Harness, windows: &WindowLengths, len_max: usize) -> Vec<SeenView> {
    let videos = harness.oracle.ids.len();
    let len = harness.rng.random_range(1..=len_max);
    let kind = harness.rng.random_range(0..8);
    let first = harness.rng.random_range(0..videos);
    let same_minute = random_minute(harness, windows);
    let view = |index| {
        let video = match kind {
            0..3 => harness.rng.random_range(0..videos),
            3..5 => {
                let high = harness.rng.random_range(1..=videos);
                harness.rng.random_range(0..high)
            }
            5..7 => (first + index) % videos,
            _ => first,
        };
        let minute = if kind == 6 { same_minute } else { random_minute(harness, windows) };
        let class = if harness.rng.random_range(0..10) < 8 { 0 } else { harness.rng.random_range(0..4) };
        SeenView { video, minute, class }
    };
    (0..len).map(view).collect()
}

/// One case of `steps` operations.
fn run_case(plan: Plan, steps: usize, batch_len_max: usize, brute_force: bool, total: &mut Coverage) {
    let mut harness = Harness::new(plan);
    let WindowLengths { hour, day, month, .. } = plan.windows;
    for _ in 0..steps {
        match harness.rng.random_range(0..100) {
            0..55 => {
                let views = random_views(&mut harness, &plan.windows, batch_len_max);
                harness.apply(&views);
            }
            55..65 => {
                let budget = harness.rng.random_range(1..100);
                harness.cores.iter_mut().for_each(|core| {
                    core.scan_step(budget);
                });
            }
            65..75 => {
                let cut = harness.rng.random_range(0..3) == 0;
                let advance_ms = harness.rng.random_range(0..3000);
                harness.marker(advance_ms, cut);
            }
            75..95 => {
                let minutes = match harness.rng.random_range(0..20) {
                    0..12 => 1,
                    12..15 => harness.rng.random_range(2..=hour + 1),
                    15..17 => hour + harness.rng.random_range(0..=1),
                    17 => day,
                    18 => harness.rng.random_range(1..=day),
                    _ => month + harness.rng.random_range(0..=1),
                };
                harness.marker(u64::from(minutes) * 60_000, false);
            }
            95..97 => {
                let later_ms = [0, 30_000, 60_000, u64::from(hour) * 60_000][harness.rng.random_range(0..4)];
                harness.restart(later_ms);
            }
            _ => {
                harness.marker(0, false);
                let video = harness.rng.random_range(0..plan.videos);
                harness.compare_lookup(video);
            }
        }
        if brute_force {
            harness.check_invariants();
        }
    }
    harness.check_invariants();
    harness.check_runs();
    add(total, harness.coverage);
}

#[test]
fn model_scaled_windows_small_k() {
    let total = run_seeds("model_scaled_windows_small_k", 600, |seed, total| {
        let plan = Plan {
            seed,
            videos: [5, 40, 120, 400][seed as usize % 4],
            top_k: 1 + seed as usize / 4 % 8,
            windows: WindowLengths { hour: 3, day: 9, month: 30, calendar: Calendar::scaled(3, 3, 4) },
            minute_start: if seed.is_multiple_of(5) { 2 } else { 28_000_000 },
        };
        run_case(plan, 80, 150, true, total);
    });
    if std::env::var("HIGHWATER_SEED").is_err() {
        assert!(total.blocked > 100 && total.published_while_scanning > 100, "{total:?}");
        assert!(total.applied_while_scanning > 1000 && total.raised > 100, "{total:?}");
        assert!(total.subtracted > 10_000 && total.restores > 100 && total.tied_at_k > 1000, "{total:?}");
        assert!(total.entered > 1000 && total.tumbling_views > 100_000 && total.based > 1000, "{total:?}");
    }
}

#[test]
fn model_full_windows_through_months() {
    let total = run_seeds("model_full_windows_through_months", 120, |seed, total| {
        let plan = Plan {
            seed: 1_000_000 + seed,
            videos: 200,
            top_k: 4 + seed as usize % 5,
            windows: WindowLengths::default(),
            minute_start: 28_000_000,
        };
        run_case(plan, 120, 120, true, total);
    });
    if std::env::var("HIGHWATER_SEED").is_err() {
        assert!(total.subtracted > 10_000 && total.restores > 20, "{total:?}");
    }
}

#[test]
fn model_full_k_with_thousands_tied() {
    let total = run_seeds("model_full_k_with_thousands_tied", 6, |seed, total| {
        let plan = Plan {
            seed: 2_000_000 + seed,
            videos: [9_000, 20_000][seed as usize % 2],
            top_k: 1000,
            windows: WindowLengths { hour: 3, day: 9, month: 30, calendar: Calendar::scaled(3, 3, 4) },
            minute_start: 28_000_000,
        };
        run_case(plan, 60, 12_000, false, total);
    });
    if std::env::var("HIGHWATER_SEED").is_err() {
        assert!(total.tied_at_k > 20 && total.blocked > 0 && total.restores > 3, "{total:?}");
    }
}
