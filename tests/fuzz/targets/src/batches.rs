//! Batches: the checker, the iterators and the builder agree, and no memory is taken to decode one.
//!
//! Input: the payload of a BATCH frame.

use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_VIEWS_MAX, Batch, BatchBuilder, DecodeError, FRAME_HEADER_BYTES, PROTOCOL_VERSION,
    ProducerId, Pushed, batch_checksum, batch_header,
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
    assert_eq!(builder.payload_bytes(), payload.len());
    checksums(payload);
    let frame = builder.encode(PRODUCER, batch.sequence());
    let again = &frame[FRAME_HEADER_BYTES..];
    assert_eq!(again[4..], payload[4..], "a batch does not come back as it was");
    assert_eq!(Batch::verify(again, PROTOCOL_VERSION, PRODUCER), Ok(()));
}

fn checksums(payload: &[u8]) {
    let computed = batch_checksum(payload, PROTOCOL_VERSION, PRODUCER);
    let stated = batch_header(payload).expect("it was read before").crc;
    match Batch::verify(payload, PROTOCOL_VERSION, PRODUCER) {
        Ok(()) => assert_eq!(stated, computed),
        Err(error) => assert_eq!(error, DecodeError::Checksum { stated, computed }),
    }
}
