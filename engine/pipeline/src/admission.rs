//! Whether a batch can be appended now: room in the log and in the lanes, and room in the tables for its ids.
//!
//! What cannot be taken for want of room waits, and while a batch waits none passes it: small ones could otherwise keep
//! a large one out for ever. Everything that is decided about a view is decided here, before the append, and stands in
//! the record.

use crate::asking::{BatchKey, question_cells};
use crate::intake::Intake;
use crate::limits::batch_cells_max;
use crate::mesh::LaneOut;
use crate::ownership::Targets;
use crate::pipeline::Pipeline;
use crate::session::{Remembered, SessionId};
use crate::settle::Appended;
use crate::verdicts::{ArrivalRule, Judged, KnownIds, Load};
use bytes::{BufMut, Bytes};
use highwater_proto::{Batch, BatchHeader, BatchRefusal, DecodeError, PROTOCOL_VERSION, ProducerId};
use highwater_storage::{AppendRoom, RecordKind, RecordMeta};

/// What became of a batch that had room in log and lanes.
enum Admission {
    Appended,
    /// For room in the lanes; or other cores are asked about its ids, or will be when everything before it is pushed.
    Waits,
}

impl Pipeline {
    /// Appends the producer's next batch, or says why not.
    pub(crate) fn admit(
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
        if self.asker.must_wait(producer, header.sequence, self.appended.is_empty()) || self.must_wait(cells) {
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
        match self.append(producer, payload, payload_bytes) {
            Ok(Admission::Appended) => Intake::Taken,
            Ok(Admission::Waits) => {
                self.log.cancel();
                self.stats.intake_waits += 1;
                Intake::NoRoom
            }
            Err(error) => {
                self.log.cancel();
                let reason = error.close_reason();
                self.close(session, reason, error.to_string())
            }
        }
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

    /// Copies the batch into the log's buffer, checks it there, judges its views and commits the record.
    fn append(
        &mut self,
        producer: ProducerId,
        payload: &[Bytes],
        payload_bytes: usize,
    ) -> Result<Admission, DecodeError> {
        let mut region = self.log.begin(payload_bytes);
        for chunk in payload {
            region.put_slice(chunk);
        }
        let bytes = self.log.pending();
        Batch::verify(bytes, PROTOCOL_VERSION, producer)?;
        let batch = Batch::decode(bytes)?;
        let arrival_ms = self.clock.now_ms();
        let rule = ArrivalRule { arrival_ms, skew_max_ms: self.config.skew_max_ms };
        let (sequence, crc, view_count) = (batch.sequence(), batch.crc(), batch.view_count());
        let key = BatchKey { producer, sequence, crc };
        let mut judged = std::mem::take(&mut self.judged);
        judged.judge(&batch, rule, &self.targets, &[]);
        if self.lanes.iter().zip(&judged.loads).any(lacks_credit) {
            let known = self.asker.known(key, self.marked).unwrap_or_default();
            if !judged.judge_known(&batch, rule, &self.targets, &self.lanes, known) {
                self.ask(key, &judged);
                self.judged = judged;
                return Ok(Admission::Waits);
            }
        }
        // Whole ids can be more than the bytes of the batch, where it names equal ones once.
        if self.lanes.iter_mut().zip(&judged.loads).any(|(lane, load)| lane.room() < load.cells) {
            self.draining = true;
            self.judged = judged;
            return Ok(Admission::Waits);
        }
        self.asker.forget(producer);
        let meta = RecordMeta { kind: RecordKind::Batch, producer, sequence, arrival_ms, batch_crc: crc, view_count };
        let end = self.log.commit(&meta, &judged.ranges);
        if let Some(entry) = self.producers.get_mut(producer) {
            entry.remember(Remembered::new(sequence, crc, judged.counted(view_count), &judged.ranges));
            entry.last_seen_ms = arrival_ms;
        }
        for (lane, load) in self.lanes.iter_mut().zip(&judged.loads) {
            lane.reserved += load.cells;
            lane.rows.take(load.amount.rows);
            lane.long_id_bytes.take(load.amount.long_id_bytes);
        }
        let cells = judged.loads.iter().map(|load| load.cells as u32).collect();
        self.appended.push_back(Appended { end, arrival_ms, cells });
        self.appended_ms = self.clock.monotonic_ms();
        self.stats.log_bytes += payload_bytes as u64;
        self.judged = judged;
        Ok(Admission::Appended)
    }

    /// Asks every core that has no room for all ids of the pending batch which of them it knows; not before all rows
    /// that were appended earlier are in the lanes, earlier questions are answered, though nobody waits for that, and
    /// there is room for all questions in the lanes.
    fn ask(&mut self, key: BatchKey, judged: &Judged) {
        let Ok(batch) = Batch::decode(self.log.pending()) else { return };
        if self.asker.known(key, self.marked).is_none() {
            self.asker.wait(key, batch.view_count() as usize, self.targets.cores());
        }
        if !self.appended.is_empty() || self.asker.is_owed_answers() {
            return;
        }
        let is_answered = |core: usize| self.asker.known(key, self.marked).is_some_and(|known| known[core].is_some());
        let lacking = self.lanes.iter().zip(&judged.loads).enumerate();
        let to_ask: Vec<usize> =
            lacking.filter(|(core, pair)| lacks_credit(*pair) && !is_answered(*core)).map(|(core, _)| core).collect();
        let targets = &self.targets;
        if to_ask.iter().any(|core| self.lanes[*core].room() < question_cells(&batch, targets, *core)) {
            self.draining = true;
            return;
        }
        self.stats.questions += 1;
        for core in to_ask {
            let cells = self.asker.ask(core, &batch, judged.loads[core].most, &self.targets, self.marked);
            self.lanes[core].push(&cells);
        }
    }

    /// Whether a batch must wait for room in the lanes.
    fn must_wait(&mut self, cells: usize) -> bool {
        self.rest_from_draining();
        self.draining |= self.lane_room() < cells;
        self.draining
    }

    /// Ends the draining when nothing is in flight, also when the batch that waited for it does not come back.
    pub(crate) fn rest_from_draining(&mut self) {
        if self.draining {
            self.draining = !self.appended.is_empty() || !self.lanes.iter_mut().all(LaneOut::is_empty);
        }
    }

    /// Cells that a batch may still reserve in every lane.
    fn lane_room(&mut self) -> usize {
        self.lanes.iter_mut().map(LaneOut::room).min().unwrap_or(0)
    }
}

impl Judged {
    /// Judges again where credit is lacking, if what the cores know has been answered by all of those; returns whether
    /// it has.
    fn judge_known(
        &mut self,
        batch: &Batch<'_>,
        rule: ArrivalRule,
        targets: &Targets,
        lanes: &[LaneOut],
        known: &[Option<KnownIds>],
    ) -> bool {
        let lacking: Vec<bool> = lanes.iter().zip(&self.loads).map(lacks_credit).collect();
        let answered = |core: usize| known.get(core).and_then(Option::as_ref);
        if (0..lanes.len()).any(|core| lacking[core] && answered(core).is_none()) {
            return false;
        }
        let closed: Vec<_> = (0..lanes.len()).map(|core| answered(core).filter(|_| lacking[core])).collect();
        self.judge(batch, rule, targets, &closed);
        true
    }
}

/// Whether a core has not granted enough for as many new ids, whichever views are refused.
fn lacks_credit((lane, load): (&LaneOut, &Load)) -> bool {
    let left = lane.credit_left();
    load.most.rows > left.rows || load.most.long_id_bytes > left.long_id_bytes
}
