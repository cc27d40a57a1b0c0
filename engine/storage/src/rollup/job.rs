//! The work of one roll-up, from files to files.
//!
//! Not when, and nothing is removed here but its own files when it gives up. Invariant: what it writes has its name
//! only after it was read back, and the base last of all.

use highwater_ranking::{CalendarPeriod, ShardIds, SlotCount};

use super::merge::{MergeInto, MergeSums, merge_shard};
use super::names::{ROLLUPS_DIR, RunName};
use super::plan::{RollupDone, RollupPlan};
use super::verify::{ShardTotals, verify};
use crate::base::{BASES_DIR, base_path, open_base};
use crate::container::{
    Block, CutHeader, CutSection, FileHeader, FileKind, FileWriter, Pacing, SECTION_PAYLOAD_BYTES, SealedFile,
    SectionFile, remove_if_there, temporary_path,
};
use crate::cut::open_cut;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::tables::{Grain, SlotSums};

/// Counts in one section.
const COUNTS_PER_SECTION: usize = 1 << 15;

/// Why a roll-up was not done.
#[derive(Debug, thiserror::Error)]
pub enum RollupStop {
    /// It was told to stop. Nothing has changed.
    #[error("the roll-up was stopped")]
    Stopped,
    /// There is too little room. Nothing has changed: try again later.
    #[error(transparent)]
    NoSpace(StorageError),
    /// The process must end.
    #[error(transparent)]
    Failed(StorageError),
}

/// What ends a job early.
#[derive(Debug)]
pub(super) enum JobError {
    Stopped,
    Storage(StorageError),
}

impl From<StorageError> for JobError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Does a roll-up. `should_stop` is asked between sections of a fraction of a MiB. Takes its time: for a thread of its
/// own, beside the one that owns the store.
///
/// # Errors
/// [`RollupStop`].
pub fn run_rollup(
    disk: &dyn Disk,
    plan: &RollupPlan,
    should_stop: &mut dyn FnMut() -> bool,
) -> Result<RollupDone, RollupStop> {
    let failed = match (Job { disk, plan, should_stop }).run() {
        Ok(done) => return Ok(done),
        Err(JobError::Storage(error)) if !error.is_no_space() => return Err(RollupStop::Failed(error)),
        Err(JobError::Storage(error)) => RollupStop::NoSpace(error),
        Err(JobError::Stopped) => RollupStop::Stopped,
    };
    remove_own(disk, plan).map_err(RollupStop::Failed)?;
    Err(failed)
}

/// Removes what an unfinished job has written. Its base has no name yet.
fn remove_own(disk: &dyn Disk, plan: &RollupPlan) -> Result<(), StorageError> {
    let own = [Some(plan.run_of_cuts(Grain::Minute)), Some(plan.run_of_cuts(Grain::Hour))];
    let merged = [plan.run_of_merged(Grain::Hour), plan.run_of_merged(Grain::Day)];
    for name in own.into_iter().chain(merged).flatten() {
        remove_if_there(disk, &temporary_path(&name.path()))?;
        remove_if_there(disk, &name.path())?;
    }
    remove_if_there(disk, &temporary_path(&base_path(plan.last)))
}

struct Job<'j> {
    disk: &'j dyn Disk,
    plan: &'j RollupPlan,
    should_stop: &'j mut dyn FnMut() -> bool,
}

type Sources = Vec<(SectionFile, Vec<Block>)>;

impl<'j> Job<'j> {
    fn run(mut self) -> Result<RollupDone, JobError> {
        let (base, rolled, views) = self.roll_up()?;
        let merged = self.merge_hours()?;
        let runs: Vec<&SealedFile> = rolled.iter().chain(&merged).collect();
        for written in &runs {
            written.name(self.disk)?;
        }
        self.sync_dir(ROLLUPS_DIR)?;
        base.name(self.disk)?;
        self.sync_dir(BASES_DIR)?;
        let bytes = runs.iter().map(|written| written.len).sum::<u64>() + base.len;
        Ok(RollupDone { base: self.plan.last, cuts: self.plan.last - self.plan.base, views, bytes })
    }

    /// The new base, the cuts' minutes and hours, and how many views the cuts have.
    fn roll_up(&mut self) -> Result<(SealedFile, [SealedFile; 2], u64), JobError> {
        let plan = self.plan;
        let cuts = (plan.base + 1..=plan.last).map(|number| indexed(open_cut(self.disk, plan.directory, number)?));
        let cuts: Sources = cuts.collect::<Result<_, StorageError>>()?;
        let newest = &cuts.last().expect("a plan has cuts").0;
        let cut = *newest.cut();
        let older = match plan.base {
            0 => None,
            number => Some(indexed(open_base(self.disk, plan.directory, number)?)?),
        };
        let mut minutes = self.writer_of_run(plan.run_of_cuts(Grain::Minute), &cut, newest)?;
        let mut hours = self.writer_of_run(plan.run_of_cuts(Grain::Hour), &cut, newest)?;
        let header = FileHeader { kind: FileKind::Base, cut, first: 1, period_minutes: 0 };
        let mut base = self.writer(base_path(plan.last), &header)?;
        base.positions(&newest.positions()?)?;
        base.manifest(&plan.manifest.encode())?;
        base.producers(newest.producers()?.iter())?;
        let shards = usize::from(plan.shards);
        let (mut in_base, mut in_runs) = (vec![ShardTotals::default(); shards], vec![ShardTotals::default(); shards]);
        let (mut sums, mut all_time) = (MergeSums::default(), SlotSums::new());
        for shard in 0..plan.shards {
            let ids = self.ids(shard, older.as_ref(), &cuts, &mut base, &mut all_time)?;
            let before = all_time.total();
            let mut into = MergeInto { fine: &mut minutes, coarse: &mut hours };
            let hour_of = |minute| plan.calendar.period_at(CalendarPeriod::Hour, minute).start;
            merge_shard(shard, &cuts, &mut into, &mut sums, hour_of, |file, entries| {
                self.go_on()?;
                check_slots(file, shard, entries, ids)?;
                all_time.add(entries);
                Ok(())
            })?;
            let views = all_time.total();
            in_base[usize::from(shard)] = ShardTotals { ids: u64::from(ids), views };
            in_runs[usize::from(shard)] = ShardTotals { ids: 0, views: views - before };
            self.counts(shard, ids, &mut base, &mut all_time)?;
        }
        let views = in_runs.iter().map(|totals| totals.views).sum();
        let minutes = self.written(minutes, plan.run_of_cuts(Grain::Minute), &in_runs)?;
        let hours = self.written(hours, plan.run_of_cuts(Grain::Hour), &in_runs)?;
        let sealed = base.seal()?;
        let numbers = (FileKind::Base, 1..=plan.last);
        verify(self.disk, plan.directory, numbers, &sealed, &in_base, self.should_stop)?;
        Ok((sealed, [minutes, hours], views))
    }

    /// The hours that are due, as one file, and as days.
    fn merge_hours(&mut self) -> Result<Vec<SealedFile>, JobError> {
        let plan = self.plan;
        let (Some(hour), Some(day)) = (plan.run_of_merged(Grain::Hour), plan.run_of_merged(Grain::Day)) else {
            return Ok(Vec::new());
        };
        let sources = plan.merged.iter().map(|name| indexed(name.open(self.disk, plan.directory)?));
        let sources: Sources = sources.collect::<Result<_, StorageError>>()?;
        let newest = &sources.last().expect("there are hours to merge").0;
        let mut hours = self.writer_of_run(hour, newest.cut(), newest)?;
        let mut days = self.writer_of_run(day, newest.cut(), newest)?;
        let mut totals = vec![ShardTotals::default(); usize::from(plan.shards)];
        let mut sums = MergeSums::default();
        for shard in 0..plan.shards {
            let mut into = MergeInto { fine: &mut hours, coarse: &mut days };
            let day_of = |minute| plan.calendar.period_at(CalendarPeriod::Day, minute).start;
            let views = &mut totals[usize::from(shard)].views;
            merge_shard(shard, &sources, &mut into, &mut sums, day_of, |_, entries| {
                *views += entries.iter().map(|entry| u64::from(entry.count)).sum::<u64>();
                self.go_on()
            })?;
        }
        Ok(vec![self.written(hours, hour, &totals)?, self.written(days, day, &totals)?])
    }

    /// Hands the ids of a shard on to the new base, and adds the older base's counts; returns how many ids there are.
    fn ids(
        &mut self,
        shard: u16,
        older: Option<&(SectionFile, Vec<Block>)>,
        cuts: &Sources,
        base: &mut FileWriter<'_>,
        all_time: &mut SlotSums,
    ) -> Result<u32, JobError> {
        let mut pending = ShardIds { shard, ..ShardIds::default() };
        let mut take = |file: &SectionFile, section: CutSection<'_>| -> Result<(), JobError> {
            self.go_on()?;
            match section {
                CutSection::Ids { first_slot, lens, bytes, .. } => {
                    let next = pending.first_slot as usize + pending.id_lens.len();
                    if first_slot as usize != next {
                        let what = format!("ids of shard {shard} start at slot {first_slot}, not at {next}");
                        return Err(StorageError::damaged(file.path(), 0, what).into());
                    }
                    pending.id_lens.extend_from_slice(lens);
                    pending.id_bytes.extend_from_slice(bytes);
                    if pending.id_bytes.len() >= SECTION_PAYLOAD_BYTES {
                        base.ids(&pending)?;
                        pending.first_slot += pending.id_lens.len() as u32;
                        pending.id_lens.clear();
                        pending.id_bytes.clear();
                    }
                }
                CutSection::AllTime { first_slot, counts, .. } => {
                    (first_slot..).zip(counts).for_each(|(slot, count)| all_time.add_one(slot, *count));
                }
                CutSection::Positions(_) | CutSection::Producers(_) | CutSection::Run { .. } => {}
            }
            Ok(())
        };
        if let Some((file, blocks)) = older {
            file.sections_of(blocks, shard, |section| take(file, section))?;
        }
        for (file, _) in cuts {
            file.ids_of(shard, |section| take(file, section))?;
        }
        base.ids(&pending)?;
        Ok(pending.first_slot + pending.id_lens.len() as u32)
    }

    /// Writes the counts of a shard's ids, and forgets them.
    fn counts(
        &mut self,
        shard: u16,
        ids: u32,
        base: &mut FileWriter<'_>,
        all_time: &mut SlotSums,
    ) -> Result<(), JobError> {
        for first_slot in (0..ids).step_by(COUNTS_PER_SECTION) {
            self.go_on()?;
            let end = ids.min(first_slot.saturating_add(COUNTS_PER_SECTION as u32));
            let counts: Vec<u64> = (first_slot..end).map(|slot| all_time.get(slot)).collect();
            base.counts(shard, first_slot, &counts)?;
        }
        all_time.clear();
        Ok(())
    }

    fn writer_of_run(
        &self,
        name: RunName,
        cut: &CutHeader,
        newest: &SectionFile,
    ) -> Result<FileWriter<'j>, StorageError> {
        let period_minutes = name.grain.minutes_max(&self.plan.calendar);
        let header = FileHeader { kind: FileKind::Run(name.grain), cut: *cut, first: name.first, period_minutes };
        let mut writer = self.writer(name.path(), &header)?;
        writer.positions(&newest.positions()?)?;
        Ok(writer)
    }

    fn writer(&self, path: String, header: &FileHeader) -> Result<FileWriter<'j>, StorageError> {
        FileWriter::create(self.disk, path, header, Pacing::Gently { reserve_bytes: self.plan.reserve_bytes })
    }

    fn written(
        &mut self,
        writer: FileWriter<'_>,
        name: RunName,
        totals: &[ShardTotals],
    ) -> Result<SealedFile, JobError> {
        let sealed = writer.seal()?;
        let kind = (FileKind::Run(name.grain), name.first..=name.last);
        verify(self.disk, self.plan.directory, kind, &sealed, totals, self.should_stop)?;
        Ok(sealed)
    }

    fn go_on(&mut self) -> Result<(), JobError> {
        if (self.should_stop)() { Err(JobError::Stopped) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &str) -> Result<(), StorageError> {
        self.disk.sync_dir(dir).map_err(|error| StorageError::io("sync directory", dir, error))
    }
}

fn indexed(file: SectionFile) -> Result<(SectionFile, Vec<Block>), StorageError> {
    let blocks = file.index()?;
    Ok((file, blocks))
}

/// Refuses a run that names slots without an id.
fn check_slots(file: &SectionFile, shard: u16, entries: &[SlotCount], ids: u32) -> Result<(), StorageError> {
    match entries.last() {
        Some(entry) if entry.slot >= ids => {
            let what = format!("a run of shard {shard} names slot {}, known are {ids}", entry.slot);
            Err(StorageError::damaged(file.path(), 0, what))
        }
        _ => Ok(()),
    }
}
