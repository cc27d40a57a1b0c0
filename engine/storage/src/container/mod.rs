//! Files of sections: the common form of cut files, roll-ups and bases.
//!
//! Not what belongs into which file, and not the order of files. Invariant: every byte of a file is covered by a
//! checksum, and no section is used before its own was checked.
//!
//! ```text
//! header 128 bytes   magic 8 · version u32 · zero u32 · directory u128 · last cut's number u64 · epoch u64 ·
//!                    time_ms u64 · minute u32 · arrivals_from_ms u64 · first cut's number u64 (0 in a cut file) ·
//!                    minutes of a period u32 (0 but in roll-ups) · zeros · CRC32C u32 over the first 124 bytes
//! sections           kind u32 · shard u32 · first u64 · payload length u64 · zero u32 ·
//!                    CRC32C u32 (over the first 28 bytes and the payload) · payload
//!   1 positions      log u32 · generation u32 · position u64, for each log
//!   2 producers      producer images, whole ones; several sections where they are many; from version 2 on each has its
//!                    owner u128 behind its id, 0 where nobody owns it
//!   3 ids            first = slot of the first id; count u32 · lengths u8 · bytes; ascending per shard
//!   4 runs           pieces of runs in order of (minute, class): minute varint (difference to the piece before) ·
//!                    class u8 · entries varint · entries as slot varint (difference) and count varint
//!   5 index          for each section of runs, in a base of ids and counts: shard varint · offset varint ·
//!                    minutes varint · minutes as differences
//!   6 counts         first = slot of the first; count u32 · all-time counts as varints; ascending per shard
//!   7 manifest       what a base rests on: see `base`
//! footer 32 bytes    magic 8 · index offset u64 · file length u64 · sections u32 · CRC32C u32
//! ```

mod cursor;
mod file;
mod format;
mod payload;
mod runs;
mod writer;

#[cfg(test)]
mod tests;

pub use file::CutSection;
pub use format::CutHeader;

pub(crate) use cursor::RunCursor;
pub(crate) use file::{RunSection, SectionFile};
pub(crate) use format::{FileHeader, FileKind};
pub(crate) use payload::Block;
pub(crate) use writer::{FileWriter, Pacing, SECTION_PAYLOAD_BYTES, SealedFile, remove_if_there, temporary_path};
