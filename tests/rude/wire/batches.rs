//! Batches whose bytes are wrong: structure, strings, checksum, size. None of their views is ever counted.

use super::forge::{Columns, batch, column, frame, header, strings};
use super::{Victim, Welcomed};
use crate::rude::row;
use crate::support::block_on;
use highwater_proto::CloseReason::{ChecksumMismatch, InvalidVideoId, LimitExceeded, Malformed};
use highwater_proto::{BATCH_BYTES_MAX, FrameKind, HelloMode, Sequence};

const BATCH: u8 = 0x10;

#[test]
fn counts_and_columns_that_do_not_fit_are_refused() {
    assert_eq!(FrameKind::Batch.code(), BATCH);
    let mut victim = Victim::new();
    let sound = Columns::of_two();
    let words = ["batch view count is 0", "1 to 8192", "PROTOCOL.md"];
    victim.welcomed("a BATCH of 0 views", |id| sound.batch(id, 0, 1), Malformed, &words);
    let words = ["batch view count is 8193", "1 to 8192", "limits in the welcome"];
    victim.welcomed("a BATCH of 8193 views", |id| sound.batch(id, 8193, 1), LimitExceeded, &words);
    let words = ["BATCH payload of 1048577 bytes", "1048576", "send less"];
    let over = |_| header(BATCH, BATCH_BYTES_MAX as u32 + 1).to_vec();
    victim.welcomed("a BATCH of more than batch_bytes_max", over, LimitExceeded, &words);
    let words = ["batch sequence is 0", "allowed is 1 to"];
    victim.welcomed("a BATCH of sequence 0", |id| sound.batch(id, 2, 0), Malformed, &words);
    let words = ["BATCH ends too soon", "bytes needed"];
    victim.welcomed("a BATCH of 9 bytes", |_| frame(BATCH, &[1; 9]), Malformed, &words);
    for (views, deed) in [(1, "fewer"), (3, "more")] {
        let deed = format!("a BATCH that states {deed} views than its columns have");
        let words = ["column video_id states 13 bytes", "need", "check it against"];
        victim.welcomed(&deed, |id| sound.batch(id, views, 1), Malformed, &words);
    }
    let ids = [5, 6].into_iter().chain(*b"firstsecond").collect::<Vec<u8>>();
    for (stated, deed) in [(12, "one byte too short"), (14, "one byte too long")] {
        let wrong = sound.clone().with(0, column(0, stated, &ids));
        let stated = format!("column video_id states {stated} bytes but its views need 13");
        victim.welcomed(&format!("a column {deed}"), |id| wrong.batch(id, 2, 1), Malformed, &[&stated, "check"]);
    }
    let wrong = sound.clone().with(0, column(0, u32::MAX, &ids));
    let words = ["BATCH ends too soon", "4294967295 bytes needed"];
    victim.welcomed("a column of 4 GiB in its header", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let wrong = sound.clone().with(1, column(0, 15, &[0; 15]));
    let words = ["column timestamp_ms states 15 bytes", "need 16"];
    victim.welcomed("times of 15 bytes for two views", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let wrong = sound.clone().with(4, [sound.0[4].clone(), vec![0; 3]].concat());
    let words = ["BATCH has 3 bytes too many", "check the lengths"];
    victim.welcomed("3 bytes behind the last column", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let wrong = sound.clone().with(0, column(2, ids.len() as u32, &ids));
    let words = ["column video_id has encoding 2", "accepted is 0 (plain) and 1 (dictionary)", "welcome"];
    victim.welcomed("strings in the encoding of times", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let wrong = sound.clone().with(0, column(1, 9, &[2, 0, 0, 2, 1, 1, b'a', b'b', b'c']));
    let words = ["column video_id has index 2 in view 1", "its dictionary 2 entries", "below"];
    victim.welcomed("an index beyond its dictionary", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let wrong = sound.clone().with(1, column(2, 16, &[0xff; 16]));
    let words = ["base of narrow times is 18446744073709551615", "allowed is 0 to 9223372036854775807", "plain ones"];
    victim.welcomed("narrow times whose sums overflow", |id| wrong.batch(id, 2, 1), Malformed, &words);
    let mut reserved = sound.clone();
    reserved.0[3][2] = 7;
    let words = ["reserved bytes of BATCH are 0x700", "write zeros"];
    victim.welcomed("reserved bytes of a column not 0", |id| reserved.batch(id, 2, 1), Malformed, &words);
    victim.recover(&[]);
}

#[test]
fn strings_that_are_none_are_refused() {
    let mut victim = Victim::new();
    let sound = Columns::of_two();
    let wrong = sound.clone().with(0, strings(&[b"good", b""]));
    let words = ["empty video_id in view 1", "1 to 255 bytes", "leave it out"];
    victim.welcomed("an empty video id", |id| wrong.batch(id, 2, 1), InvalidVideoId, &words);
    let wrong = sound.clone().with(0, strings(&[b"good", b"b\xffd"]));
    let words = ["video_id is not valid UTF-8 in view 1", "encode it"];
    victim.welcomed("a video id not in UTF-8", |id| wrong.batch(id, 2, 1), InvalidVideoId, &words);
    // Together the two are valid: a letter of two bytes is split between them.
    let split = ["Zü".as_bytes(), b"rich"].concat();
    let wrong = sound.clone().with(0, strings(&[&split[..2], &split[2..]]));
    let words = ["video_id is not valid UTF-8 in view 0", "each string by itself"];
    victim.welcomed("a letter split between two video ids", |id| wrong.batch(id, 2, 1), InvalidVideoId, &words);
    for (index, field) in [(2, "user_id"), (3, "region"), (4, "device")] {
        let wrong = sound.clone().with(index, strings(&[b"\xc3", b"good"]));
        let words = format!("{field} is not valid UTF-8 in view 0");
        let deed = format!("a {field} not in UTF-8");
        victim.welcomed(&deed, |id| wrong.batch(id, 2, 1), Malformed, &[&words, "encode it"]);
    }
    victim.recover(&[]);
}

#[test]
fn checksums_that_do_not_fit_are_refused() {
    let mut victim = Victim::new();
    let words = ["batch checksum is 0x", "its content gives 0x", "compute CRC32C over version, producer id"];
    for (deed, at) in [("a wrong checksum", 8), ("a bit changed behind the checksum", 60)] {
        let flipped = |id| {
            let mut bytes = batch(id, 1);
            bytes[at] ^= 1;
            bytes
        };
        victim.welcomed(deed, flipped, ChecksumMismatch, &words);
    }
    let other = victim.id();
    victim.welcomed("a BATCH under another producer's checksum", |_| batch(other, 1), ChecksumMismatch, &words);
    victim.recover(&[]);
}

#[test]
fn half_a_batch_is_none() {
    let mut victim = Victim::new();
    let id = victim.id();
    let closed = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let bytes = batch(id, 1);
        producer.line.send(&bytes[..bytes.len() - 10]).await;
        producer.line.send.finish().unwrap();
        producer.line.closed().await
    });
    let words = ["the stream ended after", "bytes of a BATCH payload", "send whole frames"];
    victim.closed("half a BATCH, then the end of the stream", &closed, Malformed, &words);
    let id = victim.id();
    let last = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let bytes = batch(id, 1);
        producer.line.send(&bytes[..bytes.len() - 10]).await;
        producer.line.connection.close(0_u8.into(), b"gone");
        Welcomed::open(&victim.engine, id, HelloMode::Resume).await.welcome.last
    });
    assert_eq!(last, Sequence(0));
    row("half a BATCH, then the connection lost", "WELCOME last 0: nothing was counted", "resume");
    victim.recover(&[]);
}
