//! Snapshots on the wire.
//!
//! What it is not: the merge that makes them. Invariant: a decoded snapshot has each period and window at most once,
//! and the rows of every board are in ranking order and add up to no more than its total, so whoever serves it need
//! neither sort nor add.

use crate::error::DecodeError;
use crate::frame::FrameKind;
use crate::limits::{BOARDS_MAX, ROW_FIXED_BYTES, TOP_K_MAX};
use crate::query::{period_and_window, video_id_length};
use crate::wire::{Reader, in_range, put_frame};
use crate::words::{Board, BoardRow, Epoch, InstanceId, Snapshot};

impl Snapshot {
    /// Appends the whole SNAPSHOT frame to `out`.
    ///
    /// # Panics
    /// If there are more boards or rows than the limits, or a video id has not 1 to 255 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.boards.len() <= BOARDS_MAX, "{} boards, allowed are {BOARDS_MAX}", self.boards.len());
        put_frame(out, FrameKind::Snapshot, |out| {
            out.extend_from_slice(&self.instance.0.to_le_bytes());
            out.extend_from_slice(&self.epoch.0.to_le_bytes());
            out.extend_from_slice(&self.as_of_ms.to_le_bytes());
            out.extend_from_slice(&[self.boards.len() as u8, 0, 0, 0]);
            for board in &self.boards {
                put_board(out, board);
            }
        });
    }

    /// Reads the payload of a SNAPSHOT frame.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::of_frame(FrameKind::Snapshot, payload)?;
        let instance = InstanceId(reader.u128()?);
        let epoch = Epoch(reader.u64()?);
        let as_of_ms = reader.u64()?;
        let board_count = reader.u8()?;
        in_range("boards", board_count.into(), 0, BOARDS_MAX as u64)?;
        reader.zeros::<3>()?;
        let mut boards: Vec<Board> = Vec::with_capacity(board_count.into());
        for index in 0..usize::from(board_count) {
            let board = board(&mut reader)?;
            if boards.iter().any(|other| (other.period, other.window) == (board.period, board.window)) {
                return Err(DecodeError::Order { what: "board", index });
            }
            boards.push(board);
        }
        reader.finish()?;
        Ok(Self { instance, epoch, as_of_ms, boards })
    }
}

fn put_board(out: &mut Vec<u8>, board: &Board) {
    out.extend_from_slice(&[board.period.code(), board.window.code(), u8::from(board.start_ms.is_some()), 0]);
    out.extend_from_slice(&(board.rows.len() as u32).to_le_bytes());
    out.extend_from_slice(&board.start_ms.unwrap_or(0).to_le_bytes());
    out.extend_from_slice(&board.end_ms.to_le_bytes());
    out.extend_from_slice(&board.total_views.to_le_bytes());
    put_rows(out, &board.rows);
}

/// Appends rows: views, length of the id, id.
pub(crate) fn put_rows(out: &mut Vec<u8>, rows: &[BoardRow]) {
    assert!(rows.len() <= TOP_K_MAX, "{} rows, allowed are {TOP_K_MAX}", rows.len());
    for row in rows {
        out.extend_from_slice(&row.view_count.to_le_bytes());
        out.push(video_id_length(&row.video_id));
        out.extend_from_slice(row.video_id.as_bytes());
    }
}

fn board(reader: &mut Reader<'_>) -> Result<Board, DecodeError> {
    let (period, window) = period_and_window(reader)?;
    let bounded = reader.u8()?;
    reader.zeros::<1>()?;
    let row_count = reader.u32()?;
    let room = reader.remaining().saturating_sub(24) / ROW_FIXED_BYTES;
    in_range("board rows", row_count.into(), 0, TOP_K_MAX.min(room) as u64)?;
    let start = reader.u64()?;
    let start_ms = match (bounded, start) {
        (0, 0) => None,
        (1, start) => Some(start),
        (0, start) => return Err(DecodeError::OutOfRange { field: "absent start", found: start, min: 0, max: 0 }),
        (found, _) => return Err(DecodeError::UnknownCode { field: "start mark", found: found.into() }),
    };
    let end_ms = reader.u64()?;
    let total_views = reader.u64()?;
    let rows = rows(reader, row_count as usize)?;
    check_total(total_views, &rows)?;
    Ok(Board { period, window, start_ms, end_ms, total_views, rows })
}

/// Reads `count` rows, which the caller has found to be no more than may be; they must be in ranking order.
pub(crate) fn rows(reader: &mut Reader<'_>, count: usize) -> Result<Vec<BoardRow>, DecodeError> {
    // No more than there are bytes for, whatever is stated.
    let there_max = reader.remaining() / (ROW_FIXED_BYTES + 1);
    let mut rows: Vec<BoardRow> = Vec::with_capacity(there_max.min(count));
    for index in 0..count {
        let view_count = reader.u64()?;
        in_range("view_count", view_count, 1, u64::MAX)?;
        let bytes = reader.u8()?;
        let video_id = reader.video_id(bytes)?;
        let in_order = rows.last().is_none_or(|before| {
            before.view_count > view_count || (before.view_count == view_count && *before.video_id < *video_id)
        });
        if !in_order {
            return Err(DecodeError::Order { what: "board row", index });
        }
        rows.push(BoardRow { video_id: video_id.into(), view_count });
    }
    Ok(rows)
}

/// Refuses a total below the sum of the rows.
pub(crate) fn check_total(total_views: u64, rows: &[BoardRow]) -> Result<(), DecodeError> {
    let listed: u128 = rows.iter().map(|row| u128::from(row.view_count)).sum();
    if listed <= total_views.into() {
        return Ok(());
    }
    let min = u64::try_from(listed).unwrap_or(u64::MAX);
    Err(DecodeError::OutOfRange { field: "total views", found: total_views, min, max: u64::MAX })
}
