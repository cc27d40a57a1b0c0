//! Cut files: what the shards hold beyond the last one, with the log positions that it covers.
//!
//! Not the freezing of the shards, which is the ranking's, and not the order of files, which is the store's. Invariant:
//! every byte of a file is covered by a checksum, and no section is used before its own was checked.
//!
//! ```text
//! header 128 bytes   magic 8 · version u32 · zero u32 · directory u128 · number u64 · epoch u64 · time_ms u64 ·
//!                    minute u32 · arrivals_from_ms u64 · zeros · CRC32C u32 over the first 124 bytes
//! sections           kind u32 · shard u32 · first u64 · payload length u64 · zero u32 · CRC32C u32 (over the first 28
//! bytes
//!                    and the payload) · payload
//!   1 positions      log u32 · generation u32 · position u64, for each log
//!   2 producers      producer images, whole ones; several sections where they are many
//!   3 ids            first = slot of the first id; count u32 · lengths u8 · bytes; ascending per shard
//!   4 runs           pieces of runs in order of (minute, class): minute varint (difference to the piece before) ·
//!                    class u8 · entries varint · entries as slot varint (difference) and count varint
//!   5 index          for each runs section: shard varint · offset varint · minutes varint · minutes as differences
//! footer 32 bytes    magic 8 · index offset u64 · file length u64 · sections u32 · CRC32C u32
//! ```

mod file;
mod format;
mod runs;
mod writer;

pub use file::{CutFile, CutSection};
pub use format::CutHeader;
pub use writer::CutWriter;

pub(crate) use format::{CUTS_DIR, cut_path, parse_cut_name};
pub(crate) use writer::RunBlock;
