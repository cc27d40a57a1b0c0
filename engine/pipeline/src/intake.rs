//! What a client's frame means: hello, fence, sequence, retry, look-up. What is next in its turn goes to
//! [`admission`](crate::admission).
//!
//! A batch that cannot be taken for want of room is not refused: the answer is [`Intake::NoRoom`], the shell stops
//! reading that stream, and QUIC pushes back.

use crate::limits::{PRODUCER_IDLE_MS, RETRY_AFTER_MS};
use crate::messages::Output;
use crate::ownership::home_core;
use crate::pipeline::Pipeline;
use crate::session::{Claim, Judgement, Remembered, SessionId};
use crate::settle::Appended;
use bytes::Bytes;
use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, ENCODINGS, IN_FLIGHT_BATCHES_MAX};
use highwater_proto::{
    Ack, BatchHeader, BatchRefusal, BatchRefused, CloseReason, DecodeError, Hello, HelloMode, PROTOCOL_VERSION,
    PeriodCount, ProducerId, Redirect, RefusedRange, VideoCounts, Welcome, batch_checksum, batch_header,
};
use highwater_storage::{AppendRoom, OWNER_BYTES};

/// Whether a frame was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Intake {
    /// It was taken; its answer will come.
    Taken,
    /// There is no room; offer the same frame again after the next turn that worked.
    NoRoom,
}

impl Pipeline {
    /// A client says hello on its producer stream.
    pub fn handle_hello(&mut self, session: SessionId, hello: &Hello, claim: Claim) -> Intake {
        if hello.version != PROTOCOL_VERSION {
            let text = format!("protocol version {} is not spoken here; use {PROTOCOL_VERSION}", hello.version);
            return self.close(session, CloseReason::VersionUnsupported, text);
        }
        let home = home_core(hello.producer, self.cores());
        if home != self.config.core {
            return self.redirect(session, home);
        }
        let known = self.producers.producers.get(&hello.producer);
        match (hello.mode, known.map(|one| one.owner)) {
            (HelloMode::New, None) => self.register(session, hello.producer, claim),
            (HelloMode::New, Some(_)) => {
                let text = format!(
                    "producer {} is known here already; say resume if it is yours, else take a fresh id",
                    hello.producer
                );
                self.close(session, CloseReason::ProducerExists, text)
            }
            // Before anybody is fenced.
            (HelloMode::Resume, Some(owner)) if !claim.may_have(owner) => {
                let text = format!(
                    "producer {} was made under another identity; resume it with that one's token or certificate, or take a \
                     fresh id",
                    hello.producer
                );
                self.close(session, CloseReason::NotOwner, text)
            }
            (HelloMode::Resume, Some(_)) => {
                self.wait_for_welcome(session, hello.producer);
                self.welcome_if_settled(hello.producer);
                Intake::Taken
            }
            (HelloMode::Resume, None) => {
                let days = PRODUCER_IDLE_MS / 86_400_000;
                let text = format!(
                    "producer {} is not known here, or was forgotten after {days} idle days; check the engine, else take a new id",
                    hello.producer
                );
                self.close(session, CloseReason::ProducerUnknown, text)
            }
        }
    }

    /// A whole batch frame has come; `payload` are its chunks in order, `payload_bytes` their sum.
    pub fn handle_batch(&mut self, session: SessionId, payload: &[Bytes], payload_bytes: usize) -> Intake {
        if self.producers.is_closed(session) {
            return Intake::Taken;
        }
        let Some(producer) = self.producers.of_session(session) else {
            let text = "a BATCH came on a stream that was redirected or said no HELLO; send it behind a WELCOME only";
            return self.close(session, CloseReason::UnexpectedFrame, text.to_owned());
        };
        let header = match peek(payload) {
            Ok(header) => header,
            Err(error) => return self.close(session, error.close_reason(), error.to_string()),
        };
        let Some(entry) = self.producers.get_mut(producer) else { return Intake::Taken };
        if entry.session != Some(session) {
            let text = "a BATCH came before the WELCOME; send nothing behind a HELLO until it is answered";
            return self.close(session, CloseReason::UnexpectedFrame, text.to_owned());
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
        self.producers.forget_closed(session);
        self.end_session(session);
    }

    /// Whether this session was closed, although its connection is not gone yet.
    pub fn has_closed(&self, session: SessionId) -> bool {
        self.producers.is_closed(session)
    }

    /// Whether look-ups can be answered now. Not before the first snapshot of this start, when windows may be those of
    /// an earlier minute, and not while a marker moves their edges; they wait then.
    pub fn can_look_up(&self) -> bool {
        self.published.is_some() && self.counting.is_consistent()
    }

    /// One video's counts as of now, each with its rank in the snapshot published last. Its epoch is the last one that
    /// this core has frozen, so never below that of a published snapshot.
    ///
    /// # Errors
    /// Where to ask, if another core counts the video.
    pub fn handle_lookup(&mut self, video_id: &str) -> Result<VideoCounts, Redirect> {
        let owner = self.targets.core_of(video_id) as u16;
        if owner != self.config.core {
            self.stats.redirects += 1;
            return Err(self.redirect_to(owner));
        }
        let counts = self.counting.ranking.lookup(video_id).unwrap_or_default().into_iter();
        let count = |((period, window), view_count)| PeriodCount { period, window, view_count, rank: None };
        let (epoch, as_of_ms) = self.counting.ranking.last_marker().unwrap_or_default();
        let mut counts = VideoCounts {
            instance: self.config.instance,
            video_id: video_id.into(),
            epoch,
            as_of_ms,
            counts: counts.map(count).collect(),
        };
        if let Some(snapshot) = &self.published {
            counts.rank_by(snapshot);
        }
        Ok(counts)
    }

    /// The shell has closed a session for something that it found wrong with it.
    pub fn count_violation(&mut self, reason: CloseReason) {
        self.stats.close_session(reason);
    }

    /// Closes a session, once: what its client had sent behind that is not judged any more.
    pub(crate) fn close(&mut self, session: SessionId, reason: CloseReason, text: String) -> Intake {
        if !self.producers.note_closed(session) {
            return Intake::Taken;
        }
        self.stats.close_session(reason);
        self.end_session(session);
        self.outputs.push_back(Output::Close { session, reason, text });
        Intake::Taken
    }

    /// Forgets a session; nothing may wait for a batch that nobody sends any more.
    fn end_session(&mut self, session: SessionId) {
        if let Some(producer) = self.producers.of_session(session) {
            self.asker.forget(producer);
        }
        self.producers.end_session(session, self.clock.now_ms());
    }

    fn redirect_to(&self, core: u16) -> Redirect {
        Redirect { home_core: core, ports: self.config.ports.clone(), host: self.config.host.clone() }
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
    fn register(&mut self, session: SessionId, producer: ProducerId, claim: Claim) -> Intake {
        if self.is_stopping() {
            return self.close(session, CloseReason::ShuttingDown, "the engine is shutting down".to_owned());
        }
        match self.log.room(OWNER_BYTES) {
            AppendRoom::Busy => return Intake::NoRoom,
            AppendRoom::NoSegment if self.disk_full.is_none() => return Intake::NoRoom,
            AppendRoom::NoSegment => {
                let text = "the engine's disk is full; come back when there is space".to_owned();
                return self.close(session, CloseReason::Overloaded, text);
            }
            AppendRoom::Ready => {}
        }
        if !self.producers.make_room(self.clock.now_ms()) {
            let text = format!(
                "this core knows {} producers, its most, all in use in the last 7 days; use fewer, or come back later",
                self.producers.len()
            );
            return self.close(session, CloseReason::ProducerTableFull, text);
        }
        self.wait_for_welcome(session, producer);
        let arrival_ms = self.clock.now_ms();
        if let Some(entry) = self.producers.get_mut(producer) {
            entry.owner = claim.owner();
        }
        let end = self.log.append_producer_new(producer, claim.owner(), arrival_ms);
        self.appended.push_back(Appended { end, arrival_ms, cells: Box::default() });
        self.appended_ms = self.clock.monotonic_ms();
        Intake::Taken
    }

    fn wait_for_welcome(&mut self, session: SessionId, producer: ProducerId) {
        self.asker.forget(producer);
        for old in self.producers.wait_for_welcome(producer, session, self.clock.now_ms()) {
            let text =
                format!("a newer connection of producer {producer} took over; run one process for each producer");
            self.producers.note_closed(old);
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
            encodings: ENCODINGS,
        };
        let mut frame = Vec::new();
        welcome.encode(&mut frame);
        self.stats.welcomes += 1;
        self.outputs.push_back(Output::Send { session, frame: frame.into() });
    }

    pub(crate) fn refuse(&mut self, session: SessionId, header: &BatchHeader, reason: BatchRefusal) {
        if let Some(entry) = self.producers.of_session(session).and_then(|id| self.producers.get_mut(id))
            && reason != BatchRefusal::AfterRefusal
        {
            entry.refused_from = Some(header.sequence);
        }
        if let Some(producer) = self.producers.of_session(session) {
            self.asker.forget(producer);
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
            let text = format!(
                "sequence {} came again with other bytes (checksum {crc:#010x}, at first {:#010x}); a retry repeats all bytes",
                original.sequence.0, original.crc
            );
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
            visible_epoch: self.marked.next(),
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
