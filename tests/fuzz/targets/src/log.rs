//! Segments of a log: the records of two, through the reader of a start and through that of the archive.
//!
//! Input: whether checksums are made right, then the bytes of two segments of 8 KiB, the rest of which is zeros.

use highwater_proto::Batch;
use highwater_storage::{
    ArchiveRange, ArchiveReader, GenerationScan, LogEnd, LogIdentity, LogNumber, MemoryDisk, RecordKind, SegmentNumber,
    StorageError, scan_generation, segment_path,
};

use crate::bounds::{assert_told, bounded};
use crate::directory::{DIRECTORY, SEGMENT_BYTES, data_directory, mended, shared};
use crate::seals::mend_records;

const SEGMENTS: usize = 2;
const LOG: LogNumber = LogNumber(0);

/// Batches as they were read: behind where, and their bytes.
type Batches = Vec<(u64, Vec<u8>)>;

pub(crate) fn run(data: &[u8]) {
    let segment_bytes = SEGMENT_BYTES as usize;
    let Some(mut bytes) = mended(data, |_| {}) else { return };
    bytes.resize(SEGMENTS * segment_bytes, 0);
    if data[0] & 1 == 1 {
        mend_records(&mut bytes);
    }
    let (first, second) = bytes.split_at(segment_bytes);
    let paths = [0, 1].map(|number| segment_path(LOG, 1, SegmentNumber(number)));
    let disk = data_directory(&[(&paths[0], first), (&paths[1], second)]);
    let scanned = bounded(bytes.len(), 4, 4096, || scan(&disk, 0, None).map(|(end, _)| end));
    match scanned {
        Ok(end) => {
            let (again, batches) = scan(&disk, 0, None).expect("it was read before");
            assert_eq!(again, end);
            from_every_record(&disk, end, &batches);
            let (known, _) = scan(&disk, 0, Some(end.end.position)).expect("it ends where it ends");
            assert_eq!(known, end);
            by_the_archive(&disk, &batches);
        }
        Err(error) => assert_told(&error, &["log-000/g0000000001-s000000000"]),
    }
}

fn scan(disk: &MemoryDisk, from: u64, expected_end: Option<u64>) -> Result<(LogEnd, Batches), StorageError> {
    let identity = LogIdentity { directory: DIRECTORY, log: LOG, generation: 1 };
    let scan = GenerationScan { identity, segment_bytes: SEGMENT_BYTES, from, expected_end };
    let (mut batches, mut before) = (Vec::new(), from);
    let end = scan_generation::<StorageError>(disk, &scan, |record| {
        let (header, end) = (record.header, record.end.position);
        assert_eq!(header.previous_end, before, "a record follows the one before");
        assert!(end >= before + u64::from(header.length) && end.is_multiple_of(8));
        before = end;
        let refused = record.verdicts.iter().map(|range| range.count).sum::<u32>();
        assert_eq!(refused, header.refused_count);
        match header.kind {
            RecordKind::Batch => {
                let batch = Batch::decode(record.batch).expect("a batch is checked before it is handed out");
                assert_eq!(Batch::verify(record.batch, header.wire_version, header.producer), Ok(()));
                assert_eq!((batch.sequence(), batch.view_count()), (header.sequence, header.view_count));
                batches.push((end, record.batch.to_vec()));
            }
            RecordKind::ProducerNew => assert_eq!(record.owner().is_none(), record.batch.is_empty()),
            RecordKind::Prefix => assert!(record.batch.is_empty()),
        }
        Ok(())
    })?;
    Ok((end, batches))
}

/// From behind each batch on there is the rest.
fn from_every_record(disk: &MemoryDisk, whole: LogEnd, batches: &Batches) {
    for (index, (from, _)) in batches.iter().enumerate() {
        let (end, rest) = scan(disk, *from, None).expect("a part of what was read can be read");
        assert_eq!((end.end, &rest[..]), (whole.end, &batches[index + 1..]));
    }
}

/// The reader of the archive finds the same batches.
fn by_the_archive(disk: &MemoryDisk, batches: &Batches) {
    let reader = ArchiveReader::open(shared(disk)).expect("directory and state are sound");
    let mut found = Batches::new();
    let visited = reader.visit::<StorageError>(&ArchiveRange::All, |batch| {
        assert_eq!(batch.accepted().count(), batch.accepted_count() as usize);
        found.push((batch.position.position, batch.bytes.to_vec()));
        Ok(())
    });
    match visited {
        // It reads segment by segment, so it also finds what a second segment holds behind a first without records.
        Ok(_) => assert!(found.starts_with(batches), "{} batches of a start, {} others", batches.len(), found.len()),
        Err(error) => assert_told(&error, &["log-000/g0000000001-s000000000"]),
    }
}
