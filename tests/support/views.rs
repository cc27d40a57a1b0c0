//! Files of views, the same at each call.
//!
//! Invariant: what a file holds depends on the arguments alone.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub(crate) const SECOND_MS: u64 = 1000;
pub(crate) const MINUTE_MS: u64 = 60 * SECOND_MS;
pub(crate) const HOUR_MS: u64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

/// When the newest view of a file happens: 2024-07-15 12:34:56 UTC.
pub(crate) const NEWEST_MS: u64 = 1_721_046_896_000;

/// An id as they are in the world: most of 11 bytes, some long, some not ASCII, some that CSV must quote.
pub(crate) fn video_id(number: u64) -> String {
    match number % 10 {
        0 => format!("https://videos.example/watch?v={number:08}&list=a,b"),
        1 => format!("vidéo-{number}"),
        2 => format!("a \"quoted\", name {number}"),
        _ => format!("video{number:06}"),
    }
}

/// Views at the given times; few videos have many views and many have few, with ties.
pub(crate) fn rows(times_ms: impl Iterator<Item = u64>, videos: u64) -> Vec<(String, u64)> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    times_ms
        .map(|time_ms| {
            let share: f64 = random.random();
            (video_id((share * share * share * videos as f64) as u64), time_ms)
        })
        .collect()
}

/// `count` times that end at [`NEWEST_MS`] and are spread over all windows: most within the hour, some older than 30
/// days.
pub(crate) fn spread_times(count: u64) -> impl Iterator<Item = u64> {
    let span_ms = |index: u64| match index % 10 {
        0 => 100 * DAY_MS,
        1 | 2 => 29 * DAY_MS,
        3 | 4 => 23 * HOUR_MS,
        _ => 55 * MINUTE_MS,
    };
    (0..count).map(move |index| NEWEST_MS - index * 7919 % (span_ms(index) / SECOND_MS) * SECOND_MS)
}

/// Writes a file that `loadgen replay` reads.
pub(crate) fn write_csv(folder: &Path, rows: &[(String, u64)]) -> PathBuf {
    let mut text = "video_id,ts_ms,user_id,region,device\n".to_owned();
    for (index, (video_id, time_ms)) in rows.iter().enumerate() {
        let quoted = video_id.replace('"', "\"\"");
        writeln!(text, "\"{quoted}\",{time_ms},user-{index:08},DE,phone").unwrap();
    }
    let path = folder.join("views.csv");
    std::fs::write(&path, text).unwrap();
    path
}
