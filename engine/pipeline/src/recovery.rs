//! From the files of a data directory to the state of the cores: the base, the cuts beyond it in order, then all logs
//! beyond them.
//!
//! What a base holds is counted in the windows by the runs of their minutes alone, so that a start takes as long as the
//! windows are, however long the history is. However many cores wrote the files, everything is merged, and shared out
//! among the cores of this start.
//!
//! Verdicts are not decided again: they stand in the records. Windows and boards are computed for the engine time of
//! this start. What was replayed from the logs is closed into a cut of its own, so that the next start does not replay
//! it again.

use crate::limits::EPOCHS_PER_LEASE;
use crate::notes::Amount;
use crate::ownership::{Targets, owned_shards};
use crate::pipeline::Recovered;
use crate::rows::{RowMaker, RowRule, counted_views};
use crate::session::{ProducerTable, Remembered};
use highwater_proto::{Batch, Epoch, RefusedRange};
use highwater_ranking::{Calendar, Cell, CoreRanking, IdHash, Minute, RankingConfig, RankingError, shard_of};
use highwater_storage::{
    CorePart, CutSection, Disk, DurableRecord, LogNumber, LogPosition, PreparedCut, RecordKind, StorageError, Store,
};
use std::collections::HashSet;

/// How far the wall clock may be behind the durable engine time at a start, in milliseconds.
const CLOCK_BEHIND_MAX_MS: u64 = 10 * 60_000;

/// How far it may be ahead, in milliseconds: longer than the longest window is more likely a wrong clock.
const CLOCK_AHEAD_MAX_MS: u64 = 40 * 24 * 3_600_000;

/// After a longer break, in minutes, windows are computed for the new time at once: there is less to subtract then.
const BREAK_MINUTES_MAX: u32 = 60;

/// What a start is given.
#[derive(Debug, Clone)]
pub struct RecoveryPlan {
    /// The ranking of a core; which shards it owns is filled in here.
    pub ranking: RankingConfig,
    /// Cores of this start, at least 1.
    pub cores: u16,
    /// Wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// Whether any distance between wall clock and durable engine time is accepted.
    pub accept_clock: bool,
    /// How long after its end a calendar period is final, in milliseconds.
    pub lateness_max_ms: u64,
}

/// Why a start was refused.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The files.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The state does not fit.
    #[error(transparent)]
    Ranking(#[from] RankingError),
    /// The clock is far from where the data ends.
    #[error(
        "the wall clock says {}, the data directory ends at {}; a start may be up to {} minutes behind that, and up to \
         {} days ahead: set the clock right, by `timedatectl set-ntp true`. If the clock is right and the engine is \
         to go on from there, start with --accept-clock: behind, engine time stands still until the clock has caught \
         up; ahead, all that was counted leaves the windows for good, and a later start with an earlier clock is \
         refused",
        utc(*wall_ms), utc(*durable_ms), CLOCK_BEHIND_MAX_MS / 60_000, CLOCK_AHEAD_MAX_MS / (24 * 3_600_000)
    )]
    Clock {
        /// The wall clock.
        wall_ms: u64,
        /// The last durable engine minute.
        durable_ms: u64,
    },
}

/// A time as an operator reads it.
fn utc(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{ms} ms since 1970"), |time| time.to_string())
}

/// Reads everything back and opens a new generation of each core's log; what each core starts from, by its number.
///
/// # Errors
/// [`RecoveryError`]; nothing was changed in a way that a later start could not repeat.
pub fn recover<D: Disk>(store: &mut Store<D>, plan: &RecoveryPlan) -> Result<Vec<Recovered>, RecoveryError> {
    let durable = store.state().time_minute;
    let time_ms = engine_time(durable, plan)?;
    let mut replay = Replay::new(plan, replay_minute(durable, Minute::of_ms(time_ms)))?;
    let cuts = store.replay_cuts(|section| replay.section(section))?;
    replay.windows_of_base(store)?;
    replay.producers = ProducerTable::from_image(cuts.producers);
    store.replay_logs(|_log, record| replay.record(&record))?;
    replay.rankings.iter_mut().for_each(CoreRanking::finish_restore);
    let issued = store.state().epoch_lease_end;
    let lease_end = store.lease_epochs(EPOCHS_PER_LEASE)?;
    store.record_minute(Minute::of_ms(time_ms))?;
    let position = LogPosition::start_of(store.open_generations(u32::from(plan.cores))?);
    tracing::info!(
        videos = replay.rankings.iter().map(CoreRanking::videos).sum::<u64>(),
        cuts = cuts.last.map_or(0, |cut| cut.number),
        records = replay.records,
        views = replay.views,
        producers = replay.producers.len(),
        generation = position.generation,
        cores = plan.cores,
        "recovered"
    );
    let tables = std::mem::take(&mut replay.producers).share_out(plan.cores);
    if replay.records > 0 {
        store.write_cut(&PreparedCut::new(replay.cut(&tables, position, issued, time_ms)))?;
    }
    let share = |(ranking, producers)| Recovered { ranking, producers, position, issued, lease_end, time_ms };
    Ok(replay.rankings.into_iter().zip(tables).map(share).collect())
}

/// Engine time of this start: the later of the wall clock and the last durable minute, if they are not far apart.
fn engine_time(durable: Minute, plan: &RecoveryPlan) -> Result<u64, RecoveryError> {
    let (durable_ms, wall_ms) = (durable.start_ms(), plan.wall_ms);
    let in_range = durable_ms <= wall_ms.saturating_add(CLOCK_BEHIND_MAX_MS)
        && wall_ms <= durable_ms.saturating_add(CLOCK_AHEAD_MAX_MS);
    if durable != Minute::default() && !in_range && !plan.accept_clock {
        return Err(RecoveryError::Clock { wall_ms, durable_ms });
    }
    Ok(wall_ms.max(durable_ms))
}

/// The minute whose edges hold while everything is read back.
///
/// After a short break it is the minute of the crash: most of the log's tail is of that minute, and its counts stand in
/// the counter lines, while views of any other minute take memory by video and minute. The first marker then moves the
/// edges.
fn replay_minute(durable: Minute, now: Minute) -> Minute {
    if now.0 - durable.0 <= BREAK_MINUTES_MAX { durable } else { now }
}

/// The state while it is read back.
struct Replay {
    shards_total: u16,
    videos_max: u32,
    id_arena_bytes: usize,
    targets: Targets,
    calendar: Calendar,
    lateness_max_ms: u64,
    /// By core.
    rankings: Vec<CoreRanking>,
    producers: ProducerTable,
    /// By core; used again for each batch.
    rows: RowMaker,
    cells: Vec<Vec<Cell>>,
    /// By core: so many late rows are merged.
    merged_at: Vec<usize>,
    late_rows_max: usize,
    views: u64,
    records: u64,
}

impl Replay {
    fn new(plan: &RecoveryPlan, minute: Minute) -> Result<Self, RecoveryError> {
        let RankingConfig { shards_total, videos_per_shard_max, id_arena_bytes_per_shard, hash_seed, .. } =
            plan.ranking;
        let mut rankings = Vec::new();
        for core in 0..plan.cores {
            let owned = owned_shards(core, plan.cores, shards_total);
            let mut ranking = CoreRanking::new(RankingConfig { owned, ..plan.ranking.clone() }, minute)?;
            ranking.prefault();
            rankings.push(ranking);
        }
        Ok(Self {
            shards_total,
            videos_max: videos_per_shard_max,
            id_arena_bytes: id_arena_bytes_per_shard,
            targets: Targets::new(IdHash::new(hash_seed), shards_total, plan.cores),
            calendar: plan.ranking.windows.calendar,
            lateness_max_ms: plan.lateness_max_ms,
            rows: RowMaker::default(),
            cells: rankings.iter().map(|_| Vec::new()).collect(),
            merged_at: vec![plan.ranking.late_rows_max; rankings.len()],
            late_rows_max: plan.ranking.late_rows_max,
            rankings,
            producers: ProducerTable::default(),
            views: 0,
            records: 0,
        })
    }

    fn owner(&mut self, shard: u16) -> &mut CoreRanking {
        let core = self.targets.core_of_shard(shard);
        &mut self.rankings[core]
    }

    fn section(&mut self, section: CutSection<'_>) -> Result<(), RecoveryError> {
        match section {
            CutSection::Ids { shard, lens, bytes, .. } => self.owner(shard).restore_ids(shard, lens, bytes)?,
            CutSection::AllTime { shard, first_slot, counts } => {
                self.owner(shard).restore_all_time(shard, first_slot, counts)?;
            }
            CutSection::Run { shard, minute, class, entries } => {
                self.owner(shard).restore_run(shard, minute, class, entries)?;
            }
            CutSection::Positions(_) | CutSection::Producers(_) => {}
        }
        Ok(())
    }

    /// Counts in the windows what the base holds: it gave all-time counts only, whatever the views' minutes.
    fn windows_of_base<D: Disk>(&mut self, store: &Store<D>) -> Result<(), RecoveryError> {
        let Some(newest) = store.base_minute_newest() else { return Ok(()) };
        self.rankings.iter_mut().for_each(|ranking| ranking.restore_minute_max(newest));
        // All cores have the same edges.
        for request in self.rankings[0].restore_requests() {
            let mut outcome = Ok(());
            store.runs_of_base(&request, |shard, entries| {
                if outcome.is_ok() {
                    outcome = self.owner(shard).restore_window(request.window, shard, &entries);
                }
            })?;
            outcome?;
        }
        Ok(())
    }

    fn record(&mut self, record: &DurableRecord<'_>) -> Result<(), RecoveryError> {
        let header = &record.header;
        match header.kind {
            RecordKind::Prefix => return Ok(()),
            RecordKind::ProducerNew => {
                self.producers.replay_new(header.producer, record.owner(), header.arrival_ms);
            }
            RecordKind::Batch => {
                let batch = Batch::decode(record.batch).expect("the log verifies a batch before it hands it out");
                let ranges: Vec<RefusedRange> = record.verdicts.iter().collect();
                self.apply(&batch, &ranges, header.arrival_ms)?;
                let counted = header.view_count - header.refused_count;
                self.views += u64::from(counted);
                let remembered = Remembered::new(header.sequence, header.batch_crc, counted, &ranges);
                self.producers.replay_batch(header.producer, remembered, header.arrival_ms);
            }
        }
        self.records += 1;
        Ok(())
    }

    /// Counts a batch, if its new ids fit the tables of this start.
    fn apply(&mut self, batch: &Batch<'_>, refused: &[RefusedRange], arrival_ms: u64) -> Result<(), RecoveryError> {
        let mut all = Amount::default();
        self.rows.rows(batch, refused.iter().copied(), |row| all.add(row.video_id.len()));
        let (videos, long_id_bytes) = (all.rows as u32, all.long_id_bytes as usize);
        let has_room = |shard| self.ranking_of(shard).room_for(shard, videos, long_id_bytes);
        if !(0..self.shards_total).all(has_room) {
            self.check_room(batch, refused)?;
        }
        self.cells.iter_mut().for_each(Vec::clear);
        let rule = RowRule { targets: &self.targets, calendar: self.calendar, lateness_max_ms: self.lateness_max_ms };
        rule.push_rows(&mut self.rows, &mut self.cells, batch, refused.iter().copied(), arrival_ms);
        for ((ranking, cells), merged_at) in self.rankings.iter_mut().zip(&self.cells).zip(&mut self.merged_at) {
            ranking.apply(cells);
            if ranking.late_rows() >= *merged_at {
                ranking.merge_late_rows();
                *merged_at = (2 * ranking.late_rows()).max(self.late_rows_max);
            }
        }
        Ok(())
    }

    fn ranking_of(&self, shard: u16) -> &CoreRanking {
        &self.rankings[self.targets.core_of_shard(shard)]
    }

    /// Counts the new ids of a batch's counted views by shard, when the tables are nearly full.
    fn check_room(&self, batch: &Batch<'_>, refused: &[RefusedRange]) -> Result<(), RecoveryError> {
        let mut new_ids = HashSet::new();
        let mut by_shard = vec![Amount::default(); usize::from(self.shards_total)];
        for (video_id, _) in counted_views(batch, refused.iter().copied()) {
            let hash = self.targets.hash().hash(video_id);
            let shard = shard_of(hash, self.shards_total);
            if !self.ranking_of(shard).contains(hash, video_id) && new_ids.insert(video_id) {
                by_shard[usize::from(shard)].add(video_id.len());
            }
        }
        for (shard, new) in (0..self.shards_total).zip(by_shard) {
            let ranking = self.ranking_of(shard);
            let (slots_free, arena_free) = (ranking.slots_free(shard), ranking.id_arena_free(shard));
            if u64::from(slots_free) < new.rows {
                let videos_max = self.videos_max;
                let videos = u64::from(videos_max - slots_free) + new.rows;
                return Err(RankingError::TableTooSmall { shard, videos, videos_max }.into());
            }
            if (arena_free as u64) < new.long_id_bytes {
                let bytes_max = self.id_arena_bytes;
                let bytes = (bytes_max.saturating_sub(arena_free)) as u64 + new.long_id_bytes;
                return Err(RankingError::ArenaTooSmall { shard, bytes, bytes_max }.into());
            }
        }
        Ok(())
    }

    /// The cut of what was replayed from the logs, so that the next start does not replay it again.
    fn cut(&mut self, tables: &[ProducerTable], position: LogPosition, epoch: Epoch, time_ms: u64) -> Vec<CorePart> {
        let cores = self.rankings.iter_mut().zip(tables).zip(0..);
        let part = |((ranking, table), log): ((&mut CoreRanking, &ProducerTable), u32)| CorePart {
            log: LogNumber(log),
            position,
            cut: ranking.cut_now(epoch, time_ms),
            producers: table.image(time_ms),
        };
        cores.map(part).collect()
    }
}
