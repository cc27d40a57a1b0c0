//! `highwater demo`: engine, sidecar and load in one process and a temporary directory, with a live top 10.
//!
//! Everything is the real thing: QUIC over loopback, the log on disk, snapshots each second. Only the views are made
//! up.

use crate::args::{DemoArguments, ServeArguments};
use crate::engine::Engine;
use crate::fatal::fatal;
use crate::live::{Feed, View, cut};
use crate::screen::Screen;
use anyhow::{Context, Result};
use highwater_client::ClientConfig;
use highwater_loadgen::{Progress, Rate, RunOptions, Target};
use highwater_proto::Period;
use highwater_sidecar::SnapshotSource;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Rows shown.
const ROWS_SHOWN: usize = 10;

/// Between two pictures.
const REDRAW_EVERY: Duration = Duration::from_secs(1);

/// How long the load may run when only Ctrl-C ends it.
const LOAD_TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs the demo until its time is over or Ctrl-C.
///
/// # Errors
/// What keeps the engine or the load from starting.
pub fn demo(arguments: &DemoArguments) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("highwater-demo-").tempdir().context("no temporary directory")?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals cannot be watched")?;
    }
    let engine = Engine::start(&serve_arguments(directory.path())?)?;
    let progress = Progress::new();
    let options = load_options(arguments, &engine)?;
    let load = {
        let progress = Arc::clone(&progress);
        std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                if let Err(error) = highwater_loadgen::run(&options, &progress) {
                    fatal("the demo's load failed", &error);
                }
            })
            .context("the load cannot be started")?
    };
    let began = Instant::now();
    let mut screen = Screen::stdout();
    let mut feed = Feed::default();
    while !stop.load(Ordering::Relaxed) && arguments.duration.is_none_or(|most| began.elapsed() < most) {
        std::thread::park_timeout(REDRAW_EVERY);
        if let Some(snapshot) = engine.snapshots().latest() {
            feed.push(snapshot);
        }
        let width = screen.width();
        let list = feed.picture(View { period: Period::Hour, rows: ROWS_SHOWN, width });
        screen.show(&(heading(&progress, engine.ready.http, width) + &list))?;
    }
    drop(screen);
    progress.stop();
    load.join().map_err(|_| anyhow::anyhow!("the load's thread panicked; its message is above"))?;
    engine.stop()
}

/// As little archive as can be.
const KEPT: &str = "--archive-retention=1m,128MiB";

/// A small engine on free ports; all else is as by default.
fn serve_arguments(directory: &std::path::Path) -> Result<ServeArguments> {
    let mut data_dir = OsString::from("--data-dir=");
    data_dir.push(directory.join("data"));
    let flags = ["--listen=127.0.0.1:0", "--http=127.0.0.1:0", "--memory=1GiB", "--log-retention=256MiB", KEPT];
    let arguments = ServeArguments::from_flags(flags.into_iter().map(OsString::from).chain([data_dir]))?;
    Ok(ServeArguments { cores: demo_cores()?, ..arguments })
}

/// A core on the first CPU; the rest is for the load and the helpers.
fn demo_cores() -> Result<Vec<usize>> {
    let allowed = crate::runtime::allowed_cpus().context("no CPU to pin the core to")?;
    Ok(allowed.into_iter().take(1).collect())
}

fn load_options(arguments: &DemoArguments, engine: &Engine) -> Result<RunOptions> {
    let client = ClientConfig::with_ca_file(engine.ready.listen[0].to_string(), &engine.ready.ca)?;
    Ok(RunOptions {
        target: Target { client, producers: 2, batch_views: 1024, verify: None },
        rate: Rate::PerSecond(arguments.rate),
        duration: arguments.duration.unwrap_or(LOAD_TIME_MAX),
        warm_up: Duration::ZERO,
        prepared: 0,
        videos: arguments.videos as u32,
        zipf: 1.0,
        user_bytes: None,
        ages: Vec::new(),
        seed: 1,
    })
}

/// What stands above the list.
fn heading(progress: &Progress, http: SocketAddr, width: usize) -> String {
    let url = format!("Highwater demo · http://{http}/v1/videos/top?period=hour&k=10 · Ctrl-C ends");
    let sent = format!("{} views sent, {} acknowledged", progress.views_sent(), progress.views_acked());
    format!("{}\n{}\n", cut(&url, width), cut(&sent, width))
}
