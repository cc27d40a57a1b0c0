//! Exact ranking of one core's videos: ids, counters, windows, boards, and the merge of all
//! cores' lists into a snapshot.
//!
//! Sans-IO: no clock, file, socket, thread or global random; times, seeds and the runs of leaving
//! minutes are arguments. It decides nothing about acceptance: whoever applies a row has already
//! accepted, logged and classed it, and asked for room.
//!
//! # The way of a row
//! [`push_row`] writes views of one video as [`Cell`]s for a lane; [`CoreRanking::apply`] counts it.
//! Every second a [`Marker`] freezes the state: [`CoreRanking::begin_marker`], then
//! [`CoreRanking::step`] until [`MarkerStep::Top`]; [`merge`] joins the lists of all cores. At a
//! new minute the marker also closes a [`CoreCut`] and asks for the runs that leave the windows.
//! At start, `restore_ids`, `restore_run`, `apply` of the log's tail and `finish_restore` bring
//! the state back.
//!
//! # Invariants
//! With m the engine minute as of the last marker, and after each call outside a marker:
//! 1. *Counters.* `all_time` of a video is the number of its views applied or restored, and
//!    `sliding[w]` the number of those with a minute ≥ m − W. A view below the edge when it is
//!    applied is never counted (the edge only rises, so it never belongs), and a view at or above
//!    it is counted once and falls exactly when the edge passes its minute: a marker from m to m′
//!    subtracts every run of the minutes [m − W, m′ − W), all of which were counted, since an edge
//!    in force at their application was at most m − W.
//! 2. *Runs.* Each applied view is in exactly one run of exactly one cut: in its line's
//!    `minute_count` if it is of minute m and class 0, in the shard's late rows otherwise, until
//!    the next close takes both.
//! 3. *Ids.* A slot is given once, in order of first sight; each cut carries the ids interned
//!    since the last, so the cuts in order hold all slots from 0.
//! 4. *Boards.* See `board.rs`: the published list is exact under increments and decrements.
#![forbid(unsafe_code)]

mod board;
mod calendar;
mod cell;
mod config;
mod core;
mod cut;
mod hash;
mod line;
mod marker;
mod populate;
mod restore;
mod shard;
#[cfg(test)]
mod tests;
mod time;
mod top;
mod videos;

pub use calendar::{CALENDAR_PERIODS, Calendar, CalendarPeriod, MonthLength};
pub use cell::{Cell, MARKER_CELLS, Marker, ROW_VIEWS_MAX, Row, cells_of, push_row, row_cells, tag};
pub use config::{LATE_ROW_BYTES, RankingConfig, RankingError, SLOTS_MAX, WindowLengths};
pub use core::CoreRanking;
pub use cut::{CoreCut, LateViews, Run, RunChange, RunRequest, ShardCut, ShardIds, SlotCount};
pub use hash::{IdHash, shard_of};
pub use highwater_memory::Populated;
pub use marker::MarkerStep;
pub use populate::ShardPopulator;
pub use time::{FinalityClass, Minute};
pub use top::{CoreBoard, CoreTop, merge};
pub use videos::INLINE_ID_BYTES_MAX;
