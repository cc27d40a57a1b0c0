//! Batches whose bytes are right and whose views cannot all be taken: refused one by one, by reason; the rest counts.

use super::forge::batch_of;
use super::{Victim, Welcomed, told};
use crate::support::{block_on, now_ms, wait_for};
use highwater_proto::{HelloMode, RefusedRange, TIMESTAMP_MS_MAX, ViewRefusal};

const HOUR_MS: u64 = 3_600_000;

/// Views of the longest ids that fit a batch.
const LONG_VIEWS: usize = 3800;

/// Batches of new ids that a small engine certainly has no room for.
const BATCHES_MAX: u64 = 60;

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
    let acks = block_on(async {
        let mut producer = Welcomed::open(&victim.engine, id, HelloMode::New).await;
        let mut acks = Vec::new();
        for sequence in 1..=BATCHES_MAX {
            let ids: Vec<String> = (0..LONG_VIEWS as u64).map(|index| long(sequence << 32 | index)).collect();
            let views: Vec<(&str, u64)> = ids.iter().map(|id| (&**id, now_ms())).collect();
            acks.push(producer.acked(&batch_of(id, sequence, &views)).await);
            if acks.last().unwrap().counted == 0 {
                break;
            }
        }
        let next = acks.len() as u64 + 1;
        let (known, new) = (long(1 << 32), long(1 << 62));
        acks.push(producer.acked(&batch_of(id, next, &[(&known, now_ms()), (&new, now_ms())])).await);
        acks
    });
    acks.iter().for_each(|ack| victim.acknowledged(ack));
    let [.., full, mixed] = acks.as_slice() else { panic!("{} acknowledgements", acks.len()) };
    let all = RefusedRange { first: 0, count: LONG_VIEWS as u32, reason: ViewRefusal::TableFull };
    assert_eq!((full.counted, &*full.refused), (0, &[all][..]));
    let one = RefusedRange { first: 1, count: 1, reason: ViewRefusal::TableFull };
    assert_eq!((mixed.counted, &*mixed.refused), (1, &[one][..]), "a known video goes on counting");
    let refused = victim.refused[ViewRefusal::TableFull.as_str()];
    wait_for("the refusals in the metrics", || {
        let page = victim.engine.ask("/metrics").body;
        (super::sample(&page, "views_refused_total", Some("table_full")) == refused).then_some(())
    });
    let text = format!("ACK: refused {LONG_VIEWS} views, table_full; a known video counted 1");
    told("more videos than there is room for", &text, "known ones count", &["table_full"]);
    victim.settle();
}
