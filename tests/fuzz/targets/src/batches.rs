//! Batches: the checker, the iterators and the builder agree, and no memory is taken to decode one.
//!
//! Input: the payload of a BATCH frame.

use std::collections::HashMap;

use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_HEADER_BYTES, BATCH_VIEWS_MAX, Batch, BatchBuilder, COLUMN_HEADER_BYTES, DecodeError,
    ENCODINGS, FRAME_HEADER_BYTES, PROTOCOL_VERSION, ProducerId, Pushed, batch_checksum, batch_header,
};

use crate::bounds::{assert_told, bounded};

const PRODUCER: ProducerId = ProducerId(9);

pub(crate) fn run(payload: &[u8]) {
    let header = batch_header(payload);
    let batch = match bounded(0, 0, 0, || Batch::decode(payload)) {
        Ok(batch) => batch,
        Err(error) => return assert_told(&error, &[]),
    };
    let header = header.expect("a batch that decodes has a header");
    assert_eq!((header.crc, header.view_count), (batch.crc(), batch.view_count()));
    assert_eq!(header.sequence, batch.sequence());
    assert!((1..=BATCH_VIEWS_MAX).contains(&batch.view_count()));
    let count = batch.view_count() as usize;
    let columns = [batch.video_ids().len(), batch.users().len(), batch.regions().len(), batch.devices().len()];
    assert_eq!((columns, batch.timestamps().len()), ([count; 4], count));
    let mut columns = (batch.video_ids(), batch.timestamps(), batch.users(), batch.regions(), batch.devices());
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for view in batch.views() {
        assert_eq!(Some(view.video_id), columns.0.next());
        assert_eq!(Some(view.timestamp_ms), columns.1.next());
        assert_eq!((Some(view.user_id), Some(view.region)), (columns.2.next(), columns.3.next()));
        assert_eq!(Some(view.device), columns.4.next());
        assert_eq!(builder.push(&view), Ok(Pushed::Added), "{view:?}");
    }
    assert_eq!(builder.len(), batch.view_count());
    let plain_bytes = builder.payload_bytes();
    checksums(payload);
    told_at_once(&batch);
    let compact = builder.clone().with_encodings(ENCODINGS);
    for (mut builder, is_plain) in [(builder, true), (compact, false)] {
        let frame = builder.encode(PRODUCER, batch.sequence());
        let again = &frame[FRAME_HEADER_BYTES..];
        assert_eq!(Batch::verify(again, PROTOCOL_VERSION, PRODUCER), Ok(()));
        let decoded = Batch::decode(again).expect("what is built is taken");
        assert!(decoded.views().eq(batch.views()), "a batch does not come back as it was");
        assert!(if is_plain { again.len() == plain_bytes } else { again.len() <= plain_bytes });
        if is_plain && columns_are_plain(payload) {
            assert_eq!(again[4..], payload[4..], "a plain batch has other bytes than before");
        }
    }
}

/// Whether no column has an encoding other than 0.
fn columns_are_plain(payload: &[u8]) -> bool {
    let mut rest = &payload[BATCH_HEADER_BYTES..];
    while let Some((header, after)) = rest.split_first_chunk::<COLUMN_HEADER_BYTES>() {
        if header[0] != 0 {
            return false;
        }
        rest = &after[u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize..];
    }
    true
}

/// What is told of a whole batch is what its views say one by one.
fn told_at_once(batch: &Batch<'_>) {
    let times = batch.timestamps().min().zip(batch.timestamps().max());
    assert_eq!(Some(batch.time_bounds()), times);
    let Some(dictionary) = batch.video_dictionary() else { return };
    let mut uses = Vec::new();
    dictionary.count_uses(&mut uses);
    assert_eq!(uses.len(), dictionary.entries().len());
    assert_eq!(uses.iter().map(|&uses| u32::from(uses)).sum::<u32>(), batch.view_count());
    // Entries may be equal to each other, so it is strings that are counted.
    let mut counts: HashMap<&str, i64> = HashMap::new();
    dictionary.entries().zip(&uses).for_each(|(entry, &uses)| *counts.entry(entry).or_default() += i64::from(uses));
    batch.video_ids().for_each(|video_id| *counts.entry(video_id).or_default() -= 1);
    assert!(counts.values().all(|&left| left == 0), "{counts:?}");
}

fn checksums(payload: &[u8]) {
    let computed = batch_checksum(payload, PROTOCOL_VERSION, PRODUCER);
    let stated = batch_header(payload).expect("it was read before").crc;
    match Batch::verify(payload, PROTOCOL_VERSION, PRODUCER) {
        Ok(()) => assert_eq!(stated, computed),
        Err(error) => assert_eq!(error, DecodeError::Checksum { stated, computed }),
    }
}
