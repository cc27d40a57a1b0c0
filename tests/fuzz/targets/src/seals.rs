//! Where checksums stand in every file, to make them right after a change: a fuzzer that may not do so sees nothing but
//! the checks of checksums.
//!
//! Not a reader: written from the pictures in ARCHITECTURE.md alone, so that it does not believe what the engine's code
//! believes. Invariants: never panics, whatever the bytes; changes nothing but checksums, and those lengths that stand
//! only to be checked.

use highwater_proto::{ProducerId, batch_checksum};

/// First bytes of a record.
const RECORD_MAGIC: &[u8; 4] = b"HwR\x01";
const RECORD_HEADER_BYTES: usize = 128;
const FILE_HEADER_BYTES: usize = 128;
const SECTION_HEADER_BYTES: usize = 32;
const FILE_FOOTER_BYTES: usize = 32;
const ARCHIVE_HEADER_BYTES: usize = 64;
const ARCHIVE_BLOCK_BYTES: usize = 96;
const ARCHIVE_FOOTER_BYTES: usize = 160;
/// Magic and version of a small file, and what of a list's head is covered by its own checksum.
const SEAL_BYTES: usize = 12;
const LIST_HEAD_BYTES: usize = 68;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..).and_then(|tail| tail.get_mut(..value.len())) {
        place.copy_from_slice(value);
    }
}

fn put_crc(bytes: &mut [u8], at: usize, crc: u32) {
    put(bytes, at, &crc.to_le_bytes());
}

/// A small file: magic, version, body, checksum.
#[must_use]
pub fn small_file(magic: &[u8; 8], version: u32, body: &[u8]) -> Vec<u8> {
    let mut file = [&magic[..], &version.to_le_bytes(), body].concat();
    let crc = crc32c::crc32c(&file);
    file.extend_from_slice(&crc.to_le_bytes());
    file
}

/// A closed list's file, from its body: the checksum of its head too.
#[must_use]
pub fn list_file(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let head_end = LIST_HEAD_BYTES - SEAL_BYTES;
    if body.len() >= head_end + 4 {
        let seal = small_file(b"HWTOPS\0\0", 1, &[]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&seal[..SEAL_BYTES]), &body[..head_end]);
        put_crc(&mut body, head_end, crc);
    }
    small_file(b"HWTOPS\0\0", 1, &body)
}

/// Every record of a log: the checksums of its batch, its verdicts and its header.
pub fn mend_records(segment: &mut [u8]) {
    for at in (0..segment.len().saturating_sub(RECORD_HEADER_BYTES - 1)).step_by(8) {
        if segment[at..].starts_with(RECORD_MAGIC) {
            mend_record(&mut segment[at..]);
        }
    }
}

fn mend_record(record: &mut [u8]) -> Option<()> {
    let (batch_len, verdicts_len) = (u32_at(record, 100)? as usize, u32_at(record, 104)? as usize);
    let version = u16::from_le_bytes([record[54], record[55]]);
    let producer = record[56..].first_chunk().map(|bytes| ProducerId(u128::from_le_bytes(*bytes)))?;
    let batch_end = RECORD_HEADER_BYTES + batch_len;
    if let Some(batch) = record.get_mut(RECORD_HEADER_BYTES..batch_end).filter(|batch| batch.len() >= 4) {
        let crc = batch_checksum(batch, version, producer).to_le_bytes();
        put(batch, 0, &crc);
        put(record, 96, &crc);
    }
    if let Some(verdicts) = record.get(batch_end..batch_end + verdicts_len) {
        let crc = crc32c::crc32c(verdicts);
        put_crc(record, 108, crc);
    }
    let crc = crc32c::crc32c(&record[8..RECORD_HEADER_BYTES]);
    put_crc(record, 4, crc);
    Some(())
}

/// A cut file, roll-up or base: the checksums of its header, sections and footer, and in that its length, its number of
/// sections and the place of its index, which is the last section.
pub fn mend_sections(file: &mut [u8]) {
    if file.len() < FILE_HEADER_BYTES + FILE_FOOTER_BYTES {
        return;
    }
    let crc = crc32c::crc32c(&file[..FILE_HEADER_BYTES - 4]);
    put_crc(file, FILE_HEADER_BYTES - 4, crc);
    let footer_at = file.len() - FILE_FOOTER_BYTES;
    let (mut at, mut last, mut count) = (FILE_HEADER_BYTES, FILE_HEADER_BYTES, 0u32);
    while at + SECTION_HEADER_BYTES <= footer_at {
        let room = footer_at - at - SECTION_HEADER_BYTES;
        let Some(len) = u64_at(file, at + 16).filter(|len| *len <= room as u64) else { break };
        let end = at + SECTION_HEADER_BYTES + len as usize;
        let covered = crc32c::crc32c(&file[at..at + SECTION_HEADER_BYTES - 4]);
        let crc = crc32c::crc32c_append(covered, &file[at + SECTION_HEADER_BYTES..end]);
        put_crc(file, at + SECTION_HEADER_BYTES - 4, crc);
        (last, count, at) = (at, count + 1, end);
    }
    let len = file.len() as u64;
    put(file, footer_at + 8, &(last as u64).to_le_bytes());
    put(file, footer_at + 16, &len.to_le_bytes());
    put(file, footer_at + 24, &count.to_le_bytes());
    let crc = crc32c::crc32c(&file[footer_at..footer_at + FILE_FOOTER_BYTES - 4]);
    put_crc(file, footer_at + FILE_FOOTER_BYTES - 4, crc);
}

/// An archive file: the checksums of its header, blocks and footer, and in that its length and its number of blocks.
pub fn mend_archive(file: &mut [u8]) {
    if file.len() < ARCHIVE_HEADER_BYTES + ARCHIVE_FOOTER_BYTES {
        return;
    }
    let crc = crc32c::crc32c(&file[..ARCHIVE_HEADER_BYTES - 4]);
    put_crc(file, ARCHIVE_HEADER_BYTES - 4, crc);
    let footer_at = file.len() - ARCHIVE_FOOTER_BYTES;
    let (mut at, mut count) = (ARCHIVE_HEADER_BYTES, 0u32);
    while at + ARCHIVE_BLOCK_BYTES <= footer_at {
        let room = footer_at - at - ARCHIVE_BLOCK_BYTES;
        let Some(len) = u32_at(file, at + 72).map(|len| len as usize).filter(|len| *len <= room) else { break };
        let stored = at + ARCHIVE_BLOCK_BYTES;
        let crc = crc32c::crc32c(&file[stored..stored + len]);
        put_crc(file, at + 76, crc);
        let crc = crc32c::crc32c(&file[at..stored - 4]);
        put_crc(file, stored - 4, crc);
        (at, count) = (stored + len, count + 1);
    }
    let len = file.len() as u64;
    put(file, footer_at + 24 + 4, &count.to_le_bytes());
    put(file, footer_at + 88, &len.to_le_bytes());
    let crc = crc32c::crc32c(&file[footer_at..footer_at + ARCHIVE_FOOTER_BYTES - 4]);
    put_crc(file, footer_at + ARCHIVE_FOOTER_BYTES - 4, crc);
}
