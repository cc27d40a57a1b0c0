//! One core at a minute's edge: closing, subtracting, adding, freezing; and what a video takes.
//!
//! Invariant: what is subtracted was counted, and is added again, so the lists in the end are those of the beginning.

use crate::{Row, SLICE_ENTRIES, config, row};
use anyhow::{Context, Result, bail};
use highwater_benches::views::{TIME_MS, video_id};
use highwater_proto::Epoch;
use highwater_ranking::{
    Cell, CoreCut, CoreRanking, FinalityClass, Marker, MarkerStep, Minute, SlotCount, WindowLengths, push_row,
};
use std::time::{Duration, Instant};

/// Rows applied at a time, as a lane hands them out.
const ROWS: u32 = 2048;

/// How long slices took.
#[derive(Default)]
pub(crate) struct Slices {
    total: Duration,
    max: Duration,
}

impl Slices {
    pub(crate) fn time<T>(&mut self, slice: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = slice();
        let took = begun.elapsed();
        self.total += took;
        self.max = self.max.max(took);
        result
    }

    /// Nanoseconds for each of `count`.
    pub(crate) fn ns_each(&self, count: u64) -> f64 {
        self.total.as_nanos() as f64 / count.max(1) as f64
    }

    pub(crate) fn ms(&self) -> f64 {
        self.total.as_secs_f64() * 1000.0
    }

    fn max_us(&self) -> f64 {
        self.max.as_secs_f64() * 1e6
    }
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("/proc/self/statm cannot be read")?;
    let pages: u64 = statm.split_whitespace().nth(1).and_then(|text| text.parse().ok()).context("it names no pages")?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Counts one view of each of these videos in a minute.
pub(crate) fn view_each(core: &mut CoreRanking, minute: Minute, videos: impl Iterator<Item = u32>) -> (u64, Duration) {
    let hash = core.id_hash();
    let mut cells: Vec<Cell> = Vec::new();
    let mut videos = videos.peekable();
    let (mut rows, mut took) = (0, Duration::ZERO);
    while videos.peek().is_some() {
        cells.clear();
        for video in videos.by_ref().take(ROWS as usize) {
            let id = video_id(video);
            let row = highwater_ranking::Row { hash: hash.hash(&id), minute, class: FinalityClass::IN_HOUR, views: 1 };
            push_row(&mut cells, row, &id);
            rows += 1;
        }
        let begun = Instant::now();
        core.apply(&cells);
        took += begun.elapsed();
    }
    (rows, took)
}

pub(crate) fn marker(epoch: u64, minute: Minute, cut: bool) -> Marker {
    let time_ms = minute.start_ms() + epoch;
    Marker { epoch: Epoch(epoch), time_ms, cut, log_generation: 1, log_position: 0, oldest_arrival_ms: time_ms }
}

/// Steps to the closed cut.
pub(crate) fn close(core: &mut CoreRanking, marker: &Marker, slices: &mut Slices) -> Result<CoreCut> {
    core.begin_marker(marker);
    loop {
        match slices.time(|| core.step(SLICE_ENTRIES)) {
            MarkerStep::Working => {}
            MarkerStep::Closed(cut) => return Ok(cut),
            other => bail!("a close came to {other:?}"),
        }
    }
}

/// Steps to the lists; runs that are asked for are none of this measurement's.
pub(crate) fn freeze(core: &mut CoreRanking, slices: &mut Slices) -> Result<()> {
    loop {
        match slices.time(|| core.step(SLICE_ENTRIES)) {
            MarkerStep::Working => {}
            MarkerStep::Top(_) => return Ok(()),
            other => bail!("a freeze came to {other:?}"),
        }
    }
}

/// The runs of a cut, by shard, in slices.
pub(crate) fn slices_of(cut: CoreCut) -> Vec<(u16, Vec<SlotCount>)> {
    let mut slices = Vec::new();
    for shard in cut.shards {
        let (ids, runs) = shard.into_runs();
        for run in runs {
            slices.extend(run.entries.chunks(SLICE_ENTRIES).map(|chunk| (ids.shard, chunk.to_vec())));
        }
    }
    slices
}

/// Measures one edge.
pub(crate) fn measure(videos: u32, distinct: u32) -> Result<Vec<Row>> {
    // Half past, so that no hour opens.
    let minute = Minute(Minute::of_ms(TIME_MS).0 + 30);
    let before = resident_bytes()?;
    let mut core = CoreRanking::new(config(videos, WindowLengths::default()), minute)?;
    core.prefault();
    core.finish_restore();
    view_each(&mut core, minute, 0..videos);
    let bytes = resident_bytes()?.saturating_sub(before);
    close(&mut core, &marker(1, minute, true), &mut Slices::default())?;
    freeze(&mut core, &mut Slices::default())?;

    // A stride that shares no factor with most numbers goes through the videos out of their order.
    let viewed = (0..u64::from(distinct)).map(|n| (n * 7_368_787 % u64::from(videos)) as u32);
    let (rows, applied) = view_each(&mut core, minute, viewed);
    let (mut closing, mut subtracting, mut adding, mut freezing) = <(Slices, Slices, Slices, Slices)>::default();
    let cut = close(&mut core, &marker(2, Minute(minute.0 + 1), false), &mut closing)?;
    let slices = slices_of(cut);
    let entries: u64 = slices.iter().map(|(_, slice)| slice.len() as u64).sum();
    let MarkerStep::NeedRuns(_) = core.step(SLICE_ENTRIES) else { bail!("a new minute asks for runs") };
    for (shard, slice) in &slices {
        subtracting.time(|| core.subtract(0, *shard, slice));
    }
    for (shard, slice) in &slices {
        adding.time(|| core.add(0, *shard, slice));
    }
    core.runs_done();
    freeze(&mut core, &mut freezing)?;
    let known = format!("{videos} videos known");
    Ok(vec![
        row(format!("memory per video, {known}"), bytes as f64 / f64::from(videos), "bytes"),
        row(
            format!("apply, {rows} views of as many videos out of order"),
            applied.as_nanos() as f64 / rows as f64,
            "ns/view",
        ),
        row(format!("close, {entries} videos of the minute"), closing.ns_each(entries), "ns/entry"),
        row("close, longest slice", closing.max_us(), "us"),
        row("subtract from a window, per million entries", subtracting.ns_each(entries), "ms"),
        row("subtract, longest slice", subtracting.max_us(), "us"),
        row("add to a window, per million entries", adding.ns_each(entries), "ms"),
        row("add, longest slice", adding.max_us(), "us"),
        row("freeze the seven lists", freezing.ms(), "ms"),
        row("freeze, longest slice", freezing.max_us(), "us"),
    ])
}
