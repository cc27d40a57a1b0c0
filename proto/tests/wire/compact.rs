//! Batches in compact encodings: golden bytes, each rule that they can break, sizes, and what is read of them at once.
//!
//! What it is not: properties of random batches, see batches. Invariant: whatever the encodings, views are the same.

use crate::golden::PRODUCER;
use crate::page::{changed, closes, example};
use crate::slow::{fast_decode, slow_decode};
use crate::split;
use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_VIEWS_MAX, Batch, BatchBuilder, ENCODING_DICTIONARY_BIT,
    ENCODING_NARROW_TIMES_BIT, ENCODING_PLAIN_BIT, ENCODINGS, FRAME_HEADER_BYTES, ProducerId, Pushed, Sequence, View,
};

use highwater_proto::CloseReason::{InvalidVideoId, LimitExceeded, Malformed};

const PRODUCED: ProducerId = ProducerId(1);

fn builder(encodings: u32) -> BatchBuilder {
    BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32).with_encodings(encodings)
}

fn push(builder: &mut BatchBuilder, video_id: &str, timestamp_ms: u64, user_id: &str) {
    let view = View { video_id, timestamp_ms, user_id, region: "DE", device: "tv" };
    assert_eq!(builder.push(&view), Ok(Pushed::Added));
}

/// The payload of a batch of so many views of `videos` videos, at times `step_ms` apart.
fn payload(encodings: u32, views: u64, videos: u64, step_ms: u64) -> Vec<u8> {
    let mut builder = builder(encodings);
    for index in 0..views {
        push(&mut builder, &format!("video-{:04}", index % videos), 1000 + index * step_ms, "user");
    }
    builder.encode(PRODUCED, Sequence(1))[FRAME_HEADER_BYTES..].to_vec()
}

/// A column with its header.
fn column(encoding: u8, bytes: &[u8]) -> Vec<u8> {
    [&[encoding, 0, 0, 0], &(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

/// A payload of these columns for videos and times; the others are empty.
fn forged(views: u32, videos: Vec<u8>, times: Vec<u8>) -> Vec<u8> {
    let empty = column(1, &[1, 0, 0]);
    let head = [&[0; 4], &views.to_le_bytes()[..], &1_u64.to_le_bytes()].concat();
    [head, videos, times, empty.clone(), empty.clone(), empty].concat()
}

/// Times of a base, with the offsets in so many bytes each.
fn narrow(base: u64, width: u8, offsets: &[u8]) -> Vec<u8> {
    column(2, &[&base.to_le_bytes()[..], &[width], &[0; 7], offsets].concat())
}

#[test]
fn the_example() {
    let user = "user-0000001";
    let views = [
        View { video_id: "dQw4w9WgXcQ", timestamp_ms: 1_721_044_800_000, user_id: user, region: "DE", device: "tv" },
        View { video_id: "Zürich", timestamp_ms: 1_721_044_801_234, user_id: "", region: "DE", device: "phone" },
        View { video_id: "dQw4w9WgXcQ", timestamp_ms: 1_721_044_801_500, user_id: user, region: "DE", device: "tv" },
        View { video_id: "dQw4w9WgXcQ", timestamp_ms: 1_721_044_800_001, user_id: user, region: "DE", device: "tv" },
    ];
    let mut builder = builder(ENCODINGS);
    for view in &views {
        assert_eq!(builder.push(view), Ok(Pushed::Added));
    }
    let frame = builder.encode(PRODUCER, Sequence(9));
    assert_eq!(frame, example("batch-compact"));

    let (_, payload) = split(&frame);
    assert_eq!(Batch::verify(payload, 1, PRODUCER), Ok(()));
    let batch = Batch::decode(payload).unwrap();
    assert_eq!(batch.views().collect::<Vec<_>>(), views);
    assert_eq!(batch.time_bounds(), (1_721_044_800_000, 1_721_044_801_500));
    let dictionary = batch.video_dictionary().expect("the videos are a dictionary");
    assert_eq!(dictionary.entries().collect::<Vec<_>>(), ["dQw4w9WgXcQ", "Zürich"]);
    assert_eq!(dictionary.entries().len(), 2);
    let mut uses = vec![77; 5];
    dictionary.count_uses(&mut uses);
    assert_eq!(uses, [3, 1]);
}

#[test]
fn rules_of_dictionaries() {
    let decode = |at, bytes: &[u8]| Batch::decode(&changed("batch-compact", at, bytes)).map(|batch| batch.view_count());
    closes(decode(16, &[2]), Malformed, "column video_id has encoding 2, accepted is 0 (plain) and 1 (dictionary)");
    closes(decode(16, &[3]), Malformed, "column video_id has encoding 3");
    closes(decode(17, &[1]), Malformed, "reserved bytes of BATCH are 0x1");
    closes(decode(24, &[0]), Malformed, "entries of a dictionary is 0, allowed is 1 to 8192");
    closes(decode(24, &[1, 0x20]), LimitExceeded, "entries of a dictionary is 8193, allowed is 1 to 8192");
    closes(decode(24, &[1]), Malformed, "column video_id states 26 bytes but its views need 3");
    closes(decode(24, &[200]), Malformed, "column video_id states 26 bytes but its views need 206");
    closes(decode(28, &[2]), Malformed, "column video_id has index 2 in view 2, its dictionary 2 entries");
    closes(decode(29, &[0xff]), Malformed, "column video_id has index 255 in view 3");
    closes(decode(30, &[10]), Malformed, "column video_id states 26 bytes but its views need 25");
    closes(decode(30, &[12]), Malformed, "column video_id states 26 bytes but its views need 27");
    closes(decode(30, &[18, 0]), InvalidVideoId, "empty video_id in entry 1 of its dictionary, allowed are 1 to 255");
    // The second id is "Zürich": its first two bytes are a letter and half of another.
    let split = "video_id is not valid UTF-8 in entry 0 of its dictionary";
    closes(decode(30, &[13, 5]), InvalidVideoId, split);
    closes(decode(45, &[0xff]), InvalidVideoId, "video_id is not valid UTF-8 in entry 1 of its dictionary");
    closes(decode(98, &[0xff]), Malformed, "user_id is not valid UTF-8 in entry 0 of its dictionary");
    closes(decode(4, &[3]), Malformed, "column video_id states 26 bytes but its views need");

    let times = || narrow(0, 0, &[]);
    let videos = |bytes: &[u8]| Batch::decode(&forged(1, column(1, bytes), times())).map(|batch| batch.view_count());
    closes(videos(&[]), Malformed, "column video_id states 0 bytes but its views need 2");
    closes(videos(&[1]), Malformed, "column video_id states 1 bytes but its views need 2");
    closes(videos(&[1, 0]), Malformed, "column video_id states 2 bytes but its views need 3");
    closes(videos(&[1, 0, 1]), Malformed, "column video_id states 3 bytes but its views need 4");
    closes(videos(&[1, 0, 0]), InvalidVideoId, "empty video_id in entry 0");
    closes(videos(&[1, 0, 1, b'a', b'b']), Malformed, "column video_id states 5 bytes but its views need 4");
    assert_eq!(videos(&[1, 0, 1, b'a']), Ok(1));
    // Neither must entries differ, nor be used, nor be fewer than views; but an empty one is none.
    assert_eq!(videos(&[3, 0, 2, 1, 1, 1, b'a', b'b', b'a']), Ok(1));
    closes(videos(&[3, 0, 2, 1, 0, 2, b'a', b'b', b'a']), InvalidVideoId, "empty video_id in entry 1");
}

#[test]
fn indices_of_two_bytes() {
    let videos = |index: u16, count: u16| {
        let lengths = vec![1; count.into()];
        let parts = [&count.to_le_bytes()[..], &index.to_le_bytes(), &lengths, &vec![b'v'; count.into()]].concat();
        Batch::decode(&forged(1, column(1, &parts), narrow(0, 0, &[]))).map(|batch| batch.view_count())
    };
    assert_eq!((videos(256, 257), videos(8191, 8192)), (Ok(1), Ok(1)));
    closes(videos(257, 257), Malformed, "column video_id has index 257 in view 0, its dictionary 257 entries");
    closes(videos(0xffff, 8192), Malformed, "column video_id has index 65535 in view 0");
    closes(videos(0, 8193), LimitExceeded, "entries of a dictionary is 8193");
}

#[test]
fn rules_of_narrow_times() {
    let decode = |at, bytes: &[u8]| Batch::decode(&changed("batch-compact", at, bytes)).map(|batch| batch.view_count());
    closes(decode(50, &[1]), Malformed, "column timestamp_ms has encoding 1, accepted is 0 (plain) and 2 (narrow)");
    closes(decode(50, &[3]), Malformed, "column timestamp_ms has encoding 3");
    closes(decode(51, &[0, 0, 1]), Malformed, "reserved bytes of BATCH are 0x10000");
    closes(
        decode(65, &[0x80]),
        Malformed,
        "base of narrow times is 9223373757899575808, allowed is 0 to 9223372036854",
    );
    closes(decode(66, &[3]), Malformed, "unknown width of narrow times 3");
    closes(decode(66, &[8]), Malformed, "unknown width of narrow times 8");
    closes(decode(66, &[1]), Malformed, "column timestamp_ms states 24 bytes but its views need 20");
    closes(decode(66, &[4]), Malformed, "column timestamp_ms states 24 bytes but its views need 32");
    for at in 67..74 {
        closes(decode(at, &[1]), Malformed, "reserved bytes of timestamp_ms are");
    }
    closes(decode(90, &[1]), Malformed, "column user_id");

    let video = || column(1, &[1, 0, 1, b'v']);
    let times = |times: Vec<u8>| {
        let payload = forged(2, video(), times);
        let batch = Batch::decode(&payload)?;
        Ok((batch.timestamps().collect::<Vec<_>>(), batch.time_bounds()))
    };
    closes(times(column(2, &[0; 15])), Malformed, "timestamp_ms ends too soon");
    closes(times(narrow(0, 0, &[0])), Malformed, "column timestamp_ms states 17 bytes but its views need 16");
    let most = i64::MAX as u64;
    assert_eq!(times(narrow(most, 0, &[])), Ok((vec![most, most], (most, most))));
    assert_eq!(times(narrow(7, 1, &[255, 1])), Ok((vec![262, 8], (8, 262))));
    assert_eq!(times(narrow(7, 2, &[0, 1, 1, 0])), Ok((vec![263, 8], (8, 263))));
    let top = most + u64::from(u32::MAX);
    assert_eq!(
        times(narrow(most, 4, &[0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0])),
        Ok((vec![top, most + 1], (most + 1, top)))
    );
}

#[test]
fn few_bytes_cannot_stand_for_more_than_a_plain_batch_has() {
    let entry = |len: u8| [&[1, 0, len][..], &vec![b'v'; len.into()]].concat();
    // 8192 views without user, region and device take 16 + 5 * 8 + 8192 * (8 + 4) bytes and their ids.
    let ids_max = (BATCH_BYTES_MAX - 56) / 8192 - 12;
    let of = |len: u8| forged(8192, column(1, &entry(len)), narrow(0, 0, &[]));
    assert_eq!(ids_max, 115);
    assert!(Batch::decode(&of(115)).is_ok() && slow_decode(&of(115)).is_some());
    let told = "batch payload with plain columns is 1048632, allowed is 0 to 1048576";
    closes(Batch::decode(&of(116)), LimitExceeded, told);
    assert!(of(116).len() < 250 && slow_decode(&of(116)).is_none());

    // A long entry that few views have is no harm.
    let mut indices = vec![0; 8192];
    indices[77] = 1;
    let entries = [&[1, 255][..], &[b'v'; 256]].concat();
    let videos = column(1, &[&[2, 0], &indices[..], &entries].concat());
    let payload = forged(8192, videos, narrow(0, 0, &[]));
    assert_eq!(Batch::decode(&payload).unwrap().video_ids().map(str::len).sum::<usize>(), 8191 + 255);
}

#[test]
fn every_changed_bit_is_caught() {
    for name in ["batch", "batch-compact"] {
        let mut payload = example(name).split_off(FRAME_HEADER_BYTES);
        for bit in 0..8 * payload.len() {
            payload[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(fast_decode(&payload), slow_decode(&payload), "bit {bit} of {name}");
            let caught = Batch::decode(&payload).is_err() || Batch::verify(&payload, 1, PRODUCER).is_err();
            assert!(caught, "bit {bit} of {name} changed was not caught");
            payload[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn all_numbers_of_entries_and_widths_of_times_are_read_back() {
    for encodings in 0..=ENCODINGS {
        for videos in [1, 2, 255, 256, 257, 3000] {
            for step_ms in [0, 1, 40, 5_000, 1 << 30, 1 << 50] {
                let compact = payload(encodings, 6000, videos, step_ms);
                let plain = payload(ENCODING_PLAIN_BIT, 6000, videos, step_ms);
                assert_eq!(fast_decode(&compact), fast_decode(&plain), "{encodings}, {videos}, {step_ms}");
                let has = |bit| encodings & bit != 0;
                let batch = Batch::decode(&compact).unwrap();
                // 3000 ids are too many for a look at the first 512 of them.
                let as_dictionary = has(ENCODING_DICTIONARY_BIT) && videos < 3000;
                assert_eq!(batch.video_dictionary().is_some(), as_dictionary, "{encodings}, {videos}");
                let (mut uses, mut counted) = (Vec::new(), 0);
                if let Some(dictionary) = batch.video_dictionary() {
                    dictionary.count_uses(&mut uses);
                    assert_eq!(uses.len(), dictionary.entries().len());
                    for (entry, &uses) in dictionary.entries().zip(&uses) {
                        let expected = batch.video_ids().filter(|id| *id == entry).count();
                        assert_eq!(usize::from(uses), expected);
                        counted += usize::from(uses);
                    }
                    assert_eq!((uses.len() as u64, counted), (videos, 6000));
                }
                let narrow = has(ENCODING_NARROW_TIMES_BIT) && 5999 * step_ms < 1 << 32;
                let last = 1000 + 5999 * step_ms;
                assert_eq!(batch.time_bounds(), (1000, last));
                let saved = plain.len() - compact.len();
                assert!(
                    saved > 0 || !narrow && !as_dictionary && !has(ENCODING_DICTIONARY_BIT),
                    "{encodings}, {videos}"
                );
            }
        }
    }
}

#[test]
fn times_take_the_least_width() {
    let bytes = |step_ms| payload(ENCODING_NARROW_TIMES_BIT, 101, 7, step_ms).len();
    let plain = payload(ENCODING_PLAIN_BIT, 101, 7, 0).len() - 8 * 101;
    let widths = [0, 1, 2, 3, 655, 656, 42_949_672, 42_949_673].map(bytes).map(|bytes| bytes - plain);
    assert_eq!(widths, [16, 117, 117, 218, 218, 420, 420, 808]);
    let at = |times: [u64; 3]| {
        let mut builder = builder(ENCODING_NARROW_TIMES_BIT);
        times.iter().for_each(|&time| push(&mut builder, "v", time, ""));
        let frame = builder.encode(PRODUCED, Sequence(1));
        let batch = Batch::decode(&frame[FRAME_HEADER_BYTES..]).unwrap();
        assert_eq!(batch.timestamps().collect::<Vec<_>>(), times);
        frame.len()
    };
    let most = i64::MAX as u64;
    // One byte each beside the base, or 24 bytes.
    assert_eq!((at([most, most + 1, most + 255]), at([most + 1; 3])), (at([0, 0, 1]), at([0, 1 << 40, 0])));
    assert!(at([0, 0, 1]) < at([0, 1 << 40, 0]));
}

#[test]
fn limits_are_those_of_plain_batches() {
    let longest = "x".repeat(255);
    let view = View { video_id: &longest, timestamp_ms: 0, user_id: &longest, region: &longest, device: &longest };
    for encodings in [ENCODING_PLAIN_BIT, ENCODINGS, u32::MAX] {
        let mut builder = BatchBuilder::new(8192, BATCH_BYTES_MIN as u32).with_encodings(encodings);
        assert_eq!(builder.push(&view), Ok(Pushed::Added));
        assert_eq!(builder.payload_bytes(), BATCH_BYTES_MIN);
        assert_eq!(builder.push(&view), Ok(Pushed::Full));
        assert_eq!(builder.encode(PRODUCED, Sequence(1)).len(), BATCH_BYTES_MIN + FRAME_HEADER_BYTES);
    }
    let mut builder = builder(ENCODINGS);
    while builder.push(&view) == Ok(Pushed::Added) {}
    let (views, bytes) = (builder.len(), builder.payload_bytes());
    assert!(bytes <= BATCH_BYTES_MAX && bytes + 1032 > BATCH_BYTES_MAX, "{bytes}");
    let frame = builder.encode(PRODUCED, Sequence(1));
    assert!(frame.len() < 2000, "{}", frame.len());
    assert_eq!(
        Batch::decode(&frame[FRAME_HEADER_BYTES..]).unwrap().views().filter(|one| *one == view).count(),
        views as usize
    );
}

#[test]
fn a_builder_is_as_good_as_new_after_each_batch() {
    let mut reused = builder(ENCODINGS);
    for views in [600_u64, 3, 1, 8192, 40] {
        let mut fresh = builder(ENCODINGS);
        for builder in [&mut reused, &mut fresh] {
            (0..views).for_each(|index| push(builder, &format!("v{}", index % 70), index, &format!("u{index}")));
        }
        assert_eq!(reused.encode(PRODUCED, Sequence(3)), fresh.encode(PRODUCED, Sequence(3)));
    }
}

#[test]
fn prepared_batches_have_times_as_wide_as_those_of_some_seconds() {
    for encodings in 0..=ENCODINGS {
        for views in [1, 2, 3, 1000] {
            let mut builder = builder(encodings);
            (0..views).for_each(|index| push(&mut builder, &format!("v{}", index % 9), index << 40, "u"));
            let prepared = builder.prepare();
            assert!(builder.is_empty());
            assert_eq!(u64::from(prepared.view_count()), views);
            for (sequence, time) in [(1, 0), (2, 1_721_044_800_000), (3, i64::MAX as u64)] {
                let frame = prepared.encode(PRODUCED, Sequence(sequence), time);
                let payload = &frame[FRAME_HEADER_BYTES..];
                assert_eq!(payload.len(), prepared.payload_bytes());
                assert_eq!(Batch::verify(payload, 1, PRODUCED), Ok(()));
                let batch = Batch::decode(payload).unwrap();
                assert_eq!((batch.sequence(), batch.time_bounds()), (Sequence(sequence), (time, time)));
                assert!(batch.timestamps().all(|one| one == time));
                assert!(batch.video_ids().eq((0..views).map(|index| format!("v{}", index % 9))));
            }
        }
    }
    let mut spread = builder(ENCODINGS);
    (0..1000).for_each(|index| push(&mut spread, &format!("v{}", index % 9), 40 * index, "u"));
    let prepared = spread.clone().prepare();
    assert_eq!(prepared.payload_bytes() + FRAME_HEADER_BYTES, spread.encode(PRODUCED, Sequence(1)).len());
}
