//! What is known of an engine: the figures of two pages of metrics, a while apart, by what they are about.
//!
//! Not what is wrong with them. Invariant: what the pages do not say is none, never 0; a sidecar apart says less than
//! an engine.

use super::asking::{PeriodHead, TopHead};
use super::page::Page;
use super::problems::Problem;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// The state of an engine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Facts {
    pub(super) engine: String,
    pub(super) ready: bool,
    /// Why it is not.
    pub(super) not_ready: Option<String>,
    pub(super) version: Option<String>,
    pub(super) instance: Option<String>,
    /// How long it was watched for rates and for what grows.
    pub(super) watched_ms: u64,
    pub(super) snapshot: SnapshotFacts,
    pub(super) cores: Vec<CoreFacts>,
    pub(super) connections_max: Option<u64>,
    pub(super) tables: TableFacts,
    pub(super) memory: MemoryFacts,
    pub(super) views: ViewFacts,
    pub(super) disk: DiskFacts,
    pub(super) archive: ArchiveFacts,
    /// The newest closed period of each kind that had a view.
    pub(super) history: Vec<ClosedFacts>,
    pub(super) problems: Vec<Problem>,
}

/// The newest snapshot.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct SnapshotFacts {
    pub(super) epoch: Option<u64>,
    pub(super) as_of: Option<String>,
    pub(super) age_ms: Option<u64>,
    /// Views of all time.
    pub(super) total_views: Option<u64>,
}

/// One core.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct CoreFacts {
    pub(super) core: String,
    pub(super) connections: Option<u64>,
    pub(super) busy_permille: Option<u64>,
    pub(super) loop_turn_us_max: Option<u64>,
    pub(super) lane_cells_waiting: Option<u64>,
}

/// The tables.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct TableFacts {
    pub(super) videos: Option<u64>,
    pub(super) videos_max: Option<u64>,
    pub(super) producers: Option<u64>,
}

/// The process's memory.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct MemoryFacts {
    pub(super) resident_bytes: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
}

/// Views since the start, and how many a second.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ViewFacts {
    pub(super) received: Option<u64>,
    pub(super) received_per_s: Option<u64>,
    pub(super) counted: Option<u64>,
    pub(super) counted_per_s: Option<u64>,
    pub(super) duplicate: Option<u64>,
    pub(super) late: Option<u64>,
    /// Refused ones by reason, where there are any.
    pub(super) refused: BTreeMap<String, u64>,
    /// Batches that were refused as a whole by reason, where there are any.
    pub(super) batches_refused: BTreeMap<String, u64>,
}

/// Files of one kind.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct FileFacts {
    pub(super) kind: String,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Disk, log and closed files.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct DiskFacts {
    pub(super) free_bytes: Option<u64>,
    pub(super) log_appended_bytes: Option<u64>,
    pub(super) files: Vec<FileFacts>,
    pub(super) cut_number: Option<u64>,
    pub(super) base_number: Option<u64>,
    pub(super) rollups: Option<u64>,
    pub(super) rollups_without_room: Option<u64>,
}

/// The archive.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ArchiveFacts {
    pub(super) files: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) segments_waiting: Option<u64>,
    pub(super) segments_given_up: Option<u64>,
    pub(super) paused: Option<bool>,
}

/// A closed period.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ClosedFacts {
    pub(super) period: &'static str,
    pub(super) start_time: String,
    pub(super) total_views: u64,
}

impl Facts {
    /// Reads two pages that were taken `watched` apart.
    pub(super) fn new(engine: &str, before: &Page, now: &Page, watched: Duration) -> Self {
        let rate = |name: &str| {
            let grown = now.sum(name)?.saturating_sub(before.sum(name)?);
            Some((grown as f64 / watched.as_secs_f64().max(0.001)).round() as u64)
        };
        let reasons = |name: &str| {
            let mut by_reason = now.by(name, "reason");
            by_reason.retain(|_, count| *count > 0);
            by_reason
        };
        Self {
            engine: engine.to_owned(),
            version: now.label("engine_info", "version"),
            instance: now.label("engine_info", "instance"),
            watched_ms: u64::try_from(watched.as_millis()).unwrap_or(u64::MAX),
            snapshot: SnapshotFacts {
                epoch: now.sum("epoch"),
                age_ms: now.sum("snapshot_age_ms"),
                ..SnapshotFacts::default()
            },
            cores: cores(now),
            connections_max: now.sum("connections_max"),
            tables: TableFacts {
                videos: now.sum("videos"),
                videos_max: now.sum("videos_max"),
                producers: now.sum("producers"),
            },
            memory: MemoryFacts {
                resident_bytes: now.sum("resident_bytes"),
                limit_bytes: now.sum("memory_limit_bytes"),
            },
            views: ViewFacts {
                received: now.sum("views_received_total"),
                received_per_s: rate("views_received_total"),
                counted: now.sum("views_counted_total"),
                counted_per_s: rate("views_counted_total"),
                duplicate: now.sum("views_duplicate_total"),
                late: now.sum("views_late_total"),
                refused: reasons("views_refused_total"),
                batches_refused: reasons("batches_refused_total"),
            },
            disk: disk(now),
            archive: ArchiveFacts {
                files: now.sum("archive_files"),
                bytes: now.sum("archive_bytes"),
                segments_waiting: now.sum("archive_segments_waiting"),
                segments_given_up: now.sum("archive_segments_given_up_total"),
                paused: now.sum("archive_paused").map(|paused| paused > 0),
            },
            ..Self::default()
        }
    }

    /// Adds what readiness says.
    pub(super) fn with_readiness(mut self, not_ready: Option<String>) -> Self {
        self.ready = not_ready.is_none();
        self.not_ready = not_ready;
        self
    }

    /// Adds what the lists say.
    pub(super) fn with_lists(mut self, top: Option<TopHead>, closed: Vec<(&'static str, PeriodHead)>) -> Self {
        if let Some(TopHead { epoch, as_of, total_views }) = top {
            let SnapshotFacts { age_ms, .. } = self.snapshot;
            self.snapshot =
                SnapshotFacts { epoch: Some(epoch), as_of: Some(as_of), age_ms, total_views: Some(total_views) };
        }
        self.history = closed
            .into_iter()
            .map(|(period, PeriodHead { start_time, total_views, .. })| ClosedFacts { period, start_time, total_views })
            .collect();
        self
    }
}

fn cores(now: &Page) -> Vec<CoreFacts> {
    let [connections, busy, turns, waiting] =
        ["connections", "core_busy_permille", "loop_turn_us_max", "lane_cells_waiting"]
            .map(|name| now.by(name, "core"));
    let mut cores: Vec<CoreFacts> = busy
        .keys()
        .map(|core| CoreFacts {
            core: core.clone(),
            connections: connections.get(core).copied(),
            busy_permille: busy.get(core).copied(),
            loop_turn_us_max: turns.get(core).copied(),
            lane_cells_waiting: waiting.get(core).copied(),
        })
        .collect();
    // By number, not by letters.
    cores.sort_by_key(|one| one.core.parse::<u64>().unwrap_or(u64::MAX));
    cores
}

fn disk(now: &Page) -> DiskFacts {
    let (counts, bytes) = (now.by("files", "kind"), now.by("file_bytes", "kind"));
    let file = |(kind, files): (&String, &u64)| FileFacts {
        kind: kind.clone(),
        files: *files,
        bytes: bytes.get(kind).copied().unwrap_or(0),
    };
    DiskFacts {
        free_bytes: now.sum("disk_free_bytes"),
        log_appended_bytes: now.sum("log_bytes_total"),
        files: counts.iter().map(file).collect(),
        cut_number: now.sum("cut_number"),
        base_number: now.sum("base_number"),
        rollups: now.sum("rollups_total"),
        rollups_without_room: now.sum("rollups_without_room_total"),
    }
}
