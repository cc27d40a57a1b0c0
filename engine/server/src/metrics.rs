//! The Prometheus text of an engine: made anew for each scrape from what the cores last published.
//!
//! Counts are sums over the cores; what differs from core to core has a label. Nothing here is on a core's path.
//! Invariant, which alerts can rest on: `highwater_views_received_total` is the sum of counted, duplicate and refused
//! views.

use crate::access::ReloadFigures;
use crate::archivist::ArchiveGauges;
use crate::quic::KernelDrops;
use crate::rollups::{SharedFigures, StorageFigures};
use crate::snapshots::CoreStatus;
use highwater_pipeline::Stats;
use highwater_proto::{BatchRefusal, CloseReason, InstanceId, Snapshot, ViewRefusal};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What does not change while the engine runs.
#[derive(Debug, Clone)]
pub struct MetricsText {
    /// Of the data directory.
    pub instance: InstanceId,
    /// `--memory`, in bytes.
    pub memory_bytes: u64,
    /// Connections allowed at once.
    pub connections_max: u64,
    /// Datagrams that the kernel drops at each core's socket.
    pub drops: Vec<KernelDrops>,
    /// How the archive stands.
    pub archive: Arc<ArchiveGauges>,
    /// How the closed files stand.
    pub storage: SharedFigures,
    /// How often certificates and tokens were read again.
    pub reloads: Arc<ReloadFigures>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Board {
    period: &'static str,
    window: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCore {
    core: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    instance: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// A registry that is filled once and encoded once.
struct Page {
    registry: Registry,
}

impl Page {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.registry.register(name, help, counter);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        self.registry.register(name, help, gauge);
    }

    fn by_core(&mut self, name: &str, help: &str, cores: &[CoreStatus], value: impl Fn(&CoreStatus) -> u64) {
        let family = Family::<OfCore, Gauge>::default();
        for (status, core) in cores.iter().zip(0..) {
            family.get_or_create(&OfCore { core }).set(i64::try_from(value(status)).unwrap_or(i64::MAX));
        }
        self.registry.register(name, help, family);
    }

    fn by_reason(&mut self, name: &str, help: &str, values: impl Iterator<Item = (&'static str, u64)>) {
        let family = Family::<Reason, Counter>::default();
        for (reason, value) in values {
            family.get_or_create(&Reason { reason }).inc_by(value);
        }
        self.registry.register(name, help, family);
    }
}

impl MetricsText {
    /// The whole page.
    pub fn render(&self, cores: &[CoreStatus], snapshot: Option<&Snapshot>, age: Duration) -> String {
        let mut page = Page { registry: Registry::with_prefix("highwater") };
        let mut stats = Stats::default();
        cores.iter().for_each(|core| stats.add(&core.stats));
        views(&mut page, &stats);
        work(&mut page, &stats, cores);
        rests(&mut page, cores);
        network(&mut page, &stats, cores);
        archive(&mut page, &self.archive);
        storage(&mut page, &self.storage.load());
        reloads(&mut page, &self.reloads);
        let drops: Vec<u64> = self.drops.iter().filter_map(|drops| drops.read()).collect();
        if !drops.is_empty() {
            let help = "Datagrams that the kernel dropped because a core was late";
            page.counter("udp_drops", help, drops.iter().sum());
        }
        let build = Family::<Build, Gauge>::default();
        build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION"), instance: self.instance.to_string() }).set(1);
        page.registry.register("engine_info", "Version and instance of the engine, always 1", build);
        page.gauge("memory_limit_bytes", "What --memory allows", self.memory_bytes);
        page.gauge("connections_max", "Connections allowed at once", self.connections_max);
        if let Some(bytes) = resident_bytes() {
            page.gauge("resident_bytes", "Resident memory of the process", bytes);
        }
        page.gauge("snapshot_age_ms", "Since the latest snapshot was published", age.as_millis() as u64);
        if let Some(snapshot) = snapshot {
            boards(&mut page, snapshot);
        }
        let mut text = String::new();
        encode(&mut text, &page.registry).expect("a string takes all that is written to it");
        text
    }
}

fn views(page: &mut Page, stats: &Stats) {
    page.counter("views_received", "Views of all answered batches", stats.views_received);
    page.counter("views_counted", "Views counted", stats.views_counted);
    page.counter("views_duplicate", "Views of retried batches that had been counted before", stats.views_duplicate);
    page.counter("views_late", "Views counted after the finality of their hour", stats.views_late);
    let single = ViewRefusal::ALL.iter().map(|reason| reason.as_str()).zip(stats.views_refused);
    let whole = BatchRefusal::ALL.iter().map(|reason| reason.as_str()).zip(stats.views_refused_with_batch);
    page.by_reason("views_refused", "Views refused, alone or with their batch", single.chain(whole));
    page.counter("batches_counted", "Batches counted", stats.batches_counted);
    page.counter("batches_duplicate", "Batches answered as duplicates", stats.batches_duplicate);
    let refused = BatchRefusal::ALL.iter().map(|reason| reason.as_str()).zip(stats.batches_refused);
    page.by_reason("batches_refused", "Batches refused as a whole", refused);
}

fn work(page: &mut Page, stats: &Stats, cores: &[CoreStatus]) {
    page.gauge("videos", "Distinct videos known", stats.videos);
    page.gauge("videos_max", "Distinct videos that fit", stats.videos_max);
    page.gauge("producers", "Producers known", stats.producers);
    page.by_core("lane_cells_waiting", "Cells waiting in the lanes into a core", cores, |one| {
        one.stats.lane_cells_waiting
    });
    page.counter("intake_waits", "Times that intake waited for room in the log, a lane or a table", stats.intake_waits);
    page.counter("questions", "Batches for which cores asked each other about ids, tables being full", stats.questions);
    page.counter("log_bytes", "Bytes of batches appended to the logs", stats.log_bytes);
    page.counter("cuts", "Cut files written", stats.cuts);
    page.counter("markers", "Markers that the cores have pushed", stats.markers);
    page.by_core("loop_turn_us_max", "Longest turn of a core's loop in the last second", cores, |one| {
        one.loop_turn_us_max
    });
}

/// How long and how well the cores sleep.
fn rests(page: &mut Page, cores: &[CoreStatus]) {
    let help = "Share of the last second that a core did not sleep";
    page.by_core("core_busy_permille", help, cores, |one| one.busy_permille);
    let help = "Sleeps that only a watchdog ended though there was work: above 0 the runtime misses wake-ups";
    page.counter("silences", help, cores.iter().map(|one| one.silences).sum());
}

fn network(page: &mut Page, stats: &Stats, cores: &[CoreStatus]) {
    let sum = |value: fn(&CoreStatus) -> u64| cores.iter().map(value).sum();
    page.by_core("connections", "Connections now", cores, |one| one.connections);
    page.counter("connections_opened", "Connections opened", sum(|one| one.quic.connections_opened));
    page.counter("connections_refused", "Connections refused over the limit", sum(|one| one.quic.connections_refused));
    page.counter("connections_lost", "Opened connections that are gone", sum(|one| one.quic.connections_lost));
    let help = "Connections closed because their client did not read";
    page.counter("connections_overloaded", help, sum(|one| one.quic.connections_overloaded));
    page.counter("handshakes_failed", "Handshakes that were not completed", sum(|one| one.quic.handshakes_failed));
    page.counter("retries_sent", "Newcomers asked to prove their address first", sum(|one| one.quic.retries_sent));
    connection_memory(page, cores);
    page.counter("datagrams_received", "Datagrams received", sum(|one| one.quic.datagrams_received));
    let help = "Receive buffer that the kernel gave to each core";
    page.by_core("udp_receive_buffer_bytes", help, cores, |one| one.receive_buffer_bytes);
    page.counter("quic_bytes_received", "Bytes received", sum(|one| one.quic.bytes_received));
    page.counter("quic_bytes_sent", "Bytes sent", sum(|one| one.quic.bytes_sent));
    page.counter("welcomes", "Hellos answered with a welcome", stats.welcomes);
    page.counter("redirects", "Hellos and look-ups answered with a redirect to another core", stats.redirects);
    let distrusted = sum(|one| one.quic.handshakes_distrusted);
    let others = sum(|one| one.quic.handshakes_failed) - distrusted;
    let failed = [("client_certificate", distrusted), ("other", others)].into_iter();
    page.by_reason("handshakes_failed", "Handshakes that were begun and not completed", failed);
    let closed = CloseReason::ALL.iter().map(|reason| reason.as_str()).zip(stats.sessions_closed);
    page.by_reason("sessions_closed", "Sessions closed by the engine", closed);
}

/// A kind, and its figure for a core.
type KindOfCore = (&'static str, fn(&CoreStatus) -> u64);

/// What connections share of `--memory`.
fn connection_memory(page: &mut Page, cores: &[CoreStatus]) {
    let bytes = Family::<Kind, Gauge>::default();
    let kinds: [KindOfCore; 3] =
        [("windows", |one| one.windows_bytes), ("unsent", |one| one.unsent_bytes), ("held", |one| one.held_bytes)];
    for (kind, of_core) in kinds {
        bytes.get_or_create(&Kind { kind }).set(cores.iter().map(of_core).sum::<u64>() as i64);
    }
    let help = "Larger windows of connections, bytes that wait for a client to read, frames that are not done with";
    page.registry.register("connection_memory_bytes", help, bytes);
}

/// Certificates and tokens.
fn reloads(page: &mut Page, figures: &ReloadFigures) {
    let done = figures.done.load(Ordering::Relaxed);
    page.counter("access_reloads", "Times that certificates and tokens were read again", done);
    let help = "Times that certificates and tokens could not be read again, and stayed as they were";
    page.counter("access_reloads_failed", help, figures.failed.load(Ordering::Relaxed));
    let help = "1 while certificates and tokens on disk cannot be used, and earlier ones are in force";
    page.gauge("access_out_of_date", help, u64::from(figures.out_of_date.load(Ordering::Relaxed)));
}

/// The closed files, as of the last cut.
fn storage(page: &mut Page, figures: &StorageFigures) {
    let files = &figures.files;
    let kinds = [
        ("cut", files.cuts),
        ("minute", files.minutes),
        ("hour", files.hours),
        ("day", files.days),
        ("base", files.base),
    ];
    let (count, bytes) = (Family::<Kind, Gauge>::default(), Family::<Kind, Gauge>::default());
    for (kind, of_kind) in kinds {
        count.get_or_create(&Kind { kind }).set(of_kind.files as i64);
        bytes.get_or_create(&Kind { kind }).set(of_kind.bytes as i64);
    }
    page.registry.register("files", "Cut files beyond the base, roll-ups by minute, hour and day, and the base", count);
    page.registry.register("file_bytes", "Bytes of these files", bytes);
    page.gauge("cut_number", "Number of the newest cut", files.cut_number);
    page.gauge("base_number", "Number of the last cut in the base", files.base_number);
    page.gauge("disk_free_bytes", "What the data directory's file system had left at the last cut", figures.free_bytes);
    page.counter("rollups", "Roll-ups done", figures.rollups);
    page.counter("rollups_without_room", "Roll-ups put off because the disk was full", figures.rollups_without_room);
    page.counter("rollup_ms", "Milliseconds that roll-ups took", figures.rollup_ms);
    page.counter("rollup_views", "Views in the cuts that were rolled up", figures.rollup_views);
    page.counter("rollup_bytes", "Bytes that roll-ups wrote", figures.rollup_bytes);
}

fn archive(page: &mut Page, gauges: &ArchiveGauges) {
    let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
    page.gauge("archive_bytes", "Bytes of the archive's files", read(&gauges.bytes));
    page.gauge("archive_files", "Files of the archive", read(&gauges.files));
    page.gauge("archive_paused", "1 while there is too little room for the archive's next file", read(&gauges.paused));
    page.gauge("archive_segments_waiting", "Log segments that wait to be archived", read(&gauges.waiting));
    page.counter("archive_segments_copied", "Log segments archived", read(&gauges.copied));
    let help = "Log segments used again before they were archived";
    page.counter("archive_segments_given_up", help, read(&gauges.given_up));
    page.counter("archive_files_removed", "Files of the archive removed by age or size", read(&gauges.removed));
}

fn boards(page: &mut Page, snapshot: &Snapshot) {
    page.gauge("epoch", "Epoch of the latest snapshot", snapshot.epoch.0);
    page.gauge("snapshot_as_of_ms", "Engine time of the latest snapshot", snapshot.as_of_ms);
    let (rows, views) = (Family::<Board, Gauge>::default(), Family::<Board, Gauge>::default());
    for board in &snapshot.boards {
        let of = Board { period: board.period.as_str(), window: board.window.as_str() };
        rows.get_or_create(&of).set(board.rows.len() as i64);
        views.get_or_create(&of).set(i64::try_from(board.total_views).unwrap_or(i64::MAX));
    }
    page.registry.register("board_rows", "Rows of each list", rows);
    page.registry.register("board_views", "Views of all videos in each list's window", views);
}

/// Resident memory of this process, from the kernel's page count.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_reason_and_units_in_its_names() {
        let drops = vec![KernelDrops::default()];
        let gauges = ArchiveGauges::default();
        gauges.given_up.store(5, Ordering::Relaxed);
        let text = MetricsText {
            instance: InstanceId(10),
            memory_bytes: 1 << 30,
            connections_max: 64,
            drops,
            archive: Arc::new(gauges),
            storage: SharedFigures::default(),
            reloads: Arc::default(),
        };
        let mut status = CoreStatus::default();
        status.stats.views_counted = 7;
        status.stats.views_refused[0] = 3;
        let mut other = status.clone();
        other.loop_turn_us_max = 40;
        let page = text.render(&[status, other], None, Duration::from_millis(12));
        assert!(page.contains("highwater_views_counted_total 14"), "{page}");
        assert!(page.contains("highwater_loop_turn_us_max{core=\"1\"} 40"), "{page}");
        assert!(page.contains("highwater_views_refused_total{reason=\"future_beyond_skew\"} 6"), "{page}");
        assert!(page.contains("highwater_snapshot_age_ms 12"), "{page}");
        assert!(page.contains("highwater_archive_segments_given_up_total 5"), "{page}");
        let info =
            format!("highwater_engine_info{{version=\"{}\",instance=\"{:032x}\"}} 1", env!("CARGO_PKG_VERSION"), 10);
        assert!(page.contains(&info), "{page}");
        assert!(page.contains("highwater_file_bytes{kind=\"base\"} 0"), "{page}");
        for reason in BatchRefusal::ALL {
            assert!(page.contains(&format!("batches_refused_total{{reason=\"{}\"}}", reason.as_str())), "{page}");
        }
    }
}
