//! The log of one core: writing groups of records, and reading them back after a start.
//!
//! Not the files' making and recycling, which is the store's. Invariant: what is read back is exactly the contiguous
//! prefix of records that were written, or start is refused.

mod device;
mod scan;
mod verify;
mod writer;

pub use device::{GroupWrite, GroupWritten, LogDevice, PreparedSegment, SegmentHandle};
pub use scan::{GenerationScan, LogEnd, scan_generation};
pub(crate) use scan::{SegmentScan, SegmentScanned, refuse_lost_records, scan_segment};
pub(crate) use verify::{SegmentOwed, torn_tail, verify_segment};
pub use writer::{AppendRoom, DurableRecord, LogLimits, LogWriter};

use crate::producers::OwnerId;
use crate::record::{RecordKind, owner_of};

impl DurableRecord<'_> {
    /// Who a new producer belongs to; `None` where it has no owner, and for records of other kinds.
    #[must_use]
    pub fn owner(&self) -> Option<OwnerId> {
        if self.header.kind == RecordKind::ProducerNew { owner_of(self.batch) } else { None }
    }
}
