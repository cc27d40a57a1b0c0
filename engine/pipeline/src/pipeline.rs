//! One core's pipeline: its state, its turn, and when it wants the next one.
//!
//! The shell calls `handle_*` with what happened, `turn` to let bounded work be done, and `poll_*` until each is empty.
//! Nothing here reads a clock, a socket or a file. The way of a batch is in [`intake`](crate::intake) and
//! [`admission`](crate::admission) (verdicts, log), then [`settle`](crate::settle) (lanes, answers); of a row in
//! [`counting`](crate::counting); of a marker in [`marking`](crate::marking).

use crate::asking::{Answerer, Asker};
use crate::clock::{Clock, Reading};
use crate::counting::{Counted, Counting, Heard};
use crate::limits::{IDLE_PREFIX_MS, SEGMENT_RETRY_MS, SEGMENTS_SPARE};
use crate::markers::Markers;
use crate::mesh::{CoreLanes, HOLD_COUNTS, HOLD_LATE, HOLD_NOT, LaneOut};
use crate::messages::{Output, StoreAnswer, StoreRequest};
use crate::notes::{Message, Note};
use crate::ownership::Targets;
use crate::rows::RowMaker;
use crate::session::ProducerTable;
use crate::settle::Appended;
use crate::stats::Stats;
use crate::stop::Stop;
use crate::verdicts::Judged;
use highwater_lanes::GaugeWriter;
use highwater_proto::{Epoch, InstanceId, Snapshot};
use highwater_ranking::{Calendar, Cell, CoreRanking, CoreTop, IdHash, ShardPopulator};
use highwater_storage::{
    AppendRoom, GroupWrite, LogPosition, LogWriter, PreparedSegment, ProducerTableImage, SegmentHandle,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// What a pipeline is told about its place and its rules.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// This core's index.
    pub core: u16,
    /// UDP port of each core; there are as many cores.
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
    /// Hours, days and months of the tumbling windows.
    pub calendar: Calendar,
    /// How long after its end a calendar period is final, in milliseconds.
    pub lateness_max_ms: u64,
}

/// What recovery hands to the pipeline of one core.
#[derive(Debug)]
pub struct Recovered {
    /// The shards that the core owns, with all that was accepted.
    pub ranking: CoreRanking,
    /// The producers that have the core as their home.
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

/// One core's pipeline.
pub struct Pipeline {
    pub(crate) config: PipelineConfig,
    pub(crate) targets: Targets,
    pub(crate) clock: Clock,
    pub(crate) producers: ProducerTable,
    pub(crate) log: LogWriter,
    pub(crate) appended: VecDeque<Appended>,
    pub(crate) lanes: Vec<LaneOut>,
    pub(crate) counting: Counting,
    /// Issues the markers; on core 0 only.
    pub(crate) markers: Option<Markers>,
    /// The last marker that this core has pushed.
    pub(crate) marked: Epoch,
    pub(crate) outputs: VecDeque<Output>,
    /// Buffers that are used again for each batch.
    pub(crate) judged: Judged,
    pub(crate) rows: RowMaker,
    pub(crate) cells: Vec<Vec<Cell>>,
    pub(crate) asker: Asker,
    pub(crate) answerer: Answerer,
    pub(crate) stats: Stats,
    /// Up to where the log's rows are in the lanes.
    pub(crate) pushed: LogPosition,
    pub(crate) errands: VecDeque<StoreRequest>,
    segments_asked: usize,
    segment_retry_ms: u64,
    pub(crate) disk_full: Option<String>,
    /// What the cut holds whose marker this core has pushed and that is not closed yet.
    pub(crate) cut_started: Option<(LogPosition, ProducerTableImage)>,
    pub(crate) cut_pushed: LogPosition,
    pub(crate) cuts_unwritten: usize,
    /// Whether a core wants a cut before its minute is over; on the others, whether core 0 was told so.
    pub(crate) cut_wanted: bool,
    tops: VecDeque<CoreTop>,
    pub(crate) published: Option<Arc<Snapshot>>,
    pub(crate) appended_ms: u64,
    /// Whether a batch waits until nothing is in flight; no other may pass it.
    pub(crate) draining: bool,
    /// When the last marker was issued, by the monotonic clock.
    pub(crate) marker_at_ms: u64,
    hold: GaugeWriter,
    /// Whether a video had nearly as many views at the last marker as can be counted for one.
    counts_full: bool,
    pub(crate) stop: Stop,
}

impl Pipeline {
    /// A pipeline over what recovery found, between its lanes, writing to `log`.
    ///
    /// # Panics
    /// When the lanes are not between as many cores as there are ports.
    pub fn new(
        config: PipelineConfig,
        recovered: Recovered,
        lanes: CoreLanes,
        log: LogWriter,
        reading: Reading,
    ) -> Self {
        let CoreLanes { out, ends, hold } = lanes;
        assert_eq!((out.len(), ends.len()), (config.ports.len(), config.ports.len()), "lanes to and from every core");
        let Recovered { ranking, producers, position, issued, lease_end, time_ms } = recovered;
        let cores = config.ports.len() as u16;
        Self {
            targets: Targets::new(config.hash, config.shards_total, cores),
            clock: Clock::start(reading, time_ms),
            producers,
            log,
            appended: VecDeque::new(),
            cells: out.iter().map(|_| Vec::new()).collect(),
            lanes: out,
            counting: Counting::new(ranking, ends),
            markers: (config.core == 0).then(|| Markers::new(issued, lease_end, time_ms)),
            marked: issued,
            outputs: VecDeque::new(),
            judged: Judged::default(),
            rows: RowMaker::default(),
            asker: Asker::default(),
            answerer: Answerer::default(),
            stats: Stats::default(),
            pushed: position,
            errands: VecDeque::new(),
            segments_asked: 0,
            segment_retry_ms: 0,
            disk_full: None,
            cut_started: None,
            cut_pushed: position,
            cuts_unwritten: 0,
            cut_wanted: false,
            tops: VecDeque::new(),
            published: None,
            appended_ms: 0,
            draining: false,
            marker_at_ms: reading.monotonic_ms,
            hold,
            counts_full: false,
            stop: Stop::new(usize::from(cores)),
            config,
        }
    }

    /// Cores there are.
    pub(crate) fn cores(&self) -> u16 {
        self.config.ports.len() as u16
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

    /// No segment could be prepared because the disk is full; says what is missing and the remedy.
    pub fn handle_no_segment(&mut self, missing: String) {
        self.segments_asked -= 1;
        self.segment_retry_ms = self.clock.monotonic_ms() + SEGMENT_RETRY_MS;
        if self.disk_full.is_none() {
            tracing::error!("no room for the log's next segment, batches will be refused: {missing}");
        }
        self.disk_full = Some(missing);
    }

    /// Whether the helper's next answer can be taken now; while not, it stays where it is.
    pub fn wants_answers(&self) -> bool {
        !self.counting.runs_full()
    }

    /// Takes what else the helper answers.
    pub fn handle_answer(&mut self, answer: StoreAnswer) {
        match answer {
            StoreAnswer::EpochsLeased(end) => self.issuer().handle_leased(end),
            StoreAnswer::MinuteRecorded(minute) => self.issuer().handle_minute(minute),
            StoreAnswer::CutWritten => {
                self.cuts_unwritten -= 1;
                self.stats.cuts += u64::from(self.markers.is_some());
            }
            StoreAnswer::CutEmpty => self.cuts_unwritten -= 1,
            StoreAnswer::Run(slice) => self.counting.handle_run(slice),
            StoreAnswer::RunsDone => self.counting.handle_runs_done(),
        }
    }

    /// A snapshot is out. Every core is told of each, in the order of their epochs.
    pub fn handle_published(&mut self, snapshot: Arc<Snapshot>) {
        if let Some(markers) = &mut self.markers {
            markers.handle_published(snapshot.epoch);
        }
        self.published = Some(snapshot);
    }

    /// The next core that must be woken if it sleeps: something was pushed for it.
    pub fn poll_wake(&mut self) -> Option<u16> {
        let own = usize::from(self.config.core);
        let core = (0..self.lanes.len()).find(|core| self.lanes[*core].to_wake && *core != own)?;
        self.lanes[core].to_wake = false;
        Some(core as u16)
    }

    fn issuer(&mut self) -> &mut Markers {
        self.markers.as_mut().expect("only core 0 leases epochs and records minutes")
    }

    /// What commits the memory of each shard ahead of its use; for a helper.
    pub fn populators(&self) -> Vec<ShardPopulator> {
        self.counting.ranking.populators()
    }

    /// Number and slots used of each shard that this core owns.
    pub fn slots_used(&self) -> Vec<(u16, u32)> {
        self.counting.ranking.slots_used().collect()
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
        worked |= self.advance_markers();
        worked |= self.count();
        worked |= self.listen();
        self.grant();
        self.rest_from_draining();
        self.state_prefix_when_idle();
        worked | self.advance_stop()
    }

    /// How many milliseconds the shell may sleep when nothing happens.
    pub fn sleep_ms_max(&self) -> u64 {
        let (now_ms, soon) = (self.clock.now_ms(), |waits: bool| if waits { 1 } else { u64::MAX });
        let marker_ms = self.markers.as_ref().map_or(u64::MAX, |markers| markers.due_ms().saturating_sub(now_ms));
        let idle_ms = if self.log.needs_prefix() { IDLE_PREFIX_MS } else { u64::MAX };
        let unpublished = self.markers.as_ref().is_some_and(|markers| !markers.is_published());
        // Nobody wakes this core when a lane gets room.
        let blocked = self.draining || self.asker.is_waiting();
        marker_ms.min(idle_ms).min(soon(unpublished)).min(soon(blocked)).clamp(1, 1000)
    }

    fn ask_for_segments(&mut self) {
        let wanted = SEGMENTS_SPARE.saturating_sub(self.log.segments_spare() + self.segments_asked);
        let blocked = self.disk_full.is_some() && self.clock.monotonic_ms() < self.segment_retry_ms;
        if wanted > 0 && !blocked {
            self.segments_asked += 1;
            self.errands.push_back(StoreRequest::PrepareSegment);
        }
    }

    /// Lets the shards do slices of work, and passes on what comes out.
    fn count(&mut self) -> bool {
        match self.counting.turn() {
            Counted::Idle => return false,
            Counted::Worked => {}
            Counted::Closed(cut) => self.write_cut(cut),
            Counted::NeedRuns(requests) => self.errands.push_back(StoreRequest::Runs(requests)),
            Counted::Top(top) => {
                self.note_counts(&top);
                self.tops.push_back(top);
            }
        }
        true
    }

    /// Lets no more rows come while a count is nearly full: beyond its most there is no exact answer.
    fn note_counts(&mut self, top: &CoreTop) {
        let full = top.nearly_full();
        match full {
            Some((board, (video_id, views))) if !self.counts_full => tracing::error!(
                ?video_id,
                views,
                period = ?board.period,
                "a video has three quarters of the views that can be counted for one: nothing is acknowledged until \
                 it has fewer in that period; look for the producer that sends them"
            ),
            None if self.counts_full => tracing::info!("no count is nearly full any more; intake goes on"),
            _ => {}
        }
        self.counts_full = full.is_some();
    }

    /// Acts on what the cores have said.
    fn listen(&mut self) -> bool {
        let mut worked = false;
        while let Some((from, heard)) = self.counting.poll_heard() {
            worked = true;
            match heard {
                Heard::Marker(marker) if from == 0 && self.config.core != 0 => self.pass_on(&marker),
                Heard::Marker(_) => {}
                Heard::Question(question, bits) => self.answerer.handle_question(from, question, bits),
                Heard::Answer(answer) => self.asker.handle_answer(from, &answer),
                Heard::Note(Note::CutWanted) => self.cut_wanted = true,
                Heard::Note(Note::Settled { dirty }) => self.stop.handle_settled(dirty),
                Heard::Note(Note::End) => self.stop.handle_end(),
                Heard::Note(Note::GiveBack) => {
                    let lane = &mut self.lanes[from];
                    let total = lane.give_back();
                    lane.tell(&Message::Note(Note::GivenBack(total)));
                }
                Heard::Note(Note::GivenBack(total)) => {
                    self.counting.lanes[from].handle_returned(total);
                    self.answerer.handle_returned(from);
                }
            }
        }
        worked | self.answerer.turn(&mut self.counting, &mut self.lanes)
    }

    /// Tells the other cores what they may send.
    fn grant(&mut self) {
        if !self.answerer.is_reclaiming() {
            self.counting.top_up_all();
        }
        let late = &self.counting.ranking;
        let hold = match (self.counts_full, late.late_hard_full()) {
            (true, _) => HOLD_COUNTS,
            (false, true) => HOLD_LATE,
            (false, false) => HOLD_NOT,
        };
        if late.late_full() && !self.cut_wanted && self.cut_started.is_none() {
            self.cut_wanted = true;
            if self.markers.is_none() {
                self.lanes[0].tell(&Message::Note(Note::CutWanted));
            }
        }
        if hold != self.hold.value() {
            self.hold.set(hold);
            self.lanes.iter_mut().for_each(|lane| lane.to_wake = true);
        }
    }

    /// Appends a record that states the prefix, when the log rests or is to end, and has room for one.
    fn state_prefix_when_idle(&mut self) {
        let rested = self.stop.is_stating() || self.clock.monotonic_ms() >= self.appended_ms + IDLE_PREFIX_MS;
        if rested && self.log.needs_prefix() && self.log.room(0) == AppendRoom::Ready {
            self.log.append_prefix();
        }
    }
}
