//! What the simulation knows of every batch: where it is on its way, and what must become of it.
//!
//! The ledger learns from outside what the engine does: a batch that was taken in its turn is appended, in this order;
//! `batches_counted` says how many of them have settled, in the same order; `markers` says before which epoch. Verdicts
//! on time are predicted; which new ids were refused by a full table is read from the log. After a restart the
//! producers' welcomes say what survived: what was acknowledged, and a prefix of the log.

use crate::oracle::Oracle;
use highwater_proto::limits::TIMESTAMP_MS_MAX;
use highwater_proto::{Ack, ProducerId, RefusedRange, ViewRefusal};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A view as the simulation makes it.
pub(crate) type Viewed = (usize, u64);

/// A batch by its producer and sequence.
pub(crate) type BatchKey = (ProducerId, u64);

/// An appended batch.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) views: Vec<Viewed>,
    pub(crate) refused: Vec<RefusedRange>,
    /// The epoch of the newest snapshot when it was appended.
    published: u64,
    arrival_ms: u64,
    visible_epoch: Option<u64>,
    acked: bool,
}

/// Where and when a batch is appended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) core: usize,
    /// The epoch of the newest snapshot.
    pub(crate) published: u64,
    /// The core's engine time.
    pub(crate) arrival_ms: u64,
}

impl Entry {
    pub(crate) fn refused_count(&self) -> u32 {
        RefusedRange::total(&self.refused)
    }
}

/// What a core has appended; the batches before `settled` have settled.
#[derive(Clone, Default)]
struct Log {
    batches: Vec<BatchKey>,
    settled: usize,
}

#[derive(Clone, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<BatchKey, Entry>,
    /// Of each core: appended in this life, in log order.
    logs: Vec<Log>,
    /// The last sequence appended by each producer.
    appended: BTreeMap<ProducerId, u64>,
    pub(crate) acked: u64,
}

/// The verdicts on time, for a batch that arrives at `arrival_ms`.
pub(crate) fn time_refusals(views: &[Viewed], arrival_ms: u64, skew_max_ms: u64) -> Vec<RefusedRange> {
    let mut ranges = Vec::new();
    for (index, &(_, timestamp_ms)) in views.iter().enumerate() {
        if timestamp_ms > TIMESTAMP_MS_MAX {
            RefusedRange::push_view(&mut ranges, index as u32, ViewRefusal::TimeOutOfRange);
        } else if timestamp_ms > arrival_ms + skew_max_ms {
            RefusedRange::push_view(&mut ranges, index as u32, ViewRefusal::FutureBeyondSkew);
        }
    }
    ranges
}

impl Ledger {
    pub(crate) fn last_appended(&self, producer: ProducerId) -> u64 {
        self.appended.get(&producer).copied().unwrap_or(0)
    }

    pub(crate) fn append(
        &mut self,
        Place { core, published, arrival_ms }: Place,
        producer: ProducerId,
        sequence: u64,
        views: Vec<Viewed>,
        refused: Vec<RefusedRange>,
    ) {
        assert_eq!(sequence, self.last_appended(producer) + 1, "taken out of turn");
        self.appended.insert(producer, sequence);
        self.logs.resize_with(self.logs.len().max(core + 1), Log::default);
        self.logs[core].batches.push((producer, sequence));
        let entry = Entry { views, refused, published, arrival_ms, visible_epoch: None, acked: false };
        assert!(self.entries.insert((producer, sequence), entry).is_none(), "appended twice");
    }

    /// The log says what was refused. Where the table was not full, that was predicted.
    pub(crate) fn verdicts(&mut self, producer: ProducerId, sequence: u64, found: &[RefusedRange], oracle: &Oracle) {
        let entry = self.entries.get_mut(&(producer, sequence)).expect("only what was appended is in the log");
        let reasons = |ranges: &[RefusedRange]| {
            let mut reasons = vec![None; entry.views.len()];
            for range in ranges {
                reasons[range.first as usize..range.end() as usize].fill(Some(range.reason));
            }
            reasons
        };
        for ((found, expected), (video, _)) in reasons(found).iter().zip(reasons(&entry.refused)).zip(&entry.views) {
            match found {
                Some(ViewRefusal::TableFull) => {
                    assert!(!oracle.knows(*video, entry.published), "video {video} is known and was refused as new");
                    assert!(matches!(expected, None | Some(ViewRefusal::TableFull)));
                }
                reason => assert!(expected == *reason || expected == Some(ViewRefusal::TableFull)),
            }
        }
        entry.refused = found.to_vec();
    }

    /// So many batches of a core have settled in this life, the last ones before its marker of `epoch`.
    pub(crate) fn settle(&mut self, core: usize, batches_counted: u64, epoch: u64, oracle: &mut Oracle) {
        let Some(log) = self.logs.get_mut(core) else { return };
        let settled = log.batches[log.settled..batches_counted as usize].to_vec();
        log.settled = batches_counted as usize;
        for key in settled {
            self.count(key, epoch, oracle);
        }
    }

    fn count(&mut self, key: BatchKey, epoch: u64, oracle: &mut Oracle) {
        let entry = self.entries.get_mut(&key).expect("what is in the log has an entry");
        assert!(entry.visible_epoch.replace(epoch).is_none());
        let mut refused: VecDeque<RefusedRange> = entry.refused.iter().copied().collect();
        for (index, &(video, timestamp_ms)) in entry.views.iter().enumerate() {
            while refused.front().is_some_and(|range| range.end() as usize <= index) {
                refused.pop_front();
            }
            if refused.front().is_none_or(|range| range.first as usize > index) {
                oracle.accept(key, video, timestamp_ms, entry.arrival_ms, epoch);
            }
        }
    }

    /// An acknowledgement must say what the ledger knows; returns whether it is the batch's first.
    pub(crate) fn check_ack(&mut self, producer: ProducerId, ack: &Ack) -> bool {
        let entry = self.entries.get_mut(&(producer, ack.sequence.0)).expect("only what was appended is acknowledged");
        let visible_epoch = entry.visible_epoch.expect("only what has settled is acknowledged");
        let counted = entry.views.len() as u32 - entry.refused_count();
        if ack.counted + ack.duplicate > 0 || counted == 0 {
            assert_eq!(ack.counted + ack.duplicate, counted, "{ack:?} of {entry:?}");
        }
        if ack.counted > 0 {
            assert!(!entry.acked, "{ack:?} comes a second time");
            assert_eq!(ack.visible_epoch.0, visible_epoch, "{ack:?}");
        } else {
            assert!(ack.visible_epoch.0 >= visible_epoch, "{ack:?}");
        }
        assert_eq!(ack.refused_count(), entry.refused_count(), "{ack:?} of {entry:?}");
        if ack.detail_complete {
            assert_eq!(ack.refused, entry.refused);
        }
        self.acked += u64::from(!entry.acked);
        !std::mem::replace(&mut entry.acked, true)
    }

    /// A new life has begun; `last` is what it says of each producer. Returns nothing, or fails: all that was
    /// acknowledged is there, but for what is excused, and what is there is the beginning of each log.
    pub(crate) fn restart(
        &mut self,
        last: &BTreeMap<ProducerId, u64>,
        excused: &BTreeSet<BatchKey>,
        issued_before: u64,
        oracle: &mut Oracle,
    ) {
        let mut lost_batches: BTreeMap<ProducerId, u64> = BTreeMap::new();
        for log in std::mem::take(&mut self.logs) {
            for key in self.survive(log, last, excused, issued_before, oracle) {
                *lost_batches.entry(key.0).or_default() += 1;
            }
        }
        for (producer, appended) in &mut self.appended {
            *appended -= lost_batches.get(producer).copied().unwrap_or(0);
            let known = last.get(producer).copied().unwrap_or(0);
            assert_eq!(known, *appended, "batches of {producer:?} after the restart");
        }
    }

    /// What has not survived.
    fn survive(
        &mut self,
        log: Log,
        last: &BTreeMap<ProducerId, u64>,
        excused: &BTreeSet<BatchKey>,
        issued_before: u64,
        oracle: &mut Oracle,
    ) -> Vec<BatchKey> {
        let mut lost = Vec::new();
        for (index, key) in log.batches.into_iter().enumerate() {
            let survived = last.get(&key.0).is_some_and(|last| key.1 <= *last);
            let (entry, excused) = (&self.entries[&key], excused.contains(&key));
            assert!(survived || !entry.acked || excused, "{key:?} was acknowledged and is lost");
            assert!(!survived || lost.is_empty(), "{key:?} survived, and {lost:?} before it in the log did not");
            if !survived {
                assert!(index >= log.settled || excused, "{key:?} had settled and is lost");
                lost.push(key);
                oracle.forget(key);
                self.entries.remove(&key);
            } else if index >= log.settled {
                self.count(key, issued_before, oracle);
            }
        }
        lost
    }
}
