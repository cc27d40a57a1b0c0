//! A running engine: everything that `serve` and `demo` start, and how it is stopped.
//!
//! Threads: one pinned core, one helper for the data directory, one that merges and publishes, one for HTTP. They share
//! bounded channels and the published snapshot, nothing else.

use crate::args::ServeArguments;
use crate::core::{Core, read_clocks};
use crate::lookups::{Lookups, lookup_door};
use crate::metrics::MetricsText;
use crate::park::{Parking, Waker, pin_current_thread};
use crate::plan::MemoryPlan;
use crate::quic::{QuicDriver, QuicLimits};
use crate::snapshots::{CoreStatus, Snapshots};
use crate::storekeeper::Storekeeper;
use crate::tls::{self, OwnCertificate, ServerTls};
use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use highwater_disk::{FileDisk, UringLog};
use highwater_pipeline::{Pipeline, PipelineConfig, RecoveryPlan, recover};
use highwater_proto::limits::TOP_K_MAX;
use highwater_proto::{InstanceId, Snapshot};
use highwater_ranking::{CoreTop, IdHash, WindowLengths, merge};
use highwater_sidecar::SnapshotSource;
use highwater_storage::{
    Directory, DirectoryId, LogDevice, LogLimits, LogNumber, LogWriter, OpenOptions, SEGMENT_BYTES_DEFAULT, Store,
};
use rand::RngExt;
use serde::Serialize;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// How long after its end a calendar period is final, in milliseconds; fixed in a new data directory.
const LATENESS_MAX_MS: u64 = 600_000;

/// Shards of a new data directory when none are asked for.
const SHARDS_DEFAULT: u16 = 16;

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
    /// Process id.
    pub pid: u32,
}

/// A running engine.
pub struct Engine {
    /// Where it is reached.
    pub ready: Ready,
    snapshots: Arc<Snapshots>,
    stop: Arc<AtomicBool>,
    waker: Waker,
    core: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
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
        let cpu = single_core(&arguments.cores)?;
        let disk = FileDisk::open(&arguments.data_dir)?;
        let mut store = open_store(disk, arguments)?;
        let directory = *store.directory();
        let plan = MemoryPlan::new(arguments.memory.as_u64(), directory.shards)?;
        let tls = prepare_tls(arguments)?;
        let limits = QuicLimits::within(plan.connection_bytes);
        let connections_max = limits.connections_max as u64;
        let driver = QuicDriver::bind(arguments.listen, &tls, 0, limits)?;
        let drops = driver.kernel_drops();
        let listen = driver.local_addr().context("the UDP socket has no address")?;
        let http_listener = TcpListener::bind(arguments.http)
            .with_context(|| format!("cannot listen on tcp {}: choose a free port by --http", arguments.http))?;
        let http_address = http_listener.local_addr().context("the TCP socket has no address")?;
        let (pipeline, ring) = open_pipeline(&mut store, arguments, &plan, listen.port(), origin)?;
        let metrics = MetricsText { memory_bytes: arguments.memory.as_u64(), connections_max, drops };
        let stop = Arc::new(AtomicBool::new(false));
        let parking = Parking::new().context("no descriptor is left for the core's wake-up; raise `ulimit -n`")?;
        let waker = parking.waker();
        let (door, lookups) = lookup_door(waker.clone());
        let hash = IdHash::new(directory.hash_seed);
        let doors = Lookups { hash, shards_total: directory.shards, doors: vec![door] };
        let snapshots = Arc::new(Snapshots::new(metrics, doors));
        let (errands, requests) = bounded(ERRANDS_MAX);
        let (brought_sender, brought) = bounded(ERRANDS_MAX);
        let (tops, tops_received) = bounded(ERRANDS_MAX);
        let (published_sender, published) = bounded(ERRANDS_MAX);
        let storekeeper = Storekeeper {
            store,
            log_retention_bytes: arguments.log_retention.as_u64(),
            requests,
            brought: brought_sender,
            waker: waker.clone(),
        };
        let publisher = Publisher {
            instance: directory.instance,
            tops: tops_received,
            snapshots: snapshots.clone(),
            published: published_sender,
            waker: waker.clone(),
        };
        let helpers = vec![spawn("store", move || storekeeper.run())?, spawn("merge", move || publisher.run())?];
        let core =
            Core { pipeline, driver, ring, parking, errands, brought, tops, published, lookups, stop: stop.clone() };
        let core = spawn_pinned(cpu, core, origin)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no HTTP runtime")?;
        let (http_stop, http) = serve_http(runtime, http_listener, snapshots.clone())?;
        let ready = Ready {
            event: "ready",
            listen: vec![listen],
            http: http_address,
            ca: tls.ca_path.or_else(|| arguments.tls_cert.clone()).unwrap_or_default(),
            data_dir: arguments.data_dir.clone(),
            instance: format!("{:032x}", directory.instance.0),
            shards: directory.shards,
            cores: vec![cpu],
            pid: std::process::id(),
        };
        Ok(Self { ready, snapshots, stop, waker, core, helpers, http_stop, http })
    }

    /// The published snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Stops in order: no batch is taken any more, what was taken is made durable and cut, then HTTP ends.
    ///
    /// # Errors
    /// When a thread panicked.
    pub fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        let panicked = |_| anyhow::anyhow!("a thread of the engine panicked; its message is above");
        self.core.join().map_err(panicked)?;
        for helper in self.helpers {
            helper.join().map_err(panicked)?;
        }
        // The receiver is gone only when the thread has ended by itself.
        let _ = self.http_stop.send(());
        self.http.join().map_err(panicked)?;
        tracing::info!("stopped; the data directory needs no repair");
        Ok(())
    }
}

/// The CPU of the one core.
fn single_core(cores: &[usize]) -> Result<usize> {
    match cores {
        [cpu] => Ok(*cpu),
        _ => bail!(
            "--cores names {} CPUs, this version runs exactly one core: give one CPU, such as --cores=0",
            cores.len()
        ),
    }
}

fn prepare_tls(arguments: &ServeArguments) -> Result<ServerTls> {
    let own = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(OwnCertificate { certificate: certificate.clone(), key: key.clone() }),
        _ => None,
    };
    let directory = arguments.data_dir.join("tls");
    Ok(tls::prepare(&directory, &arguments.tls_name, own.as_ref(), SystemTime::now())?)
}

fn open_store(disk: FileDisk, arguments: &ServeArguments) -> Result<Store<FileDisk>> {
    let mut random = rand::rng();
    let create = Directory {
        id: DirectoryId(random.random()),
        instance: InstanceId(random.random()),
        hash_seed: random.random(),
        shards: arguments.shards.unwrap_or(SHARDS_DEFAULT),
        lateness_max_ms: LATENESS_MAX_MS,
        segment_bytes: SEGMENT_BYTES_DEFAULT,
    };
    let options = OpenOptions { require_shards: arguments.shards, ..OpenOptions::new(create) };
    Ok(Store::open(disk, options)?)
}

/// Reads the data directory back and opens its log for writing.
fn open_pipeline(
    store: &mut Store<FileDisk>,
    arguments: &ServeArguments,
    plan: &MemoryPlan,
    port: u16,
    origin: Instant,
) -> Result<(Pipeline, UringLog)> {
    let directory = *store.directory();
    let recovered = recover(
        store,
        RecoveryPlan {
            ranking: plan.ranking(directory.shards, directory.hash_seed),
            wall_ms: read_clocks(Instant::now(), origin).wall_ms,
            accept_clock: arguments.accept_clock,
            lateness_max_ms: directory.lateness_max_ms,
        },
    )?;
    let log_limits = LogLimits { segment_bytes: directory.segment_bytes, ..LogLimits::default() };
    let mut ring = UringLog::open(&arguments.data_dir, log_limits.depth)?;
    let mut log = LogWriter::new(store.log_identity(LogNumber(0)), log_limits);
    prepare_log(store, &mut ring, &mut log)?;
    let config = PipelineConfig {
        core: 0,
        ports: vec![port],
        host: arguments.advertise.clone(),
        instance: directory.instance,
        hash: IdHash::new(directory.hash_seed),
        shards_total: directory.shards,
        skew_max_ms: arguments.skew_max.as_millis() as u64,
        lateness_max_ms: directory.lateness_max_ms,
    };
    Ok((Pipeline::new(config, recovered, log, read_clocks(Instant::now(), origin)), ring))
}

/// Gives the log its first segment, so that the first batch need not wait for one. On a full disk the engine starts all
/// the same, refuses batches and goes on asking.
fn prepare_log(store: &mut Store<FileDisk>, ring: &mut UringLog, log: &mut LogWriter) -> Result<()> {
    match store.prepare_segment(LogNumber(0)) {
        Ok(segment) => {
            let path = segment.path.clone();
            let handle = ring.attach(&segment).with_context(|| format!("cannot open the log segment {path}"))?;
            log.add_segment(&segment, handle);
            if !ring.is_direct() {
                tracing::warn!(
                    "the data directory's file system refuses direct I/O: the log goes through the page cache and is \
                     slower; use ext4 or xfs"
                );
            }
        }
        Err(error) if error.is_no_space() => tracing::error!("no room for the log, batches will be refused: {error}"),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .with_context(|| format!("cannot start the thread {name:?}; look at the limits on threads and memory"))
}

/// Starts the core's thread and waits until it is pinned.
fn spawn_pinned(cpu: usize, core: Core, origin: Instant) -> Result<JoinHandle<()>> {
    let (pinned, is_pinned) = bounded(1);
    let thread = spawn("core-0", move || {
        let outcome = pin_current_thread(cpu);
        let failed = outcome.is_err();
        // The receiver waits for exactly this message.
        let _ = pinned.send(outcome);
        if !failed {
            core.run(origin);
        }
    })?;
    is_pinned.recv().context("the core's thread ended before it was pinned")??;
    Ok(thread)
}

/// Merges the cores' lists and publishes them.
struct Publisher {
    instance: InstanceId,
    tops: Receiver<(CoreTop, CoreStatus)>,
    snapshots: Arc<Snapshots>,
    published: Sender<Arc<Snapshot>>,
    waker: Waker,
}

impl Publisher {
    fn run(self) {
        let windows = WindowLengths::default();
        while let Ok((top, status)) = self.tops.recv() {
            let snapshot = Arc::new(merge(self.instance, &[top], TOP_K_MAX, &windows));
            self.snapshots.publish(snapshot.clone(), status);
            if self.published.send(snapshot).is_ok() {
                self.waker.wake();
            }
        }
    }
}

/// Serves a source over HTTP on a thread of its own, until the sender is used.
pub(crate) fn serve_http<S: SnapshotSource>(
    runtime: Runtime,
    listener: TcpListener,
    source: Arc<S>,
) -> Result<(oneshot::Sender<()>, JoinHandle<()>)> {
    listener.set_nonblocking(true).context("the TCP socket cannot be made non-blocking")?;
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = spawn("http", move || {
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    let shutdown = async {
                        // Sent, or the engine is gone: either way it is time to end.
                        let _ = stopped.await;
                    };
                    highwater_sidecar::serve(listener, source, shutdown).await;
                }
                Err(error) => crate::fatal::fatal("the HTTP listener cannot be used", &error),
            }
        });
    })?;
    Ok((stop, thread))
}
