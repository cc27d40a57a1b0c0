//! Every limit of the wire, and the assertions that relate them to each other.
//!
//! What it is for: one place where a reader of the protocol finds all maxima. What it is not: the limits of memory,
//! disk or sessions, which belong to the engine. Invariant: every frame kind's largest payload is computed here from
//! the limits of its parts, so a frame within the parts' limits always fits its kind's maximum.

/// The ALPN protocol name of a Highwater connection.
pub const ALPN: &[u8] = b"highwater/1";

/// The version of the wire format, stated in hello and welcome and covered by each batch's checksum.
pub const PROTOCOL_VERSION: u16 = 1;

/// Largest event time: the last millisecond of the year 9999 (UTC).
pub const TIMESTAMP_MS_MAX: u64 = 253_402_300_799_999;

/// Longest video id in bytes of UTF-8; the shortest has 1.
pub const VIDEO_ID_BYTES_MAX: usize = 255;

/// Longest user id, region or device in bytes of UTF-8; each may be empty.
pub const FIELD_BYTES_MAX: usize = 255;

/// Most views in one batch; the fewest is 1.
pub const BATCH_VIEWS_MAX: u32 = 8192;

/// Largest payload of a BATCH frame in bytes, and of the same batch with all its columns as plain ones.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Payload of a batch that holds one view with all strings at their longest: no byte limit of a batch may be below it.
pub const BATCH_BYTES_MIN: usize = BATCH_HEADER_BYTES
    + COLUMNS * COLUMN_HEADER_BYTES
    + (1 + VIDEO_ID_BYTES_MAX)
    + TIME_BYTES
    + 3 * (1 + FIELD_BYTES_MAX);

/// Most batches a producer may have sent without having an answer (W); the engine keeps as many checksums.
pub const IN_FLIGHT_BATCHES_MAX: u16 = 64;

/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Longest name of who bears a token, or of who a certificate is for, in bytes; the shortest has 1.
pub const IDENTITY_BYTES_MAX: usize = 255;

/// Most rows of a board, and so the largest `k`.
pub const TOP_K_MAX: usize = 1000;

/// Most closed periods in one answer, and so the largest limit of a question for them.
pub const PERIODS_MAX: usize = 1000;

/// Most cores of an engine, and so most ports in a welcome or redirect.
pub const CORES_MAX: usize = 64;

/// Longest host name in a welcome or redirect, in bytes.
pub const HOST_BYTES_MAX: usize = 255;

/// Most boards of a snapshot: sliding and tumbling hour, day and month, and all-time.
pub const BOARDS_MAX: usize = 7;

/// Size of a frame's header in bytes.
pub const FRAME_HEADER_BYTES: usize = 8;

/// Size of what stands before the columns in a BATCH payload: checksum, view count, sequence.
pub const BATCH_HEADER_BYTES: usize = 16;

/// Columns of a batch: video id, time, user id, region, device.
pub const COLUMNS: usize = 5;

/// Size of a column's header in bytes.
pub const COLUMN_HEADER_BYTES: usize = 8;

/// Size of one refused range in an ACK in bytes.
pub const REFUSED_RANGE_BYTES: usize = 12;

/// The bit of encoding 0 (plain) in [`crate::Welcome::encodings`]; always set.
pub const ENCODING_PLAIN_BIT: u32 = 1;

/// The bit of encoding 1 (dictionary), for columns of strings.
pub const ENCODING_DICTIONARY_BIT: u32 = 2;

/// The bit of encoding 2 (narrow), for the column of times.
pub const ENCODING_NARROW_TIMES_BIT: u32 = 4;

/// The bits of all encodings that this version reads.
pub const ENCODINGS: u32 = ENCODING_PLAIN_BIT | ENCODING_DICTIONARY_BIT | ENCODING_NARROW_TIMES_BIT;

/// Largest payload of any frame kind in bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = SNAPSHOT_PAYLOAD_MAX;

pub(crate) const TIME_BYTES: usize = 8;
pub(crate) const HELLO_FIXED_BYTES: usize = 24;
pub(crate) const TOKEN_FIXED_BYTES: usize = 4;
pub(crate) const WELCOME_FIXED_BYTES: usize = 72;
pub(crate) const REDIRECT_FIXED_BYTES: usize = 8;
pub(crate) const ACK_FIXED_BYTES: usize = 32;
pub(crate) const BATCH_REFUSED_BYTES: usize = 16;
pub(crate) const LOOKUP_FIXED_BYTES: usize = 4;
pub(crate) const ANSWER_FIXED_BYTES: usize = 36;
pub(crate) const PERIOD_COUNT_BYTES: usize = 16;
pub(crate) const SUBSCRIBE_BYTES: usize = 8;
pub(crate) const SNAPSHOT_FIXED_BYTES: usize = 36;
pub(crate) const BOARD_FIXED_BYTES: usize = 32;
pub(crate) const ROW_FIXED_BYTES: usize = 9;
pub(crate) const HISTORY_BYTES: usize = 16;
pub(crate) const PERIODS_BYTES: usize = 16;
pub(crate) const HISTORY_FIXED_BYTES: usize = 72;
pub(crate) const PERIODS_FIXED_BYTES: usize = 48;
pub(crate) const CLOSED_PERIOD_BYTES: usize = 24;

pub(crate) const HELLO_PAYLOAD_MAX: usize = HELLO_FIXED_BYTES + TOKEN_BYTES_MAX;
pub(crate) const TOKEN_PAYLOAD_MAX: usize = TOKEN_FIXED_BYTES + TOKEN_BYTES_MAX;
pub(crate) const PORTS_AND_HOST_MAX: usize = 2 * CORES_MAX + HOST_BYTES_MAX;
pub(crate) const WELCOME_PAYLOAD_MAX: usize = WELCOME_FIXED_BYTES + PORTS_AND_HOST_MAX;
pub(crate) const REDIRECT_PAYLOAD_MAX: usize = REDIRECT_FIXED_BYTES + PORTS_AND_HOST_MAX;
pub(crate) const ACK_PAYLOAD_MAX: usize = ACK_FIXED_BYTES + BATCH_VIEWS_MAX as usize * REFUSED_RANGE_BYTES;
pub(crate) const LOOKUP_PAYLOAD_MAX: usize = LOOKUP_FIXED_BYTES + VIDEO_ID_BYTES_MAX;
pub(crate) const ANSWER_PAYLOAD_MAX: usize = ANSWER_FIXED_BYTES + BOARDS_MAX * PERIOD_COUNT_BYTES + VIDEO_ID_BYTES_MAX;
pub(crate) const SNAPSHOT_PAYLOAD_MAX: usize =
    SNAPSHOT_FIXED_BYTES + BOARDS_MAX * (BOARD_FIXED_BYTES + TOP_K_MAX * (ROW_FIXED_BYTES + VIDEO_ID_BYTES_MAX));
pub(crate) const HISTORY_ANSWER_PAYLOAD_MAX: usize =
    HISTORY_FIXED_BYTES + TOP_K_MAX * (ROW_FIXED_BYTES + VIDEO_ID_BYTES_MAX);
pub(crate) const PERIODS_ANSWER_PAYLOAD_MAX: usize = PERIODS_FIXED_BYTES + PERIODS_MAX * CLOSED_PERIOD_BYTES;

// String lengths travel in one byte each.
const _: () = assert!(VIDEO_ID_BYTES_MAX <= u8::MAX as usize && FIELD_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(HOST_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(BOARDS_MAX <= u8::MAX as usize);
// Core numbers and their count travel in u16, a batch's bytes and every payload length in u32.
const _: () = assert!(CORES_MAX <= u16::MAX as usize && FRAME_PAYLOAD_BYTES_MAX <= u32::MAX as usize);
// A full batch of the shortest views fits the byte limit, and so does one view of the longest.
const _: () = assert!(
    BATCH_HEADER_BYTES + COLUMNS * COLUMN_HEADER_BYTES + BATCH_VIEWS_MAX as usize * (1 + 1 + TIME_BYTES + 3)
        <= BATCH_BYTES_MAX
);
const _: () = assert!(BATCH_BYTES_MIN <= BATCH_BYTES_MAX);
// A dictionary may have an entry for every view, and states their number in two bytes.
const _: () = assert!(BATCH_VIEWS_MAX <= u16::MAX as u32);
// A bit for each encoding, and plain among them.
const _: () = assert!(ENCODINGS.count_ones() == 3 && ENCODINGS & ENCODING_PLAIN_BIT != 0);
// A refused range's first view is an index, so the mark for "unknown" cannot be one.
const _: () = assert!(BATCH_VIEWS_MAX < u32::MAX);
// The largest payload is the snapshot's.
const _: () = assert!(HELLO_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX && WELCOME_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(TOKEN_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(HISTORY_ANSWER_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(PERIODS_ANSWER_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX && PERIODS_MAX <= u16::MAX as usize);
const _: () = assert!(BATCH_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX && ACK_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(ANSWER_PAYLOAD_MAX <= FRAME_PAYLOAD_BYTES_MAX && REDIRECT_PAYLOAD_MAX <= WELCOME_PAYLOAD_MAX);
