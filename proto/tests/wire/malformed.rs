//! Malformed payloads one by one: the right error, and the close code that the page promises.
//!
//! What it is not: a search for panics, see properties. Invariant: each rule of the page that a single changed field
//! can break has a case here.

use crate::golden::PRODUCER;
use crate::page::{changed, closes, example};
use highwater_proto::{
    Ack, Batch, BatchRefused, CloseReason, FrameHeader, Hello, History, HistoryAnswer, Lookup, Periods, PeriodsAnswer,
    Redirect, Snapshot, Subscribe, VideoCounts, Welcome, batch_header,
};

use CloseReason::{ChecksumMismatch, InvalidVideoId, LimitExceeded, Malformed, VersionUnsupported};

#[test]
fn the_page_s_examples_of_closing() {
    closes(FrameHeader::decode(&[8, 0, 0, 0, 7, 0, 0, 0]), Malformed, "kind 0x07");
    closes(FrameHeader::decode(&[1, 0, 0x10, 0, 0x10, 0, 0, 0]), LimitExceeded, "1048577 bytes");
    closes(Hello::decode(&changed("hello", 0, &[2, 0])), VersionUnsupported, "version 2");
    closes(Batch::verify(&changed("batch", 0, &[0x78]), 1, PRODUCER), ChecksumMismatch, "0xf1043e78");
    closes(Batch::decode(&changed("batch", 24, &[0, 18])), InvalidVideoId, "empty video_id in view 0");
    closes(
        Batch::decode(&changed("batch", 16, &[2])),
        Malformed,
        "column video_id has encoding 2, accepted is 0 (plain)",
    );
    closes(
        Batch::decode(&changed("batch-compact", 26, &[2])),
        Malformed,
        "index 2 in view 0, its dictionary 2 entries",
    );
    closes(Batch::decode(&changed("batch", 44, &[1])), Malformed, "column timestamp_ms has encoding 1, accepted is 0");
    closes(Batch::decode(&changed("batch", 78, &[0xff])), Malformed, "user_id is not valid UTF-8 in view 0");
    closes(Batch::decode(&changed("batch", 4, &[0])), Malformed, "batch view count is 0, allowed is 1 to 8192");
    closes(Batch::decode(&changed("batch", 4, &[1, 0x20])), LimitExceeded, "batch view count is 8193");
    closes(Hello::decode(&changed("hello", 2, &[0])), Malformed, "unknown hello mode 0");
    closes(Hello::decode(&changed("hello", 4, &[1, 4])), LimitExceeded, "token length is 1025");
    closes(Lookup::decode(&changed("lookup", 0, &[0])), InvalidVideoId, "empty video_id, allowed are 1 to 255");
    closes(History::decode(&changed("history", 0, &[3])), Malformed, "period of history 3");
    closes(Periods::decode(&changed("periods", 2, &[0])), Malformed, "periods limit is 0, allowed is 1 to 1000");
    closes(Periods::decode(&changed("periods", 2, &[0xe9, 3])), LimitExceeded, "periods limit is 1001");
}

#[test]
fn hello() {
    closes(Hello::decode(&changed("hello", 2, &[0])), Malformed, "hello mode 0");
    closes(Hello::decode(&changed("hello", 3, &[1])), Malformed, "reserved bytes of HELLO are 0x1");
    closes(Hello::decode(&changed("hello", 4, &[7])), Malformed, "7 bytes needed, 6 left");
    closes(Hello::decode(&changed("hello", 4, &[1, 4])), LimitExceeded, "token length is 1025");
    closes(Hello::decode(&[0; 1049]), LimitExceeded, "1049");
    let debug = format!("{:?}", Hello::decode(&changed("hello", 0, &[1])).unwrap());
    assert!(!debug.contains("s3cret") && !debug.contains("115"), "{debug}");
}

#[test]
fn welcome_and_redirect() {
    closes(Welcome::decode(&changed("welcome", 2, &[2])), LimitExceeded, "home core is 2, allowed is 0 to 1");
    closes(Welcome::decode(&changed("welcome", 4, &[0])), Malformed, "port count is 0");
    closes(Welcome::decode(&changed("welcome", 4, &[65])), LimitExceeded, "port count is 65");
    closes(Welcome::decode(&changed("welcome", 6, &[65])), LimitExceeded, "in_flight_batches_max is 65");
    closes(Welcome::decode(&changed("welcome", 56, &[0, 0])), Malformed, "batch_views_max is 0");
    closes(Welcome::decode(&changed("welcome", 60, &[0, 0, 0])), Malformed, "batch_bytes_max is 0");
    closes(Welcome::decode(&changed("welcome", 64, &[2])), Malformed, "encodings");
    closes(Welcome::decode(&changed("welcome", 69, &[0, 0, 1])), Malformed, "reserved");
    closes(Redirect::decode(&changed("redirect", 8, &[0, 0])), Malformed, "port is 0");
    closes(Redirect::decode(&changed("redirect", 12, &[0xff])), Malformed, "host is not valid UTF-8");
}

#[test]
fn batch() {
    closes(batch_header(&[0; 15]), Malformed, "BATCH ends too soon");
    closes(Batch::decode(&changed("batch", 4, &[0])), Malformed, "view count is 0");
    closes(Batch::decode(&changed("batch", 4, &[1, 0x20])), LimitExceeded, "view count is 8193");
    closes(Batch::decode(&changed("batch", 4, &[3])), Malformed, "video_id");
    closes(Batch::decode(&changed("batch", 8, &[0])), Malformed, "batch sequence is 0");
    closes(Batch::decode(&changed("batch", 17, &[1])), Malformed, "reserved");
    closes(Batch::decode(&changed("batch", 20, &[0xff; 4])), Malformed, "BATCH ends too soon");
    closes(Batch::decode(&changed("batch", 24, &[12])), Malformed, "column video_id states 20 bytes");
    // The second id is "Zürich": its first two bytes are a letter and half of another.
    closes(Batch::decode(&changed("batch", 24, &[13, 5])), InvalidVideoId, "video_id is not valid UTF-8 in view 0");
    closes(Batch::decode(&changed("batch", 38, &[0xff])), InvalidVideoId, "video_id is not valid UTF-8 in view 1");
    closes(Batch::decode(&changed("batch", 48, &[15])), Malformed, "timestamp_ms");
    closes(Batch::decode(&changed("batch", 78, &[0xff])), Malformed, "user_id is not valid UTF-8");
}

#[test]
fn ack_and_batch_refused() {
    closes(Ack::decode(&changed("ack", 0, &[0])), Malformed, "ack sequence is 0");
    closes(Ack::decode(&changed("ack", 16, &[0xff, 0xff])), LimitExceeded, "views of an ack is 65536");
    closes(Ack::decode(&changed("ack", 20, &[1])), LimitExceeded, "duplicate views beside counted ones");
    closes(Ack::decode(&changed("ack", 24, &[2])), LimitExceeded, "refused range count is 2");
    closes(Ack::decode(&changed("ack", 24, &[0xff; 4])), LimitExceeded, "refused range count");
    closes(Ack::decode(&changed("ack", 24, &[0])), Malformed, "12 bytes too many");
    closes(Ack::decode(&changed("ack", 28, &[2])), Malformed, "detail_complete 2");
    closes(Ack::decode(&changed("ack", 28, &[0])), Malformed, "first refused view is 1");
    closes(Ack::decode(&changed("ack-duplicate", 28, &[1])), LimitExceeded, "first refused view");
    closes(Ack::decode(&changed("ack", 36, &[0])), Malformed, "views of a refused range is 0");
    closes(Ack::decode(&changed("ack", 40, &[4])), Malformed, "view refusal 4");
    let twice = [&changed("ack", 24, &[2])[..], &example("ack")[40..]].concat();
    closes(Ack::decode(&twice), Malformed, "refused range 1 is out of order");
    closes(BatchRefused::decode(&changed("batch-refused", 8, &[6])), Malformed, "batch refusal 6");
}

#[test]
fn queries() {
    closes(Lookup::decode(&changed("lookup", 0, &[0])), InvalidVideoId, "empty video_id");
    closes(Lookup::decode(&changed("lookup", 4, &[0xff])), InvalidVideoId, "UTF-8");
    closes(Subscribe::decode(&[0; 9]), LimitExceeded, "SUBSCRIBE payload of 9 bytes");
    closes(VideoCounts::decode(&changed("lookup-answer", 32, &[8])), LimitExceeded, "period counts is 8");
    closes(VideoCounts::decode(&changed("lookup-answer", 36, &[3])), Malformed, "period count 1 is out of order");
    closes(VideoCounts::decode(&changed("lookup-answer", 53, &[1])), Malformed, "window of all-time 1");
    closes(VideoCounts::decode(&changed("lookup-answer", 40, &[0xe9, 3])), LimitExceeded, "rank is 1001");
}

#[test]
fn snapshot() {
    closes(Snapshot::decode(&changed("snapshot", 32, &[8])), LimitExceeded, "boards is 8");
    closes(Snapshot::decode(&changed("snapshot", 36, &[4])), Malformed, "period 4");
    closes(Snapshot::decode(&changed("snapshot", 36, &[3])), Malformed, "board 1 is out of order");
    closes(Snapshot::decode(&changed("snapshot", 38, &[2])), Malformed, "start mark 2");
    closes(Snapshot::decode(&changed("snapshot", 38, &[0])), LimitExceeded, "absent start");
    closes(Snapshot::decode(&changed("snapshot", 40, &[0xff; 4])), LimitExceeded, "board rows");
    closes(Snapshot::decode(&changed("snapshot", 60, &[7, 7])), Malformed, "total views is 1799, allowed is 1800");
    closes(Snapshot::decode(&changed("snapshot", 68, &[0, 0])), Malformed, "view_count is 0");
    closes(Snapshot::decode(&changed("snapshot", 76, &[0])), InvalidVideoId, "empty video_id");
    closes(Snapshot::decode(&changed("snapshot", 68, &[1])), Malformed, "board row 1 is out of order");
    closes(Snapshot::decode(&changed("snapshot", 77, b"~")), Malformed, "board row 1 is out of order");
}

#[test]
fn history() {
    closes(History::decode(&changed("history", 0, &[4])), Malformed, "period of history 4");
    closes(History::decode(&changed("history", 7, &[1])), Malformed, "reserved bytes of HISTORY");
    closes(History::decode(&[0; 17]), LimitExceeded, "HISTORY payload of 17 bytes");
    closes(Periods::decode(&changed("periods", 1, &[1])), Malformed, "reserved bytes of PERIODS");
    closes(Periods::decode(&changed("periods", 5, &[1])), Malformed, "reserved bytes of PERIODS");

    let list = |at, bytes: &[u8]| HistoryAnswer::decode(&changed("history-answer", at, bytes));
    closes(list(16, &[3]), Malformed, "period of history 3");
    closes(list(17, &[3]), Malformed, "outcome 3");
    closes(list(17, &[0]), LimitExceeded, "absent end");
    closes(list(17, &[2]), LimitExceeded, "absent end");
    closes(list(18, &[1]), LimitExceeded, "periods beyond a list");
    closes(list(19, &[2]), Malformed, "mark of an oldest period 2");
    closes(list(19, &[0]), LimitExceeded, "absent oldest start");
    closes(list(20, &[0xe9, 3]), LimitExceeded, "list rows is 1001");
    closes(list(20, &[3]), Malformed, "HISTORY_ANSWER ends too soon");
    closes(list(48, &[0, 0x64, 0xb0, 0xb3]), Malformed, "list end is 1721001600000");
    closes(list(64, &[7, 7, 0]), Malformed, "total views is 1799, allowed is 1800");
    closes(list(72, &[1]), Malformed, "board row 1 is out of order");
    let rowless = [&changed("history-answer", 20, &[0])[..72]].concat();
    closes(HistoryAnswer::decode(&rowless), Malformed, "list rows is 0, allowed is 1");
    let none = |at, bytes: &[u8]| HistoryAnswer::decode(&changed("history-answer-none", at, bytes));
    closes(none(17, &[1]), Malformed, "list end is 0");
    closes(none(32, &[1]), LimitExceeded, "absent oldest start");
    closes(none(64, &[1]), LimitExceeded, "absent total");

    let periods = |at, bytes: &[u8]| PeriodsAnswer::decode(&changed("periods-answer", at, bytes));
    closes(periods(17, &[0]), Malformed, "outcome of periods 0");
    closes(periods(17, &[2]), LimitExceeded, "absent periods is 3");
    closes(periods(18, &[2]), Malformed, "mark of more periods 2");
    closes(periods(20, &[0xe9, 3]), LimitExceeded, "periods is 1001");
    closes(periods(20, &[1]), Malformed, "24 bytes too many");
    closes(periods(56, &[0, 8, 0x8a, 0xae]), Malformed, "period end is 1720915200000");
    closes(periods(64, &[0, 0, 0]), Malformed, "total views is 0");
    closes(periods(80, &[1, 8, 0x8a, 0xae]), Malformed, "closed period 1 is out of order");
}
