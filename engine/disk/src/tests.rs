//! A whole data directory on a real file system, through the ring.

use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, BatchBuilder, FRAME_HEADER_BYTES, InstanceId, ProducerId, Sequence, View,
    batch_header,
};
use highwater_storage::{
    AppendRoom, Directory, DirectoryId, LogDevice, LogLimits, LogNumber, LogWriter, OpenOptions, RecordKind,
    RecordMeta, SEGMENT_BYTES_DEFAULT, StorageError, Store,
};

use crate::{FileDisk, UringLog};

const PRODUCER: ProducerId = ProducerId(3);

fn options() -> OpenOptions {
    OpenOptions::new(Directory {
        id: DirectoryId(1),
        instance: InstanceId(2),
        hash_seed: 3,
        shards: 4,
        lateness_max_ms: 5,
        segment_bytes: SEGMENT_BYTES_DEFAULT / 16,
    })
}

fn batch(sequence: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for index in 0..4000 {
        let video_id = format!("video-{index}");
        let view = View { video_id: &video_id, timestamp_ms: sequence, user_id: "user", region: "", device: "tv" };
        let _ = builder.push(&view).unwrap();
    }
    builder.encode(PRODUCER, Sequence(sequence))[FRAME_HEADER_BYTES..].to_vec()
}

/// Appends batches until `last` is durable; they fill several segments.
fn append(store: &mut Store<FileDisk>, sequences: std::ops::RangeInclusive<u64>) {
    store.open_generations(1).unwrap();
    let limits = LogLimits { segment_bytes: store.directory().segment_bytes, ..LogLimits::default() };
    let mut writer = LogWriter::new(store.log_identity(LogNumber(0)), limits);
    let mut device = UringLog::open(store.disk().root(), limits.depth).unwrap();
    let last = *sequences.end();
    let mut waiting = sequences.peekable();
    let mut durable = 0;
    while durable < last {
        if let Some(&sequence) = waiting.peek() {
            let payload = batch(sequence);
            match writer.room(payload.len()) {
                AppendRoom::Ready => {
                    writer.begin(payload.len()).copy_from_slice(&payload);
                    let batch_crc = batch_header(&payload).unwrap().crc;
                    let (kind, sequence) = (RecordKind::Batch, Sequence(sequence));
                    let meta =
                        RecordMeta { kind, producer: PRODUCER, sequence, arrival_ms: 1, batch_crc, view_count: 4000 };
                    writer.commit(&meta, &[]);
                    waiting.next();
                }
                AppendRoom::Busy => {}
                AppendRoom::NoSegment => {
                    let segment = store.prepare_segment(LogNumber(0)).unwrap();
                    writer.add_segment(&segment, device.attach(&segment).unwrap());
                }
            }
        }
        while let Some(write) = writer.poll_write() {
            device.submit(write).unwrap();
        }
        while let Some(written) = device.complete() {
            written.result.unwrap();
            writer.handle_written(written.write);
        }
        while let Some(record) = writer.next_durable() {
            durable = record.header.sequence.0;
        }
        while let Some(handle) = writer.poll_retired() {
            device.detach(handle);
        }
    }
}

#[test]
fn what_was_appended_is_there_at_the_next_start() {
    let root = tempfile::tempdir_in(".").unwrap();
    for life in 0..3u64 {
        let disk = FileDisk::open(root.path()).unwrap();
        let mut store = Store::open(disk, options()).unwrap();
        let mut found = 0;
        store
            .replay_logs::<StorageError>(|_, record| {
                if record.header.kind == RecordKind::Batch {
                    found += 1;
                    assert_eq!(record.header.sequence, Sequence(found));
                    assert_eq!(record.batch, batch(found));
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(found, life * 60);
        append(&mut store, found + 1..=found + 60);
    }
}
