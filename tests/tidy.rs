//! The style and shape of the source tree, as a test.
//!
//! It reads sources as text and knows no Rust. Invariant: each rule names file, line and what is allowed, and all that
//! is wrong is told at once.

use crate::support::binaries::workspace;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 120;

/// The only folders whose code may be unsafe.
const UNSAFE_ROOMS: [&str; 3] = ["engine/memory", "engine/lanes", "engine/disk"];

/// Words that must not stay in the sources; put together here so that this file does not hold them.
const FORBIDDEN: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimpl", "emented!("),
    concat!("#[ig", "nore"),
    concat!("db", "g!("),
    concat!("TO", "DO"),
];

/// The arrows of the house: each package and those it may stand on, directly or through them.
const ARROWS: [(&str, &[&str]); 11] = [
    ("highwater-proto", &[]),
    ("highwater-memory", &[]),
    ("highwater-lanes", &[]),
    ("highwater-client", &["highwater-proto"]),
    ("highwater-ranking", &["highwater-memory", "highwater-proto"]),
    ("highwater-storage", &["highwater-ranking", "highwater-memory"]),
    ("highwater-disk", &["highwater-storage", "highwater-memory"]),
    ("highwater-pipeline", &["highwater-ranking", "highwater-storage", "highwater-lanes"]),
    ("highwater-sidecar", &["highwater-client"]),
    ("highwater-loadgen", &["highwater-client"]),
    ("highwater", &["highwater-pipeline", "highwater-disk", "highwater-sidecar", "highwater-loadgen"]),
];

/// Packages on top of everything, on which nothing stands.
const OUTERMOST: [&str; 3] = ["highwater-tests", "highwater-benches", "highwater-fuzz-targets"];

/// The package outside the workspace, which the rules for packages of the workspace are not for.
const OUTSIDE: &str = "tests/fuzz/Cargo.toml";

/// Paths under the workspace that end in `ending`, without build products and hidden folders.
fn files(ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 10 || ending != ".rs", "the sources were not found");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(workspace()).unwrap().display().to_string()
}

fn assert_tidy(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} things are not tidy:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn files_are_short_and_open_with_what_they_are_for() {
    let mut wrong = Vec::new();
    for path in files(".rs") {
        let (name, text) = (relative(&path), fs::read_to_string(&path).unwrap());
        let lines = text.lines().count();
        if lines > LINES_MAX {
            wrong.push(format!("{name}: {lines} lines, allowed are {LINES_MAX}; it probably holds two ideas"));
        }
        if !text.starts_with("//! ") {
            wrong.push(format!("{name}: does not open with a //! text that says what it is for"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX && !is_unbreakable(line) {
                wrong.push(format!("{name}:{number}: {chars} characters, allowed are {LINE_CHARS_MAX}"));
            }
        }
    }
    assert_tidy(&wrong);
}

/// A text that cannot be broken, or a row of a table.
fn is_unbreakable(line: &str) -> bool {
    let comment = line.trim_start().trim_start_matches(['/', '!']).trim_start();
    line.contains('"') || comment.starts_with('|')
}

#[test]
fn nothing_unfinished_is_left_in_the_sources() {
    let mut wrong = Vec::new();
    for path in files(".rs") {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{}:{number}: {word}", relative(&path)));
            }
        }
    }
    assert_tidy(&wrong);
}

#[test]
fn unsafe_code_stays_in_its_rooms() {
    let keyword = concat!("un", "safe");
    let starts = ["{", "fn", "impl", "trait", "extern"].map(|next| format!("{keyword} {next}"));
    let mut wrong = Vec::new();
    for path in files(".rs") {
        let name = relative(&path);
        if UNSAFE_ROOMS.iter().any(|room| name.starts_with(&format!("{room}/"))) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap();
            if starts.iter().any(|start| code.contains(start.as_str())) {
                wrong.push(format!("{name}:{number}: {keyword} code is allowed in {UNSAFE_ROOMS:?} only"));
            }
        }
        let is_room = name.ends_with("src/lib.rs") && !name.starts_with("benches/");
        if is_room && !text.contains(&format!("#![forbid({keyword}_code)]")) {
            wrong.push(format!("{name}: #![forbid({keyword}_code)] is missing"));
        }
    }
    assert_tidy(&wrong);
}

/// One package: its folder, and the lines of each section of its manifest.
struct Manifest {
    name: String,
    file: String,
    sections: BTreeMap<String, Vec<String>>,
}

fn manifests() -> Vec<Manifest> {
    let packages: Vec<Manifest> =
        files("Cargo.toml").iter().map(|path| manifest(path)).filter(|one| one.is_of_workspace()).collect();
    assert_eq!(packages.len(), ARROWS.len() + OUTERMOST.len(), "a package was added: give it its arrows here");
    packages
}

fn manifest(path: &Path) -> Manifest {
    let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in fs::read_to_string(path).unwrap().lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').trim_matches('[').to_owned();
        } else if !line.is_empty() && !line.starts_with('#') {
            sections.entry(section.clone()).or_default().push(line.to_owned());
        }
    }
    let package = sections.get("package").into_iter().flatten();
    let name = package.filter_map(|line| line.strip_prefix("name = ")).next().unwrap_or_default();
    Manifest { name: name.trim_matches('"').to_owned(), file: relative(path), sections }
}

impl Manifest {
    fn is_of_workspace(&self) -> bool {
        !self.name.is_empty() && self.file != OUTSIDE
    }

    /// Packages of this workspace that it depends on, for building or for testing.
    fn stands_on(&self) -> BTreeSet<String> {
        let is_dependencies = |section: &str| section.ends_with("dependencies");
        let sections = self.sections.iter().filter(|(section, _)| is_dependencies(section));
        let names = sections.flat_map(|(_, lines)| lines).map(|line| line.split(['.', ' ', '=']).next().unwrap());
        names.filter(|name| name.starts_with("highwater")).map(str::to_owned).collect()
    }
}

/// All that can be reached from a package along the arrows.
fn allowed(package: &str) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![package.to_owned()];
    while let Some(name) = open.pop() {
        let arrows = ARROWS.iter().find(|(from, _)| *from == name).unwrap_or_else(|| panic!("{name} has no arrows"));
        for to in arrows.1.iter().filter(|to| **to != "highwater-proto") {
            if reached.insert(*to) {
                open.push((*to).to_owned());
            }
        }
    }
    // The shared words are everybody's.
    if package != "highwater-proto" {
        reached.insert("highwater-proto");
    }
    reached
}

#[test]
fn arrows_between_packages_point_one_way() {
    let mut wrong = Vec::new();
    for package in manifests() {
        let outermost = OUTERMOST.contains(&package.name.as_str());
        for other in package.stands_on() {
            if OUTERMOST.contains(&other.as_str()) {
                wrong.push(format!("{}: nothing may stand on {other}", package.file));
            } else if !outermost && !allowed(&package.name).contains(other.as_str()) {
                wrong.push(format!("{}: {} may not stand on {other}", package.file, package.name));
            }
        }
    }
    assert_tidy(&wrong);
}

#[test]
fn packages_share_lints_versions_and_license() {
    let mut wrong = Vec::new();
    for package in manifests() {
        let has = |section: &str, line: &str| {
            package.sections.get(section).is_some_and(|lines| lines.iter().any(|one| one == line))
        };
        if !has("lints", "workspace = true") {
            wrong.push(format!("{}: [lints] workspace = true is missing", package.file));
        }
        for key in ["version", "edition", "rust-version", "license", "publish"] {
            if !has("package", &format!("{key}.workspace = true")) {
                wrong.push(format!("{}: {key}.workspace = true is missing", package.file));
            }
        }
        for (section, lines) in package.sections.iter().filter(|(section, _)| section.ends_with("dependencies")) {
            let own_version = |line: &&String| !line.contains("workspace = true");
            wrong.extend(
                lines
                    .iter()
                    .filter(own_version)
                    .map(|line| format!("{}: [{section}] {line}: versions are given once, in the root", package.file)),
            );
        }
    }
    assert_tidy(&wrong);
}

#[test]
fn the_readme_begins_with_two_commands_that_exist() {
    let readme = fs::read_to_string(workspace().join("README.md")).expect("the workspace has a README.md");
    for command in ["cargo test --workspace", "cargo run --release -- demo"] {
        assert!(readme.contains(command), "README.md does not show {command:?}");
    }
    let root = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    assert!(root.contains("default-members = [\"engine/server\"]"), "`cargo run` must find the binary highwater");
    let mut demo = crate::support::binaries::command("highwater");

    assert!(demo.args(["demo", "--help"]).output().unwrap().status.success(), "highwater demo exists");
}
