//! One core's pipeline: its state, its turn, and when it wants the next one.
//!
//! The shell calls `handle_*` with what happened, `turn` to let bounded work be done, and `poll_*` until each is empty.
//! Nothing here reads a clock, a socket or a file. The way of a batch is in [`intake`](crate::intake) (verdicts, log)
//! and [`settle`](crate::settle) (lanes, answers); of a row in [`counting`](crate::counting); of a marker here.

use crate::clock::{Clock, Reading};
use crate::counting::{Admitted, Counted, Counting};
use crate::limits::{
    CUTS_UNWRITTEN_MAX, IDLE_PREFIX_MS, LANE_CELLS, MARKER_CELLS_RESERVED, MARKER_INTERVAL_MS, SEGMENT_RETRY_MS,
    SEGMENTS_SPARE,
};
use crate::markers::Markers;
use crate::messages::{CutErrand, Output, StoreAnswer, StoreRequest};
use crate::session::ProducerTable;
use crate::settle::Appended;
use crate::stats::Stats;
use highwater_lanes::{Sender, lane};
use highwater_proto::{Epoch, InstanceId, RefusedRange};
use highwater_ranking::{Cell, CoreCut, CoreRanking, CoreTop, IdHash, MARKER_CELLS, Marker, Minute};
use highwater_storage::{
    AppendRoom, GroupWrite, LogPosition, LogWriter, PreparedSegment, ProducerTableImage, SegmentHandle,
};
use std::collections::VecDeque;

/// What a pipeline is told about its place and its rules.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// This core's index.
    pub core: u16,
    /// UDP port of each core.
    pub ports: Vec<u16>,
    /// Host that clients are told to reach those ports on; empty for the one they dialled.
    pub host: String,
    /// Instance id of the data directory.
    pub instance: InstanceId,
    /// Seeded hash of the data directory.
    pub hash: IdHash,
    /// Shards of the data directory.
    pub shards_total: u16,
    /// How far in the future a view may lie, in milliseconds.
    pub skew_max_ms: u64,
    /// How long after its end a calendar period is final, in milliseconds.
    pub lateness_max_ms: u64,
}

/// What recovery hands to a pipeline.
#[derive(Debug)]
pub struct Recovered {
    /// The shards, with all that was accepted.
    pub ranking: CoreRanking,
    /// The producers.
    pub(crate) producers: ProducerTable,
    /// Where the log begins that this start writes.
    pub position: LogPosition,
    /// The last epoch that may have been used before.
    pub issued: Epoch,
    /// The last epoch that may be used now.
    pub lease_end: Epoch,
    /// Engine time: the later of the wall clock and the last durable minute.
    pub time_ms: u64,
}

/// One lane out of this core, and the cells of it that appended batches have reserved.
pub(crate) struct LaneOut {
    pub(crate) sender: Sender<Cell>,
    pub(crate) reserved: usize,
}

/// How far a clean shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Running,
    /// No batch is taken any more; what was appended settles and is counted.
    Settling,
    /// The last marker closes a cut.
    Cutting,
    /// A last record states the durable prefix.
    Stating,
    Stopped,
}

/// One core's pipeline.
pub struct Pipeline {
    pub(crate) config: PipelineConfig,
    pub(crate) clock: Clock,
    pub(crate) producers: ProducerTable,
    pub(crate) log: LogWriter,
    pub(crate) appended: VecDeque<Appended>,
    pub(crate) lanes: Vec<LaneOut>,
    pub(crate) counting: Counting,
    pub(crate) markers: Markers,
    pub(crate) outputs: VecDeque<Output>,
    pub(crate) ranges: Vec<RefusedRange>,
    pub(crate) cells: Vec<Cell>,
    pub(crate) stats: Stats,
    /// Up to where the log's rows are in the lanes.
    pub(crate) pushed: LogPosition,
    pub(crate) admitted: Admitted,
    errands: VecDeque<StoreRequest>,
    segments_asked: usize,
    segment_retry_ms: u64,
    pub(crate) disk_full: Option<String>,
    cut_started: Option<(LogPosition, ProducerTableImage)>,
    cut_pushed: LogPosition,
    cuts_unwritten: usize,
    tops: VecDeque<CoreTop>,
    pub(crate) appended_ms: u64,
    /// Whether a batch waits until nothing is in flight; no other may pass it.
    pub(crate) draining: bool,
    /// When the last marker was issued, by the monotonic clock.
    marker_at_ms: u64,
    stop: Stop,
}

impl Pipeline {
    /// A pipeline over what recovery found, writing to `log`.
    pub fn new(config: PipelineConfig, recovered: Recovered, log: LogWriter, reading: Reading) -> Self {
        assert_eq!(config.ports.len(), 1, "this version runs one core");
        let (sender, receiver) = lane(LANE_CELLS);
        let clock = Clock::start(reading, recovered.time_ms);
        Self {
            markers: Markers::new(recovered.issued, recovered.lease_end, recovered.time_ms),
            counting: Counting::new(recovered.ranking, vec![receiver]),
            producers: recovered.producers,
            clock,
            log,
            appended: VecDeque::new(),
            lanes: vec![LaneOut { sender, reserved: 0 }],
            outputs: VecDeque::new(),
            ranges: Vec::new(),
            cells: Vec::new(),
            stats: Stats::default(),
            pushed: recovered.position,
            admitted: Admitted::default(),
            errands: VecDeque::new(),
            segments_asked: 0,
            segment_retry_ms: 0,
            disk_full: None,
            cut_started: None,
            cut_pushed: recovered.position,
            cuts_unwritten: 0,
            tops: VecDeque::new(),
            appended_ms: 0,
            draining: false,
            marker_at_ms: reading.monotonic_ms,
            stop: Stop::Running,
            config,
        }
    }

    /// Takes a reading of the clocks. Call it once a turn, before anything else.
    pub fn handle_time(&mut self, reading: Reading) {
        if self.clock.advance(reading) {
            let drift_ms = self.clock.drift_ms();
            if self.clock.healthy() {
                tracing::info!(drift_ms, "wall and monotonic clock agree again; intake goes on");
            } else {
                tracing::error!(
                    drift_ms,
                    "the wall clock jumped: intake and snapshots stop until it is back; set it right, or restart"
                );
            }
        }
    }

    /// Takes the outcome of a log write.
    pub fn handle_written(&mut self, write: GroupWrite) {
        self.log.handle_written(write);
    }

    /// The next group for the log's device.
    pub fn poll_write(&mut self) -> Option<GroupWrite> {
        self.log.poll_write()
    }

    /// The next segment that the log's device may close.
    pub fn poll_retired(&mut self) -> Option<SegmentHandle> {
        self.log.poll_retired()
    }

    /// The next errand for the helper.
    pub fn poll_errand(&mut self) -> Option<StoreRequest> {
        self.errands.pop_front()
    }

    /// The next answer to a client.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next frozen lists of this core, one for each epoch.
    pub fn poll_top(&mut self) -> Option<CoreTop> {
        self.tops.pop_front()
    }

    /// Takes a prepared segment and the log device's handle of it.
    pub fn handle_segment(&mut self, segment: &PreparedSegment, handle: SegmentHandle) {
        self.segments_asked -= 1;
        if self.disk_full.take().is_some() {
            tracing::info!("there is room for the log again; batches are accepted");
        }
        self.log.add_segment(segment, handle);
    }

    /// Whether the helper's next answer can be taken now; while not, it stays where it is.
    pub fn wants_answers(&self) -> bool {
        !self.counting.leaving_full()
    }

    /// Takes what else the helper answers.
    pub fn handle_answer(&mut self, answer: StoreAnswer) {
        match answer {
            StoreAnswer::NoSpace(text) => {
                self.segments_asked -= 1;
                self.segment_retry_ms = self.clock.monotonic_ms() + SEGMENT_RETRY_MS;
                if self.disk_full.is_none() {
                    tracing::error!("no room for the log's next segment, batches will be refused: {text}");
                }
                self.disk_full = Some(text);
            }
            StoreAnswer::EpochsLeased(end) => self.markers.handle_leased(end),
            StoreAnswer::MinuteRecorded(minute) => self.markers.handle_minute(minute),
            StoreAnswer::CutWritten => self.cuts_unwritten -= 1,
            StoreAnswer::Leaving(slice) => self.counting.handle_leaving(slice),
            StoreAnswer::LeavingDone => self.counting.handle_leaving_done(),
        }
    }

    /// The snapshot of this epoch is out.
    pub fn handle_published(&mut self, epoch: Epoch) {
        self.markers.handle_published(epoch);
    }

    /// Begins a clean shutdown; [`is_stopped`](Self::is_stopped) tells when it is done.
    pub fn handle_stop(&mut self) {
        if self.stop == Stop::Running {
            self.stop = Stop::Settling;
        }
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop != Stop::Running
    }

    /// Whether a clean shutdown is complete: everything counted is in a cut file and the log states its prefix.
    pub fn is_stopped(&self) -> bool {
        self.stop == Stop::Stopped
    }

    /// What this core counts about itself.
    pub fn stats(&mut self) -> Stats {
        self.stats.producers = self.producers.len() as u64;
        self.stats.lane_cells_waiting = self.counting.cells_waiting() as u64;
        self.stats.videos = self.counting.ranking.videos();
        self.stats.videos_max = self.counting.ranking.videos_max();
        self.stats.clone()
    }

    /// Does a bounded piece of everything that waits; returns whether there was anything.
    pub fn turn(&mut self) -> bool {
        self.ask_for_segments();
        let mut worked = self.settle();
        if self.clock.healthy() {
            worked |= self.advance_markers();
        }
        worked |= self.count();
        self.state_prefix_when_idle();
        self.advance_stop();
        worked
    }

    /// How many milliseconds the shell may sleep when nothing happens.
    pub fn sleep_ms_max(&self) -> u64 {
        let marker_ms = self.markers.due_ms().saturating_sub(self.clock.now_ms());
        let idle_ms = if self.log.needs_prefix() { IDLE_PREFIX_MS } else { u64::MAX };
        let busy_ms = if self.markers.is_published() { u64::MAX } else { 1 };
        marker_ms.min(idle_ms).min(busy_ms).clamp(1, 1000)
    }

    fn ask_for_segments(&mut self) {
        let wanted = SEGMENTS_SPARE.saturating_sub(self.log.segments_spare() + self.segments_asked);
        let blocked = self.disk_full.is_some() && self.clock.monotonic_ms() < self.segment_retry_ms;
        if wanted > 0 && !blocked {
            self.segments_asked += 1;
            self.errands.push_back(StoreRequest::PrepareSegment);
        }
    }

    fn advance_markers(&mut self) -> bool {
        let now_ms = self.clock.now_ms();
        while let Some(errand) = self.markers.poll_errand(now_ms) {
            self.errands.push_back(errand);
        }
        let last_cut = self.stop == Stop::Cutting && self.cut_started.is_none() && self.pushed != self.cut_pushed;
        let late =
            self.counting.ranking.late_full() && self.cut_started.is_none() && self.cuts_unwritten < CUTS_UNWRITTEN_MAX;
        // Engine time stands still while the wall clock is behind it; snapshots go on all the same.
        let overdue = self.clock.monotonic_ms() >= self.marker_at_ms + 2 * MARKER_INTERVAL_MS;
        let Some((epoch, time_ms)) = self.markers.poll_marker(now_ms, late || last_cut || overdue) else {
            return false;
        };
        self.marker_at_ms = self.clock.monotonic_ms();
        let new_minute = Minute::of_ms(time_ms) > self.counting.ranking.minute();
        let cut = late || last_cut || new_minute;
        if cut {
            self.cut_started = Some((self.pushed, self.producers.image(now_ms)));
        }
        let marker = Marker {
            epoch,
            time_ms,
            cut,
            log_generation: self.pushed.generation,
            log_position: self.pushed.position,
            oldest_arrival_ms: self.appended.front().map_or(now_ms, |one| one.arrival_ms),
        };
        let cells: [Cell; MARKER_CELLS] = marker.encode();
        for lane in &mut self.lanes {
            lane.sender.push(&cells).expect("a lane keeps room for markers");
        }
        self.stats.markers += 1;
        true
    }

    /// Lets the shards do slices of work, and passes on what comes out.
    fn count(&mut self) -> bool {
        match self.counting.turn() {
            Counted::Idle => return false,
            Counted::Worked => {}
            Counted::Closed(cut) => self.write_cut(cut),
            Counted::NeedRuns(requests) => self.errands.push_back(StoreRequest::LeavingRuns(requests)),
            Counted::Top(top) => self.tops.push_back(top),
        }
        true
    }

    fn write_cut(&mut self, cut: CoreCut) {
        let (position, producers) = self.cut_started.take().expect("a cut is closed by a marker that asked for one");
        let nothing_new = position == self.cut_pushed;
        if nothing_new {
            return;
        }
        self.cut_pushed = position;
        self.cuts_unwritten += 1;
        self.stats.cuts += 1;
        self.errands.push_back(StoreRequest::WriteCut(Box::new(CutErrand { cut, position, producers })));
    }

    /// Appends a record that states the prefix, when the log rests or is to end, and has room for one.
    fn state_prefix_when_idle(&mut self) {
        let rested = self.stop == Stop::Stating || self.clock.monotonic_ms() >= self.appended_ms + IDLE_PREFIX_MS;
        if rested && self.log.needs_prefix() && self.log.room(0) == AppendRoom::Ready {
            self.log.append_prefix();
        }
    }

    /// Whether everything appended is durable.
    fn log_is_idle(&self) -> bool {
        self.log.durable_end() == self.log.appended_end()
    }

    fn advance_stop(&mut self) {
        let quiet = self.appended.is_empty() && self.log_is_idle() && self.counting.cells_waiting() == 0;
        let quiet = quiet && self.markers.is_published() && self.cuts_unwritten == 0;
        // A stopped clock issues no marker for the cut, and a full disk has no room for the record: then the next start
        // replays the log, as after a kill.
        let is_cut = self.pushed == self.cut_pushed || !self.clock.healthy();
        let no_room = self.disk_full.is_some() && self.log.room(0) == AppendRoom::NoSegment;
        // With late views at their limit nothing settles before a cut, and a stopped clock makes none.
        let stuck = !self.clock.healthy() && self.counting.ranking.late_hard_full();
        match self.stop {
            Stop::Settling if stuck => self.stop = Stop::Stopped,
            Stop::Settling if quiet => self.stop = Stop::Cutting,
            Stop::Cutting if quiet && is_cut => self.stop = Stop::Stating,
            Stop::Stating if quiet && (!self.log.needs_prefix() || no_room) => self.stop = Stop::Stopped,
            _ => {}
        }
    }

    /// Cells that a batch may still reserve in every lane.
    pub(crate) fn lane_room(&mut self) -> usize {
        let free = |lane: &mut LaneOut| lane.sender.free().saturating_sub(lane.reserved + MARKER_CELLS_RESERVED);
        self.lanes.iter_mut().map(free).min().unwrap_or(0)
    }
}
