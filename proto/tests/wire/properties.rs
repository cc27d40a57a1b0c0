//! Properties of all frames: what is encoded is read back, and no bytes make a decoder panic.
//!
//! What it is not: properties of batches, see batches. Invariant: whatever a decoder accepts encodes to the same bytes
//! again, so no two payloads mean the same; only of batches they may.

use crate::batches::{frame_in, owned_views, text};
use crate::split;
use highwater_proto::{
    Ack, Batch, BatchRefusal, BatchRefused, Board, BoardRow, ClosedList, ClosedPeriod, ClosedPeriods, DecodeError,
    Epoch, FrameHeader, FrameKind, Hello, HelloMode, History, HistoryAnswer, HistoryBounds, InstanceId, LISTS, Lookup,
    Period, PeriodCount, Periods, PeriodsAnswer, ProducerId, Redirect, RefusedRange, Sequence, Snapshot, Subscribe,
    Token, Unreadable, VideoCounts, ViewRefusal, Welcome, Window,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

fn hello() -> impl Strategy<Value = Hello> {
    let mode = select(vec![HelloMode::New, HelloMode::Resume]);
    (mode, any::<u128>(), vec(any::<u8>(), 0..=1024)).prop_map(|(mode, producer, token)| Hello {
        version: 1,
        mode,
        producer: ProducerId(producer),
        token,
    })
}

fn token() -> impl Strategy<Value = Token> {
    vec(any::<u8>(), 1..=1024).prop_map(|token| Token { token })
}

fn addresses() -> impl Strategy<Value = (u16, Vec<u16>, String)> {
    (vec(1u16.., 1..=64), any::<Index>(), text(0..=60))
        .prop_map(|(ports, home, host)| (home.index(ports.len()) as u16, ports, host))
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let ids = (any::<u128>(), any::<u128>(), any::<u64>());
    let limits = (1u32..=8192, 1088u32..=1 << 20, 1u16..=64, 0u64..=253_402_300_799_999, any::<u32>());
    (ids, addresses(), limits).prop_map(|((producer, instance, last), (home_core, ports, host), limits)| Welcome {
        version: 1,
        producer: ProducerId(producer),
        instance: InstanceId(instance),
        last: Sequence(last),
        home_core,
        ports,
        host,
        batch_views_max: limits.0,
        batch_bytes_max: limits.1,
        in_flight_batches_max: limits.2,
        skew_max_ms: limits.3,
        encodings: limits.4 | 1,
    })
}

fn redirect() -> impl Strategy<Value = Redirect> {
    addresses().prop_map(|(home_core, ports, host)| Redirect { home_core, ports, host })
}

fn ack() -> impl Strategy<Value = Ack> {
    let verdict = prop_oneof![Just(None), select(ViewRefusal::ALL.to_vec()).prop_map(Some)];
    let flags = (any::<bool>(), any::<bool>());
    (1u64.., any::<u64>(), vec(verdict, 1..200), flags).prop_map(|(sequence, epoch, verdicts, (retry, complete))| {
        let mut refused = Vec::new();
        let mut accepted = 0;
        for (index, verdict) in verdicts.into_iter().enumerate() {
            match verdict {
                Some(reason) => RefusedRange::push_view(&mut refused, index as u32, reason),
                None => accepted += 1,
            }
        }
        let refused = if complete { refused } else { RefusedRange::totals(&refused) };
        let (counted, duplicate) = if retry { (0, accepted) } else { (accepted, 0) };
        let visible_epoch = Epoch(epoch);
        Ack { sequence: Sequence(sequence), visible_epoch, counted, duplicate, refused, detail_complete: complete }
    })
}

fn batch_refused() -> impl Strategy<Value = BatchRefused> {
    (1u64.., select(BatchRefusal::ALL.to_vec()), any::<u32>()).prop_map(|(sequence, reason, retry_after_ms)| {
        BatchRefused { sequence: Sequence(sequence), reason, retry_after_ms }
    })
}

fn video_counts() -> impl Strategy<Value = VideoCounts> {
    let counts = subsequence(LISTS.to_vec(), 0..=7).prop_flat_map(|boards| {
        let numbers = vec((any::<u64>(), proptest::option::of(1u32..=1000)), boards.len());
        (Just(boards), numbers).prop_map(|(boards, numbers)| {
            let count = |((period, window), (view_count, rank))| PeriodCount { period, window, view_count, rank };
            boards.into_iter().zip(numbers).map(count).collect::<Vec<_>>()
        })
    });
    (any::<u128>(), text(1..=60), any::<u64>(), any::<u64>(), counts).prop_map(
        |(instance, video_id, epoch, as_of_ms, counts)| VideoCounts {
            instance: InstanceId(instance),
            video_id: video_id.into(),
            epoch: Epoch(epoch),
            as_of_ms,
            counts,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let boards = subsequence(LISTS.to_vec(), 0..=7).prop_flat_map(|boards| {
        let few = prop_oneof![1u64..4, 1u64..1 << 58];
        let videos = vec((text(1..=12), few), 0..30);
        let content = (videos, proptest::option::of(any::<u64>()), any::<u64>(), 0u64..1 << 62);
        let contents = vec(content, boards.len());
        (Just(boards), contents).prop_map(|(boards, contents)| {
            boards.into_iter().zip(contents).map(|(key, content)| board(key, content)).collect::<Vec<_>>()
        })
    });
    (any::<u128>(), any::<u64>(), any::<u64>(), boards).prop_map(|(instance, epoch, as_of_ms, boards)| Snapshot {
        instance: InstanceId(instance),
        epoch: Epoch(epoch),
        as_of_ms,
        boards,
    })
}

/// Videos with their views, start, end, and the views of videos that are not listed.
type BoardContent = (Vec<(String, u64)>, Option<u64>, u64, u64);

fn board((period, window): (Period, Window), content: BoardContent) -> Board {
    let (mut videos, start_ms, end_ms, others) = content;
    videos.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    videos.dedup();
    let row = |(video_id, view_count): (String, u64)| BoardRow { video_id: video_id.into(), view_count };
    let rows: Vec<_> = videos.into_iter().map(row).collect();
    let total_views = rows.iter().map(|row| row.view_count).sum::<u64>() + others;
    Board { period, window, start_ms, end_ms, total_views, rows }
}

fn calendar_period() -> impl Strategy<Value = Period> {
    select(vec![Period::Hour, Period::Day, Period::Month])
}

fn history_bounds() -> impl Strategy<Value = HistoryBounds> {
    (any::<u64>(), proptest::option::of(any::<u64>()), any::<u64>()).prop_map(
        |(closed_until_ms, oldest_start_ms, lateness_max_ms)| HistoryBounds {
            closed_until_ms,
            oldest_start_ms,
            lateness_max_ms,
        },
    )
}

fn history_answer() -> impl Strategy<Value = HistoryAnswer> {
    let few = prop_oneof![1u64..4, 1u64..1 << 58];
    let content = (vec((text(1..=12), few), 1..30), 1u64..1 << 62, 0u64..1 << 62);
    let found =
        prop_oneof![4 => content.prop_map(|found| Ok(Some(found))), 1 => Just(Ok(None)), 1 => Just(Err(Unreadable))];
    let asked = (any::<u128>(), calendar_period(), 0u64..1 << 62);
    (asked, history_bounds(), found).prop_map(|((instance, period, start_ms), bounds, found)| {
        let list = |(videos, length_ms, others)| {
            let end_ms = start_ms + length_ms;
            let board = board((period, Window::Tumbling), (videos, Some(start_ms), end_ms, others));
            ClosedList { period, start_ms, end_ms, total_views: board.total_views, rows: board.rows }
        };
        let list = found.map(|found| found.map(list));
        HistoryAnswer { instance: InstanceId(instance), period, start_ms, bounds, list }
    })
}

fn periods_answer() -> impl Strategy<Value = PeriodsAnswer> {
    let steps = vec((1u64..1 << 40, 0u64..1 << 40, 1u64..), 0..40);
    let found = prop_oneof![5 => (steps, any::<bool>()).prop_map(Ok), 1 => Just(Err(Unreadable))];
    (any::<u128>(), calendar_period(), history_bounds(), found).prop_map(|(instance, period, bounds, found)| {
        let periods = |(steps, more): (Vec<_>, bool)| {
            let mut time_ms = u64::MAX;
            let mut older = |(length_ms, gap_ms, total_views)| {
                let end_ms = time_ms - gap_ms;
                time_ms = end_ms - length_ms;
                ClosedPeriod { start_ms: time_ms, end_ms, total_views }
            };
            ClosedPeriods { periods: steps.into_iter().map(&mut older).collect(), more }
        };
        PeriodsAnswer { instance: InstanceId(instance), period, bounds, periods: found.map(periods) }
    })
}

fn periods() -> impl Strategy<Value = Periods> {
    (calendar_period(), 1u16..=1000, any::<u64>()).prop_map(|(period, limit, before_ms)| Periods {
        period,
        limit,
        before_ms,
    })
}

macro_rules! round_trips {
    ($($test:ident: $name:ident from $strategy:expr;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(500))]
            $(
                #[test]
                fn $test(value in $strategy) {
                    let mut frame = Vec::new();
                    value.encode(&mut frame);
                    let (_, payload) = split(&frame);
                    let decoded = $name::decode(payload);
                    prop_assert_eq!(decoded.as_ref(), Ok(&value));
                    for length in 0..payload.len() {
                        prop_assert!($name::decode(&payload[..length]).is_err(), "cut to {} bytes", length);
                    }
                    let longer = [payload, &[0]].concat();
                    prop_assert!($name::decode(&longer).is_err());
                }
            )*
        }
    };
}

round_trips! {
    hello_round_trips: Hello from hello();
    welcome_round_trips: Welcome from welcome();
    redirect_round_trips: Redirect from redirect();
    token_round_trips: Token from token();
    ack_round_trips: Ack from ack();
    batch_refused_round_trips: BatchRefused from batch_refused();
    lookup_round_trips: Lookup from text(1..=60).prop_map(|id| Lookup { video_id: id.into() });
    lookup_answer_round_trips: VideoCounts from video_counts();
    subscribe_round_trips: Subscribe from any::<u64>().prop_map(|epoch| Subscribe { from_epoch: Epoch(epoch) });
    snapshot_round_trips: Snapshot from snapshot();
    history_round_trips: History from (calendar_period(), any::<u64>())
        .prop_map(|(period, start_ms)| History { period, start_ms });
    history_answer_round_trips: HistoryAnswer from history_answer();
    periods_round_trips: Periods from periods();
    periods_answer_round_trips: PeriodsAnswer from periods_answer();
}

/// Decodes a payload as the given kind; if it decodes, encodes it again.
fn again(kind: FrameKind, payload: &[u8]) -> Result<Option<Vec<u8>>, DecodeError> {
    let mut out = Vec::new();
    match kind {
        FrameKind::Hello => Hello::decode(payload)?.encode(&mut out),
        FrameKind::Welcome => Welcome::decode(payload)?.encode(&mut out),
        FrameKind::Redirect => Redirect::decode(payload)?.encode(&mut out),
        FrameKind::Token => Token::decode(payload)?.encode(&mut out),
        FrameKind::Ack => Ack::decode(payload)?.encode(&mut out),
        FrameKind::BatchRefused => BatchRefused::decode(payload)?.encode(&mut out),
        FrameKind::Lookup => Lookup::decode(payload)?.encode(&mut out),
        FrameKind::LookupAnswer => VideoCounts::decode(payload)?.encode(&mut out),
        FrameKind::Subscribe => Subscribe::decode(payload)?.encode(&mut out),
        FrameKind::Snapshot => Snapshot::decode(payload)?.encode(&mut out),
        FrameKind::History => History::decode(payload)?.encode(&mut out),
        FrameKind::HistoryAnswer => HistoryAnswer::decode(payload)?.encode(&mut out),
        FrameKind::Periods => Periods::decode(payload)?.encode(&mut out),
        FrameKind::PeriodsAnswer => PeriodsAnswer::decode(payload)?.encode(&mut out),
        FrameKind::Batch => {
            let batch = Batch::decode(payload)?;
            assert_eq!(batch.views().count(), batch.view_count() as usize);
            let bounds = batch.timestamps().min().zip(batch.timestamps().max());
            assert_eq!(Some(batch.time_bounds()), bounds);
            return Ok(None);
        }
    }
    Ok(Some(out))
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    macro_rules! encoded {
        ($strategy:expr) => {
            $strategy
                .prop_map(|value| {
                    let mut out = Vec::new();
                    value.encode(&mut out);
                    out
                })
                .boxed()
        };
    }
    prop_oneof![
        encoded!(hello()),
        encoded!(welcome()),
        encoded!(redirect()),
        encoded!(token()),
        encoded!(ack()),
        encoded!(batch_refused()),
        encoded!(video_counts()),
        encoded!(snapshot()),
        encoded!(history_answer()),
        encoded!(periods()),
        encoded!(periods_answer()),
        (owned_views(), any::<u32>()).prop_map(|(views, bits)| frame_in(bits, &views, 1, 1).to_vec()).boxed(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5000))]

    #[test]
    fn arbitrary_bytes_never_panic(payload in vec(any::<u8>(), 0..400), header: [u8; 8]) {
        for kind in FrameKind::ALL {
            if let Ok(Some(frame)) = again(kind, &payload) {
                prop_assert_eq!(&frame[8..], &payload[..]);
            }
        }
        if let Ok(decoded) = FrameHeader::decode(&header) {
            prop_assert_eq!(decoded.encode(), header);
            prop_assert!(decoded.payload_bytes as usize <= decoded.kind.payload_bytes_max());
        }
    }

    #[test]
    fn changed_frames_never_panic(
        frame in any_frame(),
        changes in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(0), Just(255)]), 1..6),
    ) {
        let (kind, payload) = split(&frame);
        let mut payload = payload.to_vec();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        if let Ok(Some(frame)) = again(kind, &payload) {
            prop_assert_eq!(&frame[8..], &payload[..]);
        }
        for other in FrameKind::ALL {
            let _ = again(other, &payload);
        }
    }
}
