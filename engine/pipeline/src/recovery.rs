//! From the files of a data directory to a running core's state: cuts in order, then the log beyond them.
//!
//! Verdicts are not decided again: they stand in the records. Windows and boards are computed for the engine time of
//! this start. What was replayed from the logs is closed into a cut of its own, so that the next start does not replay
//! it again.

use crate::counting::Admitted;
use crate::limits::EPOCHS_PER_LEASE;
use crate::pipeline::Recovered;
use crate::session::{ProducerTable, Remembered};
use crate::settle::{RowRule, counted_views};
use highwater_proto::{Batch, RefusedRange};
use highwater_ranking::{Cell, CoreRanking, IdHash, Minute, RankingConfig, RankingError, shard_of};
use highwater_storage::{
    CorePart, CutSection, Disk, DurableRecord, LogNumber, LogPosition, RecordKind, StorageError, Store,
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
    /// The shards of the core.
    pub ranking: RankingConfig,
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
        "the wall clock says {wall_ms} ms, the data directory ends at {durable_ms} ms (UTC, since 1970); allowed is from \
         {CLOCK_BEHIND_MAX_MS} ms behind to {CLOCK_AHEAD_MAX_MS} ms ahead: set the clock right, or start with --accept-clock"
    )]
    Clock {
        /// The wall clock.
        wall_ms: u64,
        /// The last durable engine minute.
        durable_ms: u64,
    },
}

/// Reads everything back and opens a new generation of core 0's log.
///
/// # Errors
/// [`RecoveryError`]; nothing was changed in a way that a later start could not repeat.
pub fn recover<D: Disk>(store: &mut Store<D>, plan: RecoveryPlan) -> Result<Recovered, RecoveryError> {
    let durable = store.state().time_minute;
    let durable_ms = durable.start_ms();
    let wall_ms = plan.wall_ms;
    let in_range = durable_ms <= wall_ms.saturating_add(CLOCK_BEHIND_MAX_MS)
        && wall_ms <= durable_ms.saturating_add(CLOCK_AHEAD_MAX_MS);
    if durable != Minute::default() && !in_range && !plan.accept_clock {
        return Err(RecoveryError::Clock { wall_ms, durable_ms });
    }
    let time_ms = wall_ms.max(durable_ms);
    let rule = RowRule { hash: IdHash::new(plan.ranking.hash_seed), lateness_max_ms: plan.lateness_max_ms };
    let shards_total = plan.ranking.shards_total;
    let videos_max = plan.ranking.videos_per_shard_max;
    let id_arena_bytes = plan.ranking.id_arena_bytes_per_shard;
    let mut replay = Replay {
        shards_total,
        videos_max,
        id_arena_bytes,
        ranking: CoreRanking::new(plan.ranking, replay_minute(durable, Minute::of_ms(time_ms)))?,
        producers: ProducerTable::default(),
        rule,
        cells: Vec::new(),
        views: 0,
        records: 0,
    };
    replay.ranking.prefault();
    let cuts = store.replay_cuts(|section| replay.section(section))?;
    replay.producers = ProducerTable::from_image(cuts.producers);
    store.replay_logs(|_log, record| replay.record(&record))?;
    replay.ranking.finish_restore();
    let issued = store.state().epoch_lease_end;
    let lease_end = store.lease_epochs(EPOCHS_PER_LEASE)?;
    store.record_minute(Minute::of_ms(time_ms))?;
    let generation = store.open_generations(1)?;
    let position = LogPosition::start_of(generation);
    if replay.records > 0 {
        let cut = replay.ranking.cut_now(issued, time_ms);
        let producers = replay.producers.image(time_ms);
        store.write_cut(vec![CorePart { log: LogNumber(0), position, cut, producers }])?;
    }
    tracing::info!(
        videos = replay.ranking.videos(),
        cuts = cuts.last.map_or(0, |cut| cut.number),
        records = replay.records,
        views = replay.views,
        producers = replay.producers.len(),
        generation,
        "recovered"
    );
    Ok(Recovered { ranking: replay.ranking, producers: replay.producers, position, issued, lease_end, time_ms })
}

/// The minute whose edges hold while everything is read back.
///
/// After a short break it is the minute of the crash: most of the log's tail is of that minute, and its counts stand in
/// the counter lines, while views of any other minute take memory one by one. The first marker then moves the edges.
fn replay_minute(durable: Minute, now: Minute) -> Minute {
    if now.0 - durable.0 <= BREAK_MINUTES_MAX { durable } else { now }
}

/// The state while it is read back.
struct Replay {
    shards_total: u16,
    videos_max: u32,
    id_arena_bytes: usize,
    ranking: CoreRanking,
    producers: ProducerTable,
    rule: RowRule,
    cells: Vec<Cell>,
    views: u64,
    records: u64,
}

impl Replay {
    fn section(&mut self, section: CutSection<'_>) -> Result<(), RecoveryError> {
        match section {
            CutSection::Ids { shard, lens, bytes, .. } => self.ranking.restore_ids(shard, lens, bytes)?,
            CutSection::Run { shard, minute, class, entries } => {
                self.ranking.restore_run(shard, minute, class, entries)?;
            }
            CutSection::Positions(_) | CutSection::Producers(_) => {}
        }
        Ok(())
    }

    fn record(&mut self, record: &DurableRecord<'_>) -> Result<(), RecoveryError> {
        let header = &record.header;
        match header.kind {
            RecordKind::Prefix => return Ok(()),
            RecordKind::ProducerNew => self.producers.replay_new(header.producer, header.arrival_ms),
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
        self.cells.clear();
        self.rule.push_rows(&mut self.cells, batch, refused.iter().copied(), arrival_ms);
        let mut all = Admitted::default();
        batch.video_ids().for_each(|video_id| all.add(video_id.len()));
        let (videos, long_id_bytes) = (all.views as u32, all.long_id_bytes as usize);
        if !(0..self.shards_total).all(|shard| self.ranking.room_for(shard, videos, long_id_bytes)) {
            self.check_room(batch, refused)?;
        }
        self.ranking.apply(&self.cells);
        Ok(())
    }

    /// Counts the new ids of a batch's counted views by shard, when the tables are nearly full.
    fn check_room(&self, batch: &Batch<'_>, refused: &[RefusedRange]) -> Result<(), RecoveryError> {
        let mut new_ids = HashSet::new();
        let mut by_shard = vec![Admitted::default(); usize::from(self.shards_total)];
        for (video_id, _) in counted_views(batch, refused.iter().copied()) {
            let hash = self.rule.hash.hash(video_id);
            if !self.ranking.contains(hash, video_id) && new_ids.insert(video_id) {
                by_shard[usize::from(shard_of(hash, self.shards_total))].add(video_id.len());
            }
        }
        for (shard, new) in (0..self.shards_total).zip(by_shard) {
            let (slots_free, arena_free) = (self.ranking.slots_free(shard), self.ranking.id_arena_free(shard));
            if u64::from(slots_free) < new.views {
                let videos_max = self.videos_max;
                let videos = u64::from(videos_max - slots_free) + new.views;
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
}
