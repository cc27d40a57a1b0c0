//! One life of the engine's shell, in steps that the test chooses: pipeline, store, log device, publisher.
//!
//! A step that meets a failed disk ends this life, as the process would end.

use highwater_pipeline::{
    CutErrand, LeavingSlice, Output, Pipeline, PipelineConfig, Reading, Recovered, RecoveryError, RecoveryPlan,
    SessionId, StoreAnswer, StoreRequest, recover,
};
use highwater_proto::{
    Ack, BatchRefused, CloseReason, Epoch, FRAME_HEADER_BYTES, FrameHeader, FrameKind, InstanceId, Redirect, Snapshot,
    Welcome,
};
use highwater_ranking::{CoreTop, IdHash, RankingConfig, WindowLengths, merge};
use highwater_storage::{
    CorePart, Directory, DirectoryId, LogDevice, LogLimits, LogNumber, LogWriter, MemoryDisk, MemoryLogDevice,
    OpenOptions, PreparedSegment, StorageError, Store,
};
use std::collections::VecDeque;

pub(crate) const SEGMENT_BYTES: u64 = 1200 << 10;
pub(crate) const INSTANCE: InstanceId = InstanceId(5);
pub(crate) const PORT: u16 = 4433;
const HASH_SEED: u64 = 77;

/// The sizes and rules of a test.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shards: u16,
    pub(crate) videos_per_shard_max: u32,
    pub(crate) id_arena_bytes_per_shard: usize,
    pub(crate) late_views_max: usize,
    pub(crate) top_k: usize,
    pub(crate) windows: WindowLengths,
    pub(crate) log: LogLimits,
    pub(crate) skew_max_ms: u64,
    pub(crate) lateness_max_ms: u64,
    pub(crate) accept_clock: bool,
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
            shards: 4,
            videos_per_shard_max: 4096,
            id_arena_bytes_per_shard: 1 << 20,
            late_views_max: 10_000,
            top_k: 8,
            windows: WindowLengths::default(),
            log,
            skew_max_ms: 60_000,
            lateness_max_ms: 600_000,
            accept_clock: false,
        }
    }
}

impl Setup {
    fn ranking(&self) -> RankingConfig {
        RankingConfig {
            shards_total: self.shards,
            owned: (0..self.shards).collect(),
            hash_seed: HASH_SEED,
            videos_per_shard_max: self.videos_per_shard_max,
            id_arena_bytes_per_shard: self.id_arena_bytes_per_shard,
            late_views_max: self.late_views_max,
            top_k: self.top_k,
            windows: self.windows,
        }
    }

    fn options(&self) -> OpenOptions {
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
            window_minutes_max: self.windows.month.max(self.windows.day).max(self.windows.hour),
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

/// The engine's process is gone.
#[derive(Debug)]
pub(crate) struct Died(#[allow(dead_code, reason = "shown in failures")] pub(crate) String);

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

enum Brought {
    Segment(PreparedSegment),
    Answer(StoreAnswer),
}

/// One life of the engine.
pub(crate) struct Engine {
    pub(crate) pipeline: Pipeline,
    pub(crate) store: Store<MemoryDisk>,
    pub(crate) device: MemoryLogDevice,
    /// The last epoch that an earlier life may have used.
    pub(crate) issued_before: Epoch,
    /// Engine time at the start.
    pub(crate) time_ms: u64,
    errands: VecDeque<StoreRequest>,
    answers: VecDeque<Brought>,
    tops: VecDeque<CoreTop>,
    top_k: usize,
    windows: WindowLengths,
}

impl Engine {
    pub(crate) fn start(setup: &Setup, disk: &MemoryDisk, reading: Reading, seed: u64) -> Result<Self, RecoveryError> {
        let mut store = Store::open(disk.clone(), setup.options())?;
        let plan = RecoveryPlan {
            ranking: setup.ranking(),
            wall_ms: reading.wall_ms,
            accept_clock: setup.accept_clock,
            lateness_max_ms: setup.lateness_max_ms,
        };
        let recovered = recover(&mut store, plan)?;
        let Recovered { issued, time_ms, .. } = recovered;
        let config = PipelineConfig {
            core: 0,
            ports: vec![PORT],
            host: String::new(),
            instance: INSTANCE,
            hash: IdHash::new(HASH_SEED),
            shards_total: setup.shards,
            skew_max_ms: setup.skew_max_ms,
            lateness_max_ms: setup.lateness_max_ms,
        };
        let log = LogWriter::new(store.log_identity(LogNumber(0)), setup.log);
        Ok(Self {
            pipeline: Pipeline::new(config, recovered, log, reading),
            store,
            device: MemoryLogDevice::new(disk, setup.log.depth, seed),
            issued_before: issued,
            time_ms,
            errands: VecDeque::new(),
            answers: VecDeque::new(),
            tops: VecDeque::new(),
            top_k: setup.top_k,
            windows: setup.windows,
        })
    }

    /// One turn of the pipeline; submits what it wants written.
    pub(crate) fn turn(&mut self, reading: Reading) -> bool {
        self.pipeline.handle_time(reading);
        let mut worked = self.pipeline.turn();
        worked |= self.submit();
        while let Some(errand) = self.pipeline.poll_errand() {
            self.errands.push_back(errand);
            worked = true;
        }
        while let Some(top) = self.pipeline.poll_top() {
            self.tops.push_back(top);
            worked = true;
        }
        worked
    }

    fn submit(&mut self) -> bool {
        let mut worked = false;
        while let Some(write) = self.pipeline.poll_write() {
            assert!(self.device.submit(write).is_ok(), "the log's depth is within the device's");
            worked = true;
        }
        while let Some(handle) = self.pipeline.poll_retired() {
            self.device.detach(handle);
        }
        worked
    }

    /// Completes one write of the log.
    pub(crate) fn complete(&mut self) -> Result<bool, Died> {
        let Some(written) = self.device.complete() else { return Ok(false) };
        written.result?;
        self.pipeline.handle_written(written.write);
        Ok(true)
    }

    /// Does the oldest errand.
    pub(crate) fn errand(&mut self) -> Result<bool, Died> {
        let Some(errand) = self.errands.pop_front() else { return Ok(false) };
        let answers = &mut self.answers;
        match errand {
            StoreRequest::PrepareSegment => match self.store.prepare_segment(LogNumber(0)) {
                Ok(segment) => answers.push_back(Brought::Segment(segment)),
                Err(error) if error.is_no_space() => {
                    answers.push_back(Brought::Answer(StoreAnswer::NoSpace(error.to_string())));
                }
                Err(error) => return Err(error.into()),
            },
            StoreRequest::LeaseEpochs { count } => {
                let end = self.store.lease_epochs(count)?;
                answers.push_back(Brought::Answer(StoreAnswer::EpochsLeased(end)));
            }
            StoreRequest::RecordMinute(minute) => {
                self.store.record_minute(minute)?;
                answers.push_back(Brought::Answer(StoreAnswer::MinuteRecorded(minute)));
            }
            StoreRequest::WriteCut(errand) => {
                let CutErrand { cut, position, producers } = *errand;
                self.store.write_cut(vec![CorePart { log: LogNumber(0), position, cut, producers }])?;
                self.store.recycle(0)?;
                answers.push_back(Brought::Answer(StoreAnswer::CutWritten));
            }
            StoreRequest::LeavingRuns(requests) => {
                for request in requests {
                    let window = request.window;
                    self.store.leaving_runs(&request, |shard, entries| {
                        let slice = LeavingSlice { window, shard, entries };
                        answers.push_back(Brought::Answer(StoreAnswer::Leaving(slice)));
                    })?;
                }
                answers.push_back(Brought::Answer(StoreAnswer::LeavingDone));
            }
        }
        Ok(true)
    }

    /// Hands the oldest answer of the store to the pipeline.
    pub(crate) fn answer(&mut self) -> Result<bool, Died> {
        let Some(brought) = self.answers.pop_front() else { return Ok(false) };
        match brought {
            Brought::Segment(segment) => {
                let handle = self.device.attach(&segment)?;
                self.pipeline.handle_segment(&segment, handle);
            }
            Brought::Answer(answer) => self.pipeline.handle_answer(answer),
        }
        Ok(true)
    }

    /// Publishes the oldest snapshot that is not out.
    pub(crate) fn publish(&mut self) -> Option<Snapshot> {
        let top = self.tops.pop_front()?;
        let snapshot = merge(INSTANCE, &[top], self.top_k, &self.windows);
        self.pipeline.handle_published(snapshot.epoch);
        Some(snapshot)
    }

    /// What clients are told.
    pub(crate) fn outputs(&mut self) -> Vec<(SessionId, Answer)> {
        std::iter::from_fn(|| self.pipeline.poll_output()).map(decode).collect()
    }

    /// The last epoch of which a marker was issued.
    pub(crate) fn issued(&mut self) -> Epoch {
        Epoch(self.issued_before.0 + self.pipeline.stats().markers)
    }

    /// What arrived was counted, a duplicate, or refused.
    pub(crate) fn check_balance(&mut self) {
        let stats = self.pipeline.stats();
        let refused: u64 = stats.views_refused.iter().chain(&stats.views_refused_with_batch).sum();
        assert_eq!(stats.views_received, stats.views_counted + stats.views_duplicate + refused, "{stats:?}");
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
