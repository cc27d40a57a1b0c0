//! From the durable log to the lanes and to the client: rows are pushed, then the batch is acknowledged.
//!
//! Records are taken in log order from the contiguous durable prefix. A batch's rows are in every lane before this
//! core's next marker, so the batch is visible in the next epoch; its acknowledgement says which.

use crate::intake::refused_total;
use crate::limits::TURN_VIEWS;
use crate::mesh::HOLD_NOT;
use crate::pipeline::{Pipeline, PipelineConfig};
use crate::rows::RowRule;
use highwater_proto::{Ack, Batch, ProducerId, RefusedRange, Sequence};
use highwater_storage::{LogPosition, RecordKind};

/// A record that was appended and whose rows are not pushed yet.
#[derive(Debug, Clone)]
pub(crate) struct Appended {
    /// Where it ends in the log.
    pub(crate) end: LogPosition,
    /// When it arrived.
    pub(crate) arrival_ms: u64,
    /// Cells reserved for it, by lane; empty if it has no rows.
    pub(crate) cells: Box<[u32]>,
}

/// A batch whose rows are pushed and which must be answered.
struct Settled {
    producer: ProducerId,
    sequence: Sequence,
    view_count: u32,
    /// The record's verdicts in full: of an earlier batch only so many are remembered.
    refused: Vec<RefusedRange>,
}

impl Pipeline {
    /// Pushes and acknowledges what has become durable; returns whether there was anything.
    pub(crate) fn settle(&mut self) -> bool {
        let mut worked = false;
        let mut views_left = TURN_VIEWS;
        // A full list of late rows is emptied by the next cut, a count that is nearly full goes down with time; until
        // then no more rows are sent to any core.
        while views_left > 0 && self.lanes.iter().all(|lane| lane.hold.read() == HOLD_NOT) {
            let Some(record) = self.log.next_durable() else { break };
            worked = true;
            let header = record.header;
            views_left = views_left.saturating_sub(header.view_count);
            if header.kind == RecordKind::Batch {
                let batch = Batch::decode(record.batch).expect("a batch is checked before it is appended");
                self.cells.iter_mut().for_each(Vec::clear);
                let PipelineConfig { calendar, lateness_max_ms, .. } = self.config;
                let rule = RowRule { targets: &self.targets, calendar, lateness_max_ms };
                self.stats.views_late +=
                    rule.push_rows(&mut self.rows, &mut self.cells, &batch, record.verdicts.iter(), header.arrival_ms);
                let loaded = self.lanes.iter_mut().zip(&self.cells).filter(|(_, cells)| !cells.is_empty());
                loaded.for_each(|(lane, cells)| lane.push(cells));
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
            for (lane, cells) in self.lanes.iter_mut().zip(&one.cells) {
                lane.reserved -= *cells as usize;
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
        let visible_epoch = self.marked.next();
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
