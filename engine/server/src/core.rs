//! One pinned core: the loop around socket, pipeline and log ring.
//!
//! Each turn does a bounded piece of everything that waits; with nothing left the runtime lets the core sleep until a
//! packet, a completed write, a wake-up or a deadline. All rules are in the pipeline: this file only carries.

use crate::access::Rules;
use crate::desks::MadeSegment;
use crate::fatal::fatal;
use crate::history::HistoryPort;
use crate::lookups::{LOOKUPS_PER_TURN, LookupRequest, answer_waiting};
use crate::publisher::Frozen;
use crate::quic::QuicDriver;
use crate::runtime::{Waker, wait_for_socket};
use crate::snapshots::CoreStatus;
use crate::streams::{Deed, Intakes, Streams};
use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use highwater_disk::UringLog;
use highwater_pipeline::{Output, Pipeline, Reading, StoreAnswer, StoreRequest};
use highwater_proto::{CloseReason, Snapshot};
use highwater_storage::LogDevice;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// How long closing packets may take at a shutdown.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(500);

/// A subscriber that has this much unsent gets no further snapshot until it has read on.
const SUBSCRIBER_UNSENT_MAX: usize = 256 << 10;

/// One core with everything that belongs to it.
pub struct Core {
    /// Its number.
    pub number: u16,
    /// What is done with batches.
    pub pipeline: Pipeline,
    /// The socket.
    pub driver: QuicDriver,
    /// The log's device.
    pub ring: UringLog,
    /// Errands to the helper, with this core's number.
    pub errands: Sender<(u16, StoreRequest)>,
    /// Its answers.
    pub answers: Receiver<StoreAnswer>,
    /// To the helper that makes segments: this core's number for each that is wanted.
    pub segments_wanted: Sender<u16>,
    /// What it brings.
    pub segments: Receiver<MadeSegment>,
    /// Frozen lists for merging.
    pub tops: Sender<Frozen>,
    /// Published snapshots.
    pub published: Receiver<Arc<Snapshot>>,
    /// The wake-ups of all cores, by number.
    pub wakers: Vec<Waker>,
    /// Look-ups from inside the process.
    pub lookups: Receiver<LookupRequest>,
    /// The way to what is closed.
    pub history: HistoryPort,
    /// The engine's certificate, and who may come in, as of now.
    pub rules: Arc<ArcSwap<Rules>>,
    /// Set when the core is to stop.
    pub stop: Arc<AtomicBool>,
}

/// A core's loop: what a runtime runs.
pub struct CoreLoop {
    core: Core,
    streams: Streams,
    rules: Cache<Arc<ArcSwap<Rules>>, Arc<Rules>>,
    /// The rules that streams and driver go by.
    in_force: Arc<Rules>,
    /// The latest snapshot, and its frame once somebody wanted it.
    latest: Option<(Arc<Snapshot>, Option<Bytes>)>,
    started: Instant,
    turn_us_max: u64,
    slept: Duration,
    silences: u64,
    status_at: Instant,
}

/// What a turn came to.
#[derive(Debug)]
pub enum Turned {
    /// Something was done: turn again.
    Worked,
    /// Nothing was there to do: rest.
    Idle(Rest),
    /// The core has stopped: close it.
    Stopped,
}

/// How a core may rest.
#[derive(Debug, Clone, Copy)]
pub struct Rest {
    /// When it began.
    pub began: Instant,
    /// Until when at most.
    pub deadline: Instant,
    /// Whether the socket's being writable ends it too.
    pub socket_writable: bool,
    /// Whether nobody is connected.
    pub alone: bool,
}

/// New connections go by these rules.
fn take_tls(driver: &mut QuicDriver, rules: &Rules) {
    if let Err(error) = driver.set_tls(Arc::clone(&rules.tls)) {
        tracing::error!("the engine's certificate stays as it was: {error}");
    }
}

/// Reads both clocks.
pub fn read_clocks(now: Instant, origin: Instant) -> Reading {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Reading { wall_ms: wall.as_millis() as u64, monotonic_ms: now.saturating_duration_since(origin).as_millis() as u64 }
}

impl CoreLoop {
    /// The loop of a core, on the thread that runs it.
    pub fn new(mut core: Core, origin: Instant) -> Self {
        let in_force = core.rules.load_full();
        // They may be newer than those that the driver was bound by.
        take_tls(&mut core.driver, &in_force);
        Self {
            streams: Streams::new(Arc::clone(&in_force), core.driver.limits().held_bytes_max),
            rules: Cache::new(Arc::clone(&core.rules)),
            in_force,
            core,
            latest: None,
            started: origin,
            turn_us_max: 0,
            slept: Duration::ZERO,
            silences: 0,
            status_at: Instant::now(),
        }
    }

    /// The core's number.
    pub fn number(&self) -> u16 {
        self.core.number
    }

    /// The UDP socket.
    pub fn udp_fd(&self) -> BorrowedFd<'_> {
        self.core.driver.udp_fd()
    }

    /// The log's ring.
    pub fn ring_fd(&self) -> BorrowedFd<'_> {
        self.core.ring.as_fd()
    }

    /// Does a bounded piece of everything that waits.
    pub fn turn(&mut self) -> Turned {
        if self.core.pipeline.is_stopped() {
            return Turned::Stopped;
        }
        let now = Instant::now();
        // Relaxed: a flag that is only ever set; nothing else is read through it.
        if self.core.stop.load(Ordering::Relaxed) {
            self.core.pipeline.handle_stop();
        }
        self.core.pipeline.handle_time(read_clocks(now, self.started));
        self.follow_rules();
        let mut worked = self.receive(now);
        worked |= self.take_answers();
        worked |= self.take_written();
        worked |= self.core.pipeline.turn();
        self.wake_others();
        worked |= self.submit();
        self.send_errands();
        worked |= self.publish(now);
        worked |= self.answer(now);
        let end = Instant::now();
        self.turn_us_max = self.turn_us_max.max((end - now).as_micros() as u64);
        if worked { Turned::Worked } else { Turned::Idle(self.rest(end)) }
    }

    /// Goes by the newest certificate and tokens.
    fn follow_rules(&mut self) {
        let newest = self.rules.load();
        if Arc::ptr_eq(newest, &self.in_force) {
            return;
        }
        self.in_force = Arc::clone(newest);
        take_tls(&mut self.core.driver, &self.in_force);
        Intakes { streams: &mut self.streams, pipeline: &mut self.core.pipeline }.set_rules(&self.in_force);
    }

    fn receive(&mut self, now: Instant) -> bool {
        let mut intakes = Intakes { streams: &mut self.streams, pipeline: &mut self.core.pipeline };
        intakes.begin_turn(now);
        let retried = intakes.retry_blocked();
        let turned = self.core.driver.turn(now, &mut intakes);
        retried || turned.worked
    }

    fn take_answers(&mut self) -> bool {
        let mut worked = false;
        while let Ok(made) = self.core.segments.try_recv() {
            worked = true;
            match made {
                Ok(segment) => match self.core.ring.attach(&segment) {
                    Ok(handle) => self.core.pipeline.handle_segment(&segment, handle),
                    Err(error) => fatal(&format!("cannot open the log segment {}", segment.path), &error),
                },
                Err(missing) => self.core.pipeline.handle_no_segment(missing),
            }
        }
        while self.core.pipeline.wants_answers()
            && let Ok(answer) = self.core.answers.try_recv()
        {
            worked = true;
            self.core.pipeline.handle_answer(answer);
        }
        worked
    }

    fn take_written(&mut self) -> bool {
        let mut worked = false;
        while let Some(written) = self.core.ring.complete() {
            worked = true;
            match written.result {
                Ok(()) => self.core.pipeline.handle_written(written.write),
                Err(error) => fatal("a write to the log failed", &error),
            }
        }
        worked
    }

    /// Wakes the cores for which something was put into a lane.
    fn wake_others(&mut self) {
        while let Some(core) = self.core.pipeline.poll_wake() {
            self.core.wakers[usize::from(core)].wake();
        }
    }

    fn submit(&mut self) -> bool {
        let mut worked = false;
        while let Some(write) = self.core.pipeline.poll_write() {
            worked = true;
            if self.core.ring.submit(write).is_err() {
                unreachable!("the log's depth is within the ring's");
            }
        }
        while let Some(handle) = self.core.pipeline.poll_retired() {
            self.core.ring.detach(handle);
        }
        worked
    }

    fn send_errands(&mut self) {
        while !self.core.errands.is_full() {
            let Some(errand) = self.core.pipeline.poll_errand() else { return };
            let number = self.core.number;
            let is_gone = match errand {
                StoreRequest::PrepareSegment => self.core.segments_wanted.send(number).is_err(),
                other => self.core.errands.send((number, other)).is_err(),
            };
            if is_gone {
                fatal("the storage helper is gone", &"its thread ended");
            }
        }
    }

    /// Sends frozen lists to be merged, and merged snapshots to subscribers.
    fn publish(&mut self, now: Instant) -> bool {
        let mut worked = false;
        while let Some(top) = self.core.pipeline.poll_top() {
            worked = true;
            let (status, fill) = (self.status(now), self.core.pipeline.slots_used());
            let frozen = Frozen { core: self.core.number, top, status, fill };
            if self.core.tops.send(frozen).is_err() {
                fatal("the merging helper is gone", &"its thread ended");
            }
        }
        while let Ok(snapshot) = self.core.published.try_recv() {
            worked = true;
            self.core.pipeline.handle_published(snapshot.clone());
            self.latest = Some((snapshot, None));
        }
        self.send_snapshot(now);
        worked
    }

    /// Sends the latest snapshot to whoever wants it and has read what was sent before.
    fn send_snapshot(&mut self, now: Instant) {
        let Some((snapshot, frame)) = &mut self.latest else { return };
        if !self.streams.is_wanted(snapshot.epoch) {
            return;
        }
        let frame = frame.get_or_insert_with(|| {
            let mut frame = Vec::new();
            snapshot.encode(&mut frame);
            frame.into()
        });
        let driver = &mut self.core.driver;
        let mut is_full = false;
        self.streams.send_snapshot(snapshot.epoch, |stream| {
            // Once there is no room nobody else is looked for: that costs a look at every connection.
            let has_read = driver.unsent_bytes(stream) <= SUBSCRIBER_UNSENT_MAX;
            is_full = is_full || (has_read && !driver.makes_room_for(frame.len(), now));
            let has_room = has_read && !is_full;
            if has_room {
                driver.write(stream, frame.clone());
            }
            has_room
        });
    }

    fn status(&mut self, now: Instant) -> CoreStatus {
        let interval = now.saturating_duration_since(self.status_at).max(Duration::from_micros(1));
        let awake = interval.saturating_sub(self.slept);
        let (windows_bytes, unsent_bytes) = self.core.driver.taken();
        let status = CoreStatus {
            stats: self.core.pipeline.stats(),
            quic: self.core.driver.stats(),
            connections: self.core.driver.connections() as u64,
            windows_bytes,
            unsent_bytes,
            held_bytes: self.streams.held_bytes() as u64,
            receive_buffer_bytes: self.core.driver.granted().receive_buffer_bytes,
            loop_turn_us_max: self.turn_us_max,
            silences: self.silences,
            busy_permille: (awake.as_micros() * 1000 / interval.as_micros()) as u64,
        };
        self.status_at = now;
        self.slept = Duration::ZERO;
        self.turn_us_max = 0;
        status
    }

    /// Carries out what the pipeline and the streams want told to clients.
    fn answer(&mut self, now: Instant) -> bool {
        let driver = &mut self.core.driver;
        let mut worked = false;
        while let Some(output) = self.core.pipeline.poll_output() {
            worked = true;
            match output {
                Output::Send { session, frame } => {
                    if let Some(stream) = self.streams.of_session(session) {
                        driver.write(stream, frame);
                    }
                }
                Output::Finish { session } => {
                    if let Some(stream) = self.streams.of_session(session) {
                        driver.finish(stream);
                    }
                }
                Output::Close { session, reason, text } => {
                    if let Some(stream) = self.streams.of_session(session) {
                        if reason == CloseReason::NotOwner {
                            self.streams.tell_refusal(stream.connection(), &text);
                        }
                        driver.close(stream.connection(), reason.code(), &text);
                    }
                }
            }
        }
        while let Some(deed) = self.streams.poll_deed() {
            worked = true;
            match deed {
                Deed::Resume(stream) => driver.resume(stream),
                Deed::End(stream) => {
                    driver.stop_reading(stream, CloseReason::Done.code());
                    driver.finish(stream);
                }
                Deed::Close(connection, reason, text) => driver.close(connection, reason.code(), &text),
            }
        }
        worked |= self.answer_lookups();
        worked |= self.answer_history();
        if worked {
            self.core.driver.flush(now);
        }
        worked
    }

    /// Answers a bounded number of look-ups, from clients and from inside the process, when they can be answered.
    fn answer_lookups(&mut self) -> bool {
        let Core { pipeline, driver, lookups, .. } = &mut self.core;
        if !pipeline.can_look_up() {
            return false;
        }
        let mut worked = answer_waiting(lookups, pipeline);
        for _ in 0..LOOKUPS_PER_TURN {
            let Some((stream, video_id)) = self.streams.poll_lookup() else { break };
            worked = true;
            let mut frame = Vec::new();
            match pipeline.handle_lookup(&video_id) {
                Ok(counts) => counts.encode(&mut frame),
                Err(redirect) => redirect.encode(&mut frame),
            }
            driver.write(stream, frame.into());
            driver.finish(stream);
        }
        worked
    }

    /// Hands questions for what is closed to the helper, and its answers to the clients.
    fn answer_history(&mut self) -> bool {
        let Core { driver, history, .. } = &mut self.core;
        let mut worked = false;
        while let Some((stream, frame)) = history.answered() {
            worked = true;
            driver.write(stream, frame);
            driver.finish(stream);
        }
        while history.has_room()
            && let Some((stream, question)) = self.streams.poll_history()
        {
            worked = true;
            history.ask(stream, question);
        }
        worked
    }

    fn rest(&self, now: Instant) -> Rest {
        let core = &self.core;
        let own = now + Duration::from_millis(core.pipeline.sleep_ms_max());
        Rest {
            began: now,
            deadline: core.driver.poll_deadline().map_or(own, |one| one.min(own)),
            socket_writable: core.driver.wants_write(),
            alone: core.driver.connections() == 0,
        }
    }

    /// A rest is over.
    pub fn rested(&mut self, rest: Rest) {
        self.slept += rest.began.elapsed();
    }

    /// A rest was ended by the runtime's watchdog, and there was work that nothing had told of.
    pub fn count_silence(&mut self) {
        self.silences += 1;
    }

    /// Tells every client that the engine shuts down, and gives the packets a moment to leave.
    pub fn close(mut self) {
        let reason = CloseReason::ShuttingDown;
        self.core.driver.close_all(reason.code(), "the engine is shutting down; reconnect later");
        let end = Instant::now() + CLOSE_TIME_MAX;
        while !self.core.driver.is_idle() && Instant::now() < end {
            let now = Instant::now();
            self.receive(now);
            let next = self.core.driver.poll_deadline().map_or(end, |one| one.min(end));
            if wait_for_socket(self.core.driver.udp_fd(), next).is_err() {
                return;
            }
        }
    }
}
