//! The sizes of a simulated engine, and the ids of the videos.

use crate::engine::Setup;
use highwater_ranking::{Calendar, WindowLengths};
use highwater_storage::{LogLimits, Retention, RollupRule};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Ids short and long, prefixes of each other, and of several bytes a character.
pub(super) fn id_of(video: usize) -> String {
    match video % 6 {
        0 => format!("{video:0>11}"),
        1 => format!("v{video}"),
        2 => "p".repeat(1 + video),
        3 => format!("{video:0>16}"),
        4 => format!("{video}é{}", "ü".repeat(video)),
        _ => format!("{video:0>200}"),
    }
}

/// Sizes of everything; with `is_tiny` too small for all videos, with `is_scaled` windows of minutes instead of hours.
pub(super) fn choose(random: &mut ChaCha8Rng, is_tiny: bool, is_scaled: bool) -> Setup {
    let standard = Setup::default();
    let scaled = WindowLengths { hour: 3, day: 12, month: 40, calendar: Calendar::scaled(3, 4, 3) };
    let rollup = RollupRule {
        cuts_min: random.random_range(1..6),
        bytes_min: [1, u64::MAX][random.random_range(0..2)],
        cuts_max: random.random_range(2..9),
        hours_merged_min: random.random_range(2..5),
    };
    // As short as the windows allow.
    let short = Retention {
        minute_minutes: scaled.day + random.random_range(0..9),
        hour_minutes: scaled.month + 3 + random.random_range(0..20),
        day_minutes: scaled.month + 12 + random.random_range(0..20),
    };
    Setup {
        shards: random.random_range(1..=4),
        videos_per_shard_max: if is_tiny { random.random_range(3..20) } else { 4096 },
        id_arena_bytes_per_shard: if is_tiny { random.random_range(100..2000) } else { 1 << 20 },
        late_rows_max: [6, 40, 10_000][random.random_range(0..3)],
        top_k: random.random_range(1..12),
        windows: if is_scaled { scaled } else { WindowLengths::default() },
        log: LogLimits {
            buffers: random.random_range(2..5),
            depth: random.random_range(1..5),
            submit_bytes: [1, 3000, 64 << 10][random.random_range(0..3)],
            ..standard.log
        },
        lateness_max_ms: 120_000,
        accept_clock: true,
        rollup,
        retention: if is_scaled { short } else { Retention::default() },
        ..standard
    }
}

/// Makes an engine small, so that many can be started.
pub(super) fn shrink(setup: &mut Setup) {
    setup.shards = setup.shards.min(2);
    setup.videos_per_shard_max = setup.videos_per_shard_max.min(256);
    setup.id_arena_bytes_per_shard = setup.id_arena_bytes_per_shard.min(64 << 10);
    setup.log.buffers = 2;
    setup.log.depth = setup.log.depth.min(2);
}
