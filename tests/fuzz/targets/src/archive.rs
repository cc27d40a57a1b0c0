//! Archive files, read for every range that can be asked for.
//!
//! Input: a mode, then bytes. Mode 0: they are a file. Mode 1: a file whose checksums are made right. Mode 2: they are
//! the batches of one block, which a file is made around.

use highwater_proto::Batch;
use highwater_storage::{ArchiveRange, ArchiveReader, LogNumber, LogPosition, StorageError};

use crate::bounds::{assert_told, bounded};
use crate::directory::{DIRECTORY, data_directory, shared};
use crate::seals::mend_archive;

const PATH: &str = "archive/views-000-0000000001-0000000000.hwa";
/// The most that a block may say it holds, and what undoing it takes.
const CONSTANT_BYTES: usize = 7 << 20;

/// Where a batch ends, when it arrived, and its accepted views.
type Batches = Vec<(u64, u64, usize)>;

pub(crate) fn run(data: &[u8]) {
    let Some((mode, bytes)) = data.split_first() else { return };
    let file = match mode % 3 {
        2 => around(bytes),
        mode => {
            let mut file = bytes.to_vec();
            if mode == 1 {
                mend_archive(&mut file);
            }
            file
        }
    };
    let disk = data_directory(&[(PATH, &file)]);
    let reader = ArchiveReader::open(shared(&disk)).expect("directory and state are sound");
    let read = bounded(file.len(), 4, CONSTANT_BYTES, || reader.visit::<StorageError>(&ArchiveRange::All, |_| Ok(())));
    if let Err(error) = read {
        return assert_told(&error, &[PATH]);
    }
    let all = batches(&reader, &ArchiveRange::All);
    assert!(all.is_sorted_by_key(|(end, ..)| *end), "batches come in order");
    let up_to = |position| LogPosition { generation: 1, position };
    for (end, arrival_ms, _) in all.iter().take(4) {
        let before = batches(&reader, &ArchiveRange::Arrivals(0..*arrival_ms));
        assert!(before.iter().all(|(_, other_ms, _)| other_ms < arrival_ms));
        let range = ArchiveRange::Positions { log: LogNumber(0), after: up_to(0), up_to: up_to(*end) };
        assert!(batches(&reader, &range).iter().all(|(other, ..)| other <= end));
    }
}

fn batches(reader: &ArchiveReader, range: &ArchiveRange) -> Batches {
    let mut found = Batches::new();
    let visited = reader.visit::<StorageError>(range, |batch| {
        let accepted = batch.accepted().count();
        assert_eq!(accepted, batch.accepted_count() as usize);
        assert_eq!(
            accepted + batch.refused().map(|range| range.count as usize).sum::<usize>(),
            batch.batch.views().len()
        );
        assert_eq!(Batch::decode(batch.bytes), Ok(batch.batch));
        found.push((batch.position.position, batch.arrival_ms, accepted));
        Ok(())
    });
    visited.expect("a part of what was read can be read");
    found
}

/// A file of one block that holds these batches, of which it is not known how many they are: as many as the first byte
/// says.
fn around(bytes: &[u8]) -> Vec<u8> {
    let (count, raw) = bytes.split_first().unwrap_or((&0, bytes));
    let stored = zstd::bulk::compress(raw, 1).expect("bytes can be compressed");
    let (mut file, none) = (b"HWARCHIV".to_vec(), [u64::MAX, 0]);
    let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
    put(&[1, 0, 0, 0, 0, 0, 0, 0]);
    put(&DIRECTORY.0.to_le_bytes());
    put(&[1, 0, 0, 0, 0, 0, 0, 0]);
    put(&[0; 8]);
    put(&crate::directory::SEGMENT_BYTES.to_le_bytes());
    put(&[0; 64 - 56]);
    put(b"HwA\x01");
    for number in [0, 1, u32::from(*count), 0] {
        put(&u32::to_le_bytes(number));
    }
    for number in [0, u64::MAX, 0, u64::MAX, 0, u64::MAX] {
        put(&u64::to_le_bytes(number));
    }
    put(&(raw.len() as u32).to_le_bytes());
    put(&(stored.len() as u32).to_le_bytes());
    put(&[0; 96 - 76]);
    put(&stored);
    put(b"HWARCEND");
    put(&[0; 16]);
    put(&[0; 8]);
    put(&[0; 16]);
    for number in [none, [0, u64::MAX]].concat() {
        put(&u64::to_le_bytes(number));
    }
    put(&[0; 160 - 80]);
    mend_archive(&mut file);
    file
}
