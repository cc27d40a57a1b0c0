//! The rows of a batch: which videos are counted, how often, and at what time.
//!
//! Where the client says which strings are equal (a dictionary of video ids) and all views are of one minute and
//! counted, a row is all views of an entry: one hash and one counter line for as many views. Otherwise it is one view.
//! Invariant: the rows of a batch depend on its bytes and its refused ranges only, so what was reserved for them is
//! what they take, and a replay makes the same.

use crate::ownership::Targets;
use highwater_proto::{Batch, RefusedRange};
use highwater_ranking::{Calendar, Cell, FinalityClass, Minute, Row, push_row};

/// Makes rows of batches.
#[derive(Debug, Default)]
pub(crate) struct RowMaker {
    /// Views of each entry of the dictionary at hand.
    uses: Vec<u16>,
}

/// Counted views of one video, at a time that stands for all of them: they are of one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CountedViews<'b> {
    pub(crate) video_id: &'b str,
    pub(crate) timestamp_ms: u64,
    pub(crate) views: u32,
}

impl RowMaker {
    /// Hands out the rows of a batch in order; the refused ranges ascend.
    pub(crate) fn rows<'b>(
        &mut self,
        batch: &Batch<'b>,
        refused: impl Iterator<Item = RefusedRange>,
        mut row: impl FnMut(CountedViews<'b>),
    ) {
        let mut refused = refused.peekable();
        let (first_ms, last_ms) = batch.time_bounds();
        if let Some(dictionary) = batch.video_dictionary()
            && refused.peek().is_none()
            && Minute::of_ms(first_ms) == Minute::of_ms(last_ms)
        {
            dictionary.count_uses(&mut self.uses);
            for (video_id, views) in dictionary.entries().zip(&self.uses).filter(|(_, views)| **views > 0) {
                row(CountedViews { video_id, timestamp_ms: first_ms, views: u32::from(*views) });
            }
            return;
        }
        for (video_id, timestamp_ms) in counted_views(batch, refused) {
            row(CountedViews { video_id, timestamp_ms, views: 1 });
        }
    }
}

/// How rows are made into cells, and where they go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRule<'a> {
    pub(crate) targets: &'a Targets,
    pub(crate) calendar: Calendar,
    pub(crate) lateness_max_ms: u64,
}

impl RowRule<'_> {
    /// Appends the rows of a batch to the cells of the cores that count them; returns how many views came after the
    /// finality of their hour.
    pub(crate) fn push_rows(
        &self,
        maker: &mut RowMaker,
        cells: &mut [Vec<Cell>],
        batch: &Batch<'_>,
        refused: impl Iterator<Item = RefusedRange>,
        arrival_ms: u64,
    ) -> u64 {
        let mut late = 0;
        maker.rows(batch, refused, |CountedViews { video_id, timestamp_ms, views }| {
            let class = self.calendar.class_of(timestamp_ms, arrival_ms, self.lateness_max_ms);
            late += u64::from(views) * u64::from(class != FinalityClass::IN_HOUR);
            let hash = self.targets.hash().hash(video_id);
            let cells = &mut cells[self.targets.core_of_hash(hash)];
            push_row(cells, Row { hash, minute: Minute::of_ms(timestamp_ms), class, views }, video_id);
        });
        late
    }
}

/// Id and time of each view of a batch that no range refuses; the ranges ascend.
pub(crate) fn counted_views<'b>(
    batch: &Batch<'b>,
    refused: impl Iterator<Item = RefusedRange>,
) -> impl Iterator<Item = (&'b str, u64)> {
    let mut refused = refused.peekable();
    batch.video_ids().zip(batch.timestamps()).enumerate().filter_map(move |(index, view)| {
        let index = index as u32;
        while refused.next_if(|range| range.end() <= index).is_some() {}
        let is_refused = refused.peek().is_some_and(|range| range.first <= index);
        (!is_refused).then_some(view)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use highwater_proto::{
        BATCH_BYTES_MAX, BatchBuilder, ENCODINGS, FRAME_HEADER_BYTES, ProducerId, Pushed, Sequence, View, ViewRefusal,
    };

    fn encoded(views: &[(&str, u64)], encodings: u32) -> Bytes {
        let mut builder = BatchBuilder::new(8192, BATCH_BYTES_MAX as u32).with_encodings(encodings);
        for &(video_id, timestamp_ms) in views {
            let view = View { video_id, timestamp_ms, user_id: "", region: "", device: "" };
            assert_eq!(builder.push(&view).unwrap(), Pushed::Added);
        }
        builder.encode(ProducerId(1), Sequence(1)).slice(FRAME_HEADER_BYTES..)
    }

    /// Ids, minutes and views of the rows, one for each, in order.
    fn rows(payload: &Bytes, refused: &[RefusedRange]) -> Vec<(String, u64, u32)> {
        let mut rows = Vec::new();
        RowMaker::default().rows(&Batch::decode(payload).unwrap(), refused.iter().copied(), |row| {
            rows.push((row.video_id.to_owned(), row.timestamp_ms / 60_000, row.views));
        });
        rows
    }

    /// Views by id and minute.
    fn counted(rows: &[(String, u64, u32)]) -> std::collections::BTreeMap<(String, u64), u32> {
        let mut counted = std::collections::BTreeMap::new();
        rows.iter().for_each(|(id, minute, views)| *counted.entry((id.clone(), *minute)).or_default() += views);
        counted
    }

    #[test]
    fn equal_ids_of_one_minute_are_one_row_where_the_client_says_so() {
        let ids = ["a", "b", "an-id-of-many-bytes"];
        let views: Vec<_> = (0..300).map(|view| (ids[view % 3], 59_000 + view as u64)).collect();
        let (compact, plain) = (encoded(&views, ENCODINGS), encoded(&views, 0));
        assert!(compact.len() < plain.len());
        let combined: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), 0, 100)).collect();
        assert_eq!(rows(&compact, &[]), combined);
        assert_eq!(rows(&plain, &[]).len(), 300);
        assert_eq!(counted(&rows(&plain, &[])), counted(&combined));
    }

    #[test]
    fn views_of_two_minutes_or_refused_in_part_are_rows_of_their_own() {
        let ids = ["a", "b"];
        let across: Vec<_> = (0..100).map(|view| (ids[view % 2], 59_950 + view as u64)).collect();
        let refused = RefusedRange { first: 10, count: 5, reason: ViewRefusal::TableFull };
        for (views, refused, rows_made) in [(&across, vec![], 100), (&across[..50].to_vec(), vec![refused], 45)] {
            let (compact, plain) = (encoded(views, ENCODINGS), encoded(views, 0));
            let made = rows(&compact, &refused);
            assert_eq!((made.len(), made.iter().all(|row| row.2 == 1)), (rows_made, true));
            assert_eq!(counted(&made), counted(&rows(&plain, &refused)));
        }
    }
}
