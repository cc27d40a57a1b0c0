//! Log records: the 128-byte header with its own checksum, the batch as it came over the wire, and the verdicts.
//!
//! Not the grouping of records into writes and not the search after a crash. Invariant: a header verifies only at the
//! directory, log, generation, segment and offset it was written for, so a stale record in a recycled file never does;
//! content is covered by the producer's own checksum, verdicts by theirs, whose value the header holds.
//!
//! ```text
//!   0 magic u32          4 header CRC32C u32 (over bytes 8..128)
//!   8 directory u128    24 log u32               28 generation u32
//!  32 segment u64       40 offset u64            48 length u32 (whole record, multiple of 8)
//!  52 kind u8           53 format u8, below     54 wire version u16
//!  56 producer u128     72 sequence u64          80 arrival_ms u64
//!  88 durable_prefix u64 (logical end of the last record known durable when this one was submitted)
//!  96 batch_crc u32    100 batch_len u32        104 verdicts_len u32   108 verdicts_crc u32
//! 112 view_count u32   116 refused_count u32    120 previous_end u64 (logical end of the record before this one)
//! 128 batch, then verdicts of 12 bytes (first u32, count u32, reason u8, three zero bytes), zeros to a multiple of 8
//! ```
//!
//! A new producer's record is of format 2 when somebody owns it: its body of 16 bytes, in the place of a batch, is the
//! owner, and the batch's checksum is that of these bytes. A batch's record is of format 3, since its columns may be
//! compact, or of format 1 from an engine that took plain ones only. All other records are of format 1.

use highwater_proto::{PROTOCOL_VERSION, ProducerId, RefusedRange, Sequence, ViewRefusal};

use crate::position::{DirectoryId, LogIdentity, LogNumber, RecordPlace, SegmentNumber};
use crate::producers::OwnerId;

/// Length of a record header in bytes.
pub const RECORD_HEADER_BYTES: usize = 128;
/// Length of one verdict in bytes.
pub const VERDICT_BYTES: usize = 12;
/// Most bytes of verdicts that one record can hold: every view a range of its own.
pub const VERDICTS_BYTES_MAX: usize = highwater_proto::BATCH_VIEWS_MAX as usize * VERDICT_BYTES;
/// Most bytes of one record.
pub const RECORD_BYTES_MAX: usize = record_bytes(highwater_proto::BATCH_BYTES_MAX, VERDICTS_BYTES_MAX);

const MAGIC: u32 = u32::from_le_bytes(*b"HwR\x01");
const FORMAT: u8 = 1;
const FORMAT_OWNED: u8 = 2;
const FORMAT_COMPACT: u8 = 3;
const FORMAT_MAX: u8 = FORMAT_COMPACT;

/// Bytes of a record with a batch and verdicts of these lengths.
#[must_use]
pub(crate) const fn record_bytes(batch_len: usize, verdicts_len: usize) -> usize {
    (RECORD_HEADER_BYTES + batch_len + verdicts_len).next_multiple_of(8)
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// An accepted batch with its verdicts.
    Batch = 1,
    /// A producer said `new`; its sequence is 0.
    ProducerNew = 2,
    /// Nothing but the statement how far the log is durable.
    Prefix = 3,
}

impl RecordKind {
    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Batch),
            2 => Some(Self::ProducerNew),
            3 => Some(Self::Prefix),
            _ => None,
        }
    }
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Where the record lies.
    pub place: RecordPlace,
    /// Whole record in bytes, header and padding included.
    pub length: u32,
    /// What it is about.
    pub kind: RecordKind,
    /// Version of the wire protocol that the batch checksum covers.
    pub wire_version: u16,
    /// The producer; zero in a prefix record.
    pub producer: ProducerId,
    /// The batch's sequence; zero in other records.
    pub sequence: Sequence,
    /// Engine wall clock when the batch arrived, in ms UTC since 1970.
    pub arrival_ms: u64,
    /// Logical end, in the same generation, of the last record known durable when this one was submitted.
    pub durable_prefix: u64,
    /// The batch's own checksum.
    pub batch_crc: u32,
    /// Bytes of the batch, or of a new producer's owner.
    pub batch_len: u32,
    /// Bytes of the verdicts.
    pub verdicts_len: u32,
    /// CRC32C of the verdicts.
    pub verdicts_crc: u32,
    /// Views in the batch, refused ones included.
    pub view_count: u32,
    /// Refused views in the batch.
    pub refused_count: u32,
    /// Logical end, in the same generation, of the record before this one; 0 for the first.
    pub previous_end: u64,
}

impl RecordHeader {
    /// Writes the header without prefix and checksum; [`seal`] adds those.
    pub(crate) fn write(&self, out: &mut [u8]) {
        let identity = &self.place.identity;
        put(out, 0, &MAGIC.to_le_bytes());
        put(out, 4, &[0; 4]);
        put(out, 8, &identity.directory.0.to_le_bytes());
        put(out, 24, &identity.log.0.to_le_bytes());
        put(out, 28, &identity.generation.to_le_bytes());
        put(out, 32, &self.place.segment.0.to_le_bytes());
        put(out, 40, &self.place.offset.to_le_bytes());
        put(out, 48, &self.length.to_le_bytes());
        put(out, 52, &[self.kind as u8, self.format()]);
        put(out, 54, &self.wire_version.to_le_bytes());
        put(out, 56, &self.producer.0.to_le_bytes());
        put(out, 72, &self.sequence.0.to_le_bytes());
        put(out, 80, &self.arrival_ms.to_le_bytes());
        put(out, 88, &self.durable_prefix.to_le_bytes());
        put(out, 96, &self.batch_crc.to_le_bytes());
        put(out, 100, &self.batch_len.to_le_bytes());
        put(out, 104, &self.verdicts_len.to_le_bytes());
        put(out, 108, &self.verdicts_crc.to_le_bytes());
        put(out, 112, &self.view_count.to_le_bytes());
        put(out, 116, &self.refused_count.to_le_bytes());
        put(out, 120, &self.previous_end.to_le_bytes());
    }

    /// Reads a header without looking at its checksum or place: for bytes this process wrote.
    ///
    /// `None` when magic, format, kind or the lengths make no sense together.
    pub(crate) fn read(bytes: &[u8; RECORD_HEADER_BYTES]) -> Option<Self> {
        if u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let header = Self {
            place: RecordPlace {
                identity: LogIdentity {
                    directory: DirectoryId(u128_at(bytes, 8)),
                    log: LogNumber(u32_at(bytes, 24)),
                    generation: u32_at(bytes, 28),
                },
                segment: SegmentNumber(u64_at(bytes, 32)),
                offset: u64_at(bytes, 40),
            },
            length: u32_at(bytes, 48),
            kind: RecordKind::from_code(bytes[52])?,
            wire_version: u16::from_le_bytes([bytes[54], bytes[55]]),
            producer: ProducerId(u128_at(bytes, 56)),
            sequence: Sequence(u64_at(bytes, 72)),
            arrival_ms: u64_at(bytes, 80),
            durable_prefix: u64_at(bytes, 88),
            batch_crc: u32_at(bytes, 96),
            batch_len: u32_at(bytes, 100),
            verdicts_len: u32_at(bytes, 104),
            verdicts_crc: u32_at(bytes, 108),
            view_count: u32_at(bytes, 112),
            refused_count: u32_at(bytes, 116),
            previous_end: u64_at(bytes, 120),
        };
        let batch_len = header.batch_len as usize;
        let verdicts_len = header.verdicts_len as usize;
        let lengths_fit = batch_len <= highwater_proto::BATCH_BYTES_MAX
            && verdicts_len <= VERDICTS_BYTES_MAX
            && verdicts_len.is_multiple_of(VERDICT_BYTES)
            && header.length as usize == record_bytes(batch_len, verdicts_len);
        let is_plain_batch = header.kind == RecordKind::Batch && bytes[53] == FORMAT;
        (lengths_fit && (bytes[53] == header.format() || is_plain_batch)).then_some(header)
    }

    /// Reads a header and believes it only at `place` and with its checksum right.
    pub(crate) fn verify(bytes: &[u8; RECORD_HEADER_BYTES], place: &RecordPlace) -> Option<Self> {
        if u32_at(bytes, 0) != MAGIC || u32_at(bytes, 4) != crc32c::crc32c(&bytes[8..]) {
            return None;
        }
        Self::read(bytes).filter(|header| header.place == *place)
    }

    /// The versions found and known, when a newer engine wrote a record here: checksum and place are right, and format
    /// or wire version is beyond what is known. So that this can be told, all formats keep the first 56 bytes, and the
    /// checksum over bytes 8 to 128, as they are; and a new kind of record is a new format.
    pub(crate) fn newer(bytes: &[u8; RECORD_HEADER_BYTES], place: &RecordPlace) -> Option<(u32, u32)> {
        let identity = &place.identity;
        let is_here = u32_at(bytes, 0) == MAGIC
            && u128_at(bytes, 8) == identity.directory.0
            && (u32_at(bytes, 24), u32_at(bytes, 28)) == (identity.log.0, identity.generation)
            && (u64_at(bytes, 32), u64_at(bytes, 40)) == (place.segment.0, place.offset);
        let wire_version = u16::from_le_bytes([bytes[54], bytes[55]]);
        let newer = match (bytes[53], wire_version) {
            (format, _) if format > FORMAT_MAX => (u32::from(format), u32::from(FORMAT_MAX)),
            (_, version) if version > PROTOCOL_VERSION => (u32::from(version), u32::from(PROTOCOL_VERSION)),
            _ => return None,
        };
        (is_here && u32_at(bytes, 4) == crc32c::crc32c(&bytes[8..])).then_some(newer)
    }

    /// What only a newer engine can read is of another format.
    const fn format(&self) -> u8 {
        match self.kind {
            RecordKind::ProducerNew if self.batch_len > 0 => FORMAT_OWNED,
            RecordKind::Batch => FORMAT_COMPACT,
            _ => FORMAT,
        }
    }

    /// The batch within the whole record's bytes, or the owner of a new producer.
    pub(crate) fn batch<'a>(&self, record: &'a [u8]) -> &'a [u8] {
        &record[RECORD_HEADER_BYTES..][..self.batch_len as usize]
    }

    /// The verdicts within the whole record's bytes.
    pub(crate) fn verdicts<'a>(&self, record: &'a [u8]) -> Verdicts<'a> {
        let start = RECORD_HEADER_BYTES + self.batch_len as usize;
        Verdicts { bytes: &record[start..][..self.verdicts_len as usize] }
    }

    /// Whether the body is what the header promises: verdicts checksum and form, padding, and for a batch the
    /// producer's checksum over content, producer and sequence.
    pub(crate) fn body_is_valid(&self, record: &[u8]) -> bool {
        let verdicts = self.verdicts(record);
        let body_end = RECORD_HEADER_BYTES + self.batch_len as usize + self.verdicts_len as usize;
        if crc32c::crc32c(verdicts.bytes) != self.verdicts_crc
            || !verdicts.are_valid(self.view_count, self.refused_count)
            || record[body_end..].iter().any(|byte| *byte != 0)
        {
            return false;
        }
        match self.kind {
            RecordKind::Batch => self.batch_is_valid(self.batch(record)),
            RecordKind::ProducerNew if self.batch_len > 0 => {
                let owner = self.batch(record);
                self.view_count == 0 && owner_of(owner).is_some() && crc32c::crc32c(owner) == self.batch_crc
            }
            RecordKind::ProducerNew | RecordKind::Prefix => self.batch_len == 0 && self.view_count == 0,
        }
    }

    fn batch_is_valid(&self, payload: &[u8]) -> bool {
        highwater_proto::Batch::verify(payload, self.wire_version, self.producer).is_ok()
            && highwater_proto::Batch::decode(payload).is_ok_and(|batch| {
                batch.crc() == self.batch_crc
                    && batch.sequence() == self.sequence
                    && batch.view_count() == self.view_count
            })
    }
}

/// Adds the durable prefix and the checksum to a written header.
pub(crate) fn seal(header: &mut [u8], durable_prefix: u64) {
    put(header, 88, &durable_prefix.to_le_bytes());
    let crc = crc32c::crc32c(&header[8..RECORD_HEADER_BYTES]);
    put(header, 4, &crc.to_le_bytes());
}

/// Length of the record whose header starts `bytes`.
pub(crate) fn peek_length(bytes: &[u8]) -> usize {
    u32_at(bytes, 48) as usize
}

/// What a caller knows of a record; the log adds the rest of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    /// What the record is about.
    pub kind: RecordKind,
    /// The producer.
    pub producer: ProducerId,
    /// The batch's sequence; 0 when the record is no batch.
    pub sequence: Sequence,
    /// Engine wall clock when the batch arrived, in ms UTC since 1970.
    pub arrival_ms: u64,
    /// The batch's own checksum; 0 when the record is no batch.
    pub batch_crc: u32,
    /// Views in the batch, refused ones included.
    pub view_count: u32,
}

impl RecordMeta {
    /// A producer that said `new`, with the body that states its owner, or none.
    pub(crate) fn producer_new(producer: ProducerId, owner: &[u8], arrival_ms: u64) -> Self {
        let (kind, batch_crc) = (RecordKind::ProducerNew, crc32c::crc32c(owner));
        Self { kind, producer, sequence: Sequence(0), arrival_ms, batch_crc, view_count: 0 }
    }

    /// The header of this record at `place`, with its body's figures.
    pub(crate) fn header(&self, place: RecordPlace, previous_end: u64, body: &BodyFigures) -> RecordHeader {
        RecordHeader {
            place,
            length: record_bytes(body.batch_len, body.verdicts_len) as u32,
            kind: self.kind,
            wire_version: PROTOCOL_VERSION,
            producer: self.producer,
            sequence: self.sequence,
            arrival_ms: self.arrival_ms,
            durable_prefix: 0,
            batch_crc: self.batch_crc,
            batch_len: body.batch_len as u32,
            verdicts_len: body.verdicts_len as u32,
            verdicts_crc: body.verdicts_crc,
            view_count: self.view_count,
            refused_count: body.refused_count,
            previous_end,
        }
    }
}

/// What the header says of its body.
pub(crate) struct BodyFigures {
    pub(crate) batch_len: usize,
    pub(crate) verdicts_len: usize,
    pub(crate) verdicts_crc: u32,
    pub(crate) refused_count: u32,
}

/// Writes verdicts to the start of `out`, which must hold 12 bytes for each; returns length, checksum and refused
/// views.
pub(crate) fn write_verdicts(out: &mut [u8], ranges: &[RefusedRange]) -> (usize, u32, u32) {
    let mut refused_count = 0;
    for (chunk, range) in out.chunks_exact_mut(VERDICT_BYTES).zip(ranges) {
        chunk[0..4].copy_from_slice(&range.first.to_le_bytes());
        chunk[4..8].copy_from_slice(&range.count.to_le_bytes());
        chunk[8..12].copy_from_slice(&[range.reason.code(), 0, 0, 0]);
        refused_count += range.count;
    }
    let len = ranges.len() * VERDICT_BYTES;
    (len, crc32c::crc32c(&out[..len]), refused_count)
}

/// The refused ranges of one record, in its own bytes.
#[derive(Clone, Copy, Debug)]
pub struct Verdicts<'a> {
    bytes: &'a [u8],
}

impl<'a> Verdicts<'a> {
    /// Whether every view was accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Ranges of refused views.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() / VERDICT_BYTES
    }

    /// The ranges in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RefusedRange> + use<'a> {
        self.bytes
            .chunks_exact(VERDICT_BYTES)
            .map(|chunk| decode_verdict(chunk).expect("verdicts are checked before they are handed out"))
    }

    /// The range with this number.
    pub(crate) fn range(&self, index: usize) -> Option<RefusedRange> {
        decode_verdict(self.bytes.get(index * VERDICT_BYTES..)?.get(..VERDICT_BYTES)?)
    }

    /// The ranges as a record holds them.
    pub(crate) const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads ranges that were stored with a batch of `view_count` views; `None` when they make no sense.
    pub(crate) fn parse(bytes: &'a [u8], view_count: u32) -> Option<Self> {
        let ranges = bytes.chunks_exact(VERDICT_BYTES).map(decode_verdict);
        let refused = ranges.map(|range| range.map(|range| u64::from(range.count))).sum::<Option<u64>>()?;
        let verdicts = Self { bytes };
        let is_valid = bytes.len().is_multiple_of(VERDICT_BYTES)
            && u32::try_from(refused).is_ok_and(|refused| verdicts.are_valid(view_count, refused));
        is_valid.then_some(verdicts)
    }

    fn are_valid(&self, view_count: u32, refused_count: u32) -> bool {
        let mut next = 0u32;
        let mut refused = 0u32;
        for chunk in self.bytes.chunks_exact(VERDICT_BYTES) {
            let Some(range) = decode_verdict(chunk) else {
                return false;
            };
            let Some(end) = range.first.checked_add(range.count) else {
                return false;
            };
            if range.count == 0 || range.first < next || end > view_count {
                return false;
            }
            next = end;
            refused += range.count;
        }
        refused == refused_count
    }
}

fn decode_verdict(chunk: &[u8]) -> Option<RefusedRange> {
    if chunk[9..12] != [0; 3] {
        return None;
    }
    Some(RefusedRange { first: u32_at(chunk, 0), count: u32_at(chunk, 4), reason: ViewRefusal::from_code(chunk[8])? })
}

/// The owner that a new producer's body states.
pub(crate) fn owner_of(body: &[u8]) -> Option<OwnerId> {
    body.try_into().ok().and_then(|bytes| OwnerId::from_stored(u128::from_le_bytes(bytes)))
}

fn put(out: &mut [u8], offset: usize, bytes: &[u8]) {
    out[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[offset..offset + N]);
    array
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

fn u128_at(bytes: &[u8], offset: usize) -> u128 {
    u128::from_le_bytes(array_at(bytes, offset))
}
