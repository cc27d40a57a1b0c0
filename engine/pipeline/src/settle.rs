//! From the durable log to the lanes and to the client: rows are pushed, then the batch is acknowledged.
//!
//! Records are taken in log order from the contiguous durable prefix. A batch's rows are in every lane before this
//! core's next marker, so the batch is visible in the next epoch; its acknowledgement says which.

use crate::intake::refused_total;
use crate::limits::TURN_VIEWS;
use crate::pipeline::{LaneOut, Pipeline};
use highwater_proto::{Ack, Batch, ProducerId, RefusedRange, Sequence};
use highwater_ranking::{Cell, FinalityClass, IdHash, Minute, push_row};
use highwater_storage::{LogPosition, RecordKind};

/// A record that was appended and whose rows are not pushed yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Appended {
    /// Where it ends in the log.
    pub(crate) end: LogPosition,
    /// When it arrived.
    pub(crate) arrival_ms: u64,
    /// Cells reserved for it in every lane.
    pub(crate) cells: usize,
}

/// A batch whose rows are pushed and which must be answered.
struct Settled {
    producer: ProducerId,
    sequence: Sequence,
    view_count: u32,
    /// The record's verdicts in full: of an earlier batch only so many are remembered.
    refused: Vec<RefusedRange>,
}

/// How rows are made of views.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowRule {
    pub(crate) hash: IdHash,
    pub(crate) lateness_max_ms: u64,
}

impl RowRule {
    /// Appends the rows of the counted views of a batch; returns how many came after the finality of their hour.
    pub(crate) fn push_rows(
        &self,
        cells: &mut Vec<Cell>,
        batch: &Batch<'_>,
        refused: impl Iterator<Item = RefusedRange>,
        arrival_ms: u64,
    ) -> u64 {
        let mut late = 0;
        for (video_id, timestamp_ms) in counted_views(batch, refused) {
            let class = FinalityClass::of(timestamp_ms, arrival_ms, self.lateness_max_ms);
            late += u64::from(class != FinalityClass::IN_HOUR);
            push_row(cells, self.hash.hash(video_id), Minute::of_ms(timestamp_ms), class, video_id);
        }
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

impl Pipeline {
    /// Pushes and acknowledges what has become durable; returns whether there was anything.
    pub(crate) fn settle(&mut self) -> bool {
        let rule = RowRule { hash: self.config.hash, lateness_max_ms: self.config.lateness_max_ms };
        let mut worked = false;
        // A full table of late views is emptied by the next cut; until then no more rows are sent to it.
        let mut views_left = TURN_VIEWS;
        while views_left > 0 && !self.counting.ranking.late_hard_full() {
            let Some(record) = self.log.next_durable() else { break };
            worked = true;
            let header = record.header;
            views_left = views_left.saturating_sub(header.view_count);
            if header.kind == RecordKind::Batch {
                let batch = Batch::decode(record.batch).expect("a batch is checked before it is appended");
                self.cells.clear();
                self.stats.views_late +=
                    rule.push_rows(&mut self.cells, &batch, record.verdicts.iter(), header.arrival_ms);
                push_all(&mut self.lanes, &self.cells);
            }
            let (end, refused) = (record.end, record.verdicts.iter().collect());
            self.pushed = end;
            self.settled_up_to(end);
            match header.kind {
                RecordKind::Batch => self.acknowledge(Settled {
                    producer: header.producer,
                    sequence: header.sequence,
                    view_count: header.view_count,
                    refused,
                }),
                RecordKind::ProducerNew => self.registered(header.producer),
                RecordKind::Prefix => {}
            }
        }
        worked
    }

    /// Gives back what the record that ends here had reserved.
    fn settled_up_to(&mut self, end: LogPosition) {
        while let Some(one) = self.appended.pop_front_if(|one| one.end <= end) {
            for lane in &mut self.lanes {
                lane.reserved -= one.cells;
            }
        }
    }

    fn registered(&mut self, producer: ProducerId) {
        if let Some(entry) = self.producers.get_mut(producer) {
            entry.registered = true;
        }
        self.welcome_if_settled(producer);
    }

    fn acknowledge(&mut self, settled: Settled) {
        let visible_epoch = self.markers.next_epoch();
        let Some(entry) = self.producers.get_mut(settled.producer) else { return };
        entry.settled = settled.sequence;
        let session = entry.session;
        let Some(original) = entry.recall(settled.sequence).cloned() else { return };
        let retried = entry.retries.iter().position(|one| *one == settled.sequence);
        if let Some(index) = retried {
            entry.retries.swap_remove(index);
        }
        self.stats.batches_counted += 1;
        self.stats.views_received += u64::from(settled.view_count);
        self.stats.views_counted += u64::from(original.counted);
        self.count_refused(&settled.refused);
        debug_assert_eq!(u64::from(settled.view_count), u64::from(original.counted) + refused_total(&settled.refused));
        if let Some(session) = session {
            let ack = Ack {
                sequence: settled.sequence,
                visible_epoch,
                counted: original.counted,
                duplicate: 0,
                refused: settled.refused,
                detail_complete: true,
            };
            self.send_ack(session, &ack);
            if retried.is_some() {
                self.acknowledge_retry(session, &original);
            }
        }
        self.welcome_if_settled(settled.producer);
    }
}

/// Pushes rows into the lane of the core that owns their shard; the room was reserved before the append.
fn push_all(lanes: &mut [LaneOut], cells: &[Cell]) {
    for lane in lanes {
        lane.sender.push(cells).expect("room in the lanes is reserved before the append");
    }
}
