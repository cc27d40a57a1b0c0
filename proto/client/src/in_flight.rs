//! The batches of one producer that have no final answer yet: what to write next, and what each answer means.
//!
//! It does no I/O and reads no clock. Invariant: sequences are consecutive from the one after the highest acknowledged;
//! each batch leaves exactly once, in order, with its fate; its bytes never change.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_proto::{Ack, BatchRefusal, BatchRefused, Epoch, RefusedRange, Sequence};

use crate::error::ClientError;

/// Longest pause that a refusal may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What became of one batch; reported exactly once.
#[derive(Debug, Clone)]
pub struct Fate {
    /// The batch's sequence.
    pub sequence: Sequence,
    /// The first snapshot epoch that holds it.
    pub visible_epoch: Epoch,
    /// Views counted by this acknowledgement.
    pub counted: u32,
    /// Views that an earlier delivery of the same batch had already counted.
    pub duplicate: u32,
    /// Views refused for good, by range and reason.
    pub refused: Vec<RefusedRange>,
    /// Whether `refused` says which views it means, and not only how many.
    pub detail_complete: bool,
    /// Views of the batch: counted + duplicate + refused.
    pub view_count: u32,
    /// Bytes of its frame.
    pub frame_bytes: u32,
    /// When it was given to the producer.
    pub sent_at: Instant,
    /// When the answer came.
    pub acked_at: Instant,
    /// How often its bytes were written again.
    pub retries: u32,
    /// The number given with it to [`crate::Producer::send`].
    pub token: u64,
}

/// One batch without an answer.
#[derive(Debug)]
struct Pending {
    frame: Bytes,
    view_count: u32,
    token: u64,
    sent_at: Instant,
    writes: u32,
}

/// What the writer does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextWrite {
    /// Write these bytes.
    Frame(Bytes),
    /// Nothing before this time.
    Pause(Instant),
    /// Nothing until something changes.
    Idle,
}

/// The window of batches without an answer.
#[derive(Debug)]
pub(crate) struct InFlight {
    batches: VecDeque<Pending>,
    acked: Sequence,
    /// Batches before this index were written on this connection.
    written: usize,
    window: usize,
    pause_until: Option<Instant>,
}

impl InFlight {
    /// An empty window after the acknowledged sequence.
    pub(crate) fn new(acked: Sequence, window: usize) -> Self {
        Self { batches: VecDeque::with_capacity(window), acked, written: 0, window, pause_until: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// When the oldest batch without an answer was given to the producer.
    pub(crate) fn oldest_sent_at(&self) -> Option<Instant> {
        self.batches.front().map(|batch| batch.sent_at)
    }

    /// The sequence that the next batch must bear.
    pub(crate) fn next_sequence(&self) -> Sequence {
        Sequence(self.acked.0 + self.batches.len() as u64 + 1)
    }

    /// Takes over a batch encoded under [`InFlight::next_sequence`].
    pub(crate) fn push(&mut self, frame: Bytes, view_count: u32, token: u64, sent_at: Instant) {
        self.batches.push_back(Pending { frame, view_count, token, sent_at, writes: 0 });
    }

    /// The next bytes to write; they count as written from now on.
    pub(crate) fn next_write(&mut self, now: Instant) -> NextWrite {
        if let Some(until) = self.pause_until {
            if now < until {
                return NextWrite::Pause(until);
            }
            self.pause_until = None;
        }
        if self.written >= self.window {
            return NextWrite::Idle;
        }
        let Some(batch) = self.batches.get_mut(self.written) else {
            return NextWrite::Idle;
        };
        self.written += 1;
        batch.writes += 1;
        NextWrite::Frame(batch.frame.clone())
    }

    /// A welcome came: everything unanswered is written again, in order.
    pub(crate) fn handle_welcome(&mut self, last: Sequence, window: usize) -> Result<(), ClientError> {
        if last.0 < self.acked.0 {
            return Err(ClientError::AcknowledgedLost { last: last.0, acked: self.acked.0 });
        }
        let sent = self.acked.0 + self.batches.len() as u64;
        if last.0 > sent {
            return Err(ClientError::ProducerShared { last: last.0, sent });
        }
        self.written = 0;
        self.window = window;
        self.pause_until = None;
        Ok(())
    }

    /// An acknowledgement came: it must be for the oldest batch, because acknowledgements follow the log.
    pub(crate) fn handle_ack(&mut self, ack: Ack, now: Instant) -> Result<Fate, ClientError> {
        let due = self.acked.0 + 1;
        if ack.sequence.0 != due || self.written == 0 {
            return Err(ClientError::Protocol(format!(
                "it acknowledged sequence {} where {due} is the oldest of {} written",
                ack.sequence.0, self.written
            )));
        }
        let Some(batch) = self.batches.front() else {
            return Err(ClientError::Protocol(format!("it acknowledged sequence {due} of nothing")));
        };
        let refused = RefusedRange::total(&ack.refused);
        let total = u64::from(ack.counted) + u64::from(ack.duplicate) + u64::from(refused);
        if total != u64::from(batch.view_count) {
            return Err(ClientError::Protocol(format!(
                "it answered for {total} views of sequence {due} (counted {}, duplicate {}, refused {refused}), which holds {}",
                ack.counted, ack.duplicate, batch.view_count
            )));
        }
        let fate = Fate {
            sequence: ack.sequence,
            visible_epoch: ack.visible_epoch,
            counted: ack.counted,
            duplicate: ack.duplicate,
            refused: ack.refused,
            detail_complete: ack.detail_complete,
            view_count: batch.view_count,
            frame_bytes: batch.frame.len() as u32,
            sent_at: batch.sent_at,
            acked_at: now,
            retries: batch.writes.saturating_sub(1),
            token: batch.token,
        };
        self.batches.pop_front();
        self.written -= 1;
        self.acked = ack.sequence;
        Ok(fate)
    }

    /// A batch was refused: it and all after it are written again, once the engine's pause is over. The engine answers
    /// what was already on its way with `after_refusal`, which asks for nothing more.
    pub(crate) fn handle_refused(&mut self, refused: BatchRefused, now: Instant) -> Result<(), ClientError> {
        let index = refused.sequence.0.checked_sub(self.acked.0 + 1);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let Some(index) = index.filter(|index| *index < self.batches.len()) else {
            return Err(ClientError::Protocol(format!(
                "it refused sequence {}, which is not in flight",
                refused.sequence.0
            )));
        };
        if refused.reason == BatchRefusal::AfterRefusal {
            return Ok(());
        }
        self.written = self.written.min(index);
        let pause = Duration::from_millis(u64::from(refused.retry_after_ms)).min(RETRY_AFTER_MAX);
        self.pause_until = Some(now + pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_of(count: u64) -> InFlight {
        let mut in_flight = InFlight::new(Sequence(0), 64);
        for token in 0..count {
            assert_eq!(in_flight.next_sequence(), Sequence(token + 1));
            in_flight.push(Bytes::from(vec![token as u8]), 10, token, Instant::now());
        }
        in_flight
    }

    fn drain(in_flight: &mut InFlight, now: Instant) -> Vec<u8> {
        let mut written = Vec::new();
        while let NextWrite::Frame(frame) = in_flight.next_write(now) {
            written.extend_from_slice(&frame);
        }
        written
    }

    fn ack(sequence: u64) -> Ack {
        Ack {
            sequence: Sequence(sequence),
            visible_epoch: Epoch(5),
            counted: 10,
            duplicate: 0,
            refused: Vec::new(),
            detail_complete: true,
        }
    }

    fn refusal(sequence: u64, reason: BatchRefusal) -> BatchRefused {
        BatchRefused { sequence: Sequence(sequence), reason, retry_after_ms: 100 }
    }

    #[test]
    fn acknowledged_batches_leave_in_order_with_their_token() {
        let now = Instant::now();
        let mut in_flight = window_of(3);
        assert_eq!(drain(&mut in_flight, now), [0, 1, 2]);
        for sequence in 1..=3 {
            let fate = in_flight.handle_ack(ack(sequence), now).unwrap();
            assert_eq!((fate.token, fate.retries), (sequence - 1, 0));
        }
        assert!(in_flight.is_empty());
        assert_eq!(in_flight.next_sequence(), Sequence(4));
    }

    #[test]
    fn a_reconnect_writes_everything_unanswered_again() {
        let now = Instant::now();
        let mut in_flight = window_of(4);
        drain(&mut in_flight, now);
        in_flight.handle_ack(ack(1), now).unwrap();
        in_flight.handle_welcome(Sequence(3), 64).unwrap();
        assert_eq!(drain(&mut in_flight, now), [1, 2, 3]);
        assert_eq!(in_flight.handle_ack(ack(2), now).unwrap().retries, 1);
    }

    #[test]
    fn a_welcome_below_the_acknowledged_or_beyond_the_sent_stops_the_producer() {
        let now = Instant::now();
        let mut in_flight = window_of(3);
        drain(&mut in_flight, now);
        in_flight.handle_ack(ack(1), now).unwrap();
        in_flight.handle_ack(ack(2), now).unwrap();
        let lost = in_flight.handle_welcome(Sequence(1), 64);
        assert!(matches!(lost, Err(ClientError::AcknowledgedLost { last: 1, acked: 2 })));
        let shared = in_flight.handle_welcome(Sequence(4), 64);
        assert!(matches!(shared, Err(ClientError::ProducerShared { last: 4, sent: 3 })));
    }

    #[test]
    fn a_refusal_pauses_then_rewinds_to_its_sequence() {
        let now = Instant::now();
        let mut in_flight = window_of(4);
        drain(&mut in_flight, now);
        in_flight.handle_refused(refusal(2, BatchRefusal::DiskFull), now).unwrap();
        in_flight.handle_refused(refusal(3, BatchRefusal::AfterRefusal), now).unwrap();
        let until = now + Duration::from_millis(100);
        assert_eq!(in_flight.next_write(now), NextWrite::Pause(until));
        in_flight.handle_ack(ack(1), now).unwrap();
        assert_eq!(drain(&mut in_flight, until), [1, 2, 3]);
        // The answer to the first copy of 4 comes late: it asks for nothing more.
        in_flight.handle_refused(refusal(4, BatchRefusal::AfterRefusal), until).unwrap();
        assert_eq!(in_flight.next_write(until), NextWrite::Idle);
        assert_eq!(in_flight.handle_ack(ack(2), until).unwrap().retries, 1);
    }

    #[test]
    fn answers_to_what_was_not_written_are_refused() {
        let now = Instant::now();
        let mut in_flight = window_of(2);
        assert!(in_flight.handle_ack(ack(1), now).is_err(), "not yet written");
        drain(&mut in_flight, now);
        assert!(in_flight.handle_ack(ack(2), now).is_err(), "out of order");
        assert!(in_flight.handle_refused(refusal(3, BatchRefusal::DiskFull), now).is_err());
        let short = Ack { counted: 9, ..ack(1) };
        assert!(in_flight.handle_ack(short, now).is_err(), "views do not add up");
    }

    #[test]
    fn a_smaller_window_after_a_reconnect_is_kept() {
        let now = Instant::now();
        let mut in_flight = window_of(4);
        in_flight.handle_welcome(Sequence(0), 2).unwrap();
        assert_eq!(drain(&mut in_flight, now), [0, 1]);
        in_flight.handle_ack(ack(1), now).unwrap();
        assert_eq!(drain(&mut in_flight, now), [2]);
    }
}
