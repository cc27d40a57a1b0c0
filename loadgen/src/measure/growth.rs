//! `loadgen growth`: what a view costs as one thing after the other grows: videos, their skew, batches, producers,
//! cores.
//!
//! Each row has an engine of its own, filled and then loaded as fast as it answers. Invariant: all but the one thing is
//! as the command line says, and as in every other row.

use std::path::PathBuf;

use clap::Args;

use super::session::{LoadArgs, Session, Stage};
use crate::error::LoadError;
use crate::pace::Rate;
use crate::process::engine::find_binary;
use crate::table::{aligned, cells};

/// Views made ahead for each video, so that few videos do not need as many as many do.
const VIEWS_OF_A_VIDEO: u64 = 8;
/// Views made ahead at least, so that batches differ.
const PREPARED_MIN: u64 = 4_000_000;

/// Producers of the rows that differ in cores. A producer's core follows from its id, which is drawn at random: of two
/// producers both are on one of two cores in every second run, of 16 all in one of 32 768.
const PRODUCERS_OF_CORES: u16 = 16;

/// `loadgen growth`.
#[derive(Debug, Args)]
pub struct GrowthArgs {
    /// The engine and the load.
    #[command(flatten)]
    pub load: LoadArgs,
    /// The engine; by default the `highwater` beside this program.
    #[arg(long, value_name = "PATH")]
    pub highwater: Option<PathBuf>,
    /// Only the rows whose names contain this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub only: String,
}

/// One row: its name and what is different in it.
struct Variation {
    name: String,
    load: LoadArgs,
    /// What is measured is the filling: every view of a video that the engine does not know.
    all_new: bool,
}

/// Measures row after row, and prints each as soon as it is there.
///
/// # Errors
/// [`LoadError::Option`] for wrong usage; an engine that does not start, fails, refuses views or serves wrong lists.
pub fn growth(arguments: &GrowthArgs) -> Result<(), LoadError> {
    let binary = find_binary(arguments.highwater.clone(), "highwater")?;
    let mut variations = variations(&arguments.load);
    variations.retain(|variation| variation.name.contains(&arguments.only));
    if variations.is_empty() {
        return Err(LoadError::Option {
            option: "only",
            value: arguments.only.clone(),
            reason: "no row has that in its name; leave it out to see them all".into(),
        });
    }
    arguments.load.confine()?;
    let mut lines = vec![cells(&HEADINGS)];
    for variation in variations {
        let prepared = variation.load.prepare()?;
        let (mut session, filling) = Session::start(&variation.load, binary.clone(), &prepared)?;
        let stage = if variation.all_new { filling } else { session.measure(Rate::Max)? };
        let distinct = session.finish()?.report.distinct_videos;
        eprintln!("{}: {:.0} views/s", variation.name, stage.rate_per_s);
        lines.push(line(&variation.name, distinct, &stage));
    }
    println!("{}", aligned(&lines, 1));
    Ok(())
}

const HEADINGS: [&str; 10] = [
    "load",
    "distinct videos",
    "views/s",
    "engine CPU ns/view",
    "engine CPU %",
    "load CPU %",
    "ack p50 ms",
    "p99",
    "bytes/view",
    "engine MiB",
];

fn line(name: &str, distinct_videos: u64, stage: &Stage) -> Vec<String> {
    vec![
        name.to_owned(),
        distinct_videos.to_string(),
        format!("{:.0}", stage.rate_per_s),
        format!("{:.0}", 1000.0 * stage.engine_cpu_s_per_million_views),
        format!("{:.0}", stage.engine_cpu_percent),
        format!("{:.0}", stage.generator.cpu_percent),
        format!("{:.1}", stage.ack_latency_us.p50 as f64 / 1000.0),
        format!("{:.1}", stage.ack_latency_us.p99 as f64 / 1000.0),
        format!("{:.1}", stage.bytes_per_view),
        (stage.engine_resident_bytes >> 20).to_string(),
    ]
}

/// All rows, the one that is `base` itself first.
fn variations(base: &LoadArgs) -> Vec<Variation> {
    let mut rows = Vec::new();
    let mut add = |name: String, all_new: bool, change: &dyn Fn(&mut LoadArgs)| {
        let mut load = base.clone();
        change(&mut load);
        let enough = (u64::from(load.videos) * VIEWS_OF_A_VIDEO).max(PREPARED_MIN);
        load.prepared = if all_new { u64::from(load.videos) } else { load.prepared.min(enough) };
        rows.push(Variation { name, load, all_new });
    };
    add("as given".to_owned(), false, &|_| {});
    for videos in [1, 10_000, 100_000, 1_000_000, 10_000_000, 50_000_000] {
        add(format!("videos {videos}"), false, &|load| load.videos = videos);
    }
    for zipf in [0.0, 0.8, 1.2, 1.4] {
        add(format!("zipf {zipf}"), false, &|load| load.zipf = zipf);
    }
    add("every id new".to_owned(), true, &|load| load.zipf = 0.0);
    for batch in [64, 512, 1024, 8192] {
        add(format!("batch {batch}"), false, &|load| load.batch = batch);
    }
    for producers in [2, 10, 100, 1000] {
        add(format!("producers {producers}"), false, &|load| load.producers = producers);
    }
    let on = |cpus: Vec<usize>| {
        move |load: &mut LoadArgs| (load.producers, load.engine_cpus) = (PRODUCERS_OF_CORES, cpus.clone())
    };
    let producers = format!("{PRODUCERS_OF_CORES} producers");
    add(format!("cores {}, {producers}", base.engine_cpus.len()), false, &on(base.engine_cpus.clone()));
    if !base.engine_cpus.contains(&base.load_cpu) {
        let cpus = [&base.engine_cpus[..], &[base.load_cpu]].concat();
        add(format!("cores {}, {producers}, one on the load's CPU", cpus.len()), false, &on(cpus));
    }
    rows
}
