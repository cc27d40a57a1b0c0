//! The page for people.
//!
//! Invariant: what is not known is a dash; problems come last, each with its remedy below it.

use super::facts::Facts;
use bytesize::ByteSize;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// What is not known.
const UNKNOWN: &str = "-";

impl Facts {
    /// A page of a line for each thing, the cores as a table.
    pub(super) fn text(&self) -> String {
        let mut page = Text::default();
        let state = if self.ready { "ready" } else { "NOT READY" };
        let (version, instance) = (shown(self.version.as_ref()), shown(self.instance.as_ref()));
        page.row("engine", format_args!("{}  {state}  version {version}  instance {instance}", self.engine));
        let (epoch, as_of) = (shown(self.snapshot.epoch), shown(self.snapshot.as_of.as_ref()));
        let (age, all) = (shown(self.snapshot.age_ms), shown(self.snapshot.total_views));
        page.row("snapshot", format_args!("epoch {epoch}  as of {as_of}  {age} ms old  {all} views of all time"));
        self.add_cores(&mut page);
        self.add_views(&mut page);
        self.add_files(&mut page);
        if self.problems.is_empty() {
            page.row("problems", "none");
        }
        for problem in &self.problems {
            page.row("PROBLEM", &problem.what);
            page.row("", format_args!("-> {}", problem.remedy));
        }
        page.out
    }

    fn add_cores(&self, page: &mut Text) {
        let head = ["core", "connections", "busy", "longest turn", "lane cells"].map(str::to_owned);
        let rows = self.cores.iter().map(|one| {
            let busy = one.busy_permille.map(|busy| format!("{}.{} %", busy / 10, busy % 10));
            let turn = one.loop_turn_us_max.map(|turn| format!("{turn} µs"));
            [one.core.clone(), shown(one.connections), shown(busy), shown(turn), shown(one.lane_cells_waiting)]
        });
        for [core, connections, busy, turn, cells] in std::iter::once(head).chain(rows) {
            page.row("", format_args!("{core:>4}{connections:>13}{busy:>10}{turn:>14}{cells:>12}"));
        }
        let tables = &self.tables;
        let (videos, videos_max) = (shown(tables.videos), shown(tables.videos_max));
        let (fill, producers) = (share(tables.videos, tables.videos_max), shown(tables.producers));
        page.row("tables", format_args!("{videos} of {videos_max} videos ({fill})  {producers} producers"));
        let (resident, limit) = (size(self.memory.resident_bytes), size(self.memory.limit_bytes));
        let fill = share(self.memory.resident_bytes, self.memory.limit_bytes);
        page.row(
            "memory",
            format_args!("{resident} of {limit} ({fill})  {} connections fit", shown(self.connections_max)),
        );
    }

    fn add_views(&self, page: &mut Text) {
        let views = &self.views;
        let (received, counted) = (shown(views.received), shown(views.counted));
        let (received_per_s, counted_per_s) = (shown(views.received_per_s), shown(views.counted_per_s));
        let (duplicate, late) = (shown(views.duplicate), shown(views.late));
        page.row(
            "views",
            format_args!(
                "received {received} ({received_per_s}/s)  counted {counted} ({counted_per_s}/s)  duplicate {duplicate}  \
                 late {late}"
            ),
        );
        page.row("refused", format_args!("views: {}", reasons(&views.refused)));
        page.row("", format_args!("batches: {}", reasons(&views.batches_refused)));
    }

    fn add_files(&self, page: &mut Text) {
        let disk = &self.disk;
        let (free, log) = (size(disk.free_bytes), size(disk.log_appended_bytes));
        page.row("disk", format_args!("{free} free  {log} appended to the log"));
        let kind = |one: &super::facts::FileFacts| format!("{} {} ({})", one.kind, one.files, size(Some(one.bytes)));
        let kinds: Vec<String> = disk.files.iter().map(kind).collect();
        page.row("files", if kinds.is_empty() { UNKNOWN.to_owned() } else { kinds.join("  ") });
        let (cut, base) = (shown(disk.cut_number), shown(disk.base_number));
        let (rollups, without_room) = (shown(disk.rollups), shown(disk.rollups_without_room));
        page.row(
            "roll-ups",
            format_args!("newest cut {cut}  base {base}  {rollups} done  {without_room} put off for want of room"),
        );
        let archive = &self.archive;
        let (files, bytes) = (shown(archive.files), size(archive.bytes));
        let (waiting, given_up) = (shown(archive.segments_waiting), shown(archive.segments_given_up));
        let segments = format!("{waiting} segments waiting  {given_up} given up");
        page.row("archive", format_args!("{files} files ({bytes})  {segments}"));
        let closed =
            |one: &super::facts::ClosedFacts| format!("{} {} ({} views)", one.period, one.start_time, one.total_views);
        let closed: Vec<String> = self.history.iter().map(closed).collect();
        page.row("closed", if closed.is_empty() { "none yet".to_owned() } else { closed.join("  ") });
    }
}

/// Lines with a word before each.
#[derive(Default)]
struct Text {
    out: String,
}

impl Text {
    fn row(&mut self, word: &str, text: impl Display) {
        // What an answer says moves no cursor.
        let text = text.to_string().chars().filter(|c| !c.is_control()).collect::<String>();
        writeln!(self.out, "{word:<9} {text}").expect("a string takes all that is written to it");
    }
}

fn shown<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn size(bytes: Option<u64>) -> String {
    shown(bytes.map(ByteSize::b))
}

fn share(of: Option<u64>, all: Option<u64>) -> String {
    let percent = |(of, all): (u64, u64)| u128::from(of) * 100 / u128::from(all);
    let known = of.zip(all.filter(|all| *all > 0)).map(percent);
    known.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent} %"))
}

fn reasons(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> = counts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    if counts.is_empty() { "none".to_owned() } else { counts.join("  ") }
}
