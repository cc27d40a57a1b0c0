//! Every limit of one core's pipeline, and how the limits depend on each other.
//!
//! Wire limits are in `highwater_proto::limits`; the log's own buffers are in `highwater_storage`.

use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_VIEWS_MAX};

/// Cells of a lane. At 32 bytes a cell, 32 MiB; at a million views a second a lane to itself holds one second, which
/// is how long an edge or a scan may take before acknowledgements wait for it.
pub const LANE_CELLS: usize = 1 << 20;

/// Cells at the end of a lane that only markers may use: two a marker, and at most one marker is under way.
pub const MARKER_CELLS_RESERVED: usize = 8;

/// Cells that a batch of `views` views in `payload_bytes` bytes takes at most.
///
/// An id of 15 bytes or less takes one cell, a longer one another cell for each 32 bytes begun.
pub const fn batch_cells_max(views: usize, payload_bytes: usize) -> usize {
    2 * views + payload_bytes / 32
}

/// Views pushed to the lanes between two polls of the socket; a batch that has begun is finished.
pub const TURN_VIEWS: u32 = 16_384;

/// Cells moved from a lane to the shards between two polls of the socket.
pub const TURN_CELLS: usize = 2048;

/// Entries (slots, counts, lines) that an edge or a scan handles between two polls of the socket.
pub const TURN_ENTRIES: usize = 8192;

/// Slices of leaving runs that a core takes from its helper before it has subtracted them; the others stay behind.
pub const LEAVING_SLICES_MAX: usize = 4;

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
    batch_cells_max(BATCH_VIEWS_MAX as usize, BATCH_BYTES_MAX) + MARKER_CELLS_RESERVED <= LANE_CELLS,
    "a lane holds at least one largest batch and a marker"
);
const _: () = assert!(EPOCHS_LEFT_MIN < EPOCHS_PER_LEASE);
const _: () = assert!(TURN_CELLS >= 64, "a turn moves at least one row with the longest id");
