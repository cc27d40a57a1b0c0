//! The producer table as a cut file keeps it.
//!
//! Not the live table, which is the pipeline's. Invariant: one image holds exactly what the records up to the cut's
//! positions say, so replaying the records beyond them gives the live table again.

use highwater_proto::{IN_FLIGHT_BATCHES_MAX, ProducerId, RefusedRange, Sequence, ViewRefusal};

use crate::codec::{PutLe, TakeLe};

/// Most refused ranges kept for one batch; beyond it only totals by reason are.
pub const KEPT_RANGES_MAX: usize = 16;
/// Most batches kept for one producer.
pub const KEPT_BATCHES_MAX: usize = IN_FLIGHT_BATCHES_MAX as usize;

/// What is kept of one accepted batch, so that a retry can be told from a forgery and answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchVerdict {
    /// The batch's sequence.
    pub sequence: Sequence,
    /// The batch's checksum.
    pub crc32c: u32,
    /// Views counted.
    pub counted: u32,
    /// Views refused: ranges when `complete`, else one entry per reason with `first` = `u32::MAX`.
    pub refused: Vec<RefusedRange>,
    /// Whether `refused` says which views.
    pub complete: bool,
}

/// Who a producer belongs to: a digest of the name of the identity that made it; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerId(pub u128);

/// Length of an owner in a record, in bytes.
pub const OWNER_BYTES: usize = size_of::<u128>();

impl OwnerId {
    /// The owner of a stored number; 0 is nobody.
    pub(crate) fn from_stored(stored: u128) -> Option<Self> {
        (stored != 0).then_some(Self(stored))
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerImage {
    /// The producer.
    pub id: ProducerId,
    /// Who made it; `None` where nobody said who they were.
    pub owner: Option<OwnerId>,
    /// Its last accepted sequence, 0 before the first.
    pub last: Sequence,
    /// When it was last heard of, in ms UTC.
    pub last_seen_ms: u64,
    /// Its last batches, ascending, at most [`KEPT_BATCHES_MAX`].
    pub entries: Vec<BatchVerdict>,
}

/// All producers of one or more cores.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerTableImage {
    /// The producers, in any order.
    pub producers: Vec<ProducerImage>,
}

impl ProducerImage {
    /// Appends the producer.
    ///
    /// # Panics
    /// When there are more batches or ranges than are kept.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.entries.len() <= KEPT_BATCHES_MAX, "{} batches of one producer are kept", self.entries.len());
        out.put_u128(self.id.0);
        out.put_u128(self.owner.map_or(0, |owner| owner.0));
        out.put_u64(self.last.0);
        out.put_u64(self.last_seen_ms);
        out.put_u8(self.entries.len() as u8);
        for entry in &self.entries {
            assert!(entry.refused.len() <= KEPT_RANGES_MAX, "{} ranges of one batch are kept", entry.refused.len());
            out.put_u64(entry.sequence.0);
            out.put_u32(entry.crc32c);
            out.put_u32(entry.counted);
            out.put_u8(u8::from(entry.complete));
            out.put_u8(entry.refused.len() as u8);
            for range in &entry.refused {
                out.put_u32(range.first);
                out.put_u32(range.count);
                out.put_u8(range.reason.code());
            }
        }
    }

    /// Reads a producer as a file of that version holds it; before version 2 nobody owned one.
    pub(crate) fn decode(reader: &mut TakeLe<'_>, version: u32) -> Option<Self> {
        let id = ProducerId(reader.u128()?);
        let owner = if version < 2 { None } else { OwnerId::from_stored(reader.u128()?) };
        let last = Sequence(reader.u64()?);
        let last_seen_ms = reader.u64()?;
        let entry_count = usize::from(reader.u8()?);
        if entry_count > KEPT_BATCHES_MAX {
            return None;
        }
        let entries = (0..entry_count).map(|_| decode_entry(reader)).collect::<Option<Vec<_>>>()?;
        Some(Self { id, owner, last, last_seen_ms, entries })
    }
}

fn decode_entry(reader: &mut TakeLe<'_>) -> Option<BatchVerdict> {
    let sequence = Sequence(reader.u64()?);
    let crc32c = reader.u32()?;
    let counted = reader.u32()?;
    let complete = match reader.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let range_count = usize::from(reader.u8()?);
    if range_count > KEPT_RANGES_MAX {
        return None;
    }
    let decode_range = |reader: &mut TakeLe<'_>| {
        let (first, count) = (reader.u32()?, reader.u32()?);
        Some(RefusedRange { first, count, reason: ViewRefusal::from_code(reader.u8()?)? })
    };
    let refused = (0..range_count).map(|_| decode_range(reader)).collect::<Option<Vec<_>>>()?;
    Some(BatchVerdict { sequence, crc32c, counted, refused, complete })
}
