//! Every limit of one core's pipeline, and how the limits depend on each other.
//!
//! Wire limits are in `highwater_proto::limits`; the log's own buffers are in `highwater_storage`.

use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX};

/// Cells of all lanes into one core. At 32 bytes a cell, 32 MiB; at a million views a second they hold one second,
/// which is how long an edge or a scan may take before acknowledgements wait for it.
pub const LANES_CELLS: usize = 1 << 20;

/// Cells of each lane however many there are.
pub const LANE_CELLS_MIN: usize = 1 << 16;

/// Cells of one lane between two of `cores` cores.
pub const fn lane_cells(cores: usize) -> usize {
    let share = (LANES_CELLS / cores).next_power_of_two();
    if share > LANE_CELLS_MIN { share } else { LANE_CELLS_MIN }
}

/// Bytes of all lanes between `cores` cores.
pub const fn lanes_bytes(cores: usize) -> u64 {
    (cores * cores * lane_cells(cores)) as u64 * 32
}

/// Cells at the end of a lane that rows never use: for the one marker and the one answer that may be under way (128 ids
/// a cell), and for a note of each kind.
pub const CONTROL_CELLS_RESERVED: usize = 80;

/// Rows, and bytes of long ids, that a core lets another have in flight to it at most. More than a lane holds is of no
/// use.
pub const CREDIT_MAX: u64 = 64 << 20;

/// Cores at most: a welcome names the ports of so many.
pub const CORES_MAX: usize = highwater_proto::limits::CORES_MAX;

/// Cells that a batch of `views` views takes at most, which has `payload_bytes` bytes with plain columns; in compact
/// ones it can take more for its bytes, and never more than a largest batch.
///
/// An id of 15 bytes or less takes one cell, a longer one another cell for each 32 bytes begun.
pub const fn batch_cells_max(views: usize, payload_bytes: usize) -> usize {
    2 * views + payload_bytes / 32
}

/// Views pushed to the lanes between two polls of the socket; a batch that has begun is finished.
pub const TURN_VIEWS: u32 = 16_384;

/// Cells moved from a lane to the shards between two polls of the socket, while there are few lanes.
pub const TURN_CELLS: usize = 2048;

/// Cells moved from each of `lanes` lanes between two polls of the socket.
pub const fn turn_cells(lanes: usize) -> usize {
    let share = 4 * TURN_CELLS / lanes;
    if share < TURN_CELLS_MIN {
        TURN_CELLS_MIN
    } else if share > TURN_CELLS {
        TURN_CELLS
    } else {
        share
    }
}

/// However many lanes there are, this much of each.
pub const TURN_CELLS_MIN: usize = 256;

/// Entries (slots, counts, lines) that an edge or a scan handles between two polls of the socket.
pub const TURN_ENTRIES: usize = 8192;

/// Slices of moving runs that a core takes from its helper before it has applied them; the others stay behind.
pub const RUN_SLICES_MAX: usize = 4;

/// Producers a core knows at once.
pub const PRODUCERS_MAX: usize = 16_384;

/// A producer may be forgotten when it has been silent, and not connected, for this long.
pub const PRODUCER_IDLE_MS: u64 = 7 * 24 * 3_600_000;

/// Prepared segments that a core keeps ahead of its log.
pub const SEGMENTS_SPARE: usize = 2;

/// Epochs leased at a time: a little over an hour of them.
pub const EPOCHS_PER_LEASE: u64 = 4096;

/// A new lease is asked for when fewer epochs than this are left.
pub const EPOCHS_LEFT_MIN: u64 = 64;

/// Engine time between two markers.
pub const MARKER_INTERVAL_MS: u64 = 1000;

/// How far the wall clock may run away from the monotonic one before intake and edges stop.
pub const CLOCK_DRIFT_MAX_MS: u64 = 5_000;

/// How long the log must rest before a record states its durable prefix.
pub const IDLE_PREFIX_MS: u64 = 20;

/// What a client is told to wait before it sends a refused batch again.
pub const RETRY_AFTER_MS: u32 = 200;

/// Cuts that may wait for the helper before no further early cut is made.
pub const CUTS_UNWRITTEN_MAX: usize = 2;

/// How long after a failed preparation of a segment the next is tried.
pub const SEGMENT_RETRY_MS: u64 = 1000;

const _: () = assert!(
    batch_cells_max(BATCH_VIEWS_MAX as usize, BATCH_BYTES_MAX) + 1 + CONTROL_CELLS_RESERVED <= LANE_CELLS_MIN,
    "a lane holds at least one largest batch, or the question about it, and what is reserved"
);
const _: () =
    assert!(BATCH_VIEWS_MAX as usize / 128 + 8 <= CONTROL_CELLS_RESERVED, "an answer and the notes have room");
const _: () = assert!(EPOCHS_LEFT_MIN < EPOCHS_PER_LEASE);
const _: () = assert!(TURN_CELLS_MIN >= 64, "a turn moves at least one row with the longest id");
