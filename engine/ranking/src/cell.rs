//! What travels in lanes: rows and markers, as fixed 32-byte cells.
//!
//! Not a wire or disk format: cells live between two cores of one process. A row whose id has at
//! most 15 bytes is one cell; a longer id follows in continuation cells.
//!
//! | word | row | marker, first cell | marker, second cell |
//! |---|---|---|---|
//! | 0 | hash | epoch | oldest arrival, ms |
//! | 1 | minute u32, class 2 bits << 32, views 14 bits << 34, id length u8 << 48, tag << 56 | log generation u32, cut << 32, tag << 56 | 0 |
//! | 2 | id bytes 0 to 7, or 0 | engine time, ms | 0 |
//! | 3 | id bytes 8 to 14, or 0 | log position | 0 |
//!
//! Invariant: the first cell of a row or marker says how many cells it has, so a reader that
//! starts at a first cell and steps by that number only ever lands on first cells. Continuation
//! cells are raw id bytes and can look like anything.

use highwater_proto::Epoch;

use crate::time::{FinalityClass, Minute};
use crate::videos::INLINE_ID_BYTES_MAX;

/// Bytes of one cell.
const CELL_BYTES: usize = size_of::<Cell>();

/// Most views of one row: more than a batch can have.
pub const ROW_VIEWS_MAX: u32 = (1 << (LENGTH_SHIFT - VIEWS_SHIFT)) - 1;

const CLASS_SHIFT: u32 = 32;
const CLASS_MASK: u8 = (1 << (VIEWS_SHIFT - CLASS_SHIFT)) - 1;
const VIEWS_SHIFT: u32 = 34;
const LENGTH_SHIFT: u32 = 48;

const _: () = assert!(FinalityClass::MAX.0 <= CLASS_MASK && highwater_proto::BATCH_VIEWS_MAX <= ROW_VIEWS_MAX);

/// Cells of a marker.
pub const MARKER_CELLS: usize = 2;

/// What a first cell begins.
pub mod tag {
    /// A row: views of one video in one minute.
    pub const ROW: u8 = 1;
    /// A marker.
    pub const MARKER: u8 = 2;
}

/// 32 bytes of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Cell(pub [u64; 4]);

impl Cell {
    /// What this first cell begins: [`tag::ROW`] or [`tag::MARKER`]. Meaningless on a
    /// continuation cell.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> u8 {
        (self.0[1] >> 56) as u8
    }

    /// A row's hash.
    #[inline]
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0[0]
    }

    /// A row's event minute.
    #[inline]
    #[must_use]
    pub fn minute(&self) -> Minute {
        Minute(self.0[1] as u32)
    }

    /// A row's finality class.
    #[inline]
    #[must_use]
    pub fn class(&self) -> FinalityClass {
        FinalityClass((self.0[1] >> CLASS_SHIFT) as u8 & CLASS_MASK)
    }

    /// How many views a row is.
    #[inline]
    #[must_use]
    pub fn views(&self) -> u32 {
        (self.0[1] >> VIEWS_SHIFT) as u32 & ROW_VIEWS_MAX
    }

    /// A row's id length in bytes.
    #[inline]
    #[must_use]
    pub fn id_len(&self) -> usize {
        usize::from((self.0[1] >> LENGTH_SHIFT) as u8)
    }
}

/// Cells of a row whose id has `id_len` bytes.
#[inline]
#[must_use]
pub fn cells_of(id_len: usize) -> usize {
    if id_len <= INLINE_ID_BYTES_MAX { 1 } else { 1 + id_len.div_ceil(CELL_BYTES) }
}

/// Cells of the row that `first` begins, itself included.
#[inline]
#[must_use]
pub fn row_cells(first: &Cell) -> usize {
    cells_of(first.id_len())
}

/// What a row says beside the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The id's hash.
    pub hash: u64,
    /// Event minute.
    pub minute: Minute,
    /// Finality class.
    pub class: FinalityClass,
    /// Views, 1 to [`ROW_VIEWS_MAX`].
    pub views: u32,
}

/// Appends a row: exactly [`cells_of`]`(id.len())` cells.
///
/// # Panics
/// When the id is empty or longer than 255 bytes, the class above [`FinalityClass::MAX`], or the views are none or too
/// many: the codec refuses such ids and batches, so it is a bug.
#[inline]
pub fn push_row(out: &mut Vec<Cell>, row: Row, id: &str) {
    let Row { hash, minute, class, views } = row;
    let bytes = id.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= 255, "a video id of {} bytes", bytes.len());
    assert!(class <= FinalityClass::MAX, "finality class {}", class.0);
    assert!((1..=ROW_VIEWS_MAX).contains(&views), "a row of {views} views");
    let head = u64::from(minute.0)
        | u64::from(class.0) << CLASS_SHIFT
        | u64::from(views) << VIEWS_SHIFT
        | (bytes.len() as u64) << LENGTH_SHIFT
        | u64::from(tag::ROW) << 56;
    if bytes.len() <= INLINE_ID_BYTES_MAX {
        let [low, high] = inline_words(bytes);
        out.push(Cell([hash, head, low, high]));
        return;
    }
    out.push(Cell([hash, head, 0, 0]));
    for chunk in bytes.chunks(CELL_BYTES) {
        let mut cell = Cell::default();
        bytemuck::bytes_of_mut(&mut cell)[..chunk.len()].copy_from_slice(chunk);
        out.push(cell);
    }
}

/// The two words of an id of at most 15 bytes, zero padded. By loads that overlap: a copy of so few bytes whose number
/// is not known costs more than all else of a row.
#[inline]
pub(crate) fn inline_words(bytes: &[u8]) -> [u64; 2] {
    let len = bytes.len();
    debug_assert!(len <= INLINE_ID_BYTES_MAX, "an id of {len} bytes does not fit its key");
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let high = if len == 8 { 0 } else { u64::from_le_bytes(*last) >> (8 * (16 - len)) };
        return [u64::from_le_bytes(*first), high];
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return [u64::from(first) | u64::from(last) << (8 * (len - 4)), 0];
    }
    [bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0]
}

/// What a core sends down every lane at the end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The epoch that ends here.
    pub epoch: Epoch,
    /// Engine time of the epoch, t_e, in ms UTC.
    pub time_ms: u64,
    /// Whether a cut is to be closed even if the minute has not advanced.
    pub cut: bool,
    /// Generation of the sender's log.
    pub log_generation: u32,
    /// Position in the sender's log up to which rows were pushed before this marker.
    pub log_position: u64,
    /// Arrival of the sender's oldest view that was not pushed before this marker, in ms UTC; what arrives later has a
    /// later time.
    pub oldest_arrival_ms: u64,
}

impl Marker {
    /// The marker's cells.
    #[must_use]
    pub fn encode(&self) -> [Cell; MARKER_CELLS] {
        let head = u64::from(self.log_generation) | u64::from(self.cut) << 32 | u64::from(tag::MARKER) << 56;
        [Cell([self.epoch.0, head, self.time_ms, self.log_position]), Cell([self.oldest_arrival_ms, 0, 0, 0])]
    }

    /// The marker that `cells` begin with.
    ///
    /// # Panics
    /// When they do not begin with a whole marker: lanes carry whole markers only.
    #[must_use]
    pub fn decode(cells: &[Cell]) -> Self {
        assert!(
            cells.len() >= MARKER_CELLS && cells[0].tag() == tag::MARKER,
            "a lane held {} cells that do not begin a marker",
            cells.len()
        );
        let [epoch, head, time_ms, log_position] = cells[0].0;
        Self {
            epoch: Epoch(epoch),
            time_ms,
            cut: (head >> 32) & 1 == 1,
            log_generation: head as u32,
            log_position,
            oldest_arrival_ms: cells[1].0[0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_id_length_say_their_cells() {
        for len in 1..=255 {
            let id = "v".repeat(len);
            let mut cells = Vec::new();
            let row =
                Row { hash: 9, minute: Minute(u32::MAX), class: FinalityClass(3), views: ROW_VIEWS_MAX - len as u32 };
            push_row(&mut cells, row, &id);
            assert_eq!(cells.len(), cells_of(len));
            let first = cells[0];
            assert_eq!(row_cells(&first), cells.len());
            assert_eq!((first.tag(), first.hash(), first.id_len()), (tag::ROW, 9, len));
            assert_eq!((first.minute(), first.class(), first.views()), (row.minute, row.class, row.views));
            let bytes: &[u8] = if len <= INLINE_ID_BYTES_MAX {
                &bytemuck::bytes_of(&cells[0])[16..]
            } else {
                bytemuck::cast_slice(&cells[1..])
            };
            assert_eq!(&bytes[..len], id.as_bytes());
            assert!(bytes[len..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn short_ids_are_padded_with_zeros() {
        for len in 0..=INLINE_ID_BYTES_MAX {
            let bytes: Vec<u8> = (0..len as u8).map(|at| 0xF1 - at).collect();
            let mut padded = [0u8; 16];
            padded[..len].copy_from_slice(&bytes);
            assert_eq!(bytemuck::bytes_of(&inline_words(&bytes).map(u64::to_le)), padded, "{len} bytes");
        }
    }

    #[test]
    fn markers_round_trip() {
        for cut in [false, true] {
            let marker = Marker {
                epoch: Epoch(u64::MAX - 1),
                time_ms: 1_720_000_000_123,
                cut,
                log_generation: u32::MAX,
                log_position: u64::MAX / 3,
                oldest_arrival_ms: u64::MAX,
            };
            let cells = marker.encode();
            assert_eq!(cells[0].tag(), tag::MARKER);
            assert_eq!(Marker::decode(&cells), marker);
        }
    }

    #[test]
    #[should_panic(expected = "a video id of 0 bytes")]
    fn empty_ids_are_a_bug() {
        push_row(&mut Vec::new(), Row { hash: 0, minute: Minute(0), class: FinalityClass(0), views: 1 }, "");
    }
}
