//! Cut files on a real file system: bytes an entry, rolling them up, and a start on the base.
//!
//! Invariant: every cut counts the same number of videos, the first of them all that are known.

use crate::edge::{Slices, close, freeze, marker, view_each};
use crate::{HASH_SEED, Row, SHARDS, config, row};
use anyhow::{Context, Result, anyhow};
use highwater_benches::views::TIME_MS;
use highwater_disk::FileDisk;
use highwater_pipeline::{RecoveryPlan, recover};
use highwater_proto::InstanceId;
use highwater_ranking::{CoreCut, CoreRanking, Minute, WindowLengths};
use highwater_storage::{
    CorePart, Directory, DirectoryId, HistoryNeeds, LogNumber, LogPosition, OpenOptions, PreparedCut,
    ProducerTableImage, RollupRule, Store, run_rollup,
};
use std::path::Path;
use std::time::Instant;

fn options(cuts: u32) -> OpenOptions {
    let create = Directory {
        id: DirectoryId(1),
        instance: InstanceId(1),
        hash_seed: HASH_SEED,
        shards: SHARDS,
        lateness_max_ms: 600_000,
        segment_bytes: 1 << 20,
    };
    let rollup = RollupRule { cuts_min: cuts as usize, ..RollupRule::default() };
    OpenOptions { rollup, ..OpenOptions::new(create) }
}

/// Writes a cut; returns the length of its file.
fn write(store: &mut Store<FileDisk>, folder: &Path, cut: CoreCut, number: u64) -> Result<u64> {
    let position = LogPosition { generation: 1, position: number * 4096 };
    let part = CorePart { log: LogNumber(0), position, cut, producers: ProducerTableImage::default() };
    let header = store.write_cut(&PreparedCut::new(vec![part]))?;
    let path = folder.join(format!("cuts/cut-{:010}.cut", header.number));
    Ok(std::fs::metadata(&path).with_context(|| format!("{} is not there", path.display()))?.len())
}

/// Measures cut files, a roll-up and a start.
pub(crate) fn measure(folder: &Path, videos: u32, cuts: u32, cut_videos: u32) -> Result<Vec<Row>> {
    let start = Minute(Minute::of_ms(TIME_MS).0 + 1);
    let mut core = CoreRanking::new(config(videos, WindowLengths::default()), start)?;
    core.prefault();
    core.finish_restore();
    let mut store = Store::open(FileDisk::open(folder)?, options(cuts))?;
    store.replay_logs::<highwater_storage::StorageError>(|_, _| Ok(()))?;
    store.open_generations(1)?;
    view_each(&mut core, start, 0..videos);
    let mut sizes = Vec::new();
    let (mut entries, mut written) = (0u64, Slices::default());
    for number in 1..=u64::from(cuts) {
        let minute = Minute(start.0 + number as u32);
        let cut = close(&mut core, &marker(number, minute, false), &mut Slices::default())?;
        entries += cut.shards.iter().map(|shard| shard.current.len() as u64).sum::<u64>();
        sizes.push(written.time(|| write(&mut store, folder, cut, number))?);
        // Nothing leaves within the hour.
        core.step(1);
        core.runs_done();
        freeze(&mut core, &mut Slices::default())?;
        let viewed = (0..u64::from(cut_videos)).map(|n| ((n + number) * 7_368_787 % u64::from(videos)) as u32);
        view_each(&mut core, minute, viewed);
    }
    let plan = store.plan_rollup(&HistoryNeeds::NOTHING)?.context("no roll-up is due after so many cuts")?;
    let begun = Instant::now();
    let done =
        run_rollup(store.disk(), &plan, &mut || false).map_err(|stop| anyhow!("the roll-up stopped: {stop:?}"))?;
    let took = begun.elapsed().as_secs_f64();
    store.finish_rollup(&done)?;
    let figures = store.figures();
    drop((store, core));

    let begun = Instant::now();
    let mut store = Store::open(FileDisk::open(folder)?, options(cuts))?;
    let plan = RecoveryPlan {
        ranking: config(videos, WindowLengths::default()),
        cores: 1,
        wall_ms: Minute(start.0 + cuts).end_ms(),
        accept_clock: false,
        lateness_max_ms: 600_000,
    };
    let recovered = recover(&mut store, &plan)?;
    let started = begun.elapsed().as_secs_f64();
    let known: u64 = recovered.iter().map(|core| core.ranking.videos()).sum();
    let sources: u64 = sizes.iter().sum();
    let mut rows = Vec::new();
    if let [_, rest @ ..] = sizes.as_slice()
        && !rest.is_empty()
    {
        let bytes = rest.iter().sum::<u64>() as f64 / (rest.len() as f64 * f64::from(cut_videos));
        rows.push(row(format!("cut file, {cut_videos} videos of {videos}"), bytes, "bytes/entry"));
    }
    rows.extend([
        row("cut files written, durable", sources as f64 / 1e6 / (written.ms() / 1000.0), "MB/s"),
        row(format!("roll-up of {} cuts, {entries} entries", done.cuts), took, "s"),
        row("roll-up, entries read", entries as f64 / 1e6 / took, "M/s"),
        row("roll-up, bytes read and written", (sources + done.bytes) as f64 / 1e6 / took, "MB/s"),
        row("minute file", figures.minutes.bytes as f64 / 1e6, "MB"),
        row("hour file", figures.hours.bytes as f64 / 1e6, "MB"),
        row(format!("base of {known} videos"), figures.base.bytes as f64 / known as f64, "bytes/video"),
        row(format!("start on that base, {known} videos, windows restored"), started, "s"),
    ]);
    Ok(rows)
}
