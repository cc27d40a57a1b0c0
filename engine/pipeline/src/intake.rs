//! From a client's frame to an appended record: hello, fence, sequence, room, checks, verdicts.
//!
//! A batch that cannot be taken for want of room in the log or in a lane is not refused: the answer is
//! [`Intake::NoRoom`], the shell stops reading that stream, and QUIC pushes back. Everything that is decided about a
//! view is decided here, before the append, and stands in the record.

use crate::counting::Admitted;
use crate::limits::{RETRY_AFTER_MS, batch_cells_max};
use crate::messages::Output;
use crate::pipeline::Pipeline;
use crate::session::{Judgement, Remembered, SessionId};
use crate::settle::Appended;
use crate::verdicts::{ArrivalRule, ClosedShards, judge_views};
use bytes::{BufMut, Bytes};
use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, IN_FLIGHT_BATCHES_MAX};
use highwater_proto::{
    Ack, Batch, BatchHeader, BatchRefusal, BatchRefused, CloseReason, DecodeError, Hello, HelloMode, PROTOCOL_VERSION,
    ProducerId, Redirect, RefusedRange, VideoCounts, Welcome, batch_checksum, batch_header,
};
use highwater_ranking::shard_of;
use highwater_storage::{AppendRoom, RecordKind, RecordMeta};

/// Whether a frame was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Intake {
    /// It was taken; its answer will come.
    Taken,
    /// There is no room; offer the same frame again after the next turn that worked.
    NoRoom,
}

/// The answer to a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// This core counts the video: its counts, without ranks.
    Here(VideoCounts),
    /// Another core counts it.
    Elsewhere(Redirect),
}

/// The core that owns a shard, of `cores`.
#[must_use]
pub fn core_of(shard: u16, cores: usize) -> u16 {
    (usize::from(shard) % cores) as u16
}

impl Pipeline {
    /// A client says hello on its producer stream.
    pub fn handle_hello(&mut self, session: SessionId, hello: &Hello) -> Intake {
        if hello.version != PROTOCOL_VERSION {
            let text = format!("protocol version {} is not spoken here; use {PROTOCOL_VERSION}", hello.version);
            return self.close(session, CloseReason::VersionUnsupported, text);
        }
        let home = (hello.producer.0 % self.config.ports.len() as u128) as u16;
        if home != self.config.core {
            return self.redirect(session, home);
        }
        let known = self.producers.producers.contains_key(&hello.producer);
        match (hello.mode, known) {
            (HelloMode::New, false) => self.register(session, hello.producer),
            (HelloMode::New, true) => {
                let text = "this producer id is taken; a new producer takes a fresh random one".to_owned();
                self.close(session, CloseReason::ProducerExists, text)
            }
            (HelloMode::Resume, true) => {
                self.wait_for_welcome(session, hello.producer);
                self.welcome_if_settled(hello.producer);
                Intake::Taken
            }
            (HelloMode::Resume, false) => {
                let text = "this producer is not known here, or was forgotten after its idle time; start a new one";
                self.close(session, CloseReason::ProducerUnknown, text.to_owned())
            }
        }
    }

    /// A whole batch frame has come; `payload` are its chunks in order, `payload_bytes` their sum.
    pub fn handle_batch(&mut self, session: SessionId, payload: &[Bytes], payload_bytes: usize) -> Intake {
        let Some(producer) = self.producers.of_session(session) else {
            return self.close(session, CloseReason::UnexpectedFrame, "a batch came before a hello".to_owned());
        };
        let header = match peek(payload) {
            Ok(header) => header,
            Err(error) => return self.close(session, error.close_reason(), error.to_string()),
        };
        let Some(entry) = self.producers.get_mut(producer) else { return Intake::Taken };
        if entry.session != Some(session) {
            return self.close(session, CloseReason::UnexpectedFrame, "a batch came before the welcome".to_owned());
        }
        match entry.judge(header.sequence) {
            Judgement::Next => self.admit(session, producer, &header, payload, payload_bytes),
            Judgement::Seen(index) => self.answer_retry(session, producer, index, payload),
            Judgement::AfterRefusal => {
                self.refuse(session, &header, BatchRefusal::AfterRefusal);
                Intake::Taken
            }
            Judgement::TooOld => {
                let text = format!(
                    "sequence {} is older than the {IN_FLIGHT_BATCHES_MAX} last ones; retry only what is in flight",
                    header.sequence.0
                );
                self.close(session, CloseReason::SequenceTooOld, text)
            }
            Judgement::Gap => {
                let expected = entry.appended.0 + 1;
                let text = format!("sequence {} came where {expected} was due; send all in order", header.sequence.0);
                self.close(session, CloseReason::SequenceGap, text)
            }
        }
    }

    /// The session's stream or connection is gone.
    pub fn handle_disconnect(&mut self, session: SessionId) {
        self.producers.end_session(session, self.clock.now_ms());
    }

    /// One video's counts as of now, without ranks, or where they are to be had.
    pub fn lookup(&self, video_id: &str) -> Found {
        let shard = shard_of(self.config.hash.hash(video_id), self.config.shards_total);
        let owner = core_of(shard, self.config.ports.len());
        if owner != self.config.core {
            return Found::Elsewhere(self.redirect_to(owner));
        }
        let (epoch, as_of_ms) = self.markers.published();
        Found::Here(VideoCounts {
            instance: self.config.instance,
            video_id: video_id.into(),
            epoch,
            as_of_ms,
            counts: self.counting.ranking.lookup(video_id).unwrap_or_default(),
        })
    }

    fn redirect_to(&self, home_core: u16) -> Redirect {
        Redirect { home_core, ports: self.config.ports.clone(), host: self.config.host.clone() }
    }

    /// The shell has closed a session for something that it found wrong with it.
    pub fn count_violation(&mut self, reason: CloseReason) {
        self.stats.close_session(reason);
    }

    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason, text: String) -> Intake {
        self.stats.close_session(reason);
        self.producers.end_session(session, self.clock.now_ms());
        self.outputs.push_back(Output::Close { session, reason, text });
        Intake::Taken
    }

    fn redirect(&mut self, session: SessionId, home_core: u16) -> Intake {
        let mut frame = Vec::new();
        self.redirect_to(home_core).encode(&mut frame);
        self.stats.redirects += 1;
        self.outputs.push_back(Output::Send { session, frame: frame.into() });
        self.outputs.push_back(Output::Finish { session });
        Intake::Taken
    }

    /// Logs a new producer; its welcome follows when that is durable.
    fn register(&mut self, session: SessionId, producer: ProducerId) -> Intake {
        if self.is_stopping() {
            return self.close(session, CloseReason::ShuttingDown, "the engine is shutting down".to_owned());
        }
        match self.log.room(0) {
            AppendRoom::Busy => return Intake::NoRoom,
            AppendRoom::NoSegment if self.disk_full.is_none() => return Intake::NoRoom,
            AppendRoom::NoSegment => {
                let text = "the engine's disk is full; come back when there is space".to_owned();
                return self.close(session, CloseReason::Overloaded, text);
            }
            AppendRoom::Ready => {}
        }
        if !self.producers.make_room(self.clock.now_ms()) {
            let text = format!("all {} producers that this core can know are in use", self.producers.len());
            return self.close(session, CloseReason::ProducerTableFull, text);
        }
        self.wait_for_welcome(session, producer);
        let arrival_ms = self.clock.now_ms();
        let end = self.log.append_producer_new(producer, arrival_ms);
        self.appended.push_back(Appended { end, arrival_ms, cells: 0 });
        self.appended_ms = self.clock.monotonic_ms();
        Intake::Taken
    }

    fn wait_for_welcome(&mut self, session: SessionId, producer: ProducerId) {
        for old in self.producers.wait_for_welcome(producer, session, self.clock.now_ms()) {
            let text = "another connection of the same producer took over".to_owned();
            self.stats.close_session(CloseReason::Fenced);
            self.outputs.push_back(Output::Close { session: old, reason: CloseReason::Fenced, text });
        }
    }

    /// Welcomes whoever waits for this producer, once all its appends have settled.
    pub(crate) fn welcome_if_settled(&mut self, producer: ProducerId) {
        let Some((session, last)) = self.producers.welcome(producer) else { return };
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            producer,
            instance: self.config.instance,
            last,
            home_core: self.config.core,
            ports: self.config.ports.clone(),
            host: self.config.host.clone(),
            batch_views_max: BATCH_VIEWS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            in_flight_batches_max: IN_FLIGHT_BATCHES_MAX,
            skew_max_ms: self.config.skew_max_ms,
            encodings: 1,
        };
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        self.stats.welcomes += 1;
        self.outputs.push_back(Output::Send { session, frame: frame.into() });
    }

    /// Why no batch can be accepted now, if none can.
    fn batch_refusal(&self) -> Option<BatchRefusal> {
        if self.is_stopping() {
            Some(BatchRefusal::Stopping)
        } else if !self.clock.healthy() {
            Some(BatchRefusal::ClockStopped)
        } else {
            None
        }
    }

    /// Appends the producer's next batch, or says why not.
    fn admit(
        &mut self,
        session: SessionId,
        producer: ProducerId,
        header: &BatchHeader,
        payload: &[Bytes],
        payload_bytes: usize,
    ) -> Intake {
        if let Some(reason) = self.batch_refusal() {
            self.refuse(session, header, reason);
            return Intake::Taken;
        }
        let cells = batch_cells_max(header.view_count as usize, payload_bytes);
        let in_flight_full = self.producers.get_mut(producer).is_some_and(|one| one.is_full());
        if self.must_wait(u64::from(header.view_count), payload_bytes as u64, cells) {
            self.stats.intake_waits += 1;
            return Intake::NoRoom;
        }
        match self.log.room(payload_bytes) {
            AppendRoom::Ready if !in_flight_full => {}
            AppendRoom::NoSegment if self.disk_full.is_some() => {
                self.refuse(session, header, BatchRefusal::DiskFull);
                return Intake::Taken;
            }
            _ => {
                self.stats.intake_waits += 1;
                return Intake::NoRoom;
            }
        }
        match self.append(producer, payload, payload_bytes, cells) {
            Ok(()) => {}
            Err(error) => {
                self.log.cancel();
                let reason = error.close_reason();
                return self.close(session, reason, error.to_string());
            }
        }
        Intake::Taken
    }

    /// Copies the batch into the log's buffer, checks it there, judges its views and commits the record.
    fn append(
        &mut self,
        producer: ProducerId,
        payload: &[Bytes],
        payload_bytes: usize,
        cells: usize,
    ) -> Result<(), DecodeError> {
        let mut region = self.log.begin(payload_bytes);
        for chunk in payload {
            region.put_slice(chunk);
        }
        let mut ranges = std::mem::take(&mut self.ranges);
        let bytes = self.log.pending();
        Batch::verify(bytes, PROTOCOL_VERSION, producer)?;
        let batch = Batch::decode(bytes)?;
        let arrival_ms = self.clock.now_ms();
        let rule = ArrivalRule { arrival_ms, skew_max_ms: self.config.skew_max_ms };
        let mut all = Admitted::default();
        batch.video_ids().for_each(|video_id| all.add(video_id.len()));
        let closed = self.closed_shards(all);
        let counted = judge_views(&batch, rule, closed.as_ref(), all, &mut ranges);
        let (sequence, crc, view_count) = (batch.sequence(), batch.crc(), batch.view_count());
        let meta = RecordMeta { kind: RecordKind::Batch, producer, sequence, arrival_ms, batch_crc: crc, view_count };
        let end = self.log.commit(&meta, &ranges);
        if let Some(entry) = self.producers.get_mut(producer) {
            entry.remember(Remembered::new(sequence, crc, counted.views as u32, &ranges));
            entry.last_seen_ms = arrival_ms;
        }
        self.ranges = ranges;
        self.admitted = self.admitted.plus(counted);
        for lane in &mut self.lanes {
            lane.reserved += cells;
        }
        self.appended.push_back(Appended { end, arrival_ms, cells });
        self.appended_ms = self.clock.monotonic_ms();
        self.stats.log_bytes += payload_bytes as u64;
        Ok(())
    }

    /// Whether a batch must wait for what is in flight to be counted. While one waits so, none passes it: small batches
    /// could otherwise keep a large one out for ever.
    fn must_wait(&mut self, views: u64, long_id_bytes: u64, cells: usize) -> bool {
        let idle = self.admitted == self.counting.applied && self.appended.is_empty();
        self.draining &= !idle;
        self.draining |= self.lane_room() < cells || self.tables_wait(views, long_id_bytes);
        self.draining
    }

    /// Whether a batch must wait because the tables have room for it only once what is in flight is counted: every view
    /// in flight may be a new id, and mostly is not.
    fn tables_wait(&self, views: u64, long_id_bytes: u64) -> bool {
        let ranking = &self.counting.ranking;
        let in_flight = self.admitted.minus(self.counting.applied);
        let shards = 0..self.config.shards_total;
        let short_of_slots = |shard| u64::from(ranking.slots_free(shard)) < in_flight.views + views;
        let short_of_arena = |shard| (ranking.id_arena_free(shard) as u64) < in_flight.long_id_bytes + long_id_bytes;
        (in_flight.views > 0 && shards.clone().any(short_of_slots))
            || (in_flight.long_id_bytes > 0 && shards.clone().any(short_of_arena))
    }

    /// The shards that must not take new ids, if there are any.
    fn closed_shards(&self, batch: Admitted) -> Option<ClosedShards<'_>> {
        let ranking = &self.counting.ranking;
        let in_flight = self.admitted.plus(batch).minus(self.counting.applied);
        let views = u32::try_from(in_flight.views).unwrap_or(u32::MAX);
        let long_id_bytes = in_flight.long_id_bytes as usize;
        let shards_total = self.config.shards_total;
        let is_closed = |shard| !ranking.room_for(shard, views, long_id_bytes);
        if !(0..shards_total).any(is_closed) {
            return None;
        }
        let closed = (0..shards_total).map(is_closed).collect();
        Some(ClosedShards { ranking, hash: self.config.hash, shards_total, closed })
    }

    fn refuse(&mut self, session: SessionId, header: &BatchHeader, reason: BatchRefusal) {
        if let Some(entry) = self.producers.of_session(session).and_then(|id| self.producers.get_mut(id))
            && reason != BatchRefusal::AfterRefusal
        {
            entry.refused_from = Some(header.sequence);
        }
        self.stats.refuse_batch(reason, header.view_count);
        let refused = BatchRefused { sequence: header.sequence, reason, retry_after_ms: RETRY_AFTER_MS };
        let mut frame = Vec::new();
        refused.encode(&mut frame);
        self.outputs.push_back(Output::Send { session, frame: frame.into() });
    }

    /// Answers a batch that was appended before: at once when it is durable, else together with it.
    fn answer_retry(&mut self, session: SessionId, producer: ProducerId, index: usize, payload: &[Bytes]) -> Intake {
        // A retry is rare: it is copied once more than the rest, to be checked in one piece.
        let crc = batch_checksum(&payload.concat(), PROTOCOL_VERSION, producer);
        let Some(entry) = self.producers.get_mut(producer) else { return Intake::Taken };
        let original = entry.remembered[index].clone();
        if original.crc != crc {
            let text =
                format!("sequence {} came before with other bytes; a retry repeats all of them", original.sequence.0);
            return self.close(session, CloseReason::SequenceReused, text);
        }
        if original.sequence.0 <= entry.settled.0 {
            self.acknowledge_retry(session, &original);
        } else if !entry.retries.contains(&original.sequence) {
            entry.retries.push(original.sequence);
        }
        Intake::Taken
    }

    /// Sends the verdict of the original again, nothing counted.
    pub(crate) fn acknowledge_retry(&mut self, session: SessionId, original: &Remembered) {
        let ack = Ack {
            sequence: original.sequence,
            visible_epoch: self.markers.next_epoch(),
            counted: 0,
            duplicate: original.counted,
            refused: original.refused.clone(),
            detail_complete: original.detail_complete,
        };
        self.stats.batches_duplicate += 1;
        self.stats.views_duplicate += u64::from(original.counted);
        self.count_refused(&original.refused);
        self.stats.views_received += u64::from(original.counted) + refused_total(&original.refused);
        self.send_ack(session, &ack);
    }

    pub(crate) fn count_refused(&mut self, ranges: &[RefusedRange]) {
        for range in ranges {
            self.stats.refuse_view(range.reason, range.count);
        }
    }

    pub(crate) fn send_ack(&mut self, session: SessionId, ack: &Ack) {
        let mut frame = Vec::new();
        ack.encode(&mut frame);
        self.outputs.push_back(Output::Send { session, frame: frame.into() });
    }
}

/// Views in these ranges.
pub(crate) fn refused_total(ranges: &[RefusedRange]) -> u64 {
    ranges.iter().map(|range| u64::from(range.count)).sum()
}

/// The fixed part at the start of a batch, from as many chunks as it lies in.
fn peek(payload: &[Bytes]) -> Result<BatchHeader, DecodeError> {
    let mut start = [0; BATCH_HEADER_BYTES];
    let mut filled = 0;
    for chunk in payload {
        let take = chunk.len().min(start.len() - filled);
        start[filled..filled + take].copy_from_slice(&chunk[..take]);
        filled += take;
    }
    batch_header(&start[..filled])
}
