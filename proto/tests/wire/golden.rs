//! Golden bytes: every example on the page is what the encoder writes and what the decoder reads.
//!
//! What it is not: coverage of odd values; see properties. Invariant: each frame kind has at least one example.

use crate::page::{example, example_names};
use crate::split;
use highwater_proto::{
    Ack, Batch, BatchBuilder, BatchRefusal, BatchRefused, Board, BoardRow, ClosedList, ClosedPeriod, ClosedPeriods,
    ENCODINGS, Epoch, FrameKind, Hello, HelloMode, History, HistoryAnswer, HistoryBounds, InstanceId, Lookup, Period,
    PeriodCount, Periods, PeriodsAnswer, ProducerId, Pushed, Redirect, RefusedRange, Sequence, Snapshot, Subscribe,
    Token, VideoCounts, View, ViewRefusal, Welcome, Window, batch_checksum,
};
use std::collections::BTreeSet;

pub(crate) const PRODUCER: ProducerId = ProducerId(0x0001_0203_0405_0607_0809_0a0b_0c0d_0e0f);
const INSTANCE: InstanceId = InstanceId(0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f);
const VIDEO: &str = "dQw4w9WgXcQ";

/// A test that the value encodes to the example of that name, as a frame of that kind, and is read back from it.
macro_rules! golden {
    ($test:ident, $name:literal, $kind:ident, $type:ident { $($fields:tt)* }) => {
        #[test]
        fn $test() {
            let value = $type { $($fields)* };
            let mut frame = vec![0xee];
            value.encode(&mut frame);
            assert_eq!(frame.remove(0), 0xee, "encode appends");
            assert_eq!(frame, example($name));
            let (kind, payload) = split(&frame);
            assert_eq!(kind, FrameKind::$kind);
            assert_eq!($type::decode(payload), Ok(value));
        }
    };
}

golden!(
    hello,
    "hello",
    Hello,
    Hello { version: 1, mode: HelloMode::New, producer: PRODUCER, token: b"s3cret".to_vec() }
);
golden!(
    hello_resume,
    "hello-resume",
    Hello,
    Hello { version: 1, mode: HelloMode::Resume, producer: PRODUCER, token: Vec::new() }
);
golden!(token, "token", Token, Token { token: b"s3cret".to_vec() });
golden!(
    welcome,
    "welcome",
    Welcome,
    Welcome {
        version: 1,
        producer: PRODUCER,
        instance: INSTANCE,
        last: Sequence(7),
        home_core: 1,
        ports: vec![4433, 4434],
        host: String::new(),
        batch_views_max: 8192,
        batch_bytes_max: 1 << 20,
        in_flight_batches_max: 64,
        skew_max_ms: 60_000,
        encodings: ENCODINGS,
    }
);
golden!(
    redirect,
    "redirect",
    Redirect,
    Redirect { home_core: PRODUCER.home_core(2), ports: vec![4433, 4434], host: "engine.example".to_owned() }
);
golden!(
    ack,
    "ack",
    Ack,
    Ack {
        sequence: Sequence(8),
        visible_epoch: Epoch(42),
        counted: 1,
        duplicate: 0,
        refused: vec![RefusedRange { first: 1, count: 1, reason: ViewRefusal::FutureBeyondSkew }],
        detail_complete: true,
    }
);
golden!(
    ack_duplicate,
    "ack-duplicate",
    Ack,
    Ack {
        sequence: Sequence(8),
        visible_epoch: Epoch(42),
        counted: 0,
        duplicate: 1,
        refused: vec![RefusedRange {
            first: RefusedRange::FIRST_UNKNOWN,
            count: 1,
            reason: ViewRefusal::FutureBeyondSkew
        }],
        detail_complete: false,
    }
);
golden!(
    batch_refused,
    "batch-refused",
    BatchRefused,
    BatchRefused { sequence: Sequence(9), reason: BatchRefusal::DiskFull, retry_after_ms: 250 }
);
golden!(lookup, "lookup", Lookup, Lookup { video_id: VIDEO.into() });
golden!(
    lookup_answer,
    "lookup-answer",
    LookupAnswer,
    VideoCounts {
        instance: INSTANCE,
        video_id: VIDEO.into(),
        epoch: Epoch(43),
        as_of_ms: 1_721_044_802_500,
        counts: vec![
            PeriodCount { period: Period::Hour, window: Window::Sliding, view_count: 900, rank: Some(1) },
            PeriodCount { period: Period::AllTime, window: Window::Sliding, view_count: 1_234_567, rank: None },
        ],
    }
);
golden!(
    lookup_redirect,
    "lookup-redirect",
    Redirect,
    Redirect { home_core: 1, ports: vec![4433, 4434], host: String::new() }
);
golden!(subscribe, "subscribe", Subscribe, Subscribe { from_epoch: Epoch(42) });
golden!(
    snapshot,
    "snapshot",
    Snapshot,
    Snapshot {
        instance: INSTANCE,
        epoch: Epoch(43),
        as_of_ms: 1_721_044_802_500,
        boards: vec![
            Board {
                period: Period::Hour,
                window: Window::Sliding,
                start_ms: Some(1_721_041_200_000),
                end_ms: 1_721_044_860_000,
                total_views: 2500,
                rows: vec![
                    BoardRow { video_id: VIDEO.into(), view_count: 900 },
                    BoardRow { video_id: "zürich".into(), view_count: 900 },
                ],
            },
            Board {
                period: Period::AllTime,
                window: Window::Sliding,
                start_ms: None,
                end_ms: 1_721_044_860_000,
                total_views: 0,
                rows: Vec::new(),
            },
        ],
    }
);

const DAY_MS: u64 = 86_400_000;
/// 2024-07-14T00:00:00Z.
const START_MS: u64 = 1_720_915_200_000;
const BOUNDS: HistoryBounds = HistoryBounds {
    closed_until_ms: START_MS + DAY_MS,
    oldest_start_ms: Some(START_MS - 40 * DAY_MS),
    lateness_max_ms: 600_000,
};

golden!(history, "history", History, History { period: Period::Day, start_ms: START_MS });
golden!(
    history_answer,
    "history-answer",
    HistoryAnswer,
    HistoryAnswer {
        instance: INSTANCE,
        period: Period::Day,
        start_ms: START_MS,
        bounds: BOUNDS,
        list: Ok(Some(ClosedList {
            period: Period::Day,
            start_ms: START_MS,
            end_ms: START_MS + DAY_MS,
            total_views: 987_654,
            rows: vec![
                BoardRow { video_id: VIDEO.into(), view_count: 900 },
                BoardRow { video_id: "zürich".into(), view_count: 900 },
            ],
        })),
    }
);
golden!(
    history_answer_none,
    "history-answer-none",
    HistoryAnswer,
    HistoryAnswer {
        instance: INSTANCE,
        period: Period::Day,
        start_ms: START_MS,
        bounds: HistoryBounds { closed_until_ms: 0, oldest_start_ms: None, ..BOUNDS },
        list: Ok(None),
    }
);
golden!(periods, "periods", Periods, Periods { period: Period::Day, limit: 2, before_ms: u64::MAX });
golden!(
    periods_answer,
    "periods-answer",
    PeriodsAnswer,
    PeriodsAnswer {
        instance: INSTANCE,
        period: Period::Day,
        bounds: BOUNDS,
        periods: Ok(ClosedPeriods {
            periods: vec![
                ClosedPeriod { start_ms: START_MS, end_ms: START_MS + DAY_MS, total_views: 987_654 },
                ClosedPeriod { start_ms: START_MS - 2 * DAY_MS, end_ms: START_MS - DAY_MS, total_views: 4321 },
            ],
            more: true,
        }),
    }
);

#[test]
fn batch() {
    let views = [
        View { video_id: VIDEO, timestamp_ms: 1_721_044_800_000, user_id: "user-0000001", region: "DE", device: "tv" },
        View { video_id: "Zürich", timestamp_ms: 1_721_044_801_234, user_id: "", region: "", device: "phone" },
    ];
    let mut builder = BatchBuilder::new(8192, 1 << 20);
    for view in &views {
        assert_eq!(builder.push(view), Ok(Pushed::Added));
    }
    let frame = builder.encode(PRODUCER, Sequence(8));
    assert_eq!(frame, example("batch"));

    let (kind, payload) = split(&frame);
    assert_eq!(kind, FrameKind::Batch);
    assert_eq!(Batch::verify(payload, 1, PRODUCER), Ok(()));
    let batch = Batch::decode(payload).unwrap();
    assert_eq!((batch.sequence(), batch.view_count(), batch.crc()), (Sequence(8), 2, 0xf104_3e79));
    assert_eq!(batch.crc(), batch_checksum(payload, 1, PRODUCER));
    assert_eq!(batch.views().collect::<Vec<_>>(), views);
}

#[test]
fn every_kind_has_an_example() {
    let shown: BTreeSet<u8> = example_names().iter().map(|name| split(&example(name)).0.code()).collect();
    assert_eq!(shown, FrameKind::ALL.map(FrameKind::code).into());
}
