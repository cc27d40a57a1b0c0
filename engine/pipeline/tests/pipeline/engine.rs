//! One life of the engine's shell, in steps that the test chooses: the cores' pipelines, store, log devices, publisher.
//!
//! A step that meets a failed disk ends this life, as the process would end.

use crate::rolling::Rolling;
use highwater_pipeline::{
    Claim, CutErrand, Gather, Intake, Output, Pipeline, PipelineConfig, Reading, RecoveryError, RecoveryPlan, RunSlice,
    SessionId, Stats, StoreAnswer, StoreRequest, home_core, lane_mesh, recover, shard_owner,
};
use highwater_proto::{
    Ack, BatchRefused, CloseReason, Epoch, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Hello, InstanceId, Redirect,
    Snapshot, Welcome,
};
use highwater_ranking::{CoreTop, IdHash, RankingConfig, RunRequest, WindowLengths, merge};
use highwater_storage::{
    CorePart, Directory, DirectoryId, LogDevice, LogLimits, LogNumber, LogWriter, MemoryDisk, MemoryLogDevice,
    OpenOptions, PreparedCut, PreparedSegment, Retention, RollupRule, StorageError, Store,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(crate) const SEGMENT_BYTES: u64 = 1200 << 10;
pub(crate) const INSTANCE: InstanceId = InstanceId(5);
pub(crate) const PORT: u16 = 4433;
pub(crate) const HASH_SEED: u64 = 77;

/// The sizes and rules of a test.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) cores: u16,
    pub(crate) shards: u16,
    pub(crate) videos_per_shard_max: u32,
    pub(crate) id_arena_bytes_per_shard: usize,
    pub(crate) late_rows_max: usize,
    pub(crate) top_k: usize,
    pub(crate) windows: WindowLengths,
    pub(crate) log: LogLimits,
    pub(crate) skew_max_ms: u64,
    pub(crate) lateness_max_ms: u64,
    pub(crate) accept_clock: bool,
    pub(crate) rollup: RollupRule,
    pub(crate) retention: Retention,
}

impl Default for Setup {
    fn default() -> Self {
        let log = LogLimits {
            buffers: 4,
            buffer_bytes: SEGMENT_BYTES as usize,
            submit_bytes: 1,
            depth: 3,
            segment_bytes: SEGMENT_BYTES,
        };
        Self {
            cores: 1,
            shards: 4,
            videos_per_shard_max: 4096,
            id_arena_bytes_per_shard: 1 << 20,
            late_rows_max: 10_000,
            top_k: 8,
            windows: WindowLengths::default(),
            log,
            skew_max_ms: 60_000,
            lateness_max_ms: 600_000,
            accept_clock: false,
            rollup: RollupRule::default(),
            retention: Retention::default(),
        }
    }
}

impl Setup {
    fn ranking(&self) -> RankingConfig {
        RankingConfig {
            shards_total: self.shards,
            owned: Vec::new(),
            hash_seed: HASH_SEED,
            videos_per_shard_max: self.videos_per_shard_max,
            id_arena_bytes_per_shard: self.id_arena_bytes_per_shard,
            late_rows_max: self.late_rows_max,
            top_k: self.top_k,
            windows: self.windows,
        }
    }

    pub(crate) fn options(&self) -> OpenOptions {
        let create = Directory {
            id: DirectoryId(7),
            instance: INSTANCE,
            hash_seed: HASH_SEED,
            shards: self.shards,
            lateness_max_ms: self.lateness_max_ms,
            segment_bytes: SEGMENT_BYTES,
        };
        OpenOptions {
            cut_reserve_bytes: 100_000,
            calendar: self.windows.calendar,
            rollup: self.rollup,
            retention: self.retention,
            ..OpenOptions::new(create)
        }
    }
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Welcome(Welcome),
    Ack(Ack),
    Refused(BatchRefused),
    Redirect(Redirect),
    Finish,
    Close(CloseReason, String),
}

impl Answer {
    /// What it is.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Welcome(_) => "welcome",
            Self::Ack(_) => "ack",
            Self::Refused(_) => "refused",
            Self::Redirect(_) => "redirect",
            Self::Finish => "finish",
            Self::Close(reason, _) => reason.as_str(),
        }
    }

    /// The sequence that it is about, or 0.
    pub(crate) const fn sequence(&self) -> u64 {
        match self {
            Self::Welcome(Welcome { last: sequence, .. })
            | Self::Ack(Ack { sequence, .. })
            | Self::Refused(BatchRefused { sequence, .. }) => sequence.0,
            Self::Redirect(_) | Self::Finish | Self::Close(..) => 0,
        }
    }
}

/// The engine's process is gone.
#[derive(Debug)]
pub(crate) struct Died(pub(crate) String);

impl From<std::io::Error> for Died {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<StorageError> for Died {
    fn from(error: StorageError) -> Self {
        Self(error.to_string())
    }
}

/// One core of an engine.
pub(crate) struct Core {
    pub(crate) pipeline: Pipeline,
    pub(crate) device: MemoryLogDevice,
    answers: VecDeque<StoreAnswer>,
    /// Segments for its log, or why there is no room for one.
    segments: VecDeque<Result<PreparedSegment, String>>,
    published: VecDeque<Arc<Snapshot>>,
}

/// One life of the engine.
pub(crate) struct Engine {
    pub(crate) cores: Vec<Core>,
    pub(crate) store: Store<MemoryDisk>,
    /// The last epoch that an earlier life may have used.
    pub(crate) issued_before: Epoch,
    /// Engine time at the start.
    pub(crate) time_ms: u64,
    /// The core that each session has come to.
    pub(crate) sessions: HashMap<SessionId, usize>,
    pub(crate) rolling: Rolling,
    /// What arrived before is in the closed files, in ms UTC.
    pub(crate) horizon_ms: u64,
    errands: VecDeque<(usize, StoreRequest)>,
    /// The cores that want a segment, which is another helper's to make.
    segments_wanted: VecDeque<usize>,
    /// A cut that found the disk full; nothing else is written before it.
    stalled_cut: Option<PreparedCut>,
    /// A cut that is written when the runs are brought that all cores wait for.
    held_cut: Option<PreparedCut>,
    parts: Gather<CorePart>,
    runs: Gather<Vec<RunRequest>>,
    tops: Gather<CoreTop>,
    snapshots: VecDeque<Snapshot>,
    pub(crate) top_k: usize,
    pub(crate) windows: WindowLengths,
}

impl Engine {
    pub(crate) fn start(setup: &Setup, disk: &MemoryDisk, reading: Reading, seed: u64) -> Result<Self, RecoveryError> {
        let mut store = Store::open(disk.clone(), setup.options())?;
        let plan = RecoveryPlan {
            ranking: setup.ranking(),
            cores: setup.cores,
            wall_ms: reading.wall_ms,
            accept_clock: setup.accept_clock,
            lateness_max_ms: setup.lateness_max_ms,
        };
        let recovered = recover(&mut store, &plan)?;
        let (issued_before, time_ms) = (recovered[0].issued, recovered[0].time_ms);
        let config = |core| PipelineConfig {
            core,
            ports: (PORT..).take(usize::from(setup.cores)).collect(),
            host: String::new(),
            instance: INSTANCE,
            hash: IdHash::new(HASH_SEED),
            shards_total: setup.shards,
            skew_max_ms: setup.skew_max_ms,
            calendar: setup.windows.calendar,
            lateness_max_ms: setup.lateness_max_ms,
        };
        let mesh = lane_mesh(usize::from(setup.cores));
        let cores = recovered.into_iter().zip(mesh).zip(0..).map(|((recovered, lanes), core)| {
            let log = LogWriter::new(store.log_identity(LogNumber(u32::from(core))), setup.log);
            Core {
                pipeline: Pipeline::new(config(core), recovered, lanes, log, reading),
                device: MemoryLogDevice::new(disk, setup.log.depth, seed ^ u64::from(core)),
                answers: VecDeque::new(),
                segments: VecDeque::new(),
                published: VecDeque::new(),
            }
        });
        Ok(Self {
            cores: cores.collect(),
            store,
            issued_before,
            time_ms,
            sessions: HashMap::new(),
            rolling: Rolling::default(),
            horizon_ms: 0,
            errands: VecDeque::new(),
            segments_wanted: VecDeque::new(),
            stalled_cut: None,
            held_cut: None,
            parts: Gather::new(usize::from(setup.cores)),
            runs: Gather::new(usize::from(setup.cores)),
            tops: Gather::new(usize::from(setup.cores)),
            snapshots: VecDeque::new(),
            top_k: setup.top_k,
            windows: setup.windows,
        })
    }

    /// Says hello to the producer's home core.
    pub(crate) fn hello(&mut self, session: SessionId, hello: &Hello) -> Intake {
        let home = home_core(hello.producer, self.cores.len() as u16);
        self.hello_to(usize::from(home), session, hello)
    }

    /// Says hello to the producer's home core as somebody.
    pub(crate) fn hello_as(&mut self, session: SessionId, hello: &Hello, claim: Claim) -> Intake {
        let home = usize::from(home_core(hello.producer, self.cores.len() as u16));
        self.sessions.insert(session, home);
        self.cores[home].pipeline.handle_hello(session, hello, claim)
    }

    /// Says hello to a core.
    pub(crate) fn hello_to(&mut self, core: usize, session: SessionId, hello: &Hello) -> Intake {
        self.sessions.insert(session, core);
        self.cores[core].pipeline.handle_hello(session, hello, Claim::Unasked)
    }

    /// The core of a session.
    pub(crate) fn at(&mut self, session: SessionId) -> &mut Pipeline {
        let core = self.sessions.get(&session).copied().unwrap_or(0);
        &mut self.cores[core].pipeline
    }

    /// One turn of a core's pipeline; submits what it wants written.
    pub(crate) fn turn(&mut self, core: usize, reading: Reading) -> bool {
        let Core { pipeline, device, .. } = &mut self.cores[core];
        pipeline.handle_time(reading);
        let mut worked = pipeline.turn();
        while let Some(write) = pipeline.poll_write() {
            assert!(device.submit(write).is_ok(), "the log's depth is within the device's");
            worked = true;
        }
        while let Some(handle) = pipeline.poll_retired() {
            device.detach(handle);
        }
        while let Some(errand) = pipeline.poll_errand() {
            match errand {
                StoreRequest::PrepareSegment => self.segments_wanted.push_back(core),
                other => self.errands.push_back((core, other)),
            }
            worked = true;
        }
        while let Some(top) = pipeline.poll_top() {
            let tops = self.tops.put(core, top);
            self.snapshots.extend(tops.map(|tops| merge(INSTANCE, &tops, self.top_k, &self.windows)));
            worked = true;
        }
        while pipeline.poll_wake().is_some() {
            worked = true;
        }
        worked
    }

    /// Completes one write of a core's log.
    pub(crate) fn complete(&mut self, core: usize) -> Result<bool, Died> {
        let Core { pipeline, device, .. } = &mut self.cores[core];
        let Some(written) = device.complete() else { return Ok(false) };
        written.result?;
        pipeline.handle_written(written.write);
        Ok(true)
    }

    /// Does the oldest errand that no edge of a minute waits for, before all others.
    pub(crate) fn errand_but_edges(&mut self) -> Result<bool, Died> {
        let is_edge = |errand: &StoreRequest| matches!(errand, StoreRequest::WriteCut(_) | StoreRequest::Runs(_));
        let Some(index) = self.errands.iter().position(|(_, one)| !is_edge(one)) else { return Ok(false) };
        let errand = self.errands.remove(index).expect("it is there");
        self.errands.push_front(errand);
        self.errand()
    }

    /// Makes the segment that was asked for first; without room, or while something waits for room, its core is told.
    pub(crate) fn segment(&mut self) -> Result<bool, Died> {
        let Some(core) = self.segments_wanted.pop_front() else { return Ok(false) };
        let made = match self.store.prepare_segment(LogNumber(core as u32)) {
            _ if self.stalled_cut.is_some() => Err("a cut waits for room".to_owned()),
            Err(error) if error.is_no_space() => Err(error.to_string()),
            made => Ok(made?),
        };
        self.cores[core].segments.push_back(made);
        Ok(true)
    }

    /// Does the oldest errand. On a full disk it stays the oldest.
    pub(crate) fn errand(&mut self) -> Result<bool, Died> {
        if let Some(cut) = self.stalled_cut.take() {
            self.write_cut(cut)?;
            return Ok(self.stalled_cut.is_none());
        }
        let Some((core, errand)) = self.errands.pop_front() else { return Ok(false) };
        let log = LogNumber(core as u32);
        let answers = &mut self.cores[core].answers;
        match errand {
            StoreRequest::PrepareSegment => unreachable!("segments are another helper's"),
            StoreRequest::LeaseEpochs { count } => {
                let leased = self.store.lease_epochs(count);
                if leased.as_ref().is_err_and(StorageError::is_no_space) {
                    self.errands.push_front((core, StoreRequest::LeaseEpochs { count }));
                    return Ok(false);
                }
                answers.push_back(StoreAnswer::EpochsLeased(leased?));
            }
            StoreRequest::RecordMinute(minute) => {
                let recorded = self.store.record_minute(minute);
                if recorded.as_ref().is_err_and(StorageError::is_no_space) {
                    self.errands.push_front((core, StoreRequest::RecordMinute(minute)));
                    return Ok(false);
                }
                recorded?;
                answers.push_back(StoreAnswer::MinuteRecorded(minute));
            }
            StoreRequest::WriteCut(errand) => {
                let CutErrand { cut, position, producers, minute_moves } = *errand;
                if let Some(parts) = self.parts.put(core, CorePart { log, position, cut, producers }) {
                    let cut = PreparedCut::new(parts);
                    if minute_moves {
                        self.held_cut = Some(cut);
                    } else {
                        self.write_cut(cut)?;
                    }
                }
            }
            StoreRequest::Runs(requests) => {
                if let Some(all) = self.runs.put(core, requests) {
                    self.bring_runs(&all)?;
                    if let Some(cut) = self.held_cut.take() {
                        self.write_cut(cut)?;
                    }
                }
            }
        }
        Ok(true)
    }

    fn write_cut(&mut self, cut: PreparedCut) -> Result<(), Died> {
        let is_empty = self.store.is_covered(&cut);
        let horizon_ms = cut.arrivals_from_ms();
        if !is_empty {
            let written = self.store.write_cut(&cut);
            if written.as_ref().is_err_and(StorageError::is_no_space) {
                self.stalled_cut = Some(cut);
                return Ok(());
            }
            written?;
            match self.store.recycle(0) {
                Err(error) if error.is_no_space() => 0,
                recycled => recycled?,
            };
        }
        self.horizon_ms = horizon_ms;
        for core in &mut self.cores {
            let answer = if is_empty { StoreAnswer::CutEmpty } else { StoreAnswer::CutWritten };
            core.answers.push_back(answer);
        }
        Ok(())
    }

    fn bring_runs(&mut self, all: &[Vec<RunRequest>]) -> Result<(), Died> {
        assert!(all.iter().all(|one| one == &all[0]), "the edges of all cores move alike: {all:?}");
        for request in &all[0] {
            let (window, change, cores) = (request.window, request.change, &mut self.cores);
            self.store.runs(request, self.held_cut.as_ref(), |shard, entries| {
                let owner = shard_owner(shard, cores.len() as u16);
                let slice = StoreAnswer::Run(RunSlice { window, change, shard, entries });
                cores[usize::from(owner)].answers.push_back(slice);
            })?;
        }
        for core in &mut self.cores {
            core.answers.push_back(StoreAnswer::RunsDone);
        }
        Ok(())
    }

    /// Hands a core the oldest segment, answer of the store and snapshot of those that it has not.
    pub(crate) fn answer(&mut self, core: usize) -> Result<bool, Died> {
        let Core { pipeline, device, answers, segments, published } = &mut self.cores[core];
        let (snapshot, segment, answer) = (published.pop_front(), segments.pop_front(), answers.pop_front());
        let is_told = snapshot.is_some() || segment.is_some() || answer.is_some();
        snapshot.into_iter().for_each(|snapshot| pipeline.handle_published(snapshot));
        match segment {
            Some(Ok(segment)) => {
                let handle = device.attach(&segment)?;
                pipeline.handle_segment(&segment, handle);
            }
            Some(Err(missing)) => pipeline.handle_no_segment(missing),
            None => {}
        }
        answer.into_iter().for_each(|answer| pipeline.handle_answer(answer));
        Ok(is_told)
    }

    /// Publishes the oldest snapshot that is not out.
    pub(crate) fn publish(&mut self) -> Option<Snapshot> {
        let snapshot = self.snapshots.pop_front()?;
        for core in &mut self.cores {
            core.published.push_back(Arc::new(snapshot.clone()));
        }
        Some(snapshot)
    }

    /// What clients are told.
    pub(crate) fn outputs(&mut self) -> Vec<(SessionId, Answer)> {
        let poll = |core: &mut Core| std::iter::from_fn(|| core.pipeline.poll_output()).collect::<Vec<_>>();
        self.cores.iter_mut().flat_map(poll).map(decode).collect()
    }

    /// The last epoch whose marker a core has pushed.
    pub(crate) fn marked(&mut self, core: usize) -> Epoch {
        Epoch(self.issued_before.0 + self.cores[core].pipeline.stats().markers)
    }

    /// The stats of each core.
    pub(crate) fn stats(&mut self) -> Vec<Stats> {
        self.cores.iter_mut().map(|core| core.pipeline.stats()).collect()
    }

    /// Begins a clean shutdown on every core.
    pub(crate) fn stop(&mut self) {
        self.cores.iter_mut().for_each(|core| core.pipeline.handle_stop());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.cores.iter().all(|core| core.pipeline.is_stopped())
    }

    /// What arrived was counted, a duplicate, or refused.
    pub(crate) fn check_balance(&mut self) {
        for stats in self.stats() {
            let refused: u64 = stats.views_refused.iter().chain(&stats.views_refused_with_batch).sum();
            assert_eq!(stats.views_received, stats.views_counted + stats.views_duplicate + refused, "{stats:?}");
        }
    }
}

fn decode(output: Output) -> (SessionId, Answer) {
    let (session, frame) = match output {
        Output::Finish { session } => return (session, Answer::Finish),
        Output::Close { session, reason, text } => return (session, Answer::Close(reason, text)),
        Output::Send { session, frame } => (session, frame),
    };
    let (header, payload) = frame.split_at(FRAME_HEADER_BYTES);
    let answer = match FrameHeader::decode(header.try_into().unwrap()).unwrap().kind {
        FrameKind::Welcome => Answer::Welcome(Welcome::decode(payload).unwrap()),
        FrameKind::Ack => Answer::Ack(Ack::decode(payload).unwrap()),
        FrameKind::BatchRefused => Answer::Refused(BatchRefused::decode(payload).unwrap()),
        FrameKind::Redirect => Answer::Redirect(Redirect::decode(payload).unwrap()),
        kind => panic!("no client is sent {kind:?}"),
    };
    (session, answer)
}
