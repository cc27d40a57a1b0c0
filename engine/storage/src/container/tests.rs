//! Files of earlier versions.

use highwater_proto::{Epoch, ProducerId, Sequence};
use highwater_ranking::Minute;

use super::format::{CutHeader, FOOTER_BYTES, FileHeader, FileKind, Footer, SectionHeader, kind};
use super::payload::put_positions;
use crate::cut::open_cut;
use crate::disk::{Access, Disk};
use crate::memory_disk::MemoryDisk;
use crate::position::{DirectoryId, LogNumber, LogPosition};
use crate::producers::{BatchVerdict, OWNER_BYTES, OwnerId, ProducerImage};

/// A cut file as version 1 wrote it: the same but for its number and the owners, which it did not have.
fn cut_of_version_1(cut: CutHeader, producers: &[ProducerImage]) -> Vec<u8> {
    let sealed = |mut bytes: Vec<u8>| {
        let end = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let mut file = FileHeader { kind: FileKind::Cut, cut, first: 0, period_minutes: 0 }.encode();
    file[8] = 1;
    let mut file = sealed(file);
    let mut known = Vec::new();
    for producer in producers {
        let mut encoded = Vec::new();
        producer.encode(&mut encoded);
        encoded.drain(size_of::<u128>()..size_of::<u128>() + OWNER_BYTES);
        known.extend(encoded);
    }
    let positions = put_positions(&[(LogNumber(0), LogPosition { generation: 1, position: 77 })]);
    let mut index_offset = 0;
    let sections = [(kind::POSITIONS, positions), (kind::PRODUCERS, known), (kind::INDEX, Vec::new())];
    for (kind, payload) in &sections {
        index_offset = file.len() as u64;
        file.extend(SectionHeader::new(*kind, 0, 0, payload).encode());
        file.extend(payload);
    }
    let file_len = (file.len() + FOOTER_BYTES) as u64;
    file.extend(Footer { index_offset, file_len, sections: sections.len() as u32 }.encode(FileKind::Cut));
    file
}

#[test]
fn a_file_from_before_producers_had_owners_is_read() {
    let disk = MemoryDisk::new();
    disk.create_dir("cuts").unwrap();
    let path = "cuts/cut-0000000001.cut";
    drop(disk.open(path, Access::CreateNew).unwrap());
    let (directory, epoch, minute) = (DirectoryId(5), Epoch(9), Minute(100));
    let cut = CutHeader { directory, number: 1, epoch, time_ms: 12_345, minute, arrivals_from_ms: 12_000 };
    let entry = BatchVerdict { sequence: Sequence(7), crc32c: 8, counted: 9, refused: Vec::new(), complete: true };
    let one = |id, entries| {
        let (id, owner) = (ProducerId(id), Some(OwnerId(3)));
        ProducerImage { id, owner, last: Sequence(7), last_seen_ms: 99, entries }
    };
    let producers = [one(1, vec![entry]), one(2, Vec::new())];
    disk.damage(path, cut_of_version_1(cut, &producers));
    let file = open_cut(&disk, directory, 1).unwrap();
    assert_eq!(file.producers().unwrap(), producers.map(|one| ProducerImage { owner: None, ..one }));
}
