//! The tables of the page against the crate: limits, kinds, reasons, close codes, checksum vectors.
//!
//! What it is not: the meaning of the rows. Invariant: a constant that changes on one side only fails here.

use crate::page::table;
use highwater_proto as proto;
use highwater_proto::{BatchRefusal, CloseAction, CloseReason, FrameKind, ViewRefusal};

fn number(text: &str) -> u64 {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{text} is no number"))
}

#[test]
fn limits() {
    let expected = [
        ("PROTOCOL_VERSION", u64::from(proto::PROTOCOL_VERSION)),
        ("FRAME_HEADER_BYTES", proto::FRAME_HEADER_BYTES as u64),
        ("VIDEO_ID_BYTES_MAX", proto::VIDEO_ID_BYTES_MAX as u64),
        ("FIELD_BYTES_MAX", proto::FIELD_BYTES_MAX as u64),
        ("TIMESTAMP_MS_MAX", proto::TIMESTAMP_MS_MAX),
        ("BATCH_VIEWS_MAX", u64::from(proto::BATCH_VIEWS_MAX)),
        ("BATCH_BYTES_MAX", proto::BATCH_BYTES_MAX as u64),
        ("BATCH_BYTES_MIN", proto::BATCH_BYTES_MIN as u64),
        ("IN_FLIGHT_BATCHES_MAX", u64::from(proto::IN_FLIGHT_BATCHES_MAX)),
        ("TOKEN_BYTES_MAX", proto::TOKEN_BYTES_MAX as u64),
        ("IDENTITY_BYTES_MAX", proto::IDENTITY_BYTES_MAX as u64),
        ("CORES_MAX", proto::CORES_MAX as u64),
        ("HOST_BYTES_MAX", proto::HOST_BYTES_MAX as u64),
        ("BOARDS_MAX", proto::BOARDS_MAX as u64),
        ("TOP_K_MAX", proto::TOP_K_MAX as u64),
        ("PERIODS_MAX", proto::PERIODS_MAX as u64),
        ("FRAME_PAYLOAD_BYTES_MAX", proto::FRAME_PAYLOAD_BYTES_MAX as u64),
    ];
    let rows = table("| name | value | meaning |");
    let stated: Vec<_> = rows.iter().map(|row| (row[0], number(row[1]))).collect();
    assert_eq!(stated, expected);
}

#[test]
fn kinds() {
    let rows = table("| kind | name | from | largest payload | meaning |");
    let stated: Vec<_> = rows.iter().map(|row| (number(row[0]), row[1], number(row[3]))).collect();
    let expected = FrameKind::ALL.map(|kind| (u64::from(kind.code()), kind.as_str(), kind.payload_bytes_max() as u64));
    assert_eq!(stated, expected);
}

#[test]
fn reasons() {
    let rows = table("| reason | name | meaning |");
    let stated: Vec<_> = rows.iter().map(|row| (number(row[0]), row[1])).collect();
    let of_views = ViewRefusal::ALL.map(|reason| (u64::from(reason.code()), reason.as_str()));
    let of_batches = BatchRefusal::ALL.map(|reason| (u64::from(reason.code()), reason.as_str()));
    assert_eq!(stated, [of_views.as_slice(), of_batches.as_slice()].concat());
}

#[test]
fn close_codes() {
    let rows = table("| code | name | cause | what the client does |");
    assert_eq!(rows.len(), CloseReason::ALL.len());
    for (row, reason) in rows.iter().zip(CloseReason::ALL) {
        assert_eq!((number(row[0]), row[1]), (u64::from(reason.code()), reason.as_str()));
        let word = match reason.action() {
            CloseAction::Finish => "nothing",
            CloseAction::Reconnect => "reconnect",
            CloseAction::FreshProducer => "without a welcome so far: take a fresh id",
            CloseAction::Stop => "stop",
        };
        assert!(row[3].starts_with(word), "{reason}: the page says {:?}, the crate {word:?}", row[3]);
    }
}

#[test]
fn checksum_vectors() {
    let ascending: Vec<u8> = (0..32).collect();
    let descending: Vec<u8> = (0..32).rev().collect();
    let inputs: [&[u8]; 6] = [b"123456789", &[0; 32], &[0xff; 32], &ascending, &descending, &[]];
    let rows = table("| input | CRC32C |");
    assert_eq!(rows.len(), inputs.len());
    for (row, input) in rows.iter().zip(inputs) {
        assert_eq!(number(row[1]), u64::from(crc32c::crc32c(input)), "{}", row[0]);
    }
}
