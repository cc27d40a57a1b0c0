//! Batches: building, limits, and properties of the decoder against a slow one.
//!
//! What it is not: golden bytes. Invariant: the fast decoder accepts exactly what a decoder that checks string by
//! string accepts.

use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_VIEWS_MAX, Batch, BatchBuilder, DecodeError, ProducerId, Pushed, Sequence,
    View, batch_checksum, batch_header,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A view that owns its strings.
#[derive(Clone, Debug)]
pub(crate) struct OwnedView {
    video_id: String,
    timestamp_ms: u64,
    user_id: String,
    region: String,
    device: String,
}

impl OwnedView {
    pub(crate) fn borrow(&self) -> View<'_> {
        View {
            video_id: &self.video_id,
            timestamp_ms: self.timestamp_ms,
            user_id: &self.user_id,
            region: &self.region,
            device: &self.device,
        }
    }
}

/// Text of characters of every UTF-8 length, up to `chars` of them.
pub(crate) fn text(chars: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = String> {
    let character =
        prop_oneof![6 => proptest::char::range('!', '~'), 1 => any::<char>(), 1 => Just('é'), 1 => Just('𝄞')];
    vec(character, chars).prop_map(String::from_iter)
}

pub(crate) fn owned_view() -> impl Strategy<Value = OwnedView> {
    let time = prop_oneof![any::<u64>(), 1_700_000_000_000u64..1_800_000_000_000];
    (text(1..=60), time, text(0..=20), text(0..=3), text(0..=8)).prop_map(
        |(video_id, timestamp_ms, user_id, region, device)| OwnedView {
            video_id,
            timestamp_ms,
            user_id,
            region,
            device,
        },
    )
}

pub(crate) fn frame_of(views: &[OwnedView], producer: u128, sequence: u64) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for view in views {
        assert_eq!(builder.push(&view.borrow()), Ok(Pushed::Added));
    }
    builder.encode(ProducerId(producer), Sequence(sequence))
}

/// Reads a payload string by string, as the page describes it; none if anything is wrong.
fn slow_decode(payload: &[u8]) -> Option<Vec<(String, u64, [String; 3])>> {
    let (head, mut rest) = payload.split_at_checked(16)?;
    let views = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let sequence = u64::from_le_bytes(head[8..16].try_into().ok()?);
    let mut columns: Vec<Vec<Vec<u8>>> = Vec::new();
    for column in 0..5 {
        let (header, after) = rest.split_at_checked(8)?;
        let bytes = u32::from_le_bytes(header[4..].try_into().ok()?) as usize;
        let (mut bytes, after) = after.split_at_checked(bytes)?;
        rest = after;
        if header[..4] != [0; 4] {
            return None;
        }
        let lengths = if column == 1 {
            vec![8; views]
        } else {
            let (lengths, strings) = bytes.split_at_checked(views)?;
            bytes = strings;
            lengths.to_vec()
        };
        let mut values = Vec::new();
        for length in lengths {
            let (value, after) = bytes.split_at_checked(length.into())?;
            values.push(value.to_vec());
            bytes = after;
        }
        if !bytes.is_empty() {
            return None;
        }
        columns.push(values);
    }
    if !rest.is_empty() || views == 0 || views > BATCH_VIEWS_MAX as usize || sequence == 0 {
        return None;
    }
    let text = |column: usize, view: usize| String::from_utf8(columns[column][view].clone()).ok();
    (0..views)
        .map(|view| {
            let video_id = text(0, view).filter(|id| !id.is_empty())?;
            let time = u64::from_le_bytes(columns[1][view].as_slice().try_into().ok()?);
            Some((video_id, time, [text(2, view)?, text(3, view)?, text(4, view)?]))
        })
        .collect()
}

fn fast_decode(payload: &[u8]) -> Option<Vec<(String, u64, [String; 3])>> {
    let batch = Batch::decode(payload).ok()?;
    let own = |view: View<'_>| {
        let rest = [view.user_id, view.region, view.device].map(str::to_owned);
        (view.video_id.to_owned(), view.timestamp_ms, rest)
    };
    Some(batch.views().map(own).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_built_is_read_back(views in vec(owned_view(), 1..40), producer: u128, sequence in 1u64..) {
        let frame = frame_of(&views, producer, sequence);
        let (_, payload) = crate::split(&frame);
        let batch = Batch::decode(payload).unwrap();
        prop_assert_eq!(batch.sequence(), Sequence(sequence));
        prop_assert_eq!(batch.view_count() as usize, views.len());
        prop_assert!(batch.views().eq(views.iter().map(OwnedView::borrow)));
        prop_assert!(batch.video_ids().eq(views.iter().map(|view| view.video_id.as_str())));
        prop_assert!(batch.timestamps().eq(views.iter().map(|view| view.timestamp_ms)));
        prop_assert!(batch.users().eq(views.iter().map(|view| view.user_id.as_str())));
        prop_assert!(batch.regions().eq(views.iter().map(|view| view.region.as_str())));
        prop_assert!(batch.devices().eq(views.iter().map(|view| view.device.as_str())));
        prop_assert_eq!(batch.views().len(), views.len());
        let header = batch_header(&payload[..16]).unwrap();
        prop_assert_eq!(header.crc, batch.crc());
        prop_assert_eq!((header.view_count, header.sequence), (batch.view_count(), batch.sequence()));
        prop_assert_eq!(Batch::verify(payload, 1, ProducerId(producer)), Ok(()));
    }

    #[test]
    fn another_producer_or_version_does_not_verify(views in vec(owned_view(), 1..4), producer: u128, bit in 0u32..128) {
        let frame = frame_of(&views, producer, 1);
        let (_, payload) = crate::split(&frame);
        let other = ProducerId(producer ^ (1 << bit));
        let refused = |outcome| matches!(outcome, Err(DecodeError::Checksum { .. }));
        prop_assert!(refused(Batch::verify(payload, 1, other)));
        prop_assert!(refused(Batch::verify(payload, 2, ProducerId(producer))));
    }

    #[test]
    fn the_fast_decoder_agrees_with_the_slow_one(
        views in vec(owned_view(), 1..6),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        moves in vec((0usize..5, any::<prop::sample::Index>(), 1u8..3), 0..3),
    ) {
        let frame = frame_of(&views, 1, 1);
        let mut payload = frame[8..].to_vec();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        for (column, view, by) in moves {
            move_boundary(&mut payload, column, view.index(views.len()), views.len(), by);
        }
        prop_assert_eq!(fast_decode(&payload), slow_decode(&payload));
    }
}

/// Moves bytes of one string to the next in a string column, so that lengths still fit but may split a character.
fn move_boundary(payload: &mut [u8], column: usize, view: usize, views: usize, by: u8) {
    let mut at = 16;
    for _ in 0..column {
        let Some(bytes) = payload.get(at + 4..).and_then(|rest| rest.first_chunk()) else { return };
        at += 8 + u32::from_le_bytes(*bytes) as usize;
    }
    let Some(lengths) = payload.get_mut(at + 8..at + 8 + views) else { return };
    if column != 1 && view + 1 < views {
        lengths[view] = lengths[view].wrapping_sub(by);
        lengths[view + 1] = lengths[view + 1].wrapping_add(by);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_changed_byte_is_caught(
        views in vec(owned_view(), 1..8),
        producer: u128,
        sequence in 1u64..,
        flips in vec(1u8.., 64),
    ) {
        let frame = frame_of(&views, producer, sequence);
        let mut payload = frame[8..].to_vec();
        for at in 0..payload.len() {
            let flip = flips[at % flips.len()];
            payload[at] ^= flip;
            let caught = Batch::decode(&payload).is_err() || Batch::verify(&payload, 1, ProducerId(producer)).is_err();
            prop_assert!(caught, "byte {at} changed by {flip:#04x} was not caught");
            payload[at] ^= flip;
        }
    }

    #[test]
    fn every_shortened_or_lengthened_batch_is_refused(views in vec(owned_view(), 1..6)) {
        let frame = frame_of(&views, 1, 1);
        let payload = &frame[8..];
        for length in 0..payload.len() {
            prop_assert!(Batch::decode(&payload[..length]).is_err(), "cut to {length} bytes");
        }
        prop_assert!(Batch::decode(&[payload, &[0]].concat()).is_err());
    }
}

#[test]
fn a_full_builder_keeps_to_both_limits() {
    let view = View { video_id: "v", timestamp_ms: 0, user_id: "", region: "", device: "" };
    let mut builder = BatchBuilder::new(3, BATCH_BYTES_MAX as u32);
    let pushed: Vec<_> = (0..4).map(|_| builder.push(&view).unwrap()).collect();
    assert_eq!(pushed, [Pushed::Added, Pushed::Added, Pushed::Added, Pushed::Full]);
    assert_eq!(builder.len(), 3);
    builder.clear();
    assert!(builder.is_empty());

    let longest = "x".repeat(255);
    let view = View { video_id: &longest, timestamp_ms: 0, user_id: &longest, region: &longest, device: &longest };
    let mut builder = BatchBuilder::new(8192, BATCH_BYTES_MIN as u32);
    assert_eq!(builder.push(&view), Ok(Pushed::Added));
    assert_eq!(builder.payload_bytes(), BATCH_BYTES_MIN);
    assert_eq!(builder.push(&view), Ok(Pushed::Full));
    assert_eq!(builder.encode(ProducerId(1), Sequence(1)).len(), BATCH_BYTES_MIN + 8);
    assert!(builder.is_empty());
    assert_eq!(builder.push(&view), Ok(Pushed::Added));
}

#[test]
fn the_largest_batches_are_read_back() {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32);
    for index in 0.. {
        let id = format!("{index:0100}");
        let view = View { video_id: &id, timestamp_ms: index, user_id: "u", region: "DE", device: "tv" };
        if builder.push(&view) == Ok(Pushed::Full) {
            break;
        }
    }
    let views = builder.len();
    assert!(views > 8000, "{views}");
    let frame = builder.encode(ProducerId(1), Sequence(u64::MAX));
    assert!(frame.len() <= BATCH_BYTES_MAX + 8);
    let batch = Batch::decode(&frame[8..]).unwrap();
    assert_eq!(batch.timestamps().collect::<Vec<_>>(), (0..u64::from(views)).collect::<Vec<_>>());
}

#[test]
fn the_checksum_ignores_its_own_place() {
    assert_eq!(batch_checksum(&[1, 2, 3, 4, 5], 1, ProducerId(9)), batch_checksum(&[0, 0, 0, 0, 5], 1, ProducerId(9)));
    assert_eq!(batch_checksum(&[], 1, ProducerId(9)), batch_checksum(&[0; 4], 1, ProducerId(9)));
}
