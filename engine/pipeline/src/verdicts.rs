//! The verdict on each view of a batch, decided once, before the batch is appended.
//!
//! Replay never decides again: what is decided here is written into the record. Pure functions over a decoded batch.

use crate::counting::Admitted;
use highwater_proto::limits::TIMESTAMP_MS_MAX;
use highwater_proto::{Batch, RefusedRange, ViewRefusal};
use highwater_ranking::{CoreRanking, IdHash, shard_of};

/// What the time of arrival says about a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ArrivalRule {
    /// Engine time at which the batch was whole, in milliseconds since 1970.
    pub(crate) arrival_ms: u64,
    /// How far ahead of it a view may lie.
    pub(crate) skew_max_ms: u64,
}

impl ArrivalRule {
    fn refusal(self, timestamp_ms: u64) -> Option<ViewRefusal> {
        if timestamp_ms > TIMESTAMP_MS_MAX {
            Some(ViewRefusal::TimeOutOfRange)
        } else if timestamp_ms > self.arrival_ms.saturating_add(self.skew_max_ms) {
            Some(ViewRefusal::FutureBeyondSkew)
        } else {
            None
        }
    }
}

/// Which shards take no new ids because the table must keep room for what is in flight.
pub(crate) struct ClosedShards<'a> {
    pub(crate) ranking: &'a CoreRanking,
    pub(crate) hash: IdHash,
    pub(crate) shards_total: u16,
    pub(crate) closed: Vec<bool>,
}

impl ClosedShards<'_> {
    fn refuses(&self, video_id: &str) -> bool {
        let hash = self.hash.hash(video_id);
        self.closed[usize::from(shard_of(hash, self.shards_total))] && !self.ranking.contains(hash, video_id)
    }
}

/// Fills `ranges` with the refused views of the batch, ascending and as few ranges as possible; returns what is counted
/// of `all` its views.
pub(crate) fn judge_views(
    batch: &Batch<'_>,
    rule: ArrivalRule,
    closed: Option<&ClosedShards<'_>>,
    all: Admitted,
    ranges: &mut Vec<RefusedRange>,
) -> Admitted {
    ranges.clear();
    let limit_ms = rule.arrival_ms.saturating_add(rule.skew_max_ms).min(TIMESTAMP_MS_MAX);
    let in_time = batch.timestamps().all(|timestamp_ms| timestamp_ms <= limit_ms);
    if in_time && closed.is_none() {
        return all;
    }
    let mut counted = Admitted::default();
    for (index, (video_id, timestamp_ms)) in batch.video_ids().zip(batch.timestamps()).enumerate() {
        let full = || closed.is_some_and(|shards| shards.refuses(video_id)).then_some(ViewRefusal::TableFull);
        match rule.refusal(timestamp_ms).or_else(full) {
            None => counted.add(video_id.len()),
            Some(reason) => RefusedRange::push_view(ranges, index as u32, reason),
        }
    }
    counted
}
