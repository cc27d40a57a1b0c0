//! `highwater_storage::close_period`: the final list of an hour in which every video was viewed, most of them once.
//!
//! Not the disk: files are in memory. Invariant: each piece counts the same period anew, from files to rows.

use std::sync::Arc;

use highwater_proto::{Epoch, InstanceId};
use highwater_ranking::{Calendar, CalendarPeriod, CoreCut, Minute, ShardCut, SlotCount};
use highwater_storage::{
    CLOSED_ROWS_MAX, ClosedList, CorePart, Directory, DirectoryId, LogNumber, LogPosition, MemoryDisk, OpenOptions,
    PreparedCut, ProducerTableImage, StorageError, Store, Tables, close_period,
};

use crate::Scale;

const SHARDS: u16 = 16;
const HOUR: Minute = Minute(28_401_120);
/// One video in so many was viewed more often than once.
const LIKED_ONE_IN: u32 = 100;

/// Closes an hour.
pub struct Close {
    tables: Tables,
}

impl Close {
    /// Closed files in which each of the scale's videos was viewed in one minute.
    ///
    /// # Panics
    /// When the files cannot be made, which in memory they can.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        let disk = MemoryDisk::new();
        let directory = Directory {
            id: DirectoryId(1),
            instance: InstanceId(1),
            hash_seed: 1,
            shards: SHARDS,
            lateness_max_ms: 600_000,
            segment_bytes: 1 << 20,
        };
        let made = write(&disk, directory, scale.videos).and_then(|()| {
            let tables = Tables::open(Arc::new(disk), Calendar::default())?;
            Ok(Self { tables })
        });
        made.expect("a disk in memory does not fail")
    }

    /// Counts the hour's final list.
    ///
    /// # Panics
    /// When there is none.
    pub fn run(&mut self) -> ClosedList {
        let period = HOUR..Minute(HOUR.0 + 60);
        let list = close_period(&self.tables, CalendarPeriod::Hour, period, CLOSED_ROWS_MAX);
        list.expect("a disk in memory does not fail").expect("the hour had views")
    }
}

fn write(disk: &MemoryDisk, directory: Directory, videos: u32) -> Result<(), StorageError> {
    let mut store = Store::open(disk.clone(), OpenOptions::new(directory))?;
    store.replay_logs::<StorageError>(|_, _| Ok(()))?;
    store.open_generations(1)?;
    let shards = (0..SHARDS).map(|shard| shard_cut(shard, videos)).collect();
    let cut =
        CoreCut { epoch: Epoch(1), time_ms: HOUR.end_ms(), minute: HOUR, arrivals_from_ms: HOUR.end_ms(), shards };
    let position = LogPosition { generation: 1, position: 1 };
    let part = CorePart { log: LogNumber(0), position, cut, producers: ProducerTableImage::default() };
    store.write_cut(&PreparedCut::new(vec![part]))?;
    Ok(())
}

/// Every `SHARDS`th video, each viewed.
fn shard_cut(shard: u16, videos: u32) -> ShardCut {
    let (mut id_lens, mut id_bytes, mut current) = (Vec::new(), Vec::new(), Vec::new());
    for (slot, video) in (0..).zip((u32::from(shard)..videos).step_by(usize::from(SHARDS))) {
        let id = format!("{:011x}", u64::from(video).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
        id_lens.push(id.len() as u8);
        id_bytes.extend_from_slice(id.as_bytes());
        let count = if video % LIKED_ONE_IN == 0 { 2 + video % 7 } else { 1 };
        current.push(SlotCount { slot, count });
    }
    ShardCut { shard, minute: HOUR, first_slot: 0, id_lens, id_bytes, current, late: Vec::new() }
}
