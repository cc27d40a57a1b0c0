//! Producers and their sessions: who may append which sequence, and what a retry is answered.
//!
//! A producer is known by its id for as long as the table holds it; a session is one producer stream of one connection.
//! The table keeps two marks for each producer: `appended`, the last sequence given to the log, and `settled`, the last
//! one that is durable and pushed to the lanes. Only what is settled is saved with a cut: a sequence that was appended
//! but lost in a crash must not be taken for accepted afterwards.
//!
//! Invariants: `settled <= appended <= settled + W`; `remembered` holds the last `W` appended sequences, ascending and
//! without a hole; at most one session of a producer is welcome at a time.

use crate::limits::{PRODUCER_IDLE_MS, PRODUCERS_MAX};
use crate::ownership::home_core;
use highwater_proto::{ProducerId, RefusedRange, Sequence};
use highwater_storage::{BatchVerdict, KEPT_BATCHES_MAX, KEPT_RANGES_MAX, OwnerId, ProducerImage, ProducerTableImage};
use std::collections::{HashMap, HashSet, VecDeque};

/// One producer stream of one connection; the shell gives each a number that is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Who a client is, in the eyes of the producers' owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The engine asks nobody who they are: producers are made without an owner, and owners are not looked at.
    Unasked,
    /// Somebody without a name, who may have only what belongs to nobody.
    Nameless,
    /// This owner.
    Owner(OwnerId),
}

impl Claim {
    /// The owner of what is made by such a client.
    pub(crate) const fn owner(self) -> Option<OwnerId> {
        match self {
            Self::Owner(owner) => Some(owner),
            Self::Unasked | Self::Nameless => None,
        }
    }

    /// Whether such a client may have a producer that belongs to `owner`.
    pub(crate) fn may_have(self, owner: Option<OwnerId>) -> bool {
        self == Self::Unasked || owner.is_none_or(|owner| self == Self::Owner(owner))
    }
}

/// What is kept of an appended batch, to answer its retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// Its sequence.
    pub(crate) sequence: Sequence,
    /// The client's checksum over version, producer, sequence and content.
    pub(crate) crc: u32,
    /// Views counted.
    pub(crate) counted: u32,
    /// Views refused; totals by reason when `detail_complete` is false.
    pub(crate) refused: Vec<RefusedRange>,
    /// Whether `refused` still says which views.
    pub(crate) detail_complete: bool,
}

impl Remembered {
    /// Keeps the verdicts of a batch, or their totals by reason where there are too many ranges to keep.
    pub(crate) fn new(sequence: Sequence, crc: u32, counted: u32, ranges: &[RefusedRange]) -> Self {
        let detail_complete = ranges.len() <= KEPT_RANGES_MAX;
        let refused = if detail_complete { ranges.to_vec() } else { RefusedRange::totals(ranges) };
        Self { sequence, crc, counted, refused, detail_complete }
    }

    fn from_verdict(verdict: BatchVerdict) -> Self {
        let BatchVerdict { sequence, crc32c, counted, refused, complete } = verdict;
        Self { sequence, crc: crc32c, counted, refused, detail_complete: complete }
    }

    fn to_verdict(&self) -> BatchVerdict {
        BatchVerdict {
            sequence: self.sequence,
            crc32c: self.crc,
            counted: self.counted,
            refused: self.refused.clone(),
            complete: self.detail_complete,
        }
    }
}

/// What a sequence number means to a producer's session at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The next one: it may be appended.
    Next,
    /// Appended before and remembered; the position in `remembered`.
    Seen(usize),
    /// Appended before, so long ago that its checksum is no longer kept.
    TooOld,
    /// An earlier sequence was refused and has not come back yet.
    AfterRefusal,
    /// Sequences were left out.
    Gap,
}

/// A producer as its home core knows it.
#[derive(Debug, Default)]
pub(crate) struct Producer {
    /// Who made it; `None` where nobody said who they were.
    pub(crate) owner: Option<OwnerId>,
    pub(crate) appended: Sequence,
    pub(crate) settled: Sequence,
    pub(crate) remembered: VecDeque<Remembered>,
    /// Whether the record of its first hello is durable.
    pub(crate) registered: bool,
    /// The session that was welcomed.
    pub(crate) session: Option<SessionId>,
    /// The session whose hello waits until all appends have settled.
    pub(crate) hello: Option<SessionId>,
    pub(crate) refused_from: Option<Sequence>,
    /// Retries in flight that wait until the original is durable.
    pub(crate) retries: Vec<Sequence>,
    pub(crate) last_seen_ms: u64,
}

impl Producer {
    pub(crate) fn judge(&self, sequence: Sequence) -> Judgement {
        if sequence.0 <= self.appended.0 {
            let first = self.remembered.front().map_or(u64::MAX, |one| one.sequence.0);
            return match sequence.0.checked_sub(first) {
                Some(index) => Judgement::Seen(index as usize),
                None => Judgement::TooOld,
            };
        }
        match self.refused_from {
            Some(from) if sequence.0 > from.0 => Judgement::AfterRefusal,
            _ if sequence.0 == self.appended.0 + 1 => Judgement::Next,
            _ => Judgement::Gap,
        }
    }

    /// Whether all that was appended is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.registered && self.appended == self.settled
    }

    /// Whether it has as many batches in flight as it may.
    pub(crate) fn is_full(&self) -> bool {
        self.appended.0 - self.settled.0 >= KEPT_BATCHES_MAX as u64
    }

    pub(crate) fn remember(&mut self, batch: Remembered) {
        debug_assert_eq!(batch.sequence.0, self.appended.0 + 1);
        self.appended = batch.sequence;
        self.refused_from = None;
        if self.remembered.len() == KEPT_BATCHES_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(batch);
    }

    fn settled_batches(&self) -> impl Iterator<Item = &Remembered> {
        self.remembered.iter().filter(|one| one.sequence <= self.settled)
    }

    pub(crate) fn recall(&self, sequence: Sequence) -> Option<&Remembered> {
        let first = self.remembered.front()?.sequence.0;
        self.remembered.get(sequence.0.checked_sub(first)? as usize)
    }
}

/// The producers that have this core as their home, and the sessions that belong to them.
#[derive(Debug, Default)]
pub(crate) struct ProducerTable {
    pub(crate) producers: HashMap<ProducerId, Producer>,
    sessions: HashMap<SessionId, ProducerId>,
    /// Closed for a reason, and the connection is not gone yet: what still comes of them was sent too early to know.
    closed: HashSet<SessionId>,
}

impl ProducerTable {
    /// The table that a cut file holds: everybody is settled and nobody is connected.
    pub(crate) fn from_image(image: ProducerTableImage) -> Self {
        let producers = image.producers.into_iter().map(|one| {
            let remembered = one.entries.into_iter().map(Remembered::from_verdict).collect();
            let (owner, appended, settled, last_seen_ms) = (one.owner, one.last, one.last, one.last_seen_ms);
            let registered = true;
            (one.id, Producer { owner, appended, settled, remembered, registered, last_seen_ms, ..Producer::default() })
        });
        Self { producers: producers.collect(), ..Self::default() }
    }

    /// The table shared out among the home cores of its producers; nobody is connected.
    pub(crate) fn share_out(self, cores: u16) -> Vec<Self> {
        let mut tables: Vec<Self> = (0..cores).map(|_| Self::default()).collect();
        for (id, producer) in self.producers {
            tables[usize::from(home_core(id, cores))].producers.insert(id, producer);
        }
        tables
    }

    /// What a cut file keeps: of each registered producer, what is settled.
    ///
    /// Whoever is connected has been heard of now.
    pub(crate) fn image(&self, now_ms: u64) -> ProducerTableImage {
        let registered = self.producers.iter().filter(|(_, one)| one.registered);
        let producers = registered.map(|(id, one)| ProducerImage {
            id: *id,
            owner: one.owner,
            last: one.settled,
            last_seen_ms: if one.session.is_some() { now_ms } else { one.last_seen_ms },
            entries: one.settled_batches().map(Remembered::to_verdict).collect(),
        });
        ProducerTableImage { producers: producers.collect() }
    }

    /// A record says that a producer is new.
    pub(crate) fn replay_new(&mut self, id: ProducerId, owner: Option<OwnerId>, arrival_ms: u64) {
        // An older producer of this id was forgotten before this one came.
        let producer = Producer { owner, registered: true, last_seen_ms: arrival_ms, ..Producer::default() };
        self.producers.insert(id, producer);
    }

    /// A record holds a producer's next batch.
    pub(crate) fn replay_batch(&mut self, id: ProducerId, batch: Remembered, arrival_ms: u64) {
        let producer = self.producers.entry(id).or_default();
        producer.registered = true;
        producer.last_seen_ms = arrival_ms;
        producer.remember(batch);
        producer.settled = producer.appended;
    }

    pub(crate) fn get_mut(&mut self, id: ProducerId) -> Option<&mut Producer> {
        self.producers.get_mut(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    /// The producer that this session has said hello for.
    pub(crate) fn of_session(&self, session: SessionId) -> Option<ProducerId> {
        self.sessions.get(&session).copied()
    }

    /// Notes that a session was closed; returns whether it was not yet.
    pub(crate) fn note_closed(&mut self, session: SessionId) -> bool {
        self.closed.insert(session)
    }

    /// Whether a session was closed, although its frames still come.
    pub(crate) fn is_closed(&self, session: SessionId) -> bool {
        self.closed.contains(&session)
    }

    /// The connection of a session is gone: nothing more comes of it.
    pub(crate) fn forget_closed(&mut self, session: SessionId) {
        self.closed.remove(&session);
    }

    /// Makes room for one more producer, forgetting the one that has been idle for longest if it may be forgotten.
    pub(crate) fn make_room(&mut self, now_ms: u64) -> bool {
        if self.producers.len() < PRODUCERS_MAX {
            return true;
        }
        let idle = self
            .producers
            .iter()
            .filter(|(_, one)| one.session.is_none() && one.hello.is_none() && one.is_settled())
            .filter(|(_, one)| now_ms.saturating_sub(one.last_seen_ms) >= PRODUCER_IDLE_MS)
            .min_by_key(|(id, one)| (one.last_seen_ms, id.0))
            .map(|(id, _)| *id);
        idle.is_some_and(|id| self.producers.remove(&id).is_some())
    }

    /// Lets `session` wait for its welcome; returns the sessions that this fences.
    pub(crate) fn wait_for_welcome(&mut self, id: ProducerId, session: SessionId, now_ms: u64) -> Vec<SessionId> {
        let producer = self.producers.entry(id).or_default();
        let fenced: Vec<SessionId> =
            producer.session.take().into_iter().chain(producer.hello.replace(session)).collect();
        producer.last_seen_ms = now_ms;
        producer.retries.clear();
        for old in &fenced {
            self.sessions.remove(old);
        }
        self.sessions.insert(session, id);
        fenced
    }

    /// Welcomes the session whose hello waits, if everything that was appended before has settled.
    pub(crate) fn welcome(&mut self, id: ProducerId) -> Option<(SessionId, Sequence)> {
        let producer = self.producers.get_mut(&id)?;
        if !producer.is_settled() {
            return None;
        }
        let session = producer.hello.take()?;
        producer.session = Some(session);
        producer.refused_from = None;
        Some((session, producer.settled))
    }

    /// Forgets a session that is gone; its producer stays, and is idle from now on.
    pub(crate) fn end_session(&mut self, session: SessionId, now_ms: u64) {
        let Some(id) = self.sessions.remove(&session) else { return };
        if let Some(producer) = self.producers.get_mut(&id) {
            producer.last_seen_ms = producer.last_seen_ms.max(now_ms);
            if producer.session == Some(session) {
                producer.session = None;
                producer.retries.clear();
            }
            if producer.hello == Some(session) {
                producer.hello = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_proto::ViewRefusal;

    fn batch(sequence: u64) -> Remembered {
        Remembered::new(Sequence(sequence), sequence as u32, 1, &[])
    }

    #[test]
    fn only_the_next_sequence_may_be_appended() {
        let mut producer = Producer::default();
        assert_eq!(producer.judge(Sequence(1)), Judgement::Next);
        assert_eq!(producer.judge(Sequence(2)), Judgement::Gap);
        producer.remember(batch(1));
        assert_eq!(producer.judge(Sequence(1)), Judgement::Seen(0));
        assert_eq!(producer.judge(Sequence(2)), Judgement::Next);
        producer.refused_from = Some(Sequence(2));
        assert_eq!(producer.judge(Sequence(2)), Judgement::Next);
        assert_eq!(producer.judge(Sequence(3)), Judgement::AfterRefusal);
        assert_eq!(producer.judge(Sequence(1)), Judgement::Seen(0));
    }

    #[test]
    fn as_many_checksums_are_kept_as_batches_may_be_in_flight() {
        let mut producer = Producer::default();
        let last = KEPT_BATCHES_MAX as u64 + 3;
        for sequence in 1..=last {
            producer.remember(batch(sequence));
            producer.settled = producer.appended;
        }
        assert_eq!(producer.judge(Sequence(3)), Judgement::TooOld);
        assert_eq!(producer.judge(Sequence(4)), Judgement::Seen(0));
        assert_eq!(producer.recall(Sequence(last)).map(|one| one.crc), Some(last as u32));
        assert_eq!(producer.recall(Sequence(3)), None);
    }

    #[test]
    fn a_hello_fences_and_is_welcome_only_when_all_appends_have_settled() {
        let mut table = ProducerTable::default();
        let id = ProducerId(7);
        assert!(table.wait_for_welcome(id, SessionId(1), 0).is_empty());
        assert_eq!(table.welcome(id), None, "not before its registration is durable");
        table.get_mut(id).unwrap().registered = true;
        assert_eq!(table.welcome(id), Some((SessionId(1), Sequence(0))));
        table.get_mut(id).unwrap().remember(batch(1));
        assert_eq!(table.wait_for_welcome(id, SessionId(2), 5), [SessionId(1)]);
        assert_eq!(table.of_session(SessionId(1)), None);
        assert_eq!(table.welcome(id), None);
        table.get_mut(id).unwrap().settled = Sequence(1);
        assert_eq!(table.welcome(id), Some((SessionId(2), Sequence(1))));
    }

    #[test]
    fn a_full_table_forgets_only_who_was_idle_long_enough() {
        let mut table = ProducerTable::default();
        for id in 0..PRODUCERS_MAX as u128 {
            let producer = table.producers.entry(ProducerId(id)).or_default();
            producer.registered = true;
            producer.last_seen_ms = 1000 + id as u64;
        }
        assert!(!table.make_room(PRODUCER_IDLE_MS));
        assert!(table.make_room(PRODUCER_IDLE_MS + 1001));
        assert_eq!(table.len(), PRODUCERS_MAX - 1);
        assert!(!table.producers.contains_key(&ProducerId(0)));
    }

    #[test]
    fn a_producer_that_was_forgotten_and_came_again_is_replayed_from_its_new_start() {
        let mut table = ProducerTable::default();
        table.replay_new(ProducerId(7), Some(OwnerId(1)), 10);
        table.replay_batch(ProducerId(7), batch(1), 20);
        table.replay_new(ProducerId(7), Some(OwnerId(2)), 30);
        table.replay_batch(ProducerId(7), batch(1), 40);
        let producer = table.get_mut(ProducerId(7)).unwrap();
        assert_eq!((producer.settled, producer.remembered.len(), producer.last_seen_ms), (Sequence(1), 1, 40));
    }

    #[test]
    fn too_many_refused_ranges_are_remembered_as_totals() {
        let ranges: Vec<RefusedRange> = (0..40)
            .map(|index| RefusedRange { first: index * 2, count: 1, reason: ViewRefusal::FutureBeyondSkew })
            .collect();
        let kept = Remembered::new(Sequence(1), 0, 40, &ranges);
        assert!(!kept.detail_complete);
        assert_eq!(kept.refused, [RefusedRange { first: u32::MAX, count: 40, reason: ViewRefusal::FutureBeyondSkew }]);
    }
}
