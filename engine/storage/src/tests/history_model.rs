//! Model of history: random views through cut files, against an oracle that knows only when each view was and came.
//!
//! The oracle goes by arrival alone; classes, shards, slots, files, job runs and restarts are what must not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::Epoch;
use highwater_ranking::{Calendar, CalendarPeriod, CoreCut, LateViews, Minute, ShardCut, SlotCount};
use proptest::prelude::*;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::support::{DIRECTORY, below, options, random};
use crate::{
    ClosedList, CorePart, Grain, History, HistoryJob, HistoryNeeds, LogNumber, LogPosition, MemoryDisk, OpenOptions,
    PreparedCut, ProducerTableImage, Retention, RollupRule, StorageError, Store, Tables, close_period, run_rollup,
};

const HOUR: CalendarPeriod = CalendarPeriod::Hour;
const MINUTE_MS: u64 = 60_000;
const LATENESS_MS: u64 = 150_000;
const SHARDS: u16 = 4;
/// Few, so that counts tie and lists are cut in the middle of a tie.
const ROWS_MAX: usize = 7;

/// When a view was, when it came, and of what.
#[derive(Clone, Debug)]
struct Seen {
    event_ms: u64,
    arrival_ms: u64,
    video: String,
}

/// Final lists by the definition: the views of the period that came before it was final.
fn oracle(calendar: &Calendar, lateness_ms: u64, views: &[Seen]) -> Vec<ClosedList> {
    let mut counts: BTreeMap<(u8, Minute), BTreeMap<&str, u64>> = BTreeMap::new();
    for seen in views {
        for kind in CalendarPeriod::ALL {
            let period = calendar.period_at(kind, Minute::of_ms(seen.event_ms));
            if seen.arrival_ms < period.end.start_ms() + lateness_ms {
                *counts.entry((kind as u8, period.start)).or_default().entry(&seen.video).or_default() += 1;
            }
        }
    }
    let lists = counts.into_iter().map(|((kind, start), counts)| {
        let kind = CalendarPeriod::ALL[usize::from(kind)];
        let end = calendar.period_at(kind, start).end;
        let mut rows: Vec<(Box<str>, u64)> = counts.iter().map(|(id, count)| ((*id).into(), *count)).collect();
        rows.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        rows.truncate(ROWS_MAX);
        let (total_views, videos) = (counts.values().sum(), counts.len() as u64);
        ClosedList { kind, start, end, final_ms: end.start_ms() + lateness_ms, total_views, videos, rows }
    });
    lists.collect()
}

/// A data directory that views are cut into.
struct Engine {
    disk: MemoryDisk,
    store: Store<MemoryDisk>,
    options: OpenOptions,
    calendar: Calendar,
    lateness_ms: u64,
    /// Slots by shard, in order of first sight.
    slots: Vec<BTreeMap<String, u32>>,
    epoch: u64,
    horizon_ms: u64,
}

impl Engine {
    fn new(calendar: Calendar, lateness_ms: u64) -> Self {
        let disk = MemoryDisk::new();
        let mut options = options();
        options.create.lateness_max_ms = lateness_ms;
        options.calendar = calendar;
        // Nothing is kept but what history needs.
        options.retention = Retention { minute_minutes: 0, hour_minutes: 0, day_minutes: 0 };
        options.rollup = RollupRule { cuts_min: 3, cuts_max: 7, hours_merged_min: 2, ..RollupRule::default() };
        let store = Self::start(&disk, options);
        let slots = vec![BTreeMap::new(); usize::from(SHARDS)];
        Self { disk, store, options, calendar, lateness_ms, slots, epoch: 0, horizon_ms: 0 }
    }

    fn start(disk: &MemoryDisk, options: OpenOptions) -> Store<MemoryDisk> {
        let mut store = Store::open(disk.clone(), options).unwrap();
        store.replay_cuts::<StorageError>(|_| Ok(())).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(1).unwrap();
        store
    }

    fn restart(&mut self) {
        self.store = Self::start(&self.disk, self.options);
    }

    /// Rolls up what is due. Returns whether anything was.
    fn roll_up(&mut self) -> bool {
        let needs = self.history().needs().unwrap();
        let Some(plan) = self.store.plan_rollup(&needs).unwrap() else { return false };
        let done = run_rollup(&self.disk, &plan, &mut || false).unwrap();
        self.store.finish_rollup(&done).unwrap();
        true
    }

    /// Cuts views, all of which arrived; every view that arrived before `horizon_ms` is in this cut or an earlier one.
    fn cut(&mut self, views: &[Seen], horizon_ms: u64) {
        self.epoch += 1;
        self.horizon_ms = horizon_ms;
        let minute = Minute::of_ms(horizon_ms);
        let shards = (0..SHARDS).map(|shard| self.shard_cut(shard, minute, views)).collect();
        let (epoch, time_ms) = (Epoch(self.epoch), horizon_ms);
        let cut = CoreCut { epoch, time_ms, minute, arrivals_from_ms: horizon_ms, shards };
        let position = LogPosition { generation: self.store.state().generation, position: self.epoch };
        let producers = ProducerTableImage::default();
        let part = CorePart { log: LogNumber(0), position, cut, producers };
        self.store.write_cut(&PreparedCut::new(vec![part])).unwrap();
    }

    fn shard_cut(&mut self, shard: u16, minute: Minute, views: &[Seen]) -> ShardCut {
        let slots = &mut self.slots[usize::from(shard)];
        let first_slot = slots.len() as u32;
        let (mut id_lens, mut id_bytes, mut late) = (Vec::new(), Vec::new(), Vec::new());
        let mut current: BTreeMap<u32, u32> = BTreeMap::new();
        for seen in
            views.iter().filter(|seen| crc32c::crc32c(seen.video.as_bytes()) % u32::from(SHARDS) == shard.into())
        {
            let next = slots.len() as u32;
            let slot = *slots.entry(seen.video.clone()).or_insert_with(|| {
                id_lens.push(seen.video.len() as u8);
                id_bytes.extend_from_slice(seen.video.as_bytes());
                next
            });
            let event_minute = Minute::of_ms(seen.event_ms);
            let class = self.calendar.class_of(seen.event_ms, seen.arrival_ms, self.lateness_ms);
            if event_minute == minute && class.0 == 0 {
                *current.entry(slot).or_default() += 1;
            } else {
                late.push(LateViews::new(event_minute, class, slot, 1));
            }
        }
        let current = current.into_iter().map(|(slot, count)| SlotCount { slot, count }).collect();
        ShardCut { shard, minute, first_slot, id_lens, id_bytes, current, late }
    }

    fn job(&self) -> HistoryJob {
        let job = HistoryJob::new(self.horizon_ms, self.lateness_ms, self.calendar);
        HistoryJob { rows_max: ROWS_MAX, retention_minutes: u32::MAX, ..job }
    }

    fn tables(&self) -> Tables {
        Tables::open(Arc::new(self.disk.clone()), self.calendar).unwrap()
    }

    fn history(&self) -> History {
        History::open(Arc::new(self.disk.clone()), DIRECTORY).unwrap()
    }

    /// Runs the job until nothing is due.
    fn close_all(&self) {
        let (history, tables) = (self.history(), self.tables());
        while self.job().run(&history, &tables, || false).unwrap().is_more_due {}
        assert!(!self.job().is_due(&history).unwrap());
    }

    /// Every list, by kind and start.
    fn lists(&self) -> Vec<ClosedList> {
        let history = History::read_only(Arc::new(self.disk.clone()), DIRECTORY);
        let mut lists = Vec::new();
        for kind in CalendarPeriod::ALL {
            let mut periods = history.periods(kind, None, usize::MAX).unwrap();
            periods.reverse();
            for period in periods {
                let list = history.list(kind, period.start).unwrap().unwrap();
                assert_eq!(list.period(), period);
                lists.push(list);
            }
        }
        lists
    }
}

/// Views over a few months of a small calendar, many of them late, with holes in time.
fn random_views(random: &mut ChaCha8Rng, count: u32) -> Vec<Seen> {
    let first_ms = 1_700_000_000_000 - u64::from(below(random, 100)) * MINUTE_MS;
    let mut arrival_ms = first_ms;
    let videos = 1 + below(random, 60);
    let mut views = Vec::new();
    for _ in 0..count {
        arrival_ms += match below(random, 200) {
            0 => u64::from(below(random, 100)) * MINUTE_MS,
            1..10 => u64::from(below(random, 6)) * MINUTE_MS,
            _ => u64::from(below(random, 20_000)),
        };
        let late_ms = match below(random, 10) {
            0 => u64::from(below(random, 200)) * MINUTE_MS,
            1 | 2 => u64::from(below(random, 10)) * MINUTE_MS,
            _ => u64::from(below(random, 60_000)),
        };
        // Up to a minute ahead.
        let event_ms = arrival_ms + 60_000 - late_ms - u64::from(below(random, 60_000));
        let video = below(random, videos).min(below(random, videos));
        views.push(Seen {
            event_ms,
            arrival_ms,
            video: format!("{}{}", ["v", "v1", "é"][video as usize % 3], video / 3),
        });
    }
    views
}

/// Shares views out to cuts of random length, each with its horizon. Some views are cut earlier than they must: their
/// core was ahead of the others.
fn shared_out(random: &mut ChaCha8Rng, views: &[Seen]) -> Vec<(Vec<Seen>, u64)> {
    let mut views = views.to_vec();
    views.sort_by_key(|seen| seen.arrival_ms);
    let mut cuts: Vec<(Vec<Seen>, u64)> = Vec::new();
    let mut left = views.as_slice();
    while !left.is_empty() {
        let (now, rest) = left.split_at((1 + below(random, 60) as usize).min(left.len()));
        left = rest;
        let horizon_ms = left.first().map_or(now[now.len() - 1].arrival_ms + 1, |seen| seen.arrival_ms);
        let mut piece = Vec::new();
        for seen in now {
            match cuts.last_mut().filter(|_| below(random, 20) == 0) {
                Some((earlier, _)) => earlier.push(seen.clone()),
                None => piece.push(seen.clone()),
            }
        }
        cuts.push((piece, horizon_ms));
    }
    for (piece, _) in &mut cuts {
        piece.shuffle(random);
    }
    cuts
}

/// The same views, each in another moment before the same finality.
fn rearranged(random: &mut ChaCha8Rng, calendar: &Calendar, lateness_ms: u64, views: &[Seen]) -> Vec<Seen> {
    let rearrange = |seen: &Seen| {
        let class = calendar.class_of(seen.event_ms, seen.arrival_ms, lateness_ms).0;
        let deadline =
            |kind: CalendarPeriod| calendar.period_at(kind, Minute::of_ms(seen.event_ms)).end.start_ms() + lateness_ms;
        let from_ms = if class == 0 { seen.event_ms } else { deadline(CalendarPeriod::ALL[usize::from(class) - 1]) };
        let to_ms = CalendarPeriod::ALL.get(usize::from(class)).map_or(from_ms + 9 * MINUTE_MS, |kind| deadline(*kind));
        let arrival_ms = random.random_range(from_ms..to_ms);
        assert_eq!(calendar.class_of(seen.event_ms, arrival_ms, lateness_ms).0, class);
        Seen { arrival_ms, ..seen.clone() }
    };
    views.iter().map(rearrange).collect()
}

fn scaled(random: &mut ChaCha8Rng) -> Calendar {
    Calendar::scaled(1 + below(random, 6), 1 + below(random, 5), 1 + below(random, 4))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn history_equals_the_oracle_however_it_is_made(seed in any::<u64>()) {
        let mut random = random(seed);
        let calendar = scaled(&mut random);
        let lateness_ms = [0, 1, LATENESS_MS][below(&mut random, 3) as usize];
        let count = 1 + below(&mut random, 1500);
        let views = random_views(&mut random, count);
        let expected = oracle(&calendar, lateness_ms, &views);
        // Job runs of random size, at random cuts, some stopped, with restarts and roll-ups between.
        let mut roll_ups = 0;
        let mut engine = Engine::new(calendar, lateness_ms);
        for (piece, horizon_ms) in shared_out(&mut random, &views) {
            engine.cut(&piece, horizon_ms);
            if below(&mut random, 10) == 0 {
                engine.restart();
            }
            if below(&mut random, 4) == 0 {
                roll_ups += u32::from(engine.roll_up());
            }
            if below(&mut random, 3) > 0 {
                continue;
            }
            let history = engine.history();
            let asks_left = std::cell::Cell::new(below(&mut random, 60));
            let should_stop = || asks_left.replace(asks_left.get().saturating_sub(1)) == 0;
            let job = HistoryJob { periods_max: below(&mut random, 9) as usize, ..engine.job() };
            let done = job.run(&history, &engine.tables(), should_stop).unwrap();
            prop_assert!(done.is_more_due || !job.is_due(&history).unwrap());
            for period in done.lists {
                prop_assert!(period.final_ms <= horizon_ms, "seed {}: {:?} is not final", seed, period);
            }
            let is_closed = |list: &&ClosedList| history.closed_up_to(list.kind).unwrap() >= Some(list.end);
            let closed: Vec<ClosedList> = expected.iter().filter(is_closed).cloned().collect();
            prop_assert_eq!(engine.lists(), closed, "seed {}", seed);
        }
        // The engine is idle: its horizon moves on without a cut.
        let month_ms = u64::from(calendar.minutes_max(CalendarPeriod::Month)) * MINUTE_MS;
        engine.horizon_ms += month_ms + lateness_ms + 10 * MINUTE_MS;
        engine.close_all();
        prop_assert_eq!(engine.lists(), expected.clone(), "seed {}", seed);
        prop_assert!(roll_ups > 0 || count < 1000, "seed {}: nothing was ever rolled up", seed);
        let whole_from = |kind| engine.tables().complete_from(if kind == HOUR { Grain::Hour } else { Grain::Day });
        for list in expected.iter().filter(|list| list.start >= whole_from(list.kind)) {
            let alone = close_period(&engine.tables(), list.kind, list.start..list.end, ROWS_MAX).unwrap();
            prop_assert_eq!(alone.as_ref(), Some(list), "seed {}", seed);
        }

        // The same views in another order within their finality, in other cuts, closed at once: the same bytes.
        let views = rearranged(&mut random, &calendar, lateness_ms, &views);
        prop_assert_eq!(oracle(&calendar, lateness_ms, &views), expected, "seed {}", seed);
        let mut other = Engine::new(calendar, lateness_ms);
        for (piece, horizon_ms) in shared_out(&mut random, &views) {
            other.cut(&piece, horizon_ms);
        }
        other.horizon_ms = other.horizon_ms.max(engine.horizon_ms);
        other.close_all();
        let files = |engine: &Engine| -> Vec<(String, Vec<u8>)> {
            let paths = engine.disk.paths().into_iter().filter(|path| path.ends_with(".top"));
            paths.map(|path| (path.clone(), engine.disk.contents(&path))).collect()
        };
        prop_assert_eq!(files(&other), files(&engine), "seed {}", seed);
    }

    /// The power fails in the middle of a run; the next start makes it good.
    #[test]
    fn a_power_cut_during_a_run_changes_no_list(seed in any::<u64>()) {
        let mut random = random(seed);
        let calendar = scaled(&mut random);
        let views = random_views(&mut random, 300);
        let mut engine = Engine::new(calendar, LATENESS_MS);
        for (piece, horizon_ms) in shared_out(&mut random, &views) {
            engine.cut(&piece, horizon_ms);
        }
        engine.horizon_ms += u64::from(calendar.minutes_max(CalendarPeriod::Month) + 10) * MINUTE_MS;
        for _ in 0..4 {
            engine.roll_up();
            engine.disk.fail_after(u64::from(below(&mut random, 200)));
            let run = History::open(Arc::new(engine.disk.clone()), DIRECTORY)
                .and_then(|history| engine.job().run(&history, &engine.tables(), || false));
            let _ = run;
            engine.disk = engine.disk.crash(random.random());
            engine.restart();
        }
        engine.close_all();
        prop_assert_eq!(engine.lists(), oracle(&calendar, LATENESS_MS, &views), "seed {}", seed);
    }
}

/// Milliseconds UTC of a time of day in a month given by the minutes of its start.
fn utc(year_month_day: (u64, u64, u64), hour: u64, minute: u64) -> u64 {
    let (year, month, day) = year_month_day;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |year, month| match month {
        2 => 28 + u64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let months: u64 = (1..month).map(|month| days_of(year, month)).sum();
    (((years + months + day - 1) * 24 + hour) * 60 + minute) * MINUTE_MS
}

#[test]
fn leap_days_and_the_ends_of_months_and_years_fall_as_in_utc() {
    let calendar = Calendar::default();
    let lateness_ms = 600_000;
    let day = 24 * 60;
    // The last minute of a month, whether it is that of a leap February, and how many days its month has.
    for (last, days) in [((2024, 2, 29), 29), ((2023, 2, 28), 28), ((2023, 12, 31), 31), ((2024, 4, 30), 30)] {
        let last_ms = utc(last, 23, 59) + 30_000;
        let next_ms = last_ms + MINUTE_MS;
        let final_ms = next_ms - 30_000 + lateness_ms;
        let seen = |event_ms, arrival_ms, video: &str| Seen { event_ms, arrival_ms, video: video.to_owned() };
        let views = [
            seen(last_ms - 20 * 24 * 60 * MINUTE_MS, last_ms, "only its month"),
            seen(last_ms, last_ms + 100, "last"),
            seen(last_ms, final_ms - 1, "last in time"),
            seen(last_ms, final_ms, "too late"),
            seen(next_ms, next_ms, "next month"),
        ];
        let mut engine = Engine::new(calendar, lateness_ms);
        engine.cut(&views, final_ms - 1);
        engine.close_all();
        let end = Minute::of_ms(next_ms);
        for kind in CalendarPeriod::ALL {
            assert!(engine.history().closed_up_to(kind).unwrap() < Some(end), "{last:?} is final a moment later");
        }
        engine.horizon_ms = final_ms;
        engine.close_all();
        for (kind, minutes) in
            [(CalendarPeriod::Hour, 60), (CalendarPeriod::Day, day), (CalendarPeriod::Month, day * days)]
        {
            let list = engine.history().list(kind, end.minus(minutes)).unwrap().expect("it had views");
            assert_eq!((list.end, list.final_ms), (end, final_ms));
            let ids: Vec<&str> = list.rows.iter().map(|row| &*row.0).collect();
            let of_month: &[&str] = if kind == CalendarPeriod::Month { &["only its month"] } else { &[] };
            assert_eq!(ids, [&["last", "last in time"], of_month].concat(), "{last:?} {kind:?}");
        }
        engine.horizon_ms = final_ms + 40 * 24 * 60 * MINUTE_MS;
        engine.close_all();
        assert_eq!(engine.lists(), oracle(&calendar, lateness_ms, &views), "{last:?}");
    }
}

#[test]
fn weeks_without_a_view_are_skipped_and_old_lists_go() {
    let calendar = Calendar::default();
    let start_ms = utc((2024, 1, 10), 7, 5);
    let week_ms = 7 * 24 * 60 * MINUTE_MS;
    let seen = |event_ms, arrival_ms| Seen { event_ms, arrival_ms, video: "a".to_owned() };
    let mut engine = Engine::new(calendar, 600_000);
    engine.cut(&[seen(start_ms, start_ms)], start_ms + 1);
    engine.job().begin(&engine.history()).unwrap();
    assert!(!engine.job().is_due(&engine.history()).unwrap(), "nothing can have been viewed before");
    // Ten weeks later; a view of five weeks ago makes no hour and no day, but the month is not over for it.
    let later_ms = start_ms + 10 * week_ms;
    engine.cut(&[seen(later_ms, later_ms), seen(later_ms - 5 * week_ms, later_ms)], later_ms + 1);
    let history = engine.history();
    let job = HistoryJob { retention_minutes: 30 * 24 * 60, ..engine.job() };
    let tables = engine.tables();
    assert!(job.is_due(&history).unwrap());
    let done = job.run(&history, &tables, || false).unwrap();
    let made: Vec<_> = done.lists.iter().map(|period| (period.kind, period.start, period.total_views)).collect();
    let of = |kind, ms| (kind, calendar.period_at(kind, Minute::of_ms(ms)).start, 1);
    let first = CalendarPeriod::ALL.map(|kind| of(kind, start_ms));
    assert_eq!(made, first, "the hour, day and month of the first view");
    assert_eq!(done.removed, 3, "they ended more than a month ago");
    assert_eq!(engine.lists(), []);
    let start_of = |kind| calendar.period_at(kind, Minute::of_ms(later_ms - 600_000)).start;
    let needs = HistoryNeeds { hours_from: start_of(HOUR), days_from: start_of(CalendarPeriod::Month) };
    assert_eq!(history.needs().unwrap(), needs);
}

#[test]
fn a_list_holds_the_least_ids_of_a_tie_over_all_shards() {
    let calendar = Calendar::scaled(10, 2, 2);
    let start_ms = 1_700_000_400_000;
    let mut engine = Engine::new(calendar, 0);
    let views: Vec<Seen> = (0..3000)
        .map(|index| Seen { event_ms: start_ms, arrival_ms: start_ms, video: format!("{:05}", index * 7919 % 3000) })
        .collect();
    for (piece, at) in views.chunks(1000).zip(1..) {
        engine.cut(piece, start_ms + at);
    }
    engine.horizon_ms = start_ms + 60 * MINUTE_MS;
    engine.close_all();
    let list = &engine.lists()[0];
    let ids: Vec<&str> = list.rows.iter().map(|row| &*row.0).collect();
    assert_eq!(ids, ["00000", "00001", "00002", "00003", "00004", "00005", "00006"]);
    assert_eq!((list.total_views, list.videos), (3000, 3000));
}
