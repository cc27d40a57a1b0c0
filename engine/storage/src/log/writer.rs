//! The writing side of one core's log: records into groups, groups into segments, without I/O.
//!
//! Not a device and not a reader of old logs. Invariants: groups lie in log order, each at a 4 KiB boundary behind the
//! group before it, and are never written twice; records are handed out as durable only in log order, only when every
//! earlier group is written; a record never spans two segments. Nothing is allocated after [`LogWriter::new`] but the
//! entries of short queues that keep their capacity.

use std::collections::VecDeque;

use highwater_memory::AlignedBuffer;
use highwater_proto::{ProducerId, RefusedRange, Sequence};

use super::device::{GroupWrite, PreparedSegment, SegmentHandle};
use crate::position::{
    BLOCK_BYTES, LogIdentity, LogPosition, RecordPlace, SEGMENT_BYTES_DEFAULT, SegmentNumber, block_ceil,
};
use crate::producers::OwnerId;
use crate::record::{
    BodyFigures, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, RecordHeader, RecordKind, RecordMeta, VERDICTS_BYTES_MAX,
    Verdicts, peek_length, record_bytes, seal, write_verdicts,
};

/// Sizes of a [`LogWriter`]; memory is `buffers * buffer_bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Group buffers; a group keeps its buffer until its records have been taken.
    pub buffers: usize,
    /// Bytes of one group buffer, at least one largest record, a multiple of 4 KiB.
    pub buffer_bytes: usize,
    /// An open group of at least so many bytes is submitted though others are in flight.
    pub submit_bytes: usize,
    /// Most groups in flight.
    pub depth: usize,
    /// Length of a segment, as fixed when the directory was created.
    pub segment_bytes: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            buffers: 8,
            buffer_bytes: 2 << 20,
            submit_bytes: 64 << 10,
            depth: 8,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
        }
    }
}

const BUFFER_BYTES_MIN: usize = RECORD_BYTES_MAX.next_multiple_of(BLOCK_BYTES);
const _: () = assert!(BUFFER_BYTES_MIN <= 2 << 20);
const _: () = assert!(SEGMENT_BYTES_DEFAULT >= 2 << 20);

/// Whether a record can be appended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendRoom {
    /// Yes.
    Ready,
    /// All buffers hold records that are not yet durable or not yet taken: wait.
    Busy,
    /// The record needs the next segment and none has been added: wait for it, or refuse when the store says that the
    /// disk is full.
    NoSegment,
}

/// A record that is durable and whose predecessors all are.
#[derive(Clone, Copy, Debug)]
pub struct DurableRecord<'a> {
    /// The record's header.
    pub header: RecordHeader,
    /// The batch as it came over the wire; a new producer's owner, or empty, when the record is no batch.
    pub batch: &'a [u8],
    /// The refused ranges.
    pub verdicts: Verdicts<'a>,
    /// The position behind the record.
    pub end: LogPosition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupState {
    Open,
    Closed,
    InFlight,
    Written,
}

#[derive(Debug)]
struct Group {
    number: u64,
    segment: SegmentNumber,
    file: SegmentHandle,
    /// Byte of the group within its segment.
    offset: u64,
    /// Away while the group is in flight.
    buffer: Option<AlignedBuffer>,
    /// Bytes of records.
    len: usize,
    /// Bytes of records that have been handed out as durable.
    taken: usize,
    state: GroupState,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    number: SegmentNumber,
    file: SegmentHandle,
}

/// Appends records to one generation of one log.
///
/// The order of calls for a batch: [`room`](Self::room), [`begin`](Self::begin), then
/// [`commit`](Self::commit) or [`cancel`](Self::cancel); for the device: [`poll_write`](Self::poll_write),
/// [`handle_written`](Self::handle_written); for acks and counting: [`next_durable`](Self::next_durable) until `None`.
#[derive(Debug)]
pub struct LogWriter {
    identity: LogIdentity,
    limits: LogLimits,
    free: Vec<AlignedBuffer>,
    /// In log order: written, in flight, closed, at most one open.
    groups: VecDeque<Group>,
    groups_begun: u64,
    in_flight: usize,
    /// The segment that the last group lies in.
    current: Option<Segment>,
    spares: VecDeque<Segment>,
    /// Number that the next added segment must have.
    segment_next: u64,
    retiring: VecDeque<Segment>,
    /// Bytes of the batch between begin and commit.
    begun: Option<usize>,
    appended: u64,
    durable: u64,
    /// End of the last record that is not a mere prefix record.
    content: u64,
    /// Largest durable prefix that a submitted record states.
    stated: u64,
}

impl LogWriter {
    /// A writer at the start of a generation that has no segment yet.
    ///
    /// # Panics
    /// When a limit is 0, a buffer cannot hold the largest record, a segment cannot hold a buffer, or lengths are not
    /// multiples of 4 KiB.
    #[must_use]
    pub fn new(identity: LogIdentity, limits: LogLimits) -> Self {
        assert!(limits.buffers >= 2 && limits.depth >= 1, "a log needs two buffers and a depth of one: {limits:?}");
        assert!(limits.buffer_bytes >= BUFFER_BYTES_MIN, "a group buffer holds the largest record: {limits:?}");
        assert!(limits.segment_bytes >= limits.buffer_bytes as u64, "a segment holds a group: {limits:?}");
        assert!(limits.buffer_bytes.is_multiple_of(BLOCK_BYTES), "buffers are whole blocks: {limits:?}");
        assert!(limits.segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "segments are whole blocks: {limits:?}");
        Self {
            identity,
            limits,
            free: (0..limits.buffers).map(|_| AlignedBuffer::zeroed(limits.buffer_bytes)).collect(),
            groups: VecDeque::with_capacity(limits.buffers),
            groups_begun: 0,
            in_flight: 0,
            current: None,
            spares: VecDeque::with_capacity(4),
            segment_next: 0,
            retiring: VecDeque::with_capacity(4),
            begun: None,
            appended: 0,
            durable: 0,
            content: 0,
            stated: 0,
        }
    }

    /// Which log this is.
    #[must_use]
    pub const fn identity(&self) -> LogIdentity {
        self.identity
    }

    /// Adds the next segment, attached to the device as `file`.
    ///
    /// # Panics
    /// When the segment is of another log or generation, or not the next in number.
    pub fn add_segment(&mut self, segment: &PreparedSegment, file: SegmentHandle) {
        assert_eq!(
            (segment.log, segment.generation, segment.number.0),
            (self.identity.log, self.identity.generation, self.segment_next),
            "segments are added to their own log in order"
        );
        self.segment_next += 1;
        self.spares.push_back(Segment { number: segment.number, file });
    }

    /// Added segments that hold nothing yet.
    #[must_use]
    pub fn segments_spare(&self) -> usize {
        self.spares.len()
    }

    /// A segment that is full and durable and can be detached from the device.
    pub fn poll_retired(&mut self) -> Option<SegmentHandle> {
        let oldest = self.retiring.front()?;
        let unwritten = |group: &Group| group.segment == oldest.number && group.state != GroupState::Written;
        if self.groups.iter().any(unwritten) {
            return None;
        }
        self.retiring.pop_front().map(|segment| segment.file)
    }

    /// Whether a record with a batch of `batch_len` bytes (0 for none) and any verdicts can be appended now.
    #[must_use]
    pub fn room(&self, batch_len: usize) -> AppendRoom {
        let needed = bytes_needed(batch_len);
        if self.open_group_fits(needed) {
            return AppendRoom::Ready;
        }
        if self.group_start(needed).is_none() && self.spares.is_empty() {
            return AppendRoom::NoSegment;
        }
        if self.free.is_empty() {
            return AppendRoom::Busy;
        }
        AppendRoom::Ready
    }

    /// Opens a record: the region of the log's own buffer into which the caller copies the batch, once.
    ///
    /// # Panics
    /// When [`room`](Self::room) for the same length is not [`AppendRoom::Ready`], another record is open, or the batch
    /// is longer than the wire allows.
    pub fn begin(&mut self, batch_len: usize) -> &mut [u8] {
        assert!(self.begun.is_none(), "one record is opened at a time");
        assert!(
            batch_len <= highwater_proto::BATCH_BYTES_MAX,
            "a batch of {batch_len} bytes is above the wire's limit"
        );
        let needed = bytes_needed(batch_len);
        if !self.open_group_fits(needed) {
            self.open_group(needed);
        }
        self.begun = Some(batch_len);
        let Group { buffer, len, .. } = self.groups.back_mut().expect("an open record has a group");
        let buffer = buffer.as_deref_mut().expect("an open group has its buffer");
        &mut buffer[*len + RECORD_HEADER_BYTES..][..batch_len]
    }

    /// The batch that was copied after [`begin`](Self::begin).
    ///
    /// # Panics
    /// When no record is open.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        let batch_len = self.begun.expect("a record is open");
        let group = self.groups.back().expect("an open record has a group");
        let buffer = group.buffer.as_deref().expect("an open group has its buffer");
        &buffer[group.len + RECORD_HEADER_BYTES..][..batch_len]
    }

    /// Gives up the open record; nothing of it will be written.
    pub fn cancel(&mut self) {
        self.begun = None;
    }

    /// Completes the open record with its verdicts; returns the position behind it.
    ///
    /// # Panics
    /// When no record is open, or there are more ranges than a batch can have views.
    pub fn commit(&mut self, meta: &RecordMeta, refused: &[RefusedRange]) -> LogPosition {
        let batch_len = self.begun.take().expect("a record is open");
        assert!(refused.len() <= meta.view_count as usize, "no more refused ranges than views");
        let segment_bytes = self.limits.segment_bytes;
        let previous_end = self.appended;
        let identity = self.identity;
        let Group { buffer, len, segment, offset, .. } = self.groups.back_mut().expect("an open record has a group");
        let record = &mut buffer.as_deref_mut().expect("an open group has its buffer")[*len..];
        let body_end = RECORD_HEADER_BYTES + batch_len;
        let (verdicts_len, verdicts_crc, refused_count) = write_verdicts(&mut record[body_end..], refused);
        let length = record_bytes(batch_len, verdicts_len);
        record[body_end + verdicts_len..length].fill(0);
        let place = RecordPlace { identity, segment: *segment, offset: *offset + *len as u64 };
        let body = BodyFigures { batch_len, verdicts_len, verdicts_crc, refused_count };
        meta.header(place, previous_end, &body).write(record);
        *len += length;
        self.appended = place.segment.0 * segment_bytes + place.offset + length as u64;
        if meta.kind != RecordKind::Prefix {
            self.content = self.appended;
        }
        self.appended_end()
    }

    /// Appends the record that a producer said `new`, and who it belongs to.
    ///
    /// # Panics
    /// When [`room`](Self::room) for [`OWNER_BYTES`](crate::OWNER_BYTES) is not ready.
    pub fn append_producer_new(
        &mut self,
        producer: ProducerId,
        owner: Option<OwnerId>,
        arrival_ms: u64,
    ) -> LogPosition {
        let owner = owner.map_or_else(Vec::new, |owner| owner.0.to_le_bytes().to_vec());
        self.begin(owner.len()).copy_from_slice(&owner);
        self.commit(&RecordMeta::producer_new(producer, &owner, arrival_ms), &[])
    }

    /// Whether everything appended is durable but no record states so: on idle and on shutdown the caller then appends
    /// a prefix record, so that damage to the last acknowledged group is not taken for a torn tail.
    #[must_use]
    pub fn needs_prefix(&self) -> bool {
        self.durable == self.appended && self.stated < self.content
    }

    /// Largest durable prefix that a submitted record states.
    #[must_use]
    pub const fn stated_prefix(&self) -> LogPosition {
        self.position(self.stated)
    }

    /// Appends a record that states the durable prefix.
    ///
    /// # Panics
    /// When [`room(0)`](Self::room) is not ready.
    pub fn append_prefix(&mut self) -> LogPosition {
        self.begin(0);
        let meta = RecordMeta {
            kind: RecordKind::Prefix,
            producer: ProducerId(0),
            sequence: Sequence(0),
            arrival_ms: 0,
            batch_crc: 0,
            view_count: 0,
        };
        self.commit(&meta, &[])
    }

    /// The next write to submit: when nothing is in flight or the group is large enough, within the depth.
    ///
    /// Headers get their durable prefix and checksum here.
    pub fn poll_write(&mut self) -> Option<GroupWrite> {
        if self.in_flight == self.limits.depth {
            return None;
        }
        let group =
            self.groups.iter_mut().find(|group| matches!(group.state, GroupState::Open | GroupState::Closed))?;
        if group.state == GroupState::Open {
            let wait_for_more = self.in_flight > 0 && group.len < self.limits.submit_bytes;
            if group.len == 0 || self.begun.is_some() || wait_for_more {
                return None;
            }
        }
        let mut buffer = group.buffer.take().expect("a group that is not in flight has its buffer");
        let len = group.len.next_multiple_of(BLOCK_BYTES);
        buffer[group.len..len].fill(0);
        let mut at = 0;
        while at < group.len {
            let record = &mut buffer[at..group.len];
            at += peek_length(record);
            seal(record, self.durable);
        }
        group.state = GroupState::InFlight;
        self.in_flight += 1;
        self.stated = self.durable;
        Some(GroupWrite {
            group: group.number,
            segment: group.segment,
            file: group.file,
            offset: group.offset,
            buffer,
            len,
        })
    }

    /// Takes back a write that is durable. A failed one must end the process instead.
    ///
    /// # Panics
    /// When the write is not one that is in flight.
    pub fn handle_written(&mut self, write: GroupWrite) {
        let group = self
            .groups
            .iter_mut()
            .find(|group| group.number == write.group && group.state == GroupState::InFlight)
            .expect("only writes that are in flight come back");
        group.buffer = Some(write.buffer);
        group.state = GroupState::Written;
        self.in_flight -= 1;
        for group in self.groups.iter().take_while(|group| group.state == GroupState::Written) {
            self.durable = self.durable.max(group.end(self.limits.segment_bytes));
        }
    }

    /// The next record, in log order, that is durable with all before it; call until `None`, which frees buffers.
    pub fn next_durable(&mut self) -> Option<DurableRecord<'_>> {
        while let Some(front) = self.groups.front_mut() {
            if front.state != GroupState::Written || front.taken < front.len {
                break;
            }
            self.free.extend(front.buffer.take());
            self.groups.pop_front();
        }
        let segment_bytes = self.limits.segment_bytes;
        let generation = self.identity.generation;
        let group = self.groups.front_mut().filter(|group| group.state == GroupState::Written)?;
        let buffer = group.buffer.as_deref().expect("a written group has its buffer");
        let record = &buffer[group.taken..group.len];
        let record = &record[..peek_length(record)];
        group.taken += record.len();
        let position = group.segment.0 * segment_bytes + group.offset + group.taken as u64;
        let header = record.first_chunk().and_then(RecordHeader::read).expect("own records are well-formed");
        Some(DurableRecord {
            header,
            batch: header.batch(record),
            verdicts: header.verdicts(record),
            end: LogPosition { generation, position },
        })
    }

    /// Behind the last record known durable with all before it.
    #[must_use]
    pub const fn durable_end(&self) -> LogPosition {
        self.position(self.durable)
    }

    /// Behind the last record appended.
    #[must_use]
    pub const fn appended_end(&self) -> LogPosition {
        self.position(self.appended)
    }

    /// Groups submitted and not yet written.
    #[must_use]
    pub const fn in_flight(&self) -> usize {
        self.in_flight
    }

    const fn position(&self, position: u64) -> LogPosition {
        LogPosition { generation: self.identity.generation, position }
    }

    fn open_group_fits(&self, needed: usize) -> bool {
        self.groups.back().is_some_and(|group| {
            group.state == GroupState::Open
                && group.len + needed <= self.limits.buffer_bytes
                && group.offset + (group.len + needed) as u64 <= self.limits.segment_bytes
        })
    }

    /// Where a new group of `needed` bytes starts in the current segment, if it fits there.
    fn group_start(&self, needed: usize) -> Option<u64> {
        let segment = self.current?;
        let base = segment.number.0 * self.limits.segment_bytes;
        let start = block_ceil(self.appended.max(base)) - base;
        (start + needed as u64 <= self.limits.segment_bytes).then_some(start)
    }

    /// Closes the open group and opens one in another buffer, in the next segment where needed.
    fn open_group(&mut self, needed: usize) {
        let offset = self.group_start(needed);
        if offset.is_none() {
            let next = self.spares.pop_front().expect("room was ready: a segment is spare");
            self.retiring.extend(self.current.replace(next));
        }
        let segment = self.current.expect("a group has a segment");
        let empty_open = |group: &&mut Group| group.state == GroupState::Open && group.len == 0;
        if let Some(open) = self.groups.back_mut().filter(empty_open) {
            open.segment = segment.number;
            open.file = segment.file;
            open.offset = offset.unwrap_or(0);
            return;
        }
        if let Some(open) = self.groups.back_mut().filter(|group| group.state == GroupState::Open) {
            open.state = GroupState::Closed;
        }
        let buffer = self.free.pop().expect("room was ready: a buffer is free");
        self.groups.push_back(Group {
            number: self.groups_begun,
            segment: segment.number,
            file: segment.file,
            offset: offset.unwrap_or(0),
            buffer: Some(buffer),
            len: 0,
            taken: 0,
            state: GroupState::Open,
        });
        self.groups_begun += 1;
    }
}

impl Group {
    /// Logical end of the group's last record.
    fn end(&self, segment_bytes: u64) -> u64 {
        self.segment.0 * segment_bytes + self.offset + self.len as u64
    }
}

fn bytes_needed(batch_len: usize) -> usize {
    let verdicts_len = if batch_len == 0 { 0 } else { VERDICTS_BYTES_MAX };
    record_bytes(batch_len, verdicts_len)
}
