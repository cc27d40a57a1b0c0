//! What the benches measure: one type per measured module, made at a [`Scale`] and run piece by piece; and what the
//! programs beside them share: flags.
//!
//! Not the measuring itself, which is criterion's in `main.rs` and that of each program. Invariant: every body also
//! runs at [`Scale::TINY`] inside `cargo test`, with its result checked, so that a bench cannot rot.

#![forbid(unsafe_code)]

pub mod batch;
pub mod flags;
pub mod history;
pub mod lanes;
pub mod log;
pub mod ranking;
pub mod views;

/// How much input a bench is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Distinct videos.
    pub videos: u32,
    /// Views in one batch, and so in one measured piece; at most what a batch may hold.
    pub batch_views: u32,
    /// Different batches that are gone through in turn.
    pub batches: u32,
}

impl Scale {
    /// What is measured.
    pub const FULL: Self = Self { videos: 1_000_000, batch_views: 4096, batches: 256 };
    /// What the tests run.
    pub const TINY: Self = Self { videos: 100, batch_views: 50, batches: 3 };
}

/// Seed of everything that is made up: each run measures the same input.
pub(crate) const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_counted() {
        let mut counted = ranking::Apply::new(Scale::TINY);
        for _ in 0..5 {
            assert_eq!(counted.run(), 50);
        }
        assert_eq!(counted.views(), 100 + 5 * 50, "each video once, then the pieces");
    }

    #[test]
    fn a_batch_is_built_and_read_back() {
        let mut build = batch::Build::new(Scale::TINY);
        let frame = build.run();
        assert_eq!(frame.len(), build.run().len(), "the same views fill as many bytes");
        assert_eq!(batch::Check::new(Scale::TINY).run(), 50);
    }

    #[test]
    fn every_appended_batch_is_handed_out_as_durable() {
        let mut append = log::Append::new(Scale::TINY);
        for _ in 0..5 {
            assert_eq!(append.run(), 1);
        }
    }

    #[test]
    fn a_full_segment_is_followed_by_the_next() {
        let mut append = log::Append::new(Scale { batch_views: 4096, ..Scale::TINY });
        let appends = append.segment_bytes() / append.payload_bytes() as u64 + 2;
        for _ in 0..appends {
            assert_eq!(append.run(), 1);
        }
        assert!(append.segments() >= 2);
    }

    #[test]
    fn a_closed_hour_has_each_video_or_the_first_thousand() {
        let list = history::Close::new(Scale::TINY).run();
        assert_eq!((list.rows.len(), list.videos, list.total_views), (100, 100, 101));
        let list = history::Close::new(Scale { videos: 3000, ..Scale::TINY }).run();
        assert_eq!((list.rows.len(), list.videos), (1000, 3000));
    }

    #[test]
    fn every_pushed_cell_is_popped() {
        let mut lane = lanes::PushPop::new(Scale::TINY);
        for _ in 0..5 {
            assert_eq!(lane.run(), 50);
        }
    }
}
