//! Building batches on the client's side.
//!
//! What it is not: the choice of when to send, or of the sequence. Invariant: a builder never holds more views or bytes
//! than its limits, counted as plain columns have them; another encoding is only taken where it is smaller, so what it
//! encodes is a batch that the engine's decoder takes.

use super::batch_checksum;
use super::column::{DICTIONARY, PLAIN};
use super::distinct::{Distinct, Places};
use super::prepared::PreparedBatch;
use super::times::{BASE_MAX, NARROW, NARROW_FIXED_BYTES};
use crate::error::InvalidView;
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, COLUMN_HEADER_BYTES, COLUMNS,
    ENCODING_DICTIONARY_BIT, ENCODING_NARROW_TIMES_BIT, ENCODING_PLAIN_BIT, FRAME_HEADER_BYTES, PROTOCOL_VERSION,
    TIME_BYTES,
};
use crate::words::{ProducerId, Sequence, View};
use bytes::{BufMut, Bytes, BytesMut};

/// Whether a view went into the builder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It did.
    Added,
    /// It did not: the builder is full. Encode what it holds, then push the view again.
    Full,
}

/// Collects views by column.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    views_max: u32,
    bytes_max: u32,
    encodings: u32,
    places: Places,
    video_ids: Column,
    times: Vec<u64>,
    users: Column,
    regions: Column,
    devices: Column,
}

#[derive(Clone, Debug, Default)]
struct Column {
    lengths: Vec<u8>,
    bytes: Vec<u8>,
    distinct: Distinct,
    /// Whether it is written as a dictionary; as of the last [`Column::choose`].
    as_dictionary: bool,
}

/// How times are written.
#[derive(Clone, Copy)]
enum TimeForm {
    Plain,
    Narrow { base: u64, width: usize },
}

impl Column {
    fn push(&mut self, text: &str) {
        self.lengths.push(text.len() as u8);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn bytes_len(&self) -> usize {
        self.lengths.len() + self.bytes.len()
    }

    fn clear(&mut self) {
        self.lengths.clear();
        self.bytes.clear();
    }

    /// Takes the smaller encoding of those allowed; of two that are equal, plain.
    fn choose(&mut self, encodings: u32, places: &mut Places) {
        self.as_dictionary = encodings & ENCODING_DICTIONARY_BIT != 0
            && self.distinct.collect(places, &self.lengths, &self.bytes)
            && self.distinct.bytes_len() < self.bytes_len();
    }

    fn chosen_bytes(&self) -> usize {
        if self.as_dictionary { self.distinct.bytes_len() } else { self.bytes_len() }
    }

    fn put(&self, frame: &mut BytesMut) {
        put_column_header(frame, if self.as_dictionary { DICTIONARY } else { PLAIN }, self.chosen_bytes());
        if self.as_dictionary {
            self.distinct.put(frame);
        } else {
            frame.put_slice(&self.lengths);
            frame.put_slice(&self.bytes);
        }
    }
}

impl TimeForm {
    /// Narrow with the least width that fits, where that is allowed and smaller.
    fn of(times: &[u64], encodings: u32) -> Self {
        let bounds = |(least, greatest): (u64, u64), &time: &u64| (least.min(time), greatest.max(time));
        let (base, greatest) = times.iter().fold((u64::MAX, 0), bounds);
        let width = match greatest.saturating_sub(base) {
            0 => 0,
            1..=0xff => 1,
            0x100..=0xffff => 2,
            0x1_0000..=0xffff_ffff => 4,
            _ => return Self::Plain,
        };
        Self::narrow(times.len(), base, width, encodings)
    }

    fn narrow(views: usize, base: u64, width: usize, encodings: u32) -> Self {
        let narrow = Self::Narrow { base, width };
        let allowed = encodings & ENCODING_NARROW_TIMES_BIT != 0 && base <= BASE_MAX;
        if allowed && narrow.bytes_len(views) < Self::Plain.bytes_len(views) { narrow } else { Self::Plain }
    }

    fn bytes_len(self, views: usize) -> usize {
        match self {
            Self::Plain => views * TIME_BYTES,
            Self::Narrow { width, .. } => NARROW_FIXED_BYTES + views * width,
        }
    }

    fn put(self, times: &[u64], frame: &mut BytesMut) {
        let bytes = self.bytes_len(times.len());
        match self {
            Self::Plain => {
                put_column_header(frame, PLAIN, bytes);
                times.iter().for_each(|&time| frame.put_u64_le(time));
            }
            Self::Narrow { base, width } => {
                put_column_header(frame, NARROW, bytes);
                frame.put_u64_le(base);
                frame.put_u64_le(width as u64);
                if width > 0 {
                    times.iter().for_each(|&time| frame.put_uint_le(time - base, width));
                }
            }
        }
    }
}

fn put_column_header(frame: &mut BytesMut, encoding: u8, bytes: usize) {
    frame.put_u32_le(encoding.into());
    frame.put_u32_le(bytes as u32);
}

impl BatchBuilder {
    /// A builder of batches with plain columns that keeps to the limits of a welcome: most views, and most bytes of a
    /// BATCH payload.
    ///
    /// # Panics
    /// If a limit is outside the protocol's: 1 to [`BATCH_VIEWS_MAX`] views, [`BATCH_BYTES_MIN`] to [`BATCH_BYTES_MAX`]
    /// bytes.
    pub fn new(views_max: u32, bytes_max: u32) -> Self {
        assert!(
            (1..=BATCH_VIEWS_MAX).contains(&views_max),
            "a batch of up to {views_max} views; allowed are limits of 1 to {BATCH_VIEWS_MAX}"
        );
        assert!(
            (BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&(bytes_max as usize)),
            "a batch of up to {bytes_max} bytes; allowed are limits of {BATCH_BYTES_MIN} to {BATCH_BYTES_MAX}"
        );
        Self {
            views_max,
            bytes_max,
            encodings: ENCODING_PLAIN_BIT,
            places: Places::default(),
            video_ids: Column::default(),
            times: Vec::new(),
            users: Column::default(),
            regions: Column::default(),
            devices: Column::default(),
        }
    }

    /// Takes for each column the smallest of these encodings, by their bits in a welcome; bits of unknown ones are
    /// ignored, and plain is always among them. Which views fit a batch stays the same. A column of strings that are
    /// mostly distinct stays plain unseen. Cost, when a batch is encoded: for each string a hash and mostly one
    /// comparison.
    #[must_use]
    pub fn with_encodings(mut self, encodings: u32) -> Self {
        self.encodings = encodings;
        self
    }

    /// Leaves out the encodings that are not among these: an engine that came in another's place may take fewer.
    pub fn restrict_encodings(&mut self, encodings: u32) {
        self.encodings &= encodings;
    }

    /// Adds a view, unless the builder is full. Never full while empty.
    pub fn push(&mut self, view: &View<'_>) -> Result<Pushed, InvalidView> {
        view.check()?;
        let strings = view.video_id.len() + view.user_id.len() + view.region.len() + view.device.len();
        let bytes = strings + (COLUMNS - 1) + TIME_BYTES;
        if self.len() >= self.views_max || self.payload_bytes() + bytes > self.bytes_max as usize {
            return Ok(Pushed::Full);
        }
        self.video_ids.push(view.video_id);
        self.times.push(view.timestamp_ms);
        self.users.push(view.user_id);
        self.regions.push(view.region);
        self.devices.push(view.device);
        Ok(Pushed::Added)
    }

    /// Whether it holds no view.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// How many views it holds.
    pub fn len(&self) -> u32 {
        self.video_ids.lengths.len() as u32
    }

    /// The size of the BATCH payload that it would encode to with plain columns, without the frame header: with other
    /// encodings it has at most so many bytes.
    pub fn payload_bytes(&self) -> usize {
        let strings = [&self.video_ids, &self.users, &self.regions, &self.devices];
        let columns: usize = strings.iter().map(|column| column.bytes_len()).sum();
        BATCH_HEADER_BYTES + COLUMNS * COLUMN_HEADER_BYTES + columns + self.times.len() * TIME_BYTES
    }

    /// Forgets every view; keeps its memory.
    pub fn clear(&mut self) {
        self.times.clear();
        for column in [&mut self.video_ids, &mut self.users, &mut self.regions, &mut self.devices] {
            column.clear();
        }
    }

    /// The whole BATCH frame with its header; the builder is empty afterwards. These bytes are what every retry sends.
    ///
    /// # Panics
    /// If the builder is empty or the sequence is 0.
    pub fn encode(&mut self, producer: ProducerId, sequence: Sequence) -> Bytes {
        let times = TimeForm::of(&self.times, self.encodings);
        let mut frame = self.put(times);
        seal(&mut frame, producer, sequence);
        self.clear();
        frame.freeze()
    }

    /// The batch as one to be sent over and over; the builder is empty afterwards.
    ///
    /// Its views are sent at one time, but narrow times have two bytes for each all the same: as many as those of a
    /// batch that was collected over some seconds, which it stands for.
    ///
    /// # Panics
    /// If the builder is empty.
    pub fn prepare(&mut self) -> PreparedBatch {
        self.times.fill(0);
        let form = TimeForm::narrow(self.times.len(), 0, 2, self.encodings);
        let frame = self.put(form);
        let times_at =
            FRAME_HEADER_BYTES + BATCH_HEADER_BYTES + 2 * COLUMN_HEADER_BYTES + self.video_ids.chosen_bytes();
        let times_len = match form {
            TimeForm::Plain => form.bytes_len(self.times.len()),
            TimeForm::Narrow { .. } => TIME_BYTES,
        };
        let views = self.len();
        self.clear();
        PreparedBatch { frame: frame.freeze(), times: times_at..times_at + times_len, views }
    }

    /// The frame but for its sequence and checksum.
    fn put(&mut self, times: TimeForm) -> BytesMut {
        assert!(!self.is_empty(), "a batch has at least one view");
        let mut columns_bytes = times.bytes_len(self.times.len());
        for column in [&mut self.video_ids, &mut self.users, &mut self.regions, &mut self.devices] {
            column.choose(self.encodings, &mut self.places);
            columns_bytes += column.chosen_bytes();
        }
        let payload_bytes = BATCH_HEADER_BYTES + COLUMNS * COLUMN_HEADER_BYTES + columns_bytes;
        debug_assert!(payload_bytes <= self.payload_bytes());
        let mut frame = BytesMut::with_capacity(FRAME_HEADER_BYTES + payload_bytes);
        frame.put_slice(&FrameHeader::of_payload(FrameKind::Batch, payload_bytes).encode());
        frame.put_u32_le(0);
        frame.put_u32_le(self.len());
        frame.put_u64_le(0);
        self.video_ids.put(&mut frame);
        times.put(&self.times, &mut frame);
        for column in [&self.users, &self.regions, &self.devices] {
            column.put(&mut frame);
        }
        debug_assert_eq!(frame.len(), FRAME_HEADER_BYTES + payload_bytes);
        frame
    }
}

/// Writes the sequence and the checksum into a frame.
pub(super) fn seal(frame: &mut [u8], producer: ProducerId, sequence: Sequence) {
    assert!(sequence > Sequence::NONE, "sequences start at 1");
    let payload = &mut frame[FRAME_HEADER_BYTES..];
    payload[8..BATCH_HEADER_BYTES].copy_from_slice(&sequence.0.to_le_bytes());
    let crc = batch_checksum(payload, PROTOCOL_VERSION, producer);
    payload[..4].copy_from_slice(&crc.to_le_bytes());
}
