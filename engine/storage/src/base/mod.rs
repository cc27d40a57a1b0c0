//! Bases: all ids and all-time counts as of one cut, and the roll-ups that hold the runs behind them.
//!
//! Not the merging. Invariant: a base under its final name is the commit point of a roll-up: the roll-ups that its
//! manifest names are there, and hold each view of the cuts up to the base exactly once per grain, but for what
//! retention gave up. Sections: positions, manifest, producers, then ids and counts shard by shard, index.
//!
//! Manifest: complete from minute, hour, day as minutes u32 each · newest event minute u32 · merged to cut u64 ·
//! number of roll-ups u32 · for each: grain u8 (0 minute, 1 hour, 2 day) · first cut u64 · last cut u64.

use highwater_ranking::Minute;

use crate::codec::{PutLe, TakeLe};
use crate::container::{FileKind, SectionFile};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::position::DirectoryId;
use crate::rollup::RunName;
use crate::tables::Grain;

/// Directory of the bases, relative to the data directory.
pub(crate) const BASES_DIR: &str = "bases";

/// Path of a base, relative to the data directory.
pub(crate) fn base_path(number: u64) -> String {
    format!("{BASES_DIR}/base-{number:010}.base")
}

/// Number of a file name made by [`base_path`].
pub(crate) fn parse_base_name(name: &str) -> Option<u64> {
    name.strip_prefix("base-")?.strip_suffix(".base")?.parse().ok()
}

/// Opens a base and checks its header and footer.
pub(crate) fn open_base(disk: &dyn Disk, directory: DirectoryId, number: u64) -> Result<SectionFile, StorageError> {
    SectionFile::open(disk, directory, FileKind::Base, base_path(number), 1..=number)
}

/// What a base rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// By grain: the event minute from which the roll-ups of the grain hold every view up to the base.
    pub(crate) complete_from: [Minute; 3],
    /// The newest event minute of any view up to the base.
    pub(crate) newest_minute: Minute,
    /// The last cut that days hold; hours up to it are merged alike.
    pub(crate) merged_to: u64,
    /// The roll-ups, by grain and number.
    pub(crate) runs: Vec<RunName>,
}

impl Manifest {
    /// Reads and checks the manifest of a base.
    pub(crate) fn read(base: &SectionFile) -> Result<Self, StorageError> {
        let parsed = Self::parse(&base.manifest()?).filter(|manifest| manifest.is_whole(base.cut().number));
        parsed.ok_or_else(|| {
            StorageError::damaged(base.path(), 0, "the manifest's checksum is right but it makes no sense")
        })
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.complete_from.iter().for_each(|minute| out.put_u32(minute.0));
        out.put_u32(self.newest_minute.0);
        out.put_u64(self.merged_to);
        out.put_u32(self.runs.len() as u32);
        for run in &self.runs {
            out.put_u8(run.grain as u8);
            out.put_u64(run.first);
            out.put_u64(run.last);
        }
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = TakeLe::new(bytes);
        let complete_from = [Minute(reader.u32()?), Minute(reader.u32()?), Minute(reader.u32()?)];
        let newest_minute = Minute(reader.u32()?);
        let merged_to = reader.u64()?;
        let count = reader.u32()?;
        let mut runs = Vec::new();
        for _ in 0..count {
            let grain = *Grain::ALL.get(usize::from(reader.u8()?))?;
            runs.push(RunName { grain, first: reader.u64()?, last: reader.u64()? });
        }
        reader.is_empty().then_some(Self { complete_from, newest_minute, merged_to, runs })
    }

    /// Whether the chains of all grains have no gap and end where they must for a base of this number.
    pub(crate) fn is_whole(&self, number: u64) -> bool {
        let chain = |grain| self.runs.iter().filter(move |run: &&RunName| run.grain == grain);
        let ends_at = |grain, end: u64| {
            let mut next = None;
            let is_chain = chain(grain).all(|run| {
                let follows = run.first > 0 && run.first <= run.last && next.is_none_or(|next| run.first == next);
                next = run.last.checked_add(1);
                follows
            });
            is_chain && next == end.checked_add(1)
        };
        let straddles = |run: &RunName| run.first <= self.merged_to && run.last > self.merged_to;
        self.runs.is_sorted()
            && self.merged_to <= number
            && ends_at(Grain::Minute, number)
            && ends_at(Grain::Hour, number)
            && (chain(Grain::Day).next().is_none() || ends_at(Grain::Day, self.merged_to))
            && !chain(Grain::Hour).any(straddles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(grain: Grain, first: u64, last: u64) -> RunName {
        RunName { grain, first, last }
    }

    fn manifest() -> Manifest {
        let runs = vec![
            run(Grain::Minute, 61, 120),
            run(Grain::Minute, 121, 180),
            run(Grain::Hour, 1, 120),
            run(Grain::Hour, 121, 180),
            run(Grain::Day, 1, 120),
        ];
        let complete_from = [Minute(5), Minute(0), Minute(0)];
        Manifest { complete_from, newest_minute: Minute(9), merged_to: 120, runs }
    }

    #[test]
    fn manifests_come_back_as_they_were() {
        assert_eq!(Manifest::parse(&manifest().encode()), Some(manifest()));
        let bytes = manifest().encode();
        assert_eq!(Manifest::parse(&bytes[..bytes.len() - 1]), None);
    }

    #[test]
    fn a_manifest_with_a_gap_is_not_whole() {
        assert!(manifest().is_whole(180));
        assert!(!manifest().is_whole(181), "no runs of the last cut");
        for missing in [1, 3, 4] {
            let mut holed = manifest();
            holed.runs.remove(missing);
            assert_eq!(holed.is_whole(180), missing == 4, "without {:?}", manifest().runs[missing]);
        }
        let mut straddling = manifest();
        straddling.merged_to = 100;
        assert!(!straddling.is_whole(180));
    }
}
