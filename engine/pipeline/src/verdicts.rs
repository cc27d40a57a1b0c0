//! The verdict on each view of a batch, decided once, before the batch is appended.
//!
//! Replay never decides again: what is decided here is written into the record. Pure functions over a decoded batch.

use crate::notes::Amount;
use crate::ownership::Targets;
use crate::rows::{CountedViews, RowMaker};
use highwater_proto::limits::TIMESTAMP_MS_MAX;
use highwater_proto::{Batch, RefusedRange, ViewRefusal};
use highwater_ranking::cells_of;

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

/// What the rows of a batch are to one core.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) cells: usize,
    pub(crate) amount: Amount,
    /// What it could be at most, were some of its views refused: then each view is a row of its own.
    pub(crate) most: Amount,
}

/// Which ids of a batch a core knows: a bit for each of its views that this core would count, in their order.
pub(crate) type KnownIds = Vec<u64>;

/// The verdicts on a batch.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Refused views, ascending and in as few ranges as possible.
    pub(crate) ranges: Vec<RefusedRange>,
    /// Rows by the core that they go to.
    pub(crate) loads: Vec<Load>,
    rows: RowMaker,
}

impl Judged {
    /// Views counted, of so many.
    pub(crate) fn counted(&self, view_count: u32) -> u32 {
        view_count - self.ranges.iter().map(|range| range.count).sum::<u32>()
    }

    /// Judges all views of a batch. A core that has something in `known` takes no new ids: only those are counted.
    pub(crate) fn judge(
        &mut self,
        batch: &Batch<'_>,
        rule: ArrivalRule,
        targets: &Targets,
        known: &[Option<&KnownIds>],
    ) {
        self.ranges.clear();
        let (first, last) = batch.time_bounds();
        match (rule.refusal(first), rule.refusal(last)) {
            (None, None) if known.is_empty() => {}
            // Both bounds being refused alike, all between them are.
            (Some(reason), all) if all == Some(reason) => {
                self.ranges.push(RefusedRange { first: 0, count: batch.view_count(), reason });
            }
            _ => self.refuse_views(batch, rule, targets, known),
        }
        let Self { ranges, loads, rows } = self;
        loads.clear();
        loads.resize(targets.cores(), Load::default());
        let add = |row: CountedViews<'_>| loads[targets.core_of(row.video_id)].add(row);
        rows.rows(batch, ranges.iter().copied(), add);
    }

    /// Refuses view by view.
    fn refuse_views(&mut self, batch: &Batch<'_>, rule: ArrivalRule, targets: &Targets, known: &[Option<&KnownIds>]) {
        let mut asked = vec![0; targets.cores()];
        for (index, (video_id, timestamp_ms)) in batch.video_ids().zip(batch.timestamps()).enumerate() {
            let core = targets.core_of(video_id);
            let bit = asked[core];
            asked[core] += 1;
            let is_new = |bits: &KnownIds| bits[bit / 64] >> (bit % 64) & 1 == 0;
            let full = known.get(core).copied().flatten().is_some_and(is_new);
            if let Some(reason) = rule.refusal(timestamp_ms).or(full.then_some(ViewRefusal::TableFull)) {
                RefusedRange::push_view(&mut self.ranges, index as u32, reason);
            }
        }
    }
}

impl Load {
    fn add(&mut self, row: CountedViews<'_>) {
        let id_len = row.video_id.len();
        self.cells += cells_of(id_len);
        self.amount.add(id_len);
        self.most.add_rows(id_len, u64::from(row.views));
    }
}

/// The ids that `core` must be asked about: those of all views that it would count, in their order. The time of the
/// question plays no part, so the answer holds whenever the batch is judged.
pub(crate) fn ids_of_core<'b>(batch: &Batch<'b>, targets: &Targets, core: usize) -> impl Iterator<Item = &'b str> {
    batch.video_ids().filter(move |id| targets.core_of(id) == core)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use highwater_proto::{BatchBuilder, FRAME_HEADER_BYTES, ProducerId, Pushed, Sequence, View};
    use highwater_ranking::IdHash;

    const RULE: ArrivalRule = ArrivalRule { arrival_ms: 1000, skew_max_ms: 50 };

    fn encoded(views: &[(&str, u64)]) -> Bytes {
        let mut builder = BatchBuilder::new(8192, 1 << 20);
        for &(video_id, timestamp_ms) in views {
            let view = View { video_id, timestamp_ms, user_id: "", region: "", device: "" };
            assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
        }
        builder.encode(ProducerId(1), Sequence(1)).slice(FRAME_HEADER_BYTES..)
    }

    fn judge(views: &[(&str, u64)], cores: u16, known: &[Option<&KnownIds>]) -> Judged {
        let targets = Targets::new(IdHash::new(3), 8, cores);
        let mut judged = Judged::default();
        judged.judge(&Batch::decode(&encoded(views)).unwrap(), RULE, &targets, known);
        judged
    }

    fn ranges(judged: &Judged) -> Vec<(u32, u32, ViewRefusal)> {
        judged.ranges.iter().map(|range| (range.first, range.count, range.reason)).collect()
    }

    #[test]
    fn views_are_refused_by_their_time_alone() {
        let judged = judge(&[("a", 1050), ("a", 1051), ("a", u64::MAX), ("b", 1051), ("a", 0)], 1, &[]);
        let future = ViewRefusal::FutureBeyondSkew;
        assert_eq!(ranges(&judged), [(1, 1, future), (2, 1, ViewRefusal::TimeOutOfRange), (3, 1, future)]);
        assert_eq!(judged.counted(5), 2);
    }

    #[test]
    fn a_batch_that_is_refused_alike_has_one_range() {
        let known = vec![0];
        for (times, reason) in [
            ([1051, 5000, 1052], ViewRefusal::FutureBeyondSkew),
            ([u64::MAX, TIMESTAMP_MS_MAX + 1, u64::MAX], ViewRefusal::TimeOutOfRange),
        ] {
            for known in [&[][..], &[Some(&known)]] {
                let judged = judge(&times.map(|time| ("a", time)), 1, known);
                assert_eq!((ranges(&judged), judged.loads[0].cells), (vec![(0, 3, reason)], 0));
            }
        }
        let two = judge(&[("a", 1051), ("a", u64::MAX)], 1, &[]);
        assert_eq!(ranges(&two).len(), 2, "each for its own reason");
    }

    #[test]
    fn loads_are_what_the_rows_take_at_each_core() {
        let (long, ids) = ("x".repeat(80), (0..40).map(|index| format!("v{index}")).collect::<Vec<_>>());
        let views: Vec<(&str, u64)> = ids.iter().map(|id| (id.as_str(), 1)).chain([(long.as_str(), 1)]).collect();
        let (one, three) = (judge(&views, 1, &[]), judge(&views, 3, &[]));
        let amount = Amount { rows: 41, long_id_bytes: 80 };
        assert_eq!(one.loads, [Load { cells: 40 + 4, amount, most: amount }]);
        assert!(three.loads.iter().all(|load| load.amount.rows > 0), "{three:?}");
        assert_eq!(three.loads.iter().map(|load| load.cells).sum::<usize>(), 44);
        assert_eq!((three.counted(41), three.ranges.len()), (41, 0));
    }

    #[test]
    fn where_there_is_no_room_only_known_ids_are_counted() {
        let views = [("known", 1), ("new", 1), ("late", 2000), ("known", 3), ("new", 1)];
        let known = vec![0b01001];
        let judged = judge(&views, 1, &[Some(&known)]);
        let (full, future) = (ViewRefusal::TableFull, ViewRefusal::FutureBeyondSkew);
        assert_eq!(ranges(&judged), [(1, 1, full), (2, 1, future), (4, 1, full)]);
        assert_eq!(ranges(&judge(&views, 1, &[None])), [(2, 1, future)]);
        let targets = Targets::new(IdHash::new(3), 8, 1);
        let batch = encoded(&views);
        let asked: Vec<&str> = ids_of_core(&Batch::decode(&batch).unwrap(), &targets, 0).collect();
        assert_eq!(asked, ["known", "new", "late", "known", "new"]);
    }
}
