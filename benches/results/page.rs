//! The page: sections between markers, so that one part can be measured anew and the others stay.
//!
//! A section reaches from its marker, a line of its own, to the next one. Invariant: the page has every part once and
//! in order, also those that were never measured; it is replaced as a whole, never half written.

use crate::part::Part;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const HEAD: &str = "# Results

What Highwater holds on one machine, and what it costs. All of it is measured by one command, which takes a while:

```sh
cargo build --release --workspace
cargo run --release -p highwater-benches --bin results
```

`--only=<part>` measures a part anew and leaves the others as they are; each part says when it was measured, of which
commit, how long that took, and on which processor. Figures of two parts compare where that is the same one; the machine
should have nothing else to do.";

/// The page as it will be written.
#[derive(Debug)]
pub(crate) struct Page {
    path: PathBuf,
    sections: BTreeMap<Part, String>,
}

impl Page {
    /// The page that is there, or an empty one.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("--out={} cannot be read", path.display())),
        };
        Ok(Self { path: path.to_owned(), sections: sections(&text) })
    }

    /// Puts a part in its place, instead of what was there.
    pub(crate) fn put(&mut self, part: Part, stamp: &str, text: &str) {
        self.sections.insert(part, format!("## {}\n\n{stamp}\n\n{}", part.title(), text.trim_end()));
    }

    fn render(&self) -> String {
        let mut page = HEAD.to_owned();
        for part in Part::ALL {
            let never = || format!("## {}\n\nnot measured yet: `--only={part}` does", part.title());
            let section = self.sections.get(&part).cloned().unwrap_or_else(never);
            page += &format!("\n\n{}\n{section}", marker(part));
        }
        page + "\n"
    }

    /// Writes it beside itself, then in its place.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(crate) fn write(&self) -> Result<()> {
        let beside = self.path.with_extension("new");
        let written = std::fs::write(&beside, self.render()).and_then(|()| std::fs::rename(&beside, &self.path));
        written.with_context(|| format!("--out={} cannot be written; run it from the source tree", self.path.display()))
    }
}

fn marker(part: Part) -> String {
    format!("<!-- part: {part} -->")
}

/// What is between the markers, without the blank lines around.
fn sections(page: &str) -> BTreeMap<Part, String> {
    let mut sections: BTreeMap<Part, String> = BTreeMap::new();
    let mut current = None;
    for line in page.lines() {
        if let Some(part) = Part::ALL.into_iter().find(|part| line == marker(*part)) {
            current = Some(part);
            sections.insert(part, String::new());
        } else if let Some(section) = current.and_then(|part| sections.get_mut(&part)) {
            section.push_str(line);
            section.push('\n');
        }
    }
    sections.values_mut().for_each(|section| *section = section.trim().to_owned());
    sections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str) -> Page {
        Page { path: path.into(), sections: BTreeMap::new() }
    }

    #[test]
    fn a_part_is_replaced_and_the_others_stay() {
        let mut first = page("page");
        first.put(Part::Sweep, "*then*", "### before\n\n| a |\n|---|\n| 1 |\n");
        first.put(Part::Log, "*then*", "kept");
        let mut second = Page { sections: sections(&first.render()), ..page("page") };
        assert_eq!(second.render(), first.render(), "reading and writing changes nothing");
        second.put(Part::Sweep, "*now*", "new");
        let text = second.render();
        assert!(text.contains("*now*\n\nnew\n") && !text.contains("before"), "{text}");
        assert!(text.contains("## The log on the disk\n\n*then*\n\nkept\n"), "{text}");
    }

    #[test]
    fn every_part_has_its_section_in_order() {
        let text = page("page").render();
        let places: Vec<usize> = Part::ALL.iter().map(|part| text.find(&marker(*part)).unwrap()).collect();
        assert!(places.is_sorted());
        assert_eq!(text.matches("not measured yet").count(), Part::ALL.len());
    }

    #[test]
    fn the_page_is_written_where_it_is_wanted_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("RESULTS.md");
        let mut page = Page::open(&path).unwrap();
        page.put(Part::Machine, "*now*", "fast");
        page.write().unwrap();
        assert_eq!(Page::open(&path).unwrap().render(), std::fs::read_to_string(&path).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        let error = Page::open(&folder.path().join("none/RESULTS.md")).unwrap().write().unwrap_err();
        assert!(error.to_string().contains("--out="), "{error}");
    }
}
