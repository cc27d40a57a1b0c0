//! `highwater_ranking`: counting rows with seven boards, at full tables.
//!
//! Not markers or cuts. Invariant: all rows are of the engine's minute, so nothing piles up between two pieces.

use highwater_proto::Period;
use highwater_ranking::{
    Cell, CoreRanking, FinalityClass, IdHash, Minute, RankingConfig, Row, WindowLengths, push_row,
};

use crate::views::{Draw, TIME_MS, video_id};
use crate::{SEED, Scale};

const SHARDS: u16 = 16;

/// Applies one batch of rows to a core that knows every video.
#[derive(Debug)]
pub struct Apply {
    ranking: CoreRanking,
    batches: Vec<Vec<Cell>>,
    next: usize,
    batch_views: u32,
}

impl Apply {
    /// A core on which every video has one view, and the batches to come.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let minute = Minute::of_ms(TIME_MS);
        let hash = IdHash::new(SEED);
        let row = |cells: &mut Vec<Cell>, video: u32| {
            let id = video_id(video);
            let row = Row { hash: hash.hash(&id), minute, class: FinalityClass::IN_HOUR, views: 1 };
            push_row(cells, row, &id);
        };
        let mut ranking = CoreRanking::new(config(scale), minute).expect("the tables can be reserved");
        let mut cells = Vec::new();
        for video in 0..scale.videos {
            row(&mut cells, video);
        }
        ranking.apply(&cells);
        ranking.finish_restore();
        let mut draw = Draw::new(scale);
        let batch = |_| {
            let mut cells = Vec::new();
            for _ in 0..scale.batch_views {
                row(&mut cells, draw.video());
            }
            cells
        };
        let batches = (0..scale.batches).map(batch).collect();
        Self { ranking, batches, next: 0, batch_views: scale.batch_views }
    }

    /// Applies the next batch; returns its views.
    pub fn run(&mut self) -> u32 {
        self.ranking.apply(&self.batches[self.next]);
        self.next = (self.next + 1) % self.batches.len();
        self.batch_views
    }

    /// Views counted so far, as the counters of all videos say.
    #[must_use]
    pub fn views(&self) -> u64 {
        let all_time = |video| {
            let counts = self.ranking.lookup(&video_id(video)).unwrap_or_default();
            counts.iter().find(|((period, _), _)| *period == Period::AllTime).map_or(0, |(_, count)| *count)
        };
        (0..self.ranking.videos() as u32).map(all_time).sum()
    }
}

fn config(scale: Scale) -> RankingConfig {
    RankingConfig {
        shards_total: SHARDS,
        owned: (0..SHARDS).collect(),
        hash_seed: SEED,
        // Shards are not equally full: room for a quarter more than the mean, and some for small scales.
        videos_per_shard_max: scale.videos / u32::from(SHARDS) * 5 / 4 + 100,
        id_arena_bytes_per_shard: 1 << 20,
        late_rows_max: 1 << 20,
        top_k: 1000,
        windows: WindowLengths::default(),
    }
}
