//! Batches: building, limits, and properties of the decoder against a slow one.
//!
//! What it is not: golden bytes. Invariant: the fast decoder accepts exactly what a decoder that checks string by
//! string accepts.

use crate::slow::{fast_decode, slow_decode};
use highwater_proto::{
    BATCH_BYTES_MAX, BATCH_BYTES_MIN, BATCH_VIEWS_MAX, Batch, BatchBuilder, DecodeError, ENCODINGS, ProducerId, Pushed,
    Sequence, View, batch_checksum, batch_header,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

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

/// Up to 40 views: all different, or of few strings at times that are close together or far apart.
pub(crate) fn owned_views() -> impl Strategy<Value = Vec<OwnedView>> {
    let spread = prop_oneof![Just(0u64), 0u64..1 << 8, 0u64..1 << 16, 0u64..1 << 32, any::<u64>()];
    let alike = (vec(owned_view(), 1..4), any::<u64>(), spread, vec(any::<(Index, Index, u64)>(), 1..40)).prop_map(
        |(pool, base, spread, picks)| {
            let pick = |(one, other, offset): (Index, Index, u64)| OwnedView {
                timestamp_ms: base.saturating_add(offset.checked_rem(spread).unwrap_or_default()),
                user_id: other.get(&pool).user_id.clone(),
                device: other.get(&pool).device.clone(),
                ..one.get(&pool).clone()
            };
            picks.into_iter().map(pick).collect()
        },
    );
    prop_oneof![vec(owned_view(), 1..40), alike]
}

/// The frame of a batch with plain columns.
pub(crate) fn frame_of(views: &[OwnedView], producer: u128, sequence: u64) -> bytes::Bytes {
    frame_in(0, views, producer, sequence)
}

/// The frame of a batch in the smallest of these encodings.
pub(crate) fn frame_in(encodings: u32, views: &[OwnedView], producer: u128, sequence: u64) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(BATCH_VIEWS_MAX, BATCH_BYTES_MAX as u32).with_encodings(encodings);
    for view in views {
        assert_eq!(builder.push(&view.borrow()), Ok(Pushed::Added));
    }
    builder.encode(ProducerId(producer), Sequence(sequence))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn what_is_built_is_read_back(views in owned_views(), encodings: u32, producer: u128, sequence in 1u64..) {
        let frame = frame_in(encodings, &views, producer, sequence);
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
        let times = views.iter().map(|view| view.timestamp_ms);
        prop_assert_eq!(Some(batch.time_bounds()), times.clone().min().zip(times.max()));
        let mut joined = String::new();
        batch.users().for_each(|user| joined += user);
        prop_assert_eq!(joined, views.iter().map(|view| view.user_id.as_str()).collect::<String>());
        prop_assert!(frame.len() <= frame_of(&views, producer, sequence).len());
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
        views in owned_views(),
        encodings in 0..=ENCODINGS,
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        moves in vec((0usize..5, any::<Index>(), 1u8..3), 0..3),
    ) {
        let frame = frame_in(encodings, &views, 1, 1);
        let mut payload = frame[8..].to_vec();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        for (column, view, by) in moves {
            move_boundary(&mut payload, column, view, views.len(), by);
        }
        prop_assert_eq!(fast_decode(&payload), slow_decode(&payload));
    }
}

/// Moves bytes of one string to the next in a string column, or in its dictionary, so that lengths still fit but may
/// split a character.
fn move_boundary(payload: &mut [u8], column: usize, string: Index, views: usize, by: u8) {
    let mut at = 16;
    for _ in 0..column {
        let Some(bytes) = payload.get(at + 4..).and_then(|rest| rest.first_chunk()) else { return };
        at += 8 + u32::from_le_bytes(*bytes) as usize;
    }
    let (lengths_at, count) = match payload.get(at..) {
        Some(&[1, _, _, _, _, _, _, _, low, high, ..]) => {
            let entries = usize::from(u16::from_le_bytes([low, high]));
            (at + 10 + if entries > 1 { views } else { 0 }, entries)
        }
        _ => (at + 8, views),
    };
    let Some(lengths) = payload.get_mut(lengths_at..lengths_at + count) else { return };
    if column != 1 && count > 1 {
        let string = string.index(count - 1);
        lengths[string] = lengths[string].wrapping_sub(by);
        lengths[string + 1] = lengths[string + 1].wrapping_add(by);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_changed_byte_is_caught(
        views in prop_oneof![vec(owned_view(), 1..8), owned_views()],
        encodings in 0..=ENCODINGS,
        producer: u128,
        sequence in 1u64..,
        flips in vec(1u8.., 64),
    ) {
        let frame = frame_in(encodings, &views, producer, sequence);
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
    fn every_shortened_or_lengthened_batch_is_refused(
        views in prop_oneof![vec(owned_view(), 1..6), owned_views()],
        encodings in 0..=ENCODINGS,
    ) {
        let frame = frame_in(encodings, &views, 1, 1);
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
