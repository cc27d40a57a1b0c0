//! What of the closed files is still needed: the newest base, the one before it, and what they rest on.
//!
//! Not their contents, and not the logs. Invariant: nothing is removed that the newest two bases rest on; what is
//! removed is what a crash would leave behind as well, so that it does not matter how far a removal comes.

use std::collections::BTreeSet;

use super::list;
use crate::base::{BASES_DIR, Manifest, base_path, open_base, parse_base_name};
use crate::chains::Chains;
use crate::container::remove_if_there;
use crate::cut::{CUTS_DIR, cut_path, parse_cut_name};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::rollup::ROLLUPS_DIR;

/// The base before the newest, which is held until the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldBase {
    pub(super) number: u64,
    /// Paths of what it rests on.
    pub(super) runs: BTreeSet<String>,
}

impl HeldBase {
    pub(super) fn of(number: u64, manifest: &Manifest) -> Self {
        Self { number, runs: run_paths(manifest) }
    }

    /// The newest base before the one that is believed. One that is damaged is not held: nothing rests on it.
    pub(super) fn find(disk: &dyn Disk, chains: &Chains) -> Result<Option<Self>, StorageError> {
        let numbers = list(disk, BASES_DIR)?.into_iter().filter_map(|name| parse_base_name(&name));
        let Some(number) = numbers.filter(|number| *number < chains.base_number()).max() else { return Ok(None) };
        let read = open_base(disk, chains.directory, number).and_then(|file| Manifest::read(&file));
        match read {
            Ok(manifest) => Ok(Some(Self::of(number, &manifest))),
            Err(StorageError::Io { operation, file, source }) => Err(StorageError::Io { operation, file, source }),
            Err(_) => Ok(None),
        }
    }
}

fn run_paths(manifest: &Manifest) -> BTreeSet<String> {
    manifest.runs.iter().map(crate::rollup::RunName::path).collect()
}

/// Removes what neither base needs: older bases, cuts up to the older one, and roll-ups of theirs and of jobs that were
/// not committed. No job may be running.
pub(super) fn sweep(disk: &dyn Disk, chains: &Chains, held: Option<&HeldBase>) -> Result<(), StorageError> {
    let mut kept = held.map_or_else(BTreeSet::new, |held| held.runs.clone());
    if let Some(base) = chains.base() {
        kept.extend(run_paths(&base.manifest));
        kept.insert(base_path(base.cut.number));
    }
    kept.extend(held.map(|held| base_path(held.number)));
    let cuts_from = held.map_or(0, |held| held.number) + 1;
    let is_given_up = |dir: &str, name: &str| {
        let path = format!("{dir}/{name}");
        match dir {
            CUTS_DIR => parse_cut_name(name).is_some_and(|number| number < cuts_from && path == cut_path(number)),
            ROLLUPS_DIR => name.ends_with(".run") && !kept.contains(&path),
            _ => parse_base_name(name).is_some() && !kept.contains(&path),
        }
    };
    for dir in [ROLLUPS_DIR, CUTS_DIR, BASES_DIR] {
        let given_up: Vec<String> = list(disk, dir)?.into_iter().filter(|name| is_given_up(dir, name)).collect();
        for name in &given_up {
            remove_if_there(disk, &format!("{dir}/{name}"))?;
        }
        if !given_up.is_empty() {
            disk.sync_dir(dir).map_err(|error| StorageError::io("sync directory", dir, error))?;
        }
    }
    Ok(())
}
