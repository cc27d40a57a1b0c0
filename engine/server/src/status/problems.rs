//! What is wrong with an engine, and what to do: a pure function of what is known of it.
//!
//! Not a monitor: it has seen one moment and what grew over a few seconds. Invariant: what is not known is no problem;
//! every problem names the figure, its limit and the remedy. The limits are those of the README's table of alerts,
//! where that has one.

use super::facts::{CoreFacts, Facts};
use super::page::Page;
use bytesize::ByteSize;
use highwater_pipeline::limits::LANES_CELLS;
use highwater_storage::CUT_RESERVE_BYTES;
use serde::Serialize;

/// Age of a snapshot; they come each second.
const SNAPSHOT_AGE_MAX_MS: u64 = 5_000;
/// Fill of the tables, in percent.
const TABLES_MAX_PERCENT: u64 = 80;
/// Share of the time that a core works.
const BUSY_MAX_PERMILLE: u64 = 800;
/// A turn of a core's loop, which mostly takes less than a millisecond.
const LOOP_TURN_MAX_US: u64 = 100_000;
/// Fill of the lanes into a core, in percent.
const LANES_MAX_PERCENT: u64 = 48;
/// Fill of a core's share of the connections, in percent.
const CONNECTIONS_MAX_PERCENT: u64 = 80;
/// Share of the memory that is allowed, in percent.
const MEMORY_MAX_PERCENT: u64 = 95;
/// Cuts that are not rolled up yet.
const CUTS_BEYOND_BASE_MAX: u64 = 240;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// What, with its figure and its limit.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: &'static str,
}

/// Metrics that grow only when something is wrong: name, how it is told, remedy.
const GROWING: [(&str, &str, &str); 7] = [
    ("udp_drops_total", "datagrams dropped by the kernel", "raise net.core.rmem_max to 8388608, or give more --cores"),
    (
        "intake_waits_total",
        "waits of intake for room in a log, a lane or a table",
        "the log's disk or the counting is slower than what comes: a faster disk, or more --cores",
    ),
    ("questions_total", "batches for which cores asked each other", "tables are nearly full: start with more --memory"),
    ("silences_total", "wake-ups missed by the runtime", "start with --runtime=thread, and please report it"),
    ("connections_refused_total", "connections refused", "fewer clients at this engine, or more --memory"),
    ("rollups_without_room_total", "roll-ups put off", "free space on the data directory's file system"),
    (
        "archive_segments_given_up_total",
        "log segments used again before they were archived",
        "exports and audits will miss their views: give helpers a CPU by --helper-cores, or a faster disk",
    ),
];

/// Reasons for refusals that are the engine's plight or need an operator, with the remedy.
const REFUSALS: [(&str, &str); 11] = [
    ("table_full", "start with more --memory"),
    ("memory_full", "start with more --memory"),
    ("disk_full", "free space on the data directory's file system"),
    ("clock_stopped", "set the machine's clock right, by `timedatectl set-ntp true`"),
    ("future_beyond_skew", "set the clock of the clients that send views right"),
    ("checksum_mismatch", "look for a faulty client or network"),
    ("sequence_gap", "look for a faulty client"),
    ("sequence_reused", "look for two producers with one id"),
    ("malformed", "look for a faulty client"),
    (
        "unauthorized",
        "look for a client without its token, or with one for something else, or one that should not be there",
    ),
    (
        "not_owner",
        "look for a producer that resumes another's id, or came with another token or certificate than before",
    ),
];

/// All that is wrong.
pub(super) fn problems(facts: &Facts, before: &Page, now: &Page) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut tell = |what: String, remedy: &'static str| found.push(Problem { what, remedy });
    if let Some(reason) = &facts.not_ready {
        tell(format!("not ready: {reason}"), "see the engine's log for what it waits for");
    }
    if let Some(age) = facts.snapshot.age_ms.filter(|age| *age > SNAPSHOT_AGE_MAX_MS) {
        let remedy = "answers are stale: see the engine's log, and whether its disk is full or its clock stands";
        tell(format!("the newest snapshot is {age} ms old, above {SNAPSHOT_AGE_MAX_MS} ms"), remedy);
    }
    if now.sum("engine_connected") == Some(0) {
        tell("the sidecar has no connection to its engine".to_owned(), "look whether the engine runs and is reachable");
    }
    if now.sum("engine_replaced").is_some_and(|replaced| replaced > 0) {
        let remedy = "restart the sidecar, or bring the engine back on its old data directory";
        tell("another engine answers the sidecar than before".to_owned(), remedy);
    }
    if now.sum("access_out_of_date").is_some_and(|bad| bad > 0) {
        let remedy = "see the engine's log for the file and what is wrong with it";
        tell("certificates or tokens on disk cannot be used, and earlier ones are in force".to_owned(), remedy);
    }
    facts.cores.iter().for_each(|core| of_core(core, facts, &mut tell));
    of_room(facts, &mut tell);
    of_files(facts, &mut tell);
    of_growth(facts, before, now, &mut tell);
    found
}

fn of_core(core: &CoreFacts, facts: &Facts, tell: &mut impl FnMut(String, &'static str)) {
    let name = &core.core;
    if let Some(busy) = core.busy_permille.filter(|busy| *busy > BUSY_MAX_PERMILLE) {
        let (whole, tenths, max) = (busy / 10, busy % 10, BUSY_MAX_PERMILLE / 10);
        let remedy = "the core is near its limit: more --cores; if it is one alone, load is uneven";
        tell(format!("core {name} is {whole}.{tenths} % busy, above {max} %"), remedy);
    }
    if let Some(turn) = core.loop_turn_us_max.filter(|turn| *turn > LOOP_TURN_MAX_US) {
        let remedy = "its CPU is not its own: keep other work off the CPUs of --cores and --helper-cores";
        tell(format!("core {name} took {turn} µs for one turn, above {LOOP_TURN_MAX_US} µs"), remedy);
    }
    if let Some(percent) = percent(core.lane_cells_waiting, Some(LANES_CELLS as u64), LANES_MAX_PERCENT) {
        let remedy = "counting is behind, and acknowledgements will wait for it: more --cores";
        tell(format!("the lanes into core {name} are {percent} % full, above {LANES_MAX_PERCENT} %"), remedy);
    }
    let each = facts.connections_max.map(|all| all / facts.cores.len().max(1) as u64);
    if let Some(percent) = percent(core.connections, each, CONNECTIONS_MAX_PERCENT) {
        let remedy = "further ones will be refused at this core: more --memory";
        tell(format!("core {name} has {percent} % of its connections, above {CONNECTIONS_MAX_PERCENT} %"), remedy);
    }
}

/// Tables and memory.
fn of_room(facts: &Facts, tell: &mut impl FnMut(String, &'static str)) {
    if let Some(percent) = percent(facts.tables.videos, facts.tables.videos_max, TABLES_MAX_PERCENT) {
        let remedy = "new videos will be refused: start with more --memory";
        tell(format!("the video tables are {percent} % full, above {TABLES_MAX_PERCENT} %"), remedy);
    }
    if let Some(percent) = percent(facts.memory.resident_bytes, facts.memory.limit_bytes, MEMORY_MAX_PERCENT) {
        let remedy = "the machine may run out of memory: see what else runs on it, or start with another --memory";
        tell(format!("the process has {percent} % of --memory, above {MEMORY_MAX_PERCENT} %"), remedy);
    }
}

fn of_files(facts: &Facts, tell: &mut impl FnMut(String, &'static str)) {
    let disk = &facts.disk;
    // Before the first cut nothing was measured yet.
    if let Some(free) = disk.free_bytes.filter(|_| disk.cut_number.is_some_and(|cut| cut > 0)) {
        let largest = disk.files.iter().map(|kind| kind.bytes).max().unwrap_or(0);
        let size = |bytes: u64| ByteSize::b(bytes).to_string();
        if free < CUT_RESERVE_BYTES {
            let remedy = "batches are or will be refused as disk_full: free space on the data directory's file system";
            let reserve = size(CUT_RESERVE_BYTES);
            tell(format!("{} are free on the disk, below the reserve of {reserve}", size(free)), remedy);
        } else if free < largest.saturating_mul(2) {
            let remedy = "roll-ups will wait for room: free space on the data directory's file system";
            let wanted = size(largest.saturating_mul(2));
            tell(
                format!("{} are free on the disk, below twice the largest kind of files, {wanted}", size(free)),
                remedy,
            );
        }
    }
    let beyond = disk.cut_number.zip(disk.base_number).map(|(cut, base)| cut.saturating_sub(base));
    if let Some(beyond) = beyond.filter(|beyond| *beyond > CUTS_BEYOND_BASE_MAX) {
        let remedy = "roll-ups do not keep up: give the helpers a CPU by --helper-cores";
        tell(format!("{beyond} cut files are not rolled up, above {CUTS_BEYOND_BASE_MAX}"), remedy);
    }
    if facts.archive.paused == Some(true) {
        let remedy = "free space on the data directory's file system, or start with a lower --archive-retention";
        tell("the archive waits for room".to_owned(), remedy);
    }
}

fn of_growth(facts: &Facts, before: &Page, now: &Page, tell: &mut impl FnMut(String, &'static str)) {
    let over = facts.watched_ms;
    for (name, what, remedy) in GROWING {
        let grown = now.sum(name).zip(before.sum(name)).map_or(0, |(now, before)| now.saturating_sub(before));
        if grown > 0 {
            tell(format!("{grown} {what} within {over} ms"), remedy);
        }
    }
    let metrics =
        [("views_refused_total", "views refused"), ("sessions_closed_total", "sessions closed by the engine")];
    for (metric, what) in metrics {
        let (before, now) = (before.by(metric, "reason"), now.by(metric, "reason"));
        for (reason, remedy) in REFUSALS {
            let [was, is] = [&before, &now].map(|page| page.get(reason).copied().unwrap_or(0));
            if is > was {
                tell(format!("{} {what} as {reason} within {over} ms", is - was), remedy);
            }
        }
    }
    let views = &facts.views;
    let told = views.received.zip(views.counted).zip(views.duplicate);
    let refused = now.sum("views_refused_total");
    if let Some((((received, counted), duplicate), refused)) = told.zip(refused)
        && received != counted + duplicate + refused
    {
        let sum = counted + duplicate + refused;
        let what = format!("{received} views were received, but {sum} counted, duplicate or refused");
        tell(what, "that is a bug: please report it with the page of /metrics");
    }
}

/// How full something is, where it is fuller than it should be.
fn percent(of: Option<u64>, all: Option<u64>, most: u64) -> Option<u64> {
    let (of, all) = (of?, all.filter(|all| *all > 0)?);
    let percent = u128::from(of) * 100 / u128::from(all);
    u64::try_from(percent).ok().filter(|percent| *percent > most)
}
