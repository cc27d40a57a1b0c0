//! Batches whose bytes are right and whose views cannot all be taken: refused one by one, by reason; the rest counts.

use super::forge::batch_of;
use super::{Victim, Welcomed, told};
use crate::support::{block_on, now_ms};
use highwater_proto::{Ack, HelloMode, RefusedRange, TIMESTAMP_MS_MAX, ViewRefusal};

const HOUR_MS: u64 = 3_600_000;

/// Views of the longest ids that fit a batch.
const LONG_VIEWS: u64 = 3800;

/// More batches than a small engine ever takes here: the fullest of its 16 shards decides, and chance which ids go to
/// it, so that some 16 to 32 of each size fit before one is refused.
const BATCHES_MAX: u64 = 4000;

#[test]
fn views_of_impossible_times_are_refused_and_the_rest_counts() {
    let mut victim = Victim::new();
    let id = victim.id();
    let now = now_ms();
    let times = [now, TIMESTAMP_MS_MAX + 1, u64::MAX, now + HOUR_MS, 0, now];
    let views = times.map(|timestamp_ms| ("v", timestamp_ms));
    let ack = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        producer.acked(&batch_of(id, 1, &views)).await
    });
    victim.acknowledged(&ack);
    let expected = [
        RefusedRange { first: 1, count: 2, reason: ViewRefusal::TimeOutOfRange },
        RefusedRange { first: 3, count: 1, reason: ViewRefusal::FutureBeyondSkew },
    ];
    assert_eq!((ack.counted, &*ack.refused, ack.detail_complete), (3, &expected[..], true));
    let text = "ACK: counted 3, refused views 1 and 2 time_out_of_range, view 3 future_beyond_skew";
    told("views beyond the year 9999 and an hour ahead", text, "the rest counts", &["time_out_of_range"]);
    victim.recover(&[]);
}

#[test]
fn a_full_table_refuses_new_videos_and_counts_known_ones() {
    let mut victim = Victim::new();
    let id = victim.id();
    let long = |index: u64| format!("{index:0255}");
    let (acks, mixed) = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let (mut acks, mut size): (Vec<Ack>, _) = (Vec::new(), LONG_VIEWS);
        // A batch that has no room as a whole is told so for all its new ids: the rest is filled by smaller ones.
        while size > 0 {
            let sequence = acks.len() as u64 + 1;
            assert!(sequence < BATCHES_MAX, "the table takes more than it has room for");
            let ids: Vec<String> = (0..size).map(|index| long(sequence << 32 | index)).collect();
            let views: Vec<(&str, u64)> = ids.iter().map(|id| (&**id, now_ms())).collect();
            let ack = producer.acked(&batch_of(id, sequence, &views)).await;
            if ack.counted == 0 {
                let all = RefusedRange { first: 0, count: size as u32, reason: ViewRefusal::TableFull };
                assert_eq!(&*ack.refused, &[all][..]);
                size /= 2;
            }
            acks.push(ack);
        }
        let (known, new) = (long(1 << 32), long(1 << 62));
        let next = acks.len() as u64 + 1;
        let mixed = producer.acked(&batch_of(id, next, &[(&known, now_ms()), (&new, now_ms())])).await;
        (acks, mixed)
    });
    acks.iter().chain([&mixed]).for_each(|ack| victim.acknowledged(ack));
    let one = RefusedRange { first: 1, count: 1, reason: ViewRefusal::TableFull };
    assert_eq!((mixed.counted, &*mixed.refused), (1, &[one][..]), "a known video goes on counting");
    let text = format!("after {} videos ACK: counted 1 known, refused 1 new, table_full", victim.counted - 1);
    told("more videos than there is room for", &text, "known ones count", &["table_full"]);
    victim.settle();
}
