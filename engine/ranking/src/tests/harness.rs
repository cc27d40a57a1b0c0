//! Drives cores, cuts, markers and restarts the way the engine does, beside the oracle.

use std::collections::{BTreeMap, HashMap};

use highwater_proto::{Epoch, InstanceId, Snapshot, Window};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use super::invariants;
use super::oracle::{Oracle, SeenView, id_of};
use crate::board::{BOARDS, PERIODS};
use crate::*;

/// What one case is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) videos: usize,
    pub(crate) top_k: usize,
    pub(crate) windows: WindowLengths,
    pub(crate) minute_start: u32,
}

/// What the cases have met, so that a test cannot pass without its subject.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) markers: u64,
    pub(crate) views: u64,
    pub(crate) restores: u64,
    pub(crate) subtracted: u64,
    pub(crate) entered: u64,
    pub(crate) tumbling_views: u64,
    pub(crate) based: u64,
    pub(crate) blocked: u64,
    pub(crate) published_while_scanning: u64,
    pub(crate) applied_while_scanning: u64,
    pub(crate) raised: u64,
    pub(crate) tied_at_k: u64,
}

/// A stored cut's piece of one shard.
struct StoredCut {
    ids: ShardIds,
    runs: Vec<Run>,
}

/// Cores under test, what is stored of them, and the oracle.
pub(crate) struct Harness {
    plan: Plan,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) cores: Vec<CoreRanking>,
    stored: Vec<StoredCut>,
    /// Views since the last cut: what the log would hold beyond it.
    tail: Vec<SeenView>,
    pub(crate) oracle: Oracle,
    shards: u16,
    epoch: u64,
    pub(crate) time_ms: u64,
    pub(crate) coverage: Coverage,
}

impl Harness {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        let shards = rng.random_range(1..=5);
        let oracle = Oracle { ids: (0..plan.videos).map(id_of).collect(), views: Vec::new(), windows: plan.windows };
        let time_ms = u64::from(plan.minute_start) * 60_000 + rng.random_range(0..60_000);
        let mut harness = Self {
            plan,
            rng,
            cores: Vec::new(),
            stored: Vec::new(),
            tail: Vec::new(),
            oracle,
            shards,
            epoch: 0,
            time_ms,
            coverage: Coverage::default(),
        };
        harness.cores = harness.empty_cores();
        harness.cores.iter_mut().for_each(CoreRanking::finish_restore);
        harness
    }

    pub(crate) fn minute(&self) -> Minute {
        Minute::of_ms(self.time_ms)
    }

    /// Cores of a random number that share the shards out at random.
    fn empty_cores(&mut self) -> Vec<CoreRanking> {
        let cores = self.rng.random_range(1..=3usize);
        let mut owned = vec![Vec::new(); cores];
        for shard in 0..self.shards {
            owned[self.rng.random_range(0..cores)].push(shard);
        }
        let minute = self.minute();
        let make = |owned| {
            let config = RankingConfig {
                shards_total: self.shards,
                owned,
                hash_seed: self.plan.seed,
                videos_per_shard_max: self.plan.videos as u32,
                id_arena_bytes_per_shard: self.plan.videos * 255,
                late_rows_max: 1000,
                top_k: self.plan.top_k,
                windows: self.plan.windows,
            };
            CoreRanking::new(config, minute).unwrap()
        };
        owned.into_iter().map(make).collect()
    }

    /// Applies views as rows, one lane per core.
    pub(crate) fn apply(&mut self, views: &[SeenView]) {
        self.oracle.views.extend_from_slice(views);
        self.tail.extend_from_slice(views);
        self.coverage.views += views.len() as u64;
        let members = |cores: &[CoreRanking]| -> usize {
            cores.iter().flat_map(|core| &core.boards).map(|board| board.members.len()).sum()
        };
        let members_before = members(&self.cores);
        if self.cores.iter().any(|core| core.scans_pending() > 0) {
            self.coverage.applied_while_scanning += views.len() as u64;
        }
        apply_rows(&mut self.cores, &self.oracle.ids, views);
        self.coverage.raised += u64::from(members(&self.cores) < members_before);
    }

    /// Moves time, sends a marker through all cores and compares what is published.
    pub(crate) fn marker(&mut self, advance_ms: u64, cut: bool) -> Snapshot {
        self.time_ms += advance_ms;
        self.epoch += 1;
        self.coverage.markers += 1;
        let marker = Marker {
            epoch: Epoch(self.epoch),
            time_ms: self.time_ms,
            cut,
            log_generation: 0,
            log_position: 0,
            oldest_arrival_ms: 0,
        };
        let mut closed = 0;
        let tops: Vec<CoreTop> = (0..self.cores.len()).map(|core| self.drive(core, &marker, &mut closed)).collect();
        assert!(closed == 0 || closed == self.cores.len(), "some cores closed a cut and some did not");
        if closed > 0 {
            self.tail.clear();
        }
        let snapshot = merge(InstanceId(7), &tops, self.plan.top_k, &self.plan.windows);
        self.compare(&snapshot);
        snapshot
    }

    /// One core's marker, in slices of random size.
    fn drive(&mut self, core: usize, marker: &Marker, closed: &mut usize) -> CoreTop {
        let mut ranking = std::mem::replace(&mut self.cores[core], placeholder());
        ranking.begin_marker(marker);
        let mut frozen = 0;
        let top = loop {
            let pending = ranking.scans_pending();
            let budget = self.rng.random_range(1..200);
            match ranking.step(budget) {
                MarkerStep::Closed(cut) => {
                    *closed += 1;
                    self.store(cut);
                }
                MarkerStep::NeedRuns(requests) => self.move_all(&mut ranking, &requests),
                MarkerStep::Waiting => panic!("nobody waits here"),
                MarkerStep::Working => {
                    let frozen_now = match &ranking.phase {
                        marker::Phase::Freezing { done, scanning } => {
                            self.coverage.blocked += u64::from(*scanning && pending > 0);
                            done.len()
                        }
                        _ => 0,
                    };
                    if frozen_now > frozen && ranking.boards[frozen].scan.is_some() {
                        self.coverage.published_while_scanning += 1;
                    }
                    frozen = frozen_now;
                    if self.rng.random_range(0..8) == 0 {
                        ranking.scan_step(budget);
                    }
                }
                MarkerStep::Top(top) => break top,
            }
        };
        self.cores[core] = ranking;
        top
    }

    /// Keeps a cut the way a cut file would.
    fn store(&mut self, cut: CoreCut) {
        for shard in cut.shards {
            let (ids, runs) = shard.into_runs();
            for run in &runs {
                assert!(run.entries.is_sorted_by(|a, b| a.slot < b.slot) && run.entries.iter().all(|e| e.count > 0));
            }
            assert!(runs.is_sorted_by_key(|run| (run.minute, run.class)));
            self.stored.push(StoredCut { ids, runs });
        }
    }

    /// Answers the requests: every stored run of the minutes, in pieces, in random order.
    fn move_all(&mut self, ranking: &mut CoreRanking, requests: &[RunRequest]) {
        let mut pieces = Vec::new();
        for request in requests {
            for cut in &self.stored {
                if !ranking.owned().contains(&cut.ids.shard) {
                    continue;
                }
                for run in cut.runs.iter().filter(|run| is_meant(request, run)) {
                    let chunk_len = self.rng.random_range(1..=run.entries.len().max(2));
                    for chunk in run.entries.chunks(chunk_len) {
                        pieces.push((request.change, request.window, cut.ids.shard, chunk.to_vec()));
                    }
                }
            }
        }
        pieces.shuffle(&mut self.rng);
        for (change, window, shard, entries) in pieces {
            assert!(matches!(ranking.step(1), MarkerStep::Waiting));
            match change {
                RunChange::Leave => {
                    self.coverage.subtracted += entries.len() as u64;
                    ranking.subtract(window, shard, &entries);
                }
                RunChange::Enter => {
                    self.coverage.entered += entries.len() as u64;
                    ranking.add(window, shard, &entries);
                }
            }
            if self.rng.random_range(0..20) == 0 {
                ranking.scan_step(self.rng.random_range(1..50));
            }
        }
        ranking.runs_done();
    }

    /// Compares a snapshot with the oracle, in full.
    fn compare(&mut self, snapshot: &Snapshot) {
        let minute = self.minute();
        let newest = self.oracle.views.iter().map(|view| view.minute).fold(minute, Minute::max);
        assert_eq!(snapshot.as_of_ms, self.time_ms);
        assert_eq!(snapshot.boards.len(), BOARDS);
        for of in PERIODS {
            let board = snapshot.board(of.0, of.1).expect("a board per period and window");
            let (expected, total_views) = self.oracle.top(of, minute, self.plan.top_k);
            let rows: Vec<_> = board.rows.iter().map(|row| (&*row.video_id, row.view_count)).collect();
            assert_eq!(rows, expected, "{of:?} at {minute:?}, epoch {}", self.epoch);
            assert_eq!(board.total_views, total_views, "{of:?} at {minute:?}, epoch {}", self.epoch);
            if of.1 == Window::Sliding {
                assert_eq!(board.end_ms, newest.end_ms(), "{of:?}");
            } else {
                self.coverage.tumbling_views += total_views;
            }
            let (more, _) = self.oracle.top(of, minute, self.plan.top_k + 1);
            let at_k = self.plan.top_k - 1;
            self.coverage.tied_at_k += u64::from(more.len() > at_k + 1 && more[at_k].1 == more[at_k + 1].1);
        }
    }

    /// Compares the look-up of a video with the oracle.
    pub(crate) fn compare_lookup(&self, video: usize) {
        let found: Vec<_> = self.cores.iter().filter_map(|core| core.lookup(&self.oracle.ids[video])).collect();
        let seen = self.oracle.views.iter().any(|view| view.video == video);
        assert_eq!(found.len(), usize::from(seen));
        for (of, view_count) in found.into_iter().flatten() {
            assert_eq!(view_count, self.oracle.counts(of, self.minute())[video], "{of:?}");
        }
    }

    /// Throws the cores away and brings them back from cuts and tail, `later_ms` later, shared
    /// out anew.
    pub(crate) fn restart(&mut self, later_ms: u64) {
        self.time_ms += later_ms;
        self.coverage.restores += 1;
        let mut cores = self.empty_cores();
        // The first so many cuts come as a base: all-time counts, and runs by window.
        let based = if self.rng.random_range(0..2) == 0 { 0 } else { self.rng.random_range(0..=self.stored.len()) };
        self.coverage.based += based as u64;
        for core in &mut cores {
            let owned = core.owned().to_vec();
            for (number, cut) in self.stored.iter().enumerate().filter(|(_, cut)| owned.contains(&cut.ids.shard)) {
                let mark = (core.slots_free(cut.ids.shard), cut.ids.first_slot);
                assert_eq!(mark.0 + mark.1, self.plan.videos as u32, "cuts hold the slots in order");
                core.restore_ids(cut.ids.shard, &cut.ids.id_lens, &cut.ids.id_bytes).unwrap();
                for run in &cut.runs {
                    if number < based {
                        restore_based(core, cut.ids.shard, run);
                    } else {
                        core.restore_run(cut.ids.shard, run.minute, run.class, &run.entries).unwrap();
                    }
                }
            }
        }
        apply_rows(&mut cores, &self.oracle.ids, &self.tail);
        let cut_first = self.rng.random_range(0..2) == 0;
        for mut core in cores.into_iter().enumerate() {
            if cut_first {
                self.store(core.1.cut_now(Epoch(self.epoch), self.time_ms));
            }
            core.1.finish_restore();
            if !cut_first {
                self.store(core.1.cut_now(Epoch(self.epoch), self.time_ms));
            }
            if core.0 == 0 {
                self.cores.clear();
            }
            self.cores.push(core.1);
        }
        self.tail.clear();
    }

    /// Checks all cores by brute force.
    pub(crate) fn check_invariants(&self) {
        self.cores.iter().for_each(invariants::check);
    }

    /// Checks that the cuts, and nothing else, hold every view once.
    pub(crate) fn check_runs(&mut self) {
        self.marker(0, true);
        let mut slots: HashMap<u16, Vec<String>> = HashMap::new();
        for cut in &self.stored {
            let ids = slots.entry(cut.ids.shard).or_default();
            assert_eq!(ids.len(), cut.ids.first_slot as usize);
            let mut rest = cut.ids.id_bytes.as_slice();
            for &len in &cut.ids.id_lens {
                let (id, tail) = rest.split_at(usize::from(len));
                ids.push(String::from_utf8(id.to_vec()).unwrap());
                rest = tail;
            }
        }
        let mut held: BTreeMap<(Minute, u8, &str), u64> = BTreeMap::new();
        for cut in &self.stored {
            for run in &cut.runs {
                for entry in &run.entries {
                    let id = slots[&cut.ids.shard][entry.slot as usize].as_str();
                    *held.entry((run.minute, run.class.0, id)).or_default() += u64::from(entry.count);
                }
            }
        }
        let mut seen: BTreeMap<(Minute, u8, &str), u64> = BTreeMap::new();
        for view in &self.oracle.views {
            *seen.entry((view.minute, view.class, &self.oracle.ids[view.video])).or_default() += 1;
        }
        assert_eq!(held, seen);
    }
}

/// Whether a request means a run.
fn is_meant(request: &RunRequest, run: &Run) -> bool {
    request.minutes.contains(&run.minute) && run.class <= request.class_max
}

/// Restores a run as a base does: its counts of all time, and each window that asks for it.
fn restore_based(core: &mut CoreRanking, shard: u16, run: &Run) {
    for entry in &run.entries {
        core.restore_all_time(shard, entry.slot, &[u64::from(entry.count)]).unwrap();
    }
    for request in core.restore_requests().iter().filter(|request| is_meant(request, run)) {
        core.restore_window(request.window, shard, &run.entries).unwrap();
    }
    core.restore_minute_max(run.minute);
}

/// Pushes each view as a row to the core that owns its shard, and lets each core apply its rows.
fn apply_rows(cores: &mut [CoreRanking], ids: &[String], views: &[SeenView]) {
    let shards = cores[0].config.shards_total;
    for core in cores {
        let mut cells = Vec::new();
        let mut push = |view: &SeenView, views| {
            let id = &ids[view.video];
            let hash = core.id_hash().hash(id);
            if core.owned().contains(&shard_of(hash, shards)) {
                push_row(&mut cells, Row { hash, minute: view.minute, class: FinalityClass(view.class), views }, id);
            }
        };
        // Every other batch one by one, the rest by video, minute and class.
        if views.len() % 2 == 1 {
            views.iter().for_each(|view| push(view, 1));
        } else {
            let mut sorted: Vec<&SeenView> = views.iter().collect();
            let same = |view: &SeenView| (view.video, view.minute, view.class);
            sorted.sort_by_key(|view| same(view));
            sorted.chunk_by(|a, b| same(a) == same(b)).for_each(|views| push(views[0], views.len() as u32));
        }
        core.apply(&cells);
    }
}

/// Stands in for a core while it is driven.
fn placeholder() -> CoreRanking {
    let config = RankingConfig {
        shards_total: 1,
        owned: Vec::new(),
        hash_seed: 0,
        videos_per_shard_max: 1,
        id_arena_bytes_per_shard: 0,
        late_rows_max: 1,
        top_k: 1,
        windows: WindowLengths::default(),
    };
    CoreRanking::new(config, Minute(0)).unwrap()
}
