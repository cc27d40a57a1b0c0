//! The definitions of `board.rs`, checked by brute force over all slots.

use std::collections::HashSet;

use crate::CoreRanking;
use crate::board::{Board, Member};

/// Checks every board of a core outside a marker.
pub(crate) fn check(core: &CoreRanking) {
    for (place, board) in core.boards.iter().enumerate() {
        check_board(place, board, core);
        assert_eq!(core.ledger.theta_counts[place], board.theta.count, "board {place}: mirrored threshold");
        let lines = core.shards.iter().flat_map(|shard| shard.videos.lines[..shard.videos.len() as usize].iter());
        let total: u64 = lines.map(|line| line.count(place, &core.edges)).sum();
        assert_eq!(core.ledger.totals[place], total, "board {place}: total");
    }
    for shard in &core.shards {
        let dirty: usize = shard.dirty.iter().map(|word| word.count_ones() as usize).sum();
        assert_eq!(dirty, shard.dirty_count, "dirty count");
        for slot in 0..shard.videos.len() {
            let is_dirty = shard.dirty[slot as usize / 64] >> (slot % 64) & 1 == 1;
            assert_eq!(is_dirty, shard.videos.lines[slot as usize].counters().minute_count > 0, "dirty bit");
        }
    }
}

fn check_board(place: usize, board: &Board, core: &CoreRanking) {
    let k = core.config.top_k;
    let listed: HashSet<Member> = board.members.iter().copied().collect();
    assert_eq!(listed.len(), board.members.len(), "board {place}: a member is listed twice");
    assert!(listed.len() < 4 * k, "board {place}: {} members", listed.len());
    let exact = match &board.scan {
        Some(scan) => scan.exact.higher(&board.theta),
        None => &board.theta,
    };
    let mut at_or_above = 0;
    let mut flagged = 0;
    for (shard_place, shard) in (0u16..).zip(&core.shards) {
        for slot in 0..shard.videos.len() {
            let video = Member { shard: shard_place, slot };
            let line = &shard.videos.lines[slot as usize];
            let count = line.count(place, &core.edges);
            let member = line.is_member(place);
            assert!(!member || count == line.fresh_count(place), "board {place}: {video:?} is a member and stale");
            assert_eq!(member, listed.contains(&video), "board {place}: bit and list of {video:?}");
            flagged += usize::from(member);
            let covered = board.theta.covers(count, shard.videos.id(slot));
            at_or_above += usize::from(member && covered);
            let passed = board.scan.as_ref().is_none_or(|scan| video < scan.cursor);
            assert!(!(passed && covered) || member, "board {place}: {video:?} is at or above θ and no member");
            assert!(!exact.covers(count, shard.videos.id(slot)) || member, "board {place}: {video:?} is at or above E");
        }
    }
    assert_eq!(flagged, board.members.len(), "board {place}: bits and list");
    assert_eq!(at_or_above, board.n, "board {place}: n");
    let settled = board.scan.is_some() || board.theta.is_minimum() || board.n >= 2 * k;
    assert!(settled, "board {place}: n is {} and no scan is pending", board.n);
}
