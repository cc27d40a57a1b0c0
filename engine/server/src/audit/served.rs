//! What an engine serves against counts from its files and logs.
//!
//! Not one consistent moment: views come in while it is read. So each count is held between what was there before the
//! snapshot and what is there after it, which are equal when nothing comes in between. Invariant: a window is compared
//! only when its edges did not move between the two readings.

use super::report::{Compared, Difference, Report};
use anyhow::{Context, Result, bail};
use highwater_client::{ClientConfig, LookupClient, Subscriber};
use highwater_proto::{Board, Epoch, Period, Snapshot, Window};
use highwater_ranking::{Calendar, CalendarPeriod, FinalityClass, IdHash, Minute, shard_of};
use highwater_storage::{ArchiveRange, ArchiveReader, Disk, LogPosition, SlotSums, StorageError, Tables};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How often a moved edge is met with another try.
const TRIES_MAX: u32 = 3;

/// Snapshots come each second.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(30);

/// Rows of each board whose counts are looked up as well.
const LOOKED_UP: usize = 10;

/// One window: its period, its kind, its minutes, and which classes count.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    period: Period,
    window: Window,
    minutes: Range<Minute>,
    class_max: FinalityClass,
}

/// Counts of some videos in each window, and the sums of all videos.
struct Counts {
    /// By index of the span.
    totals: Vec<u64>,
    videos: BTreeMap<Box<str>, Vec<u64>>,
}

/// Compares boards and look-ups of the engine that a client with this configuration reaches.
///
/// # Errors
/// When the engine cannot be reached, is another directory's, or a file cannot be read.
pub(super) fn compare(
    disk: &Arc<dyn Disk>,
    calendar: Calendar,
    engine: ClientConfig,
    report: &mut Report,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut subscriber = Subscriber::connect(engine.clone()).await?;
        let lookups = LookupClient::new(engine)?;
        let outcome = Served { disk, calendar, lookups }.compare(&mut subscriber, report).await;
        subscriber.close().await;
        outcome
    })
}

struct Served<'a> {
    disk: &'a Arc<dyn Disk>,
    calendar: Calendar,
    lookups: LookupClient,
}

impl Served<'_> {
    async fn compare(&self, subscriber: &mut Subscriber, report: &mut Report) -> Result<()> {
        for attempt in 1..=TRIES_MAX {
            let first = from_epoch(subscriber, Epoch(0)).await?;
            self.check_instance(&first)?;
            let spans = spans(&first, &self.calendar);
            let mut videos: BTreeSet<Box<str>> = ids(&first);
            let before = self.count(&spans, &videos)?;
            // What was read is in the next snapshot but one at the latest: one may have been on its way.
            let newest = from_epoch(subscriber, Epoch(0)).await?.epoch;
            let snapshot = from_epoch(subscriber, Epoch(newest.0 + 2)).await?;
            let is_still = spans == self::spans(&snapshot, &self.calendar);
            videos.extend(ids(&snapshot));
            let mut looked_up = Vec::new();
            for id in tops(&snapshot) {
                looked_up.push(self.lookups.lookup(&id).await?);
            }
            let after = self.count(&spans, &videos)?;
            if !is_still && attempt < TRIES_MAX {
                continue;
            }
            let bounds = Bounds { spans: &spans, before: &before, after: &after, is_still };
            bounds.boards(&snapshot, report);
            bounds.lookups(&looked_up, snapshot.as_of_ms, report);
            if !is_still {
                report.not_compared(
                    "served windows: their edges moved while files and logs were read; all-time was compared",
                );
            }
            return Ok(());
        }
        Ok(())
    }

    fn check_instance(&self, snapshot: &Snapshot) -> Result<()> {
        let directory = *Tables::open(self.disk.clone(), self.calendar)?.directory();
        if directory.instance != snapshot.instance {
            bail!(
                "the engine serves instance {:032x}, the data directory is {:032x}; name the directory of this engine",
                snapshot.instance.0,
                directory.instance.0
            );
        }
        Ok(())
    }

    /// Counts everything that is in closed files and in the logs beyond them.
    fn count(&self, spans: &[Span], videos: &BTreeSet<Box<str>>) -> Result<Counts, StorageError> {
        let tables = Tables::open(self.disk.clone(), self.calendar)?;
        let directory = *tables.directory();
        let mut counts = Counts {
            totals: vec![0; spans.len()],
            videos: videos.iter().map(|id| (id.clone(), vec![0; spans.len()])).collect(),
        };
        let hash = IdHash::new(directory.hash_seed);
        let mut sums = SlotSums::new();
        for shard in 0..directory.shards {
            let ids = tables.ids(shard)?;
            let is_wanted = |id: &&str| shard_of(hash.hash(id), directory.shards) == shard && videos.contains(*id);
            let slots: Vec<(u32, &str)> =
                (0..ids.len() as u32).filter_map(|slot| ids.get(slot).filter(is_wanted).map(|id| (slot, id))).collect();
            for (index, span) in spans.iter().enumerate() {
                if span.period == Period::AllTime {
                    tables.all_time(shard, &mut sums)?;
                } else {
                    tables.sums(shard, span.minutes.clone(), FinalityClass::IN_HOUR..=span.class_max, &mut sums)?;
                }
                counts.totals[index] += sums.total();
                for (slot, id) in &slots {
                    if let Some(row) = counts.videos.get_mut(*id) {
                        row[index] += sums.get(*slot);
                    }
                }
                sums.clear();
            }
        }
        self.count_logs(&tables, spans, &mut counts)?;
        Ok(counts)
    }

    fn count_logs(&self, tables: &Tables, spans: &[Span], counts: &mut Counts) -> Result<(), StorageError> {
        let reader = ArchiveReader::open(self.disk.clone())?;
        let positions: BTreeMap<_, _> = tables.positions().iter().copied().collect();
        let generation = positions.values().map(|position| position.generation).max().unwrap_or_default();
        let lateness_max_ms = tables.directory().lateness_max_ms;
        for log in reader.logs() {
            let after = positions.get(&log).copied().unwrap_or(LogPosition::start_of(generation));
            let up_to = LogPosition { generation: u32::MAX, position: u64::MAX };
            reader.visit::<StorageError>(&ArchiveRange::Positions { log, after, up_to }, |batch| {
                for view in batch.accepted() {
                    let minute = Minute::of_ms(view.timestamp_ms);
                    let class = self.calendar.class_of(view.timestamp_ms, batch.arrival_ms, lateness_max_ms);
                    let mut row = counts.videos.get_mut(view.video_id);
                    for (index, span) in spans.iter().enumerate() {
                        if span.minutes.contains(&minute) && class <= span.class_max {
                            counts.totals[index] += 1;
                            if let Some(row) = &mut row {
                                row[index] += 1;
                            }
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// The next snapshot of this epoch or a later one.
async fn from_epoch(subscriber: &mut Subscriber, epoch: Epoch) -> Result<Snapshot> {
    let wait = async {
        loop {
            let snapshot = subscriber.next().await?;
            if snapshot.epoch >= epoch {
                return Ok(snapshot);
            }
        }
    };
    timeout(SNAPSHOT_WAIT, wait).await.context("the engine publishes no snapshots")?
}

/// The windows of a snapshot's boards.
fn spans(snapshot: &Snapshot, calendar: &Calendar) -> Vec<Span> {
    snapshot.boards.iter().map(|board| span(board, calendar)).collect()
}

fn span(board: &Board, calendar: &Calendar) -> Span {
    let (period, window) = (board.period, board.window);
    let start = Minute::of_ms(board.start_ms.unwrap_or(0));
    let kind = match period {
        Period::Hour => CalendarPeriod::Hour,
        Period::Day => CalendarPeriod::Day,
        Period::Month | Period::AllTime => CalendarPeriod::Month,
    };
    // A sliding window has a lower edge only, and a tumbling one is a whole period: views ahead of time are in both.
    let (end, class_max) = match window {
        Window::Tumbling => (calendar.period_at(kind, start).end, kind.class_max()),
        Window::Sliding => (Minute(u32::MAX), FinalityClass::MAX),
    };
    Span { period, window, minutes: start..end, class_max }
}

fn ids(snapshot: &Snapshot) -> BTreeSet<Box<str>> {
    snapshot.boards.iter().flat_map(|board| board.rows.iter().map(|row| row.video_id.clone())).collect()
}

fn tops(snapshot: &Snapshot) -> BTreeSet<Box<str>> {
    let tops = snapshot.boards.iter().flat_map(|board| board.rows.iter().take(LOOKED_UP));
    tops.map(|row| row.video_id.clone()).collect()
}

/// What counts must lie between.
struct Bounds<'a> {
    spans: &'a [Span],
    before: &'a Counts,
    after: &'a Counts,
    is_still: bool,
}

impl Bounds<'_> {
    fn index(&self, period: Period, window: Window) -> Option<usize> {
        let is_meant = |span: &Span| span.period == period && span.window == window;
        self.spans.iter().position(is_meant).filter(|_| self.is_still || period == Period::AllTime)
    }

    fn boards(&self, snapshot: &Snapshot, report: &mut Report) {
        let mut compared = Compared { what: "served boards with files and logs", ..Compared::default() };
        for board in &snapshot.boards {
            let Some(index) = self.index(board.period, board.window) else { continue };
            compared.periods += 1;
            compared.counts += board.rows.len() as u64;
            compared.views += board.total_views;
            let total = (self.before.totals[index], self.after.totals[index]);
            self.hold("", (board.period, board.window), board.total_views, total, "board", report);
            for row in &board.rows {
                let bounds = self.of_video(&row.video_id, index);
                self.hold(&row.video_id, (board.period, board.window), row.view_count, bounds, "board", report);
            }
            let is_ordered = board.rows.windows(2).all(|pair| {
                let key = |at: usize| (std::cmp::Reverse(pair[at].view_count), &pair[at].video_id);
                key(0) < key(1)
            });
            if !is_ordered {
                report.problem(&format!("the served board {} is not in order", name(board.period, board.window)));
            }
        }
        report.compared(compared);
    }

    fn lookups(&self, looked_up: &[highwater_proto::VideoCounts], as_of_ms: u64, report: &mut Report) {
        let mut compared = Compared { what: "look-ups with files and logs", ..Compared::default() };
        for video in looked_up {
            compared.periods += 1;
            // Its edges may have moved since the snapshot.
            let is_same_minute = Minute::of_ms(video.as_of_ms) == Minute::of_ms(as_of_ms);
            for count in &video.counts {
                let Some(index) = self.index(count.period, count.window) else { continue };
                if is_same_minute || count.period == Period::AllTime {
                    compared.counts += 1;
                    let bounds = self.of_video(&video.video_id, index);
                    let board = (count.period, count.window);
                    self.hold(&video.video_id, board, count.view_count, bounds, "look-up", report);
                }
            }
        }
        report.compared(compared);
    }

    fn of_video(&self, id: &str, index: usize) -> (u64, u64) {
        let of = |counts: &Counts| counts.videos.get(id).map_or(0, |row| row[index]);
        (of(self.before), of(self.after))
    }

    fn hold(
        &self,
        id: &str,
        (period, window): (Period, Window),
        served: u64,
        (least, most): (u64, u64),
        by: &str,
        report: &mut Report,
    ) {
        if (least..=most).contains(&served) {
            return;
        }
        let start = self.index(period, window).map(|index| self.spans[index].minutes.start);
        report.difference(Difference {
            video_id: id.to_owned(),
            period: name(period, window),
            start_time: start.filter(|_| period != Period::AllTime).map(super::report::time_text),
            class: None,
            stored: served,
            recomputed: if least == most { least.to_string() } else { format!("{least} to {most}") },
            file: format!("served by {by}"),
        });
    }
}

fn name(period: Period, window: Window) -> String {
    match (period, window) {
        (Period::AllTime, _) => period.as_str().to_owned(),
        _ => format!("{} {}", window.as_str(), period.as_str()),
    }
}
