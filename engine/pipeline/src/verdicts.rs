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

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use highwater_proto::{BatchBuilder, FRAME_HEADER_BYTES, ProducerId, Pushed, Sequence, View};
    use highwater_ranking::{FinalityClass, Minute, RankingConfig, WindowLengths, push_row};

    const RULE: ArrivalRule = ArrivalRule { arrival_ms: 1000, skew_max_ms: 50 };

    fn batch(views: &[(&str, u64)]) -> Bytes {
        let mut builder = BatchBuilder::new(100, 10_000);
        for &(video_id, timestamp_ms) in views {
            let view = View { video_id, timestamp_ms, user_id: "", region: "", device: "" };
            assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
        }
        builder.encode(ProducerId(1), Sequence(1)).slice(FRAME_HEADER_BYTES..)
    }

    fn judge(views: &[(&str, u64)], closed: Option<&ClosedShards<'_>>) -> (Admitted, Vec<(u32, u32, ViewRefusal)>) {
        let payload = batch(views);
        let mut all = Admitted::default();
        views.iter().for_each(|(video_id, _)| all.add(video_id.len()));
        let mut ranges = vec![RefusedRange { first: 7, count: 7, reason: ViewRefusal::TableFull }];
        let counted = judge_views(&Batch::decode(&payload).unwrap(), RULE, closed, all, &mut ranges);
        (counted, ranges.iter().map(|range| (range.first, range.count, range.reason)).collect())
    }

    #[test]
    fn views_up_to_the_skew_are_counted_and_later_ones_are_ranges() {
        let long = "x".repeat(16);
        assert_eq!(judge(&[("a", 0), (&long, 1050)], None), (Admitted { views: 2, long_id_bytes: 16 }, vec![]));
        let views = [("a", 1051), (&long, 1051), ("a", TIMESTAMP_MS_MAX + 1), ("b", 1050), ("a", TIMESTAMP_MS_MAX)];
        let expected = [
            (0, 2, ViewRefusal::FutureBeyondSkew),
            (2, 1, ViewRefusal::TimeOutOfRange),
            (4, 1, ViewRefusal::FutureBeyondSkew),
        ];
        assert_eq!(judge(&views, None), (Admitted { views: 1, long_id_bytes: 0 }, expected.to_vec()));
    }

    #[test]
    fn an_arrival_near_the_end_of_time_takes_no_view_beyond_it() {
        let rule = ArrivalRule { arrival_ms: u64::MAX - 1, skew_max_ms: 50 };
        assert_eq!(rule.refusal(TIMESTAMP_MS_MAX), None);
        assert_eq!(rule.refusal(u64::MAX), Some(ViewRefusal::TimeOutOfRange));
    }

    #[test]
    fn a_closed_shard_takes_known_ids_and_time_is_judged_first() {
        let hash = IdHash::new(3);
        let config = RankingConfig {
            shards_total: 1,
            owned: vec![0],
            hash_seed: 3,
            videos_per_shard_max: 8,
            id_arena_bytes_per_shard: 100,
            late_views_max: 8,
            top_k: 4,
            windows: WindowLengths::default(),
        };
        let mut ranking = CoreRanking::new(config, Minute(0)).unwrap();
        ranking.finish_restore();
        let mut cells = Vec::new();
        push_row(&mut cells, hash.hash("known"), Minute(0), FinalityClass::IN_HOUR, "known");
        ranking.apply(&cells);
        let views = [("known", 1), ("new", 1), ("new", 2000), ("known", 2000), ("known", 3)];
        let shards = |closed| ClosedShards { ranking: &ranking, hash, shards_total: 1, closed };
        let future = (2, 2, ViewRefusal::FutureBeyondSkew);
        assert_eq!(judge(&views, Some(&shards(vec![true]))).1, [(1, 1, ViewRefusal::TableFull), future]);
        assert_eq!(judge(&views, Some(&shards(vec![false]))).1, [future]);
    }
}
