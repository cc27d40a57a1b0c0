//! Which files answer a question for runs, and for which minutes each.
//!
//! Invariant: each view of the minutes asked for is in exactly one of the parts. The cuts up to the base are answered
//! from the coarsest roll-ups that fit: whole days from days where there are days, else whole hours from hours, the
//! rest from minutes; the cuts beyond it from themselves.
//!
//! ```text
//! minutes asked for   |‥‥|hhhhh|DDDDDDDDDDDDDDDDDDDD|hhhh|‥‥|
//! cuts 1 to merged_to  min hours days                hours min
//! up to the base       min hours hours               hours min
//! beyond it            cuts
//! ```

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use highwater_ranking::{CalendarPeriod, FinalityClass, Minute, SlotCount};

use super::{Chains, Source};
use crate::container::FileKind;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::tables::Grain;

/// Which cuts a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// Those that the base holds.
    Base,
}

/// A question for runs.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) minutes: Range<Minute>,
    pub(crate) classes: RangeInclusive<FinalityClass>,
    pub(crate) shard: Option<u16>,
    pub(crate) scope: Scope,
}

/// Minutes asked for, by what may answer them.
struct Parts {
    days: Range<Minute>,
    /// Whole hours before and after the whole days.
    hours: [Range<Minute>; 2],
    /// What is left before and after the whole hours.
    minutes: [Range<Minute>; 2],
}

impl Chains {
    /// Hands out all runs of the minutes and classes in pieces of one shard. A slot may come more than once.
    ///
    /// # Panics
    /// When the minutes begin or end within a period that is kept only as a whole.
    pub(crate) fn visit(
        &self,
        disk: &dyn Disk,
        question: &Question,
        mut visit: impl FnMut(u16, &[SlotCount]),
    ) -> Result<(), StorageError> {
        if question.minutes.start >= question.minutes.end {
            return Ok(());
        }
        let parts = self.parts(&question.minutes);
        self.check_whole(question, &parts);
        for (source, ranges) in self.answering(question, &parts) {
            let is_wanted = |minute: Minute| ranges.iter().any(|range| range.contains(&minute));
            let of_shard = |shard| question.shard.is_none_or(|wanted| wanted == shard);
            let blocks = source.blocks.iter().filter(|block| of_shard(block.shard) && touches(&block.minutes, ranges));
            let mut file = None;
            for block in blocks {
                if let Some(section) = source.kept_section(block.offset)? {
                    ranges.iter().for_each(|range| section.visit(range, &question.classes, &mut visit));
                    continue;
                }
                if file.is_none() {
                    file = Some(source.open(disk, self.directory)?);
                }
                let Some(file) = &file else { continue };
                let wanted = |minute, class: FinalityClass| is_wanted(minute) && question.classes.contains(&class);
                file.block(block.offset, wanted, &mut visit)?;
            }
        }
        Ok(())
    }

    /// First minutes of the periods that touch the minutes and may have rows, where rows are whole.
    pub(crate) fn periods(&self, grain: Grain, minutes: &Range<Minute>) -> BTreeSet<Minute> {
        let complete_from = self.complete_from(grain);
        let fine_enough =
            self.runs().iter().filter(|run| run.grain() <= grain && run.grain() >= grain.min(Grain::Hour));
        let held = fine_enough.chain(self.cuts()).flat_map(Source::minutes);
        let touching = held
            .map(|minute| grain.period_at(&self.calendar, minute))
            .filter(|period| period.start < minutes.end && period.end > minutes.start && period.start >= complete_from);
        touching.map(|period| period.start).collect()
    }

    fn parts(&self, asked: &Range<Minute>) -> Parts {
        let hours = self.whole(CalendarPeriod::Hour, asked);
        let days = self.whole(CalendarPeriod::Day, &hours);
        Parts {
            minutes: [asked.start..hours.start, hours.end..asked.end],
            hours: [hours.start..days.start, days.end..hours.end],
            days,
        }
    }

    /// The whole periods within the minutes; where there are none, nothing at their start.
    fn whole(&self, kind: CalendarPeriod, minutes: &Range<Minute>) -> Range<Minute> {
        let first = self.period(kind, minutes.start);
        let start = if first.start == minutes.start { minutes.start } else { first.end };
        // The last period ends with time, so that the end of time ends it too.
        let end = if minutes.end == Minute(u32::MAX) { minutes.end } else { self.period(kind, minutes.end).start };
        if start < end { start..end } else { minutes.start..minutes.start }
    }

    /// The files that answer, and the minutes that each is asked for.
    fn answering<'a>(&'a self, question: &'a Question, parts: &'a Parts) -> Vec<(&'a Source, &'a [Range<Minute>])> {
        let merged_to = self.base().map_or(0, |base| base.manifest.merged_to);
        let mut answering: Vec<(&Source, &[Range<Minute>])> = Vec::new();
        for run in self.runs() {
            match run.kind {
                FileKind::Run(Grain::Day) => answering.push((run, std::slice::from_ref(&parts.days))),
                FileKind::Run(Grain::Hour) => {
                    answering.push((run, &parts.hours));
                    if run.last() > merged_to {
                        answering.push((run, std::slice::from_ref(&parts.days)));
                    }
                }
                _ => answering.push((run, &parts.minutes)),
            }
        }
        if question.scope == Scope::All {
            answering.extend(self.cuts().iter().map(|cut| (cut, std::slice::from_ref(&question.minutes))));
        }
        answering
    }

    fn check_whole(&self, question: &Question, parts: &Parts) {
        let mut needed = vec![(Grain::Day, &parts.days)];
        needed.extend(parts.hours.iter().map(|range| (Grain::Hour, range)));
        needed.extend(parts.minutes.iter().map(|range| (Grain::Minute, range)));
        for (grain, range) in needed {
            let complete_from = self.complete_from(grain);
            assert!(
                range.is_empty() || range.start >= complete_from,
                "{question:?} asks for {range:?} by {grain:?}, which is whole from {complete_from:?} only"
            );
        }
    }
}

/// Whether one of ascending minutes is in one of the ranges.
fn touches(minutes: &[Minute], ranges: &[Range<Minute>]) -> bool {
    ranges.iter().any(|range| {
        let at = minutes.partition_point(|minute| *minute < range.start);
        minutes.get(at).is_some_and(|minute| *minute < range.end)
    })
}
