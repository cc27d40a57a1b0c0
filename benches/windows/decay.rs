//! Boards while traffic is steady, grows, dies or is spread evenly: how often a list has to be found anew by a scan.
//!
//! Hours are 10 minutes here, so that windows fill and empty within a run. Invariant: what leaves a window is what was
//! counted in it.

use crate::edge::{Slices, close, freeze, marker, slices_of};
use crate::{Row, SLICE_ENTRIES, config, row};
use anyhow::{Result, bail};
use highwater_benches::Scale;
use highwater_benches::views::{Draw, TIME_MS};
use highwater_ranking::{Calendar, CoreRanking, MarkerStep, Minute, RunChange, SlotCount, WindowLengths};
use std::collections::BTreeMap;

const MINUTES: u32 = 100;
const WINDOWS: WindowLengths = WindowLengths { hour: 10, day: 40, month: 80, calendar: Calendar::scaled(10, 4, 10) };
/// Videos are few enough for all to be viewed again and again.
const VIDEOS_MAX: u32 = 200_000;

/// How views come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Traffic {
    Steady,
    Growing,
    Dying,
    Uniform,
}

impl Traffic {
    pub(crate) const ALL: [Self; 4] = [Self::Steady, Self::Growing, Self::Dying, Self::Uniform];

    /// Views of a minute, of `most`.
    fn views(self, minute: u32, most: u32) -> u32 {
        match self {
            Self::Steady | Self::Uniform => most,
            Self::Growing => most * (minute + 1) / MINUTES,
            Self::Dying => most * (MINUTES - minute) / MINUTES,
        }
    }
}

/// The slices of each minute's runs.
type Stored = BTreeMap<Minute, Vec<(u16, Vec<SlotCount>)>>;

/// Measures one kind of traffic.
pub(crate) fn measure(traffic: Traffic, videos: u32, minute_views: u32) -> Result<Vec<Row>> {
    let videos = videos.min(VIDEOS_MAX);
    let start = Minute(Minute::of_ms(TIME_MS).0);
    let mut core = CoreRanking::new(config(videos, WINDOWS), start)?;
    core.finish_restore();
    let mut draw = Draw::new(Scale { videos, ..Scale::FULL });
    let mut stored = Stored::new();
    let (mut views, mut scans) = (0u64, 0);
    let (mut edges, mut freezes) = <(Slices, Slices)>::default();
    for number in 0..MINUTES {
        let minute = Minute(start.0 + number);
        let count = traffic.views(number, minute_views);
        let next = |n| if matches!(traffic, Traffic::Uniform) { n * 7919 % videos } else { draw.video() };
        views += crate::edge::view_each(&mut core, minute, (0..count).map(next)).0;
        let edge = marker(u64::from(number) + 1, Minute(minute.0 + 1), false);
        stored.insert(minute, slices_of(close(&mut core, &edge, &mut edges)?));
        move_runs(&mut core, &stored, &mut edges)?;
        scans += core.scans_pending();
        freeze(&mut core, &mut freezes)?;
    }
    let of = format!("{traffic:?} traffic").to_lowercase();
    Ok(vec![
        row(format!("{of}, {views} views in {MINUTES} minutes, scans"), scans as f64 / views as f64 * 1e6, "/M views"),
        row(format!("{of}, edges"), edges.ns_each(views), "ns/view"),
        row(format!("{of}, lists frozen, scans included"), freezes.ms() / f64::from(MINUTES), "ms/minute"),
    ])
}

/// Answers for the runs that a new minute asks for.
fn move_runs(core: &mut CoreRanking, stored: &Stored, slices: &mut Slices) -> Result<()> {
    let MarkerStep::NeedRuns(requests) = core.step(SLICE_ENTRIES) else { bail!("a new minute asks for runs") };
    for request in requests {
        for (shard, slice) in stored.range(request.minutes).flat_map(|(_, slices)| slices) {
            slices.time(|| match request.change {
                RunChange::Leave => core.subtract(request.window, *shard, slice),
                RunChange::Enter => core.add(request.window, *shard, slice),
            });
        }
    }
    slices.time(|| core.runs_done());
    Ok(())
}
