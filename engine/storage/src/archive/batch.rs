//! One batch of the log as it is read back, from the archive or from a segment that is still there.
//!
//! Not a judge: the verdicts are those of the record. Invariant: the views handed out are exactly those that were
//! accepted.

use highwater_proto::{Batch, ProducerId, RefusedRange, Sequence, View, Views};

use crate::position::{LogNumber, LogPosition};
use crate::record::Verdicts;

/// An acknowledged batch with its verdicts.
#[derive(Clone, Copy, Debug)]
pub struct ArchivedBatch<'a> {
    /// The log it was appended to.
    pub log: LogNumber,
    /// Behind its record, as cuts count positions.
    pub position: LogPosition,
    /// Engine wall clock when it arrived, in ms UTC since 1970.
    pub arrival_ms: u64,
    /// Who sent it.
    pub producer: ProducerId,
    /// Its number.
    pub sequence: Sequence,
    /// Version of the wire protocol that its checksum covers.
    pub wire_version: u16,
    /// All its views, refused ones included.
    pub batch: Batch<'a>,
    /// The batch as it came over the wire.
    pub bytes: &'a [u8],
    pub(super) verdicts: Verdicts<'a>,
}

impl<'a> ArchivedBatch<'a> {
    /// The ranges of refused views, ascending.
    pub fn refused(&self) -> impl ExactSizeIterator<Item = RefusedRange> + use<'a> {
        self.verdicts.iter()
    }

    /// How many views were accepted.
    #[must_use]
    pub fn accepted_count(&self) -> u32 {
        self.batch.view_count() - self.refused().map(|range| range.count).sum::<u32>()
    }

    /// The accepted views with all fields, in order.
    #[must_use]
    pub fn accepted(&self) -> AcceptedViews<'a> {
        AcceptedViews { views: self.batch.views(), index: 0, verdicts: self.verdicts, range: 0 }
    }
}

/// The accepted views of a batch.
#[derive(Clone, Debug)]
pub struct AcceptedViews<'a> {
    views: Views<'a>,
    /// Of the next view.
    index: u32,
    verdicts: Verdicts<'a>,
    /// The first refused range that does not end before it.
    range: usize,
}

impl<'a> Iterator for AcceptedViews<'a> {
    type Item = View<'a>;

    fn next(&mut self) -> Option<View<'a>> {
        loop {
            let view = self.views.next()?;
            let index = self.index;
            self.index += 1;
            let Some(refused) = self.verdicts.range(self.range) else { return Some(view) };
            if index + 1 == refused.first + refused.count {
                self.range += 1;
            }
            if index < refused.first {
                return Some(view);
            }
        }
    }
}
