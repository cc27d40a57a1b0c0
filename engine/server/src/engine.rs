//! A running engine: everything that `serve` and `demo` start, and how it is stopped.
//!
//! Threads: the pinned cores; off them one helper for the data directory, one for long work on its files, one that
//! archives its log, one that merges and publishes, one that commits memory ahead, one that reads history, one that
//! reads certificates and tokens again, one for HTTP. They share lanes, bounded channels, figures, the published
//! snapshot and the rules for clients, nothing else.

use crate::access::{ReloadFigures, Reloader, Rules, Sources};
use crate::archivist::archive_desk;
use crate::args::ServeArguments;
use crate::closed_lists::StoredLists;
use crate::core::{Core, read_clocks};
use crate::desks::CoreDesk;
use crate::diagnostics::{self, Machine, Needs, Sockets};
use crate::helpers::Helpers;
use crate::historian::{Closing, Historian, HistoryRules};
use crate::history;
use crate::http::{RuledReaders, http_limits, listen_http, ruled_tls, serve_http};
use crate::jobs::job_helper;
use crate::lookups::{Lookups, lookup_door};
use crate::metrics::MetricsText;
use crate::plan::MemoryPlan;
use crate::prefault::Prefaulter;
use crate::publisher::Publisher;
use crate::quic::{QuicDriver, QuicError, QuicLimits};
use crate::rollups::{Rollups, SharedFigures, StorageFigures, minutes};
use crate::room::room;
use crate::runtime::{self, Parking, Waker};
use crate::segments::SegmentHelper;
use crate::snapshots::Snapshots;
use crate::storekeeper::{Chores, Storekeeper};
use crate::tls::ServerTls;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, bounded};
use highwater_disk::{FileDisk, UringLog};
use highwater_pipeline::{CoreLanes, Pipeline, PipelineConfig, Recovered, RecoveryPlan, Targets, lane_mesh, recover};
use highwater_proto::InstanceId;
use highwater_ranking::{Calendar, IdHash};
use highwater_sidecar::{HttpOptions, Readers};
use highwater_storage::{
    ArchiveRetention, Directory, DirectoryId, Disk, History, LogDevice, LogLimits, LogNumber, LogWriter, OpenOptions,
    Retention, SEGMENT_BYTES_DEFAULT, Store,
};
use rand::RngExt;
use serde::Serialize;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::oneshot;

/// How long after its end a calendar period of a new data directory is final, when nothing else is asked for.
const LATENESS_MAX_DEFAULT: Duration = Duration::from_mins(10);

/// Shards of a new data directory when none are asked for.
const SHARDS_DEFAULT: u16 = 16;

/// How long a start waits for a port that is in use.
const PORT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Errands and answers that may wait between a core and its helper.
const ERRANDS_MAX: usize = 64;

/// What is said on stdout when the engine is ready.
#[derive(Debug, Clone, Serialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: &'static str,
    /// UDP address of each core.
    pub listen: Vec<SocketAddr>,
    /// HTTP address.
    pub http: SocketAddr,
    /// Certificate that clients check the engine against.
    pub ca: PathBuf,
    /// Data directory.
    pub data_dir: PathBuf,
    /// Instance id of the data directory.
    pub instance: String,
    /// Shards of the data directory.
    pub shards: u16,
    /// CPU of each core.
    pub cores: Vec<usize>,
    /// What runs them.
    pub runtime: runtime::Runtime,
    /// Process id.
    pub pid: u32,
}

/// A running engine.
pub struct Engine {
    /// Where it is reached.
    pub ready: Ready,
    snapshots: Arc<Snapshots>,
    storage: SharedFigures,
    stop: Arc<AtomicBool>,
    wakers: Vec<Waker>,
    cores: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
    reload: Sender<()>,
    http_stop: oneshot::Sender<()>,
    http: JoinHandle<()>,
}

impl Engine {
    /// Recovers the data directory and starts all threads; ready when it returns.
    ///
    /// # Errors
    /// What is wrong with a flag, an address, a certificate, the memory or the data directory, and the remedy.
    pub fn start(arguments: &ServeArguments) -> Result<Self> {
        let origin = Instant::now();
        if let Some(misfit) = arguments.check().into_iter().next() {
            return Err(misfit.into());
        }
        arguments.cores.iter().try_for_each(|cpu| runtime::check_cpu(*cpu))?;
        let cores = arguments.cores.len();
        let sources = Sources::new(arguments);
        let access = sources.access()?;
        let helpers = Helpers::new(&arguments.helper_cores, &arguments.cores)?;
        diagnostics::check_wall_clock(SystemTime::now(), arguments.accept_clock)?;
        runtime::check(arguments.runtime, cores)?;
        let http_connections_max = diagnostics::http_connections(diagnostics::raise_open_files(), cores as u64)?;
        let rings = (0..cores).map(|_| UringLog::open(&arguments.data_dir, LogLimits::default().depth));
        let rings = rings.collect::<Result<Vec<_>, _>>()?;
        let disk = Arc::new(FileDisk::open(&arguments.data_dir)?);
        let mut store = open_store(disk.clone(), arguments)?;
        let directory = *store.directory();
        let history_rules = history_rules(&store, arguments, origin);
        let plan = MemoryPlan::new(arguments.memory.as_u64(), directory.shards, cores as u16)?;
        let tls = sources.tls(&access)?;
        let rules = Arc::new(ArcSwap::from_pointee(Rules { tls: tls.config.clone(), access }));
        let limits = QuicLimits::within(plan.connection_bytes / cores as u64);
        let connections_max = (limits.connections_max * cores) as u64;
        let drivers = bind_drivers(arguments, &tls, &limits)?;
        let drops = drivers.iter().map(QuicDriver::kernel_drops).collect();
        let listen = drivers.iter().map(QuicDriver::local_addr).collect::<std::io::Result<Vec<_>>>();
        let listen = listen.context("a UDP socket has no address")?;
        let http_listener = listen_http(arguments.http)?;
        let http_address = http_listener.local_addr().context("the TCP socket has no address")?;
        let ports = listen.iter().map(SocketAddr::port).collect();
        let pipelines = open_pipelines(&mut store, arguments, &plan, ports, rings, origin)?;
        let free_bytes = store.disk().free_bytes().context("the data directory's file system cannot be measured")?;
        let granted = drivers.iter().map(QuicDriver::granted).reduce(Sockets::least);
        let direct_io = pipelines.iter().all(|(_, ring)| ring.is_direct());
        let granted = granted.context("an engine has a socket")?;
        let machine = Machine::read(&arguments.data_dir, granted, direct_io, free_bytes);
        diagnostics::tell(&machine, &needs(arguments, &directory, &limits), arguments.runtime);
        let populators = pipelines.iter().flat_map(|(pipeline, _)| pipeline.populators());
        let (prefaulter, prefault) = Prefaulter::new(populators, cores);
        let parkings = (0..cores).map(|_| Parking::new()).collect::<std::io::Result<Vec<_>>>();
        let parkings = parkings.context("no descriptor is left for a core's wake-up; raise `ulimit -n`")?;
        let wakers: Vec<Waker> = parkings.iter().map(Parking::waker).collect();
        let (archive, storage) = (Arc::default(), SharedFigures::default());
        let reloads = Arc::<ReloadFigures>::default();
        let metrics = MetricsText {
            instance: directory.instance,
            memory_bytes: arguments.memory.as_u64(),
            connections_max,
            drops,
            archive: Arc::clone(&archive),
            storage: storage.clone(),
            reloads: reloads.clone(),
        };
        let (doors, lookups): (Vec<_>, Vec<_>) = wakers.iter().cloned().map(lookup_door).unzip();
        let targets = Targets::new(IdHash::new(directory.hash_seed), directory.shards, cores as u16);
        let lists = StoredLists::new(History::read_only(disk.clone(), directory.id), directory.lateness_max_ms);
        let (history_helper, history_ports, history_door) = history::open(Box::new(lists), directory.instance, &wakers);
        let snapshots = Arc::new(Snapshots::new(metrics, Lookups { targets, doors }, history_door));
        let stop = Arc::new(AtomicBool::new(false));
        let (errands, requests) = bounded(ERRANDS_MAX * cores);
        let (segments_wanted, segments_wanted_received) = bounded(ERRANDS_MAX * cores);
        let (tops, tops_received) = bounded(ERRANDS_MAX * cores);
        let (mut answer_desks, mut segment_desks) = (Vec::new(), Vec::new());
        let (mut published, mut threads) = (Vec::new(), Vec::new());
        let parts = pipelines.into_iter().zip(drivers).zip(parkings).zip(lookups).zip(history_ports);
        for (number, (((((pipeline, ring), driver), parking), lookups), history)) in (0..).zip(parts) {
            let (answers_sender, answers) = bounded(ERRANDS_MAX);
            let (segments_sender, segments) = bounded(ERRANDS_MAX);
            let (published_sender, published_receiver) = bounded(ERRANDS_MAX);
            let waker = parking.waker();
            answer_desks.push(CoreDesk { brought: answers_sender, waker: waker.clone() });
            segment_desks.push(CoreDesk { brought: segments_sender, waker: waker.clone() });
            published.push((published_sender, waker));
            let core = Core {
                number,
                pipeline,
                driver,
                ring,
                errands: errands.clone(),
                answers,
                segments_wanted: segments_wanted.clone(),
                segments,
                tops: tops.clone(),
                published: published_receiver,
                lookups,
                history,
                rules: rules.clone(),
                wakers: wakers.clone(),
                stop: stop.clone(),
            };
            threads.push((core, parking));
        }
        drop((errands, segments_wanted, tops));
        let (room_seeker, room_maker) = room();
        let segment_helper = SegmentHelper {
            maker: store.segment_maker(),
            wanted: segments_wanted_received,
            desks: segment_desks,
            room: room_seeker,
        };
        let (archive, archivist) = archive_desk(disk.clone(), archive, stop.clone());
        let historian = Historian::new(disk.clone(), history_rules);
        let (jobs, job_helper) = job_helper(disk.clone(), historian, stop.clone());
        let rollups = Rollups::new(storage.clone());
        let chores = Chores { desk: jobs, rollups, closing: Closing::new(disk, history_rules), archive };
        let log_retention_bytes = arguments.log_retention.as_u64();
        let storekeeper =
            Storekeeper::new(store, log_retention_bytes, requests, answer_desks, room_maker, chores, stop.clone());
        let publisher = Publisher::new(directory.instance, tops_received, snapshots.clone(), published, prefault);
        let (reload, reload_requests) = bounded(1);
        let reloader = Reloader::new(sources, rules.clone(), reloads, reload_requests, wakers.clone(), stop.clone());
        let gives_way = helpers.share_cores();
        let helper_threads = vec![
            helpers.spawn("access", move || reloader.run())?,
            helpers.spawn("segments", move || segment_helper.run())?,
            helpers.spawn("store", move || storekeeper.run(gives_way))?,
            helpers.spawn("jobs", move || job_helper.run())?,
            helpers.spawn("archive", move || archivist.run())?,
            helpers.spawn("merge", move || publisher.run())?,
            helpers.spawn("prefault", move || prefaulter.run())?,
            helpers.spawn("history", move || history_helper.run())?,
        ];
        let spawn = |((core, parking), cpu): ((Core, Parking), &usize)| {
            runtime::spawn(arguments.runtime, *cpu, core, parking, origin)
        };
        let threads = threads.into_iter().zip(&arguments.cores).map(spawn).collect::<Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no HTTP runtime")?;
        let http_options = http_options(arguments, http_connections_max, &rules);
        let (http_stop, http) = serve_http(&helpers, runtime, http_listener, snapshots.clone(), http_options)?;
        let ready = Ready {
            event: "ready",
            listen,
            http: http_address,
            ca: tls.ca_path.or_else(|| arguments.tls_cert.clone()).unwrap_or_default(),
            data_dir: arguments.data_dir.clone(),
            instance: format!("{:032x}", directory.instance.0),
            shards: directory.shards,
            cores: arguments.cores.clone(),
            runtime: arguments.runtime,
            pid: std::process::id(),
        };
        let (cores, helpers) = (threads, helper_threads);
        Ok(Self { ready, snapshots, storage, stop, wakers, cores, helpers, reload, http_stop, http })
    }

    /// The published snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// How the files of the data directory are.
    pub fn storage_figures(&self) -> StorageFigures {
        **self.storage.load()
    }

    /// Has certificates and tokens read again, soon; what comes of it is told in the log.
    pub fn reload(&self) {
        // Full: it is asked for already.
        let _ = self.reload.try_send(());
    }

    /// Stops in order: no batch is taken any more, what was taken is made durable and cut, then HTTP ends.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.wakers.iter().for_each(Waker::wake);
        drop(self.reload);
        let panicked = |_| anyhow::anyhow!("a thread of the engine panicked; its message is above");
        for thread in self.cores.into_iter().chain(self.helpers) {
            thread.join().map_err(panicked)?;
        }
        // The receiver is gone only when the thread has ended by itself.
        let _ = self.http_stop.send(());
        self.http.join().map_err(panicked)?;
        tracing::info!("stopped; the data directory needs no repair");
        Ok(())
    }
}

/// One endpoint for each core, on ports in a row, or on free ones.
fn bind_drivers(arguments: &ServeArguments, tls: &ServerTls, limits: &QuicLimits) -> Result<Vec<QuicDriver>> {
    let base = arguments.listen;
    let bind = |core: usize| {
        let offset = if base.port() == 0 { 0 } else { core };
        let port = u16::try_from(usize::from(base.port()) + offset);
        let port = port.expect("the settings were checked: each core has a port");
        bind_patiently(|| QuicDriver::bind(SocketAddr::new(base.ip(), port), tls, core as u8, limits.clone()))
    };
    (0..arguments.cores.len()).map(bind).collect()
}

fn open_store(disk: Arc<FileDisk>, arguments: &ServeArguments) -> Result<Store<Arc<FileDisk>>> {
    let mut random = rand::rng();
    let create = Directory {
        id: DirectoryId(random.random()),
        instance: InstanceId(random.random()),
        hash_seed: random.random(),
        shards: arguments.shards.unwrap_or(SHARDS_DEFAULT),
        lateness_max_ms: lateness_ms(arguments.lateness_max.unwrap_or(LATENESS_MAX_DEFAULT)),
        segment_bytes: SEGMENT_BYTES_DEFAULT,
    };
    let retention = Retention {
        minute_minutes: minutes(arguments.minute_retention),
        hour_minutes: minutes(arguments.hour_retention),
        day_minutes: minutes(arguments.day_retention),
    };
    let kept = arguments.archive_retention;
    let archive = Some(ArchiveRetention { age_ms: kept.age.as_millis() as u64, bytes: kept.size.as_u64() });
    let options = OpenOptions {
        require_shards: arguments.shards,
        require_lateness_max_ms: arguments.lateness_max.map(lateness_ms),
        retention,
        archive,
        ..OpenOptions::new(create)
    };
    Ok(Store::open(disk, options)?)
}

fn lateness_ms(lateness_max: Duration) -> u64 {
    lateness_max.as_millis() as u64 // at most ten years
}

/// How history is kept, as of a store whose logs were not opened yet.
fn history_rules(store: &Store<Arc<FileDisk>>, arguments: &ServeArguments, origin: Instant) -> HistoryRules {
    // Before the first generation was opened there was no log for a view to arrive in.
    let is_new = store.state().generation == 0;
    HistoryRules {
        directory: *store.directory(),
        calendar: Calendar::default(),
        retention: arguments.history_retention,
        new_at_ms: is_new.then(|| read_clocks(Instant::now(), origin).wall_ms),
    }
}

/// Tries again for a moment while the port is in use: the kernel may still be taking apart the rings of an engine that
/// was killed, and they hold its sockets.
fn bind_patiently(bind: impl Fn() -> Result<QuicDriver, QuicError>) -> Result<QuicDriver> {
    let started = Instant::now();
    loop {
        match bind() {
            Err(QuicError::Bind { source, .. })
                if source.kind() == ErrorKind::AddrInUse && started.elapsed() < PORT_WAIT_MAX =>
            {
                std::thread::sleep(PORT_WAIT_MAX / 20);
            }
            outcome => return Ok(outcome?),
        }
    }
}

/// Reads the data directory back and opens each core's log for writing.
fn open_pipelines(
    store: &mut Store<Arc<FileDisk>>,
    arguments: &ServeArguments,
    plan: &MemoryPlan,
    ports: Vec<u16>,
    rings: Vec<UringLog>,
    origin: Instant,
) -> Result<Vec<(Pipeline, UringLog)>> {
    let directory = *store.directory();
    let recovery = RecoveryPlan {
        ranking: plan.ranking(directory.shards, directory.hash_seed),
        cores: ports.len() as u16,
        wall_ms: read_clocks(Instant::now(), origin).wall_ms,
        accept_clock: arguments.accept_clock,
        lateness_max_ms: directory.lateness_max_ms,
    };
    let recovered = recover(store, &recovery)?;
    let config = PipelineConfig {
        core: 0,
        host: arguments.advertise.clone().unwrap_or_default(),
        instance: directory.instance,
        hash: IdHash::new(directory.hash_seed),
        shards_total: directory.shards,
        skew_max_ms: arguments.skew_max.as_millis() as u64,
        calendar: Calendar::default(),
        lateness_max_ms: directory.lateness_max_ms,
        ports,
    };
    let lanes = lane_mesh(recovered.len());
    let open = |(((recovered, lanes), mut ring), core): (((Recovered, CoreLanes), UringLog), u16)| {
        let log = open_log(store, LogNumber(u32::from(core)), &mut ring)?;
        let reading = read_clocks(Instant::now(), origin);
        Ok((Pipeline::new(PipelineConfig { core, ..config.clone() }, recovered, lanes, log, reading), ring))
    };
    recovered.into_iter().zip(lanes).zip(rings).zip(0..).map(open).collect()
}

fn open_log(store: &mut Store<Arc<FileDisk>>, number: LogNumber, ring: &mut UringLog) -> Result<LogWriter> {
    let limits = LogLimits { segment_bytes: store.directory().segment_bytes, ..LogLimits::default() };
    let mut log = LogWriter::new(store.log_identity(number), limits);
    prepare_log(store, number, ring, &mut log)?;
    Ok(log)
}

/// How HTTP is served: over TLS or not, to everyone or to who bears a token.
fn http_options(arguments: &ServeArguments, connections_max: usize, rules: &Arc<ArcSwap<Rules>>) -> HttpOptions {
    let readers = arguments.token_file.as_ref().map(|_| Arc::new(RuledReaders(rules.clone())) as Arc<dyn Readers>);
    HttpOptions {
        limits: http_limits(arguments.http_rate_max, connections_max),
        tls: arguments.http_tls.then(|| ruled_tls(rules.clone())),
        readers,
    }
}

/// What this configuration needs of the machine.
fn needs(arguments: &ServeArguments, directory: &Directory, limits: &QuicLimits) -> Needs {
    Needs {
        cores: arguments.cores.len() as u64,
        memory_bytes: arguments.memory.as_u64(),
        socket_buffer_bytes: limits.socket_buffer_bytes as u64,
        segment_bytes: directory.segment_bytes,
        log_retention_bytes: arguments.log_retention.as_u64(),
        cut_reserve_bytes: OpenOptions::new(*directory).cut_reserve_bytes,
    }
}

/// Gives the log its first segment, so that the first batch need not wait for one. On a full disk the engine starts all
/// the same, refuses batches and goes on asking.
fn prepare_log(
    store: &mut Store<Arc<FileDisk>>,
    number: LogNumber,
    ring: &mut UringLog,
    log: &mut LogWriter,
) -> Result<()> {
    match store.prepare_segment(number) {
        Ok(segment) => {
            let path = segment.path.clone();
            let handle = ring.attach(&segment).with_context(|| format!("cannot open the log segment {path}"))?;
            log.add_segment(&segment, handle);
        }
        Err(error) if error.is_no_space() => tracing::error!("no room for the log, batches will be refused: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
