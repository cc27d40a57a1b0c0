//! The report of a check, for people and for programs.
//!
//! Not the checking. Invariant: both say the same, and damage comes last for people, where they look.

use super::keys::Keys;
use highwater_storage::{CheckFinding, CheckReport, CheckedKind};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// How much of one kind was read.
#[derive(Debug, Serialize)]
struct Kind {
    kind: &'static str,
    files: u64,
    bytes: u64,
    records: u64,
    views: u64,
    damage: u64,
}

/// One thing that is wrong.
#[derive(Debug, Serialize)]
struct Damage {
    kind: &'static str,
    file: String,
    offset: Option<u64>,
    what: String,
    remedy: String,
    #[serde(skip)]
    text: String,
}

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    data_dir: String,
    sound: bool,
    kinds: Vec<Kind>,
    damage_total: u64,
    damage: Vec<Damage>,
    notes_total: u64,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(data_dir: &Path, stored: &CheckReport, keys: Keys) -> Self {
        let mut kinds: Vec<Kind> = CheckedKind::ALL.iter().map(|kind| Kind::of(*kind, stored)).collect();
        let of_keys = keys.damage.len() as u64;
        kinds.push(Kind { kind: "tls", files: keys.files, bytes: keys.bytes, records: 0, views: 0, damage: of_keys });
        let mut damage: Vec<Damage> = stored.damage().iter().map(Damage::of).collect();
        damage.extend(keys.damage.into_iter().map(|(file, text)| Damage::of_key(file, &text)));
        let damage_total = stored.damage_total() + of_keys;
        Self {
            data_dir: data_dir.display().to_string(),
            sound: damage_total == 0,
            kinds,
            damage_total,
            damage,
            notes_total: stored.notes_total(),
            notes: stored.notes().to_vec(),
        }
    }

    /// How much is wrong.
    pub const fn damage_total(&self) -> u64 {
        self.damage_total
    }

    /// For people: a table, then a line for each note and each damage.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let rows = self.kinds.iter().map(|one| {
            let damage = if one.damage == 0 { "ok".to_owned() } else { one.damage.to_string() };
            [
                one.kind.to_owned(),
                one.files.to_string(),
                one.bytes.to_string(),
                one.records.to_string(),
                one.views.to_string(),
                damage,
            ]
        });
        let head = ["kind", "files", "bytes", "records", "views", "damage"].map(str::to_owned);
        for [kind, files, bytes, records, views, damage] in std::iter::once(head).chain(rows) {
            line(&mut out, format_args!("{kind:<10}{files:>8}{bytes:>18}{records:>16}{views:>20}{damage:>8}"));
        }
        for note in &self.notes {
            line(&mut out, format_args!("note {}", note.escape_debug()));
        }
        for damage in &self.damage {
            line(&mut out, format_args!("damage {} {}", damage.kind, damage.text.escape_debug()));
        }
        let listed = |total: u64, listed: usize| match total > listed as u64 {
            true => format!(" ({listed} of them listed)"),
            false => String::new(),
        };
        let (damage, notes) = (self.damage_total, self.notes_total);
        let (damage_listed, notes_listed) = (listed(damage, self.damage.len()), listed(notes, self.notes.len()));
        let verdict = if self.sound { "sound" } else { "not sound" };
        line(&mut out, format_args!("{verdict}: {damage} damaged{damage_listed}, {notes} notes{notes_listed}"));
        out
    }

    /// For programs: one object.
    pub fn json(&self) -> String {
        let text = serde_json::to_string(self).expect("a report has nothing that JSON lacks");
        format!("{text}\n")
    }
}

impl Kind {
    fn of(kind: CheckedKind, stored: &CheckReport) -> Self {
        let of = stored.files(kind);
        let (files, bytes, records, views, damage) = (of.files, of.bytes, of.records, of.views, of.damage);
        Self { kind: kind.as_str(), files, bytes, records, views, damage }
    }
}

impl Damage {
    fn of(finding: &CheckFinding) -> Self {
        let CheckFinding { kind, file, offset, what, remedy } = finding.clone();
        Self { kind: kind.as_str(), file, offset, what, remedy, text: finding.to_string() }
    }

    /// Of a key, whose text says the remedy behind the last semicolon.
    fn of_key(file: String, text: &str) -> Self {
        let (what, remedy) = text.rsplit_once("; ").unwrap_or((text, "check the rights on it"));
        let whole = format!("{file}: {what}; {remedy}");
        let (what, remedy) = (what.to_owned(), remedy.to_owned());
        Self { kind: "tls", file, offset: None, what, remedy, text: whole }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all that is written to it");
}
