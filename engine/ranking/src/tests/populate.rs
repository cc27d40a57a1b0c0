//! Committing memory ahead: it must change nothing that a core counts, and keep to the tables.

use std::os::unix::fs::FileExt;

use highwater_memory::{Populated, Slab};

use crate::*;

const STEP_SLOTS: u32 = 32_768;
const NOW: Minute = Minute(28_000_000);

/// Whether this kernel can populate at all: Linux 5.14 can, earlier ones leave the tests nothing to see.
fn kernel_can() -> bool {
    let slab = Slab::<u64>::reserve(1).unwrap();
    slab.populator().populate(0..1) == Populated::Done
}

fn core(videos_max: u32) -> CoreRanking {
    let config = RankingConfig {
        shards_total: 4,
        owned: vec![2, 0],
        hash_seed: 3,
        videos_per_shard_max: videos_max,
        id_arena_bytes_per_shard: 0,
        late_rows_max: 10,
        top_k: 10,
        windows: WindowLengths::default(),
    };
    let mut core = CoreRanking::new(config, NOW).unwrap();
    core.finish_restore();
    core
}

/// Counts one view of each of these videos that the core owns; returns those.
fn view(core: &mut CoreRanking, videos: std::ops::Range<u32>) -> Vec<String> {
    let ids = videos.map(|video| format!("v{video}"));
    let owned: Vec<_> = ids.filter(|id| matches!(shard_of(core.id_hash().hash(id), 4), 0 | 2)).collect();
    let mut cells = Vec::new();
    for id in &owned {
        let row = Row { hash: core.id_hash().hash(id), minute: NOW, class: FinalityClass(0), views: 1 };
        push_row(&mut cells, row, id);
    }
    core.apply(&cells);
    owned
}

/// Whether the page that holds this value is committed, by the kernel's own account.
fn is_committed<T>(at: &T) -> bool {
    let pages = std::fs::File::open("/proc/self/pagemap").unwrap();
    let mut entry = [0; 8];
    // Entries are for pages of 4 KiB on all that the engine is tested on; bits 62 and 63: swapped out, present.
    pages.read_exact_at(&mut entry, (std::ptr::from_ref(at).addr() / 4096 * 8) as u64).unwrap();
    u64::from_ne_bytes(entry) >> 62 != 0
}

#[test]
fn all_that_a_slot_touches_is_committed() {
    if !kernel_can() {
        return;
    }
    // Dirty bits take a huge page for 512 steps, so only these ends tell lines and bits apart.
    let slots_max = 512 * STEP_SLOTS + 1;
    let core = core(slots_max);
    let shard = &core.shards[0];
    let committed = |slot: u32| {
        let (line, word) = (&shard.videos.lines[slot as usize], &shard.dirty[slot as usize / 64]);
        [is_committed(line), is_committed(word)]
    };
    assert_eq!(committed(0), [false; 2]);
    let populator = &mut core.populators()[0];
    assert_eq!(populator.populate_ahead(0, 2 * STEP_SLOTS), Populated::Done);
    for slot in [0, STEP_SLOTS, 2 * STEP_SLOTS - 1] {
        assert_eq!(committed(slot), [true; 2], "slot {slot}");
    }
    assert!(!committed(4 * STEP_SLOTS)[0]);
    assert_eq!(committed(slots_max - 1), [false; 2]);
    assert_eq!(populator.populate_ahead(slots_max - 1, u32::MAX), Populated::Done);
    assert_eq!((committed(slots_max - 1), populator.slots_done()), ([true; 2], slots_max));
    assert!(!committed(8 * STEP_SLOTS)[0], "what the core uses already is its own");
}

#[test]
fn slots_are_committed_in_whole_steps_up_to_the_table_and_never_twice() {
    if !kernel_can() {
        return;
    }
    let videos_max = 2 * STEP_SLOTS + 100;
    let core = core(videos_max);
    let mut populators = core.populators();
    assert_eq!(populators.iter().map(ShardPopulator::shard).collect::<Vec<_>>(), [2, 0]);
    let populator = &mut populators[0];
    assert_eq!((populator.slots_max(), populator.slots_done()), (videos_max, 0));
    for (slots_used, ahead, done) in [
        (0, 0, 0),
        (0, 1, STEP_SLOTS),
        (STEP_SLOTS - 10, 10, STEP_SLOTS),
        (STEP_SLOTS - 10, 11, 2 * STEP_SLOTS),
        (5, 5, 2 * STEP_SLOTS),
        (2 * STEP_SLOTS, 1, videos_max),
        (videos_max, u32::MAX, videos_max),
        (u32::MAX, u32::MAX, videos_max),
    ] {
        assert_eq!(populator.populate_ahead(slots_used, ahead), Populated::Done);
        assert_eq!(populator.slots_done(), done, "{slots_used} used, {ahead} ahead");
    }
    // A helper that fell behind its core begins where the core is.
    let behind = &mut populators[1];
    assert_eq!(behind.populate_ahead(STEP_SLOTS + 7, 0), Populated::Done);
    assert_eq!(behind.slots_done(), 0, "nothing was asked for");
    assert_eq!(behind.populate_ahead(STEP_SLOTS + 7, 1), Populated::Done);
    assert_eq!(behind.slots_done(), 2 * STEP_SLOTS);
}

#[test]
fn counting_goes_on_while_a_helper_populates() {
    if !kernel_can() {
        return;
    }
    let mut core = core(3 * STEP_SLOTS);
    assert_eq!(core.slots_used().collect::<Vec<_>>(), [(2, 0), (0, 0)]);
    let mut owned = view(&mut core, 0..1000);
    let used: Vec<_> = core.slots_used().collect();
    assert_eq!(used.iter().map(|(_, slots)| *slots as usize).sum::<usize>(), owned.len());
    let mut populators = core.populators();
    let helper = std::thread::spawn(move || {
        for ahead in (0..=3 * STEP_SLOTS).step_by(4096) {
            for (populator, (shard, slots_used)) in populators.iter_mut().zip(&used) {
                assert_eq!(populator.shard(), *shard);
                assert_eq!(populator.populate_ahead(*slots_used, ahead), Populated::Done);
            }
        }
        populators
    });
    for start in (1000..100_000).step_by(1000) {
        owned.extend(view(&mut core, start..start + 1000));
    }
    let mut populators = helper.join().unwrap();
    assert_eq!(core.videos(), owned.len() as u64);
    for id in &owned {
        let counts = core.lookup(id).unwrap_or_else(|| panic!("{id} is known"));
        assert!(counts.iter().all(|(_, count)| *count == 1), "{id}: {counts:?}");
    }
    drop(core);
    // Fully committed: nothing is left to do, so nobody asks whether the table is still there.
    assert!(populators.iter_mut().all(|one| one.populate_ahead(0, u32::MAX) == Populated::Done));
}

#[test]
fn a_populator_outlives_its_core_without_effect() {
    let core = core(10);
    let mut populators = core.populators();
    drop(core);
    assert_eq!(populators[0].populate_ahead(0, 1), Populated::Gone);
    assert_eq!(populators[0].slots_done(), 0);
}
