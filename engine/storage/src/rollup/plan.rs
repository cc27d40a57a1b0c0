//! What one roll-up takes, writes and gives up.
//!
//! Not the work itself. Invariant: the manifest of a plan is whole for the number of its base.

use highwater_ranking::{Calendar, Minute};

use super::names::RunName;
use crate::base::Manifest;
use crate::chains::{Base, Chains, Source};
use crate::history::HistoryNeeds;
use crate::position::DirectoryId;
use crate::tables::Grain;

/// Hours behind the last day at which they are merged whatever their number: a fraction of their retention.
const MERGE_AT_RETENTION_PARTS: u32 = 4;

/// How long roll-ups are kept, in minutes before the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Those by minute; at least [`Self::MINUTE_MINUTES_MIN`], for the sliding day.
    pub minute_minutes: u32,
    /// Those by hour; at least [`Self::HOUR_MINUTES_MIN`], for the month.
    pub hour_minutes: u32,
    /// Those by day; at least [`Self::DAY_MINUTES_MIN`].
    pub day_minutes: u32,
}

impl Retention {
    /// 26 hours.
    pub const MINUTE_MINUTES_MIN: u32 = 26 * 60;
    /// 32 days.
    pub const HOUR_MINUTES_MIN: u32 = 32 * 24 * 60;
    /// 32 days: a month is summed up from its days.
    pub const DAY_MINUTES_MIN: u32 = 32 * 24 * 60;

    const fn minutes(&self, grain: Grain) -> u32 {
        match grain {
            Grain::Minute => self.minute_minutes,
            Grain::Hour => self.hour_minutes,
            Grain::Day => self.day_minutes,
        }
    }
}

impl Default for Retention {
    /// 48 hours, 35 days, 400 days.
    fn default() -> Self {
        Self { minute_minutes: 48 * 60, hour_minutes: 35 * 24 * 60, day_minutes: 400 * 24 * 60 }
    }
}

/// When a roll-up is due, and how much it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollupRule {
    /// Cuts beyond the base at which one is due.
    pub cuts_min: usize,
    /// Bytes of cuts at which one is due with fewer, if they are also 4 times those of the base.
    pub bytes_min: u64,
    /// Most cuts that one takes: each is held open with a section of its runs.
    pub cuts_max: usize,
    /// Roll-ups by hour behind the last day at which they are merged into one, with one by day.
    pub hours_merged_min: usize,
}

impl Default for RollupRule {
    fn default() -> Self {
        Self { cuts_min: 60, bytes_min: 1 << 30, cuts_max: 240, hours_merged_min: 24 }
    }
}

/// One roll-up, to be done by [`run_rollup`](super::run_rollup).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupPlan {
    pub(crate) directory: DirectoryId,
    pub(crate) shards: u16,
    pub(crate) calendar: Calendar,
    /// What is kept free for cut files.
    pub(crate) reserve_bytes: u64,
    /// Number of the base to go on from, 0 without one.
    pub(crate) base: u64,
    /// Number of the last cut, which is that of the new base.
    pub(crate) last: u64,
    /// Roll-ups by hour to be merged, in order; none most of the time.
    pub(crate) merged: Vec<RunName>,
    /// What the new base rests on.
    pub(crate) manifest: Manifest,
    /// Bytes of what is read.
    pub(crate) source_bytes: u64,
}

/// A roll-up that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RollupDone {
    /// Number of the new base.
    pub base: u64,
    /// Cuts that it took.
    pub cuts: u64,
    /// Views in them.
    pub views: u64,
    /// Bytes of all files that it wrote.
    pub bytes: u64,
}

impl RollupPlan {
    /// Numbers of the first and last cut that are rolled up.
    #[must_use]
    pub const fn cuts(&self) -> (u64, u64) {
        (self.base + 1, self.last)
    }

    /// The roll-up of a grain that holds the cuts of this plan.
    pub(crate) const fn run_of_cuts(&self, grain: Grain) -> RunName {
        RunName { grain, first: self.base + 1, last: self.last }
    }

    /// The roll-up of a grain that holds what is merged.
    pub(crate) fn run_of_merged(&self, grain: Grain) -> Option<RunName> {
        merged_name(grain, &self.merged)
    }

    /// The plan for the oldest cuts beyond the base, when it is due. What history needs is kept.
    pub(crate) fn for_chains(
        chains: &Chains,
        shards: u16,
        (rule, retention): (&RollupRule, &Retention),
        needs: &HistoryNeeds,
        reserve_bytes: u64,
    ) -> Option<Self> {
        let engine_minute = chains.last()?.minute;
        let cuts = chains.cuts();
        let cut_bytes: u64 = cuts.iter().map(|cut| cut.len).sum();
        let base_bytes = chains.base().map_or(0, |base| base.source.len);
        let is_due = cuts.len() >= rule.cuts_min || cut_bytes >= rule.bytes_min.max(base_bytes.saturating_mul(4));
        let taken = &cuts[..cuts.len().min(rule.cuts_max)];
        let last = taken.last().filter(|_| is_due)?.last();
        let mut manifest = chains.base().map_or_else(Manifest::default, |base| base.manifest.clone());
        let newest = taken.iter().filter_map(Source::newest).max().unwrap_or_default();
        manifest.newest_minute = manifest.newest_minute.max(newest);
        let merged = hours_to_merge(chains, manifest.merged_to, rule, retention, engine_minute);
        manifest.runs.retain(|run| !merged.contains(run));
        for grain in [Grain::Hour, Grain::Day] {
            manifest.runs.extend(merged_name(grain, &merged));
        }
        manifest.merged_to = merged.last().map_or(manifest.merged_to, |run| run.last);
        let first = chains.base_number() + 1;
        manifest.runs.extend([Grain::Minute, Grain::Hour].map(|grain| RunName { grain, first, last }));
        manifest.runs.sort_unstable();
        give_up(&mut manifest, chains, retention, engine_minute, needs);
        assert!(manifest.is_whole(last), "the chains of a plan have no gap: {manifest:?}");
        let merged_bytes = chains.runs().iter().filter(|run| merged.iter().any(|name| is_named(run, name)));
        let source_bytes = cut_bytes + base_bytes + merged_bytes.map(|run| run.len).sum::<u64>();
        Some(Self {
            directory: chains.directory,
            shards,
            calendar: chains.calendar,
            reserve_bytes,
            base: chains.base().map_or(0, |base: &Base| base.cut.number),
            last,
            merged,
            manifest,
            source_bytes,
        })
    }
}

fn merged_name(grain: Grain, merged: &[RunName]) -> Option<RunName> {
    Some(RunName { grain, first: merged.first()?.first, last: merged.last()?.last })
}

fn is_named(source: &Source, name: &RunName) -> bool {
    source.grain() == name.grain && source.numbers == (name.first..=name.last)
}

/// The hours that no day holds yet, if they are many or old.
fn hours_to_merge(
    chains: &Chains,
    merged_to: u64,
    rule: &RollupRule,
    retention: &Retention,
    engine_minute: Minute,
) -> Vec<RunName> {
    let unmerged = chains.runs().iter().filter(|run| run.grain() == Grain::Hour && run.last() > merged_to);
    let old = engine_minute.minus(retention.hour_minutes / MERGE_AT_RETENTION_PARTS);
    let is_old = unmerged.clone().any(|run| run.newest().is_none_or(|newest| newest < old));
    let names = unmerged.map(|run| RunName { grain: Grain::Hour, first: *run.numbers.start(), last: run.last() });
    let names: Vec<RunName> = names.collect();
    // One alone would be merged into itself.
    let is_due = (is_old && names.len() > 1) || names.len() >= rule.hours_merged_min.max(2);
    if is_due { names } else { Vec::new() }
}

/// Leaves out the oldest roll-ups that retention no longer keeps, and notes from when on the others are whole.
fn give_up(
    manifest: &mut Manifest,
    chains: &Chains,
    retention: &Retention,
    engine_minute: Minute,
    needs: &HistoryNeeds,
) {
    for grain in Grain::ALL {
        let kept_from = engine_minute.minus(retention.minutes(grain)).min(needs.kept_from(grain));
        while let Some(at) = manifest.runs.iter().position(|run| run.grain == grain) {
            // What this plan writes is not in the chains yet, and so ends the loop.
            let name = manifest.runs[at];
            let Some(source) = chains.runs().iter().find(|run| is_named(run, &name)) else { break };
            let is_in_days = grain != Grain::Hour || name.last <= manifest.merged_to;
            let end = source.newest().map_or(Minute(0), |newest| grain.period_at(&chains.calendar, newest).end);
            if end > kept_from || !is_in_days {
                break;
            }
            manifest.runs.remove(at);
            let complete_from = &mut manifest.complete_from[grain as usize];
            *complete_from = (*complete_from).max(end);
        }
    }
}
