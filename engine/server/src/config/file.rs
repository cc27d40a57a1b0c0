//! Settings from a TOML file with a table for each command.
//!
//! Invariant: all that is wrong with a file is told at once, each with line and column; a value that comes out of here
//! was let through by the definition of its flag.

use super::nearest::{did_you_mean, nearest};
use super::setting::{self, CONFIG, Kind, check_alone, file_commands, is_list, key, keys, kind};
use super::{Given, Layer, Source};
use clap::{Arg, Command};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most characters of a wrong name or value that are told.
const SHOWN_CHARS_MAX: usize = 60;

/// Most problems that are told; a file with more is hardly a configuration.
const PROBLEMS_MAX: usize = 20;

/// A place in a file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// Something that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Where; `None` when it is the file as a whole.
    pub(super) place: Option<Place>,
    pub(super) text: String,
}

impl Problem {
    /// The problem as it is told of the file at `path`.
    pub(super) fn within(&self, path: &Path) -> String {
        match self.place {
            Some(Place { line, column }) => format!("{}:{line}:{column}: {}", path.display(), self.text),
            None => format!("{}: {}", path.display(), self.text),
        }
    }
}

/// What a file sets of one command.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) given: Layer,
}

/// A file that was read.
#[derive(Debug, Default)]
pub(super) struct SettingsFile {
    pub(super) tables: Vec<Table>,
    /// In the order of the file.
    pub(super) problems: Vec<Problem>,
}

impl SettingsFile {
    /// Reads the file; what cannot be read is a problem too.
    pub(super) fn read(path: &Path, definition: &Command) -> Self {
        match read_text(path) {
            Ok(text) => Self::parse(path, &text, definition),
            Err(problem) => Self { problems: vec![problem], ..Self::default() },
        }
    }

    /// Reads the text of the file at `path`.
    pub(super) fn parse(path: &Path, text: &str, definition: &Command) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader { path, text, definition, file: Self::default() };
        for error in errors.iter().take(PROBLEMS_MAX + 1) {
            reader.syntax(error);
        }
        let broken: Vec<usize> =
            reader.file.problems.iter().flat_map(|problem| problem.place).map(|p| p.line).collect();
        reader.root(root.get_ref());
        let Self { tables, mut problems } = reader.file;
        // What is read out of a broken line is a guess, so nothing more is said of it.
        let syntax_count = broken.len();
        let mut index = 0;
        problems.retain(|problem| {
            index += 1;
            index <= syntax_count || problem.place.is_none_or(|place| !broken.contains(&place.line))
        });
        problems.sort_by_key(|problem| problem.place);
        if problems.len() > PROBLEMS_MAX {
            problems.truncate(PROBLEMS_MAX);
            let text = format!("more is wrong than these {PROBLEMS_MAX}; is this a configuration of highwater?");
            problems.push(Problem { place: None, text });
        }
        Self { tables, problems }
    }
}

/// The whole text, up to the limit.
fn read_text(path: &Path) -> Result<String, Problem> {
    let whole = |text: String| Problem { place: None, text };
    let unreadable = |error: std::io::Error| {
        whole(format!("the configuration file cannot be read: {error}; name one that this user may read by --config"))
    };
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.is_dir() {
        return Err(whole("this is a directory; name a TOML file in it by --config".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole(
            "this is longer than 1MiB, more than any configuration; name a TOML file by --config".to_owned(),
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let place = place_after(&String::from_utf8_lossy(valid));
        Problem { place: Some(place), text: "this is not UTF-8; save the file as UTF-8 text".to_owned() }
    })
}

/// The place behind some text.
fn place_after(text: &str) -> Place {
    let line = text.rfind('\n').map_or(text, |end| &text[end + 1..]);
    Place { line: text.matches('\n').count() + 1, column: line.chars().count() + 1 }
}

/// Goes through a file and collects.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    definition: &'a Command,
    file: SettingsFile,
}

impl Reader<'_> {
    fn place(&self, span: &Range<usize>) -> Place {
        place_after(self.text.get(..span.start).unwrap_or(self.text))
    }

    fn wrong(&mut self, span: &Range<usize>, text: String) {
        // Finding a place costs a walk through the file.
        if self.file.problems.len() > 2 * PROBLEMS_MAX {
            return;
        }
        let place = Some(self.place(span));
        self.file.problems.push(Problem { place, text });
    }

    /// What is between two places of the file, on one line and short.
    fn shown(&self, span: &Range<usize>) -> String {
        shortened(&self.text.get(span.clone()).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let span = error.span().unwrap_or(self.text.len()..self.text.len());
        let text = match error.message() {
            "duplicate key" => format!("{} is given twice; keep one of them", self.shown(&span)),
            // The line itself is not told: a file given by mistake may hold keys or tokens.
            message => format!("this is no TOML: {message}; write as in key = \"value\""),
        };
        self.wrong(&span, text);
    }

    fn root(&mut self, root: &DeTable<'_>) {
        let names: Vec<String> = file_commands(self.definition).map(|command| command.get_name().to_owned()).collect();
        let tables = names.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ");
        for (name, value) in root {
            let (span, name) = (name.span(), name.get_ref());
            let found = file_commands(self.definition).find(|command| command.get_name() == name.as_ref());
            match (found, value.get_ref()) {
                (Some(command), DeValue::Table(table)) => {
                    let command = command.clone();
                    let (name, place) = (name.to_string(), self.place(&span));
                    let given = self.table(&command, table);
                    self.file.tables.push(Table { name, place, given });
                }
                (Some(_), _) => self.wrong(&span, format!("{name} is no table; write [{name}] and its keys below it")),
                (None, DeValue::Table(_) | DeValue::Array(_)) if self.owners(name).is_empty() => {
                    let tip = did_you_mean(name, names.iter().map(String::as_str));
                    let text = format!("table [{}] is unknown{tip}; allowed are {tables}", shortened(name));
                    self.wrong(&span, text);
                }
                (None, _) => {
                    let shown = shortened(name);
                    let text = match self.owners(name).as_slice() {
                        [] => format!("key {shown} is unknown, and keys stand below a table; allowed are {tables}"),
                        [(key, owner), more @ ..] => {
                            let more: String = more.iter().map(|(_, owner)| format!(" or [{owner}]")).collect();
                            format!("{shown} stands above every table; {key} belongs below [{owner}]{more}")
                        }
                    };
                    self.wrong(&span, text);
                }
            }
        }
    }

    /// The tables that a key may belong to, with the key as it is written there.
    fn owners(&self, name: &str) -> Vec<(String, String)> {
        let owner = |command: &Command| {
            let key = nearest(name, keys(command))?;
            Some((key.to_owned(), command.get_name().to_owned()))
        };
        file_commands(self.definition).filter_map(owner).collect()
    }

    fn table(&mut self, command: &Command, table: &DeTable<'_>) -> Layer {
        let mut given = Layer::new();
        for (name, value) in table {
            let (span, name) = (name.span(), name.get_ref());
            let Some(arg) = setting::settings(command).find(|arg| key(arg) == name) else {
                let text = self.stranger(command, name);
                self.wrong(&span, text);
                continue;
            };
            match words(arg, value).and_then(|words| check_alone(arg, &words).map(|()| words)) {
                Ok(words) => {
                    let source = Source::File(self.path.to_owned(), self.place(&span));
                    given.insert(name.to_string(), Given { words, source });
                }
                Err(reason) => {
                    let shown = self.shown(&value.span());
                    self.wrong(&value.span(), format!("{name} = {shown}: {reason}"));
                }
            }
        }
        given
    }

    fn stranger(&self, command: &Command, name: &str) -> String {
        let (table, allowed) = (command.get_name(), keys(command));
        if name == CONFIG {
            return format!("key {CONFIG} in [{table}]: a file cannot name another file; use --config");
        }
        let elsewhere = self.owners(name).into_iter().find(|(key, owner)| key == name && owner != table);
        let tip = match (nearest(name, allowed.iter().copied()), elsewhere) {
            (Some(near), _) => format!(" (did you mean {near}?)"),
            (None, Some((_, owner))) => format!("; it belongs below [{owner}]"),
            (None, None) => String::new(),
        };
        format!("key {} in [{table}] is unknown{tip}; allowed are {}", shortened(name), allowed.join(", "))
    }
}

/// What a file holds, short and with nothing in it that does something to a terminal.
fn shortened(text: &str) -> String {
    let mut shown = String::new();
    for character in text.chars().take(SHOWN_CHARS_MAX) {
        if character == '"' || character == '\'' {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() { shown + "…" } else { shown }
}

/// The words of a value, as a flag would have them.
fn words(arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<OsString>, String> {
    match (value.get_ref(), arg.get_value_delimiter()) {
        (DeValue::Array(items), Some(_)) if items.is_empty() => Err("the list is empty; leave the key out".to_owned()),
        (DeValue::Array(items), Some(_)) => items.iter().map(|item| Ok(word(arg, item.get_ref())?.into())).collect(),
        (DeValue::Array(_), None) => Err("this is a list, but one value is taken".to_owned()),
        (DeValue::String(text), Some(comma)) => Ok(text.split(comma).map(Into::into).collect()),
        (value, _) => Ok(vec![word(arg, value)?.into()]),
    }
}

/// One word of a value.
fn word(arg: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let example = || example(arg);
    match (kind(arg), value) {
        (_, DeValue::Table(_)) => Err("this is a table, but a value is taken; look at the dots and braces".to_owned()),
        (_, DeValue::Array(_)) => Err("this is a list in a list; one is enough".to_owned()),
        (Kind::Switch, DeValue::Boolean(on)) => Ok(on.to_string()),
        (Kind::Switch, other) => Err(format!("this is a {}; write true or false, without quotes", other.type_str())),
        (Kind::Number, DeValue::Integer(number)) => i128::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "the number is too large".to_owned()),
        // A list of numbers may be one text, as its flag takes it.
        (Kind::Number, DeValue::String(text)) if is_list(arg) => Ok(text.to_string()),
        (Kind::Number, other) => Err(format!("this is a {}; write a whole number, without quotes", other.type_str())),
        (_, DeValue::String(text)) => Ok(text.to_string()),
        (Kind::Size | Kind::Duration, DeValue::Integer(_) | DeValue::Float(_)) => {
            Err(format!("this is a number, it needs a unit: write as in {}", example()))
        }
        (_, other) => Err(format!("this is a {}; write text in quotes, as in {}", other.type_str(), example())),
    }
}

/// A value that the setting takes, as it stands in a file: the default, or one made up.
pub(super) fn example(arg: &Arg) -> String {
    let words = example_words(arg);
    let written: Vec<_> = words.iter().map(|word| super::effective::written(kind(arg), word)).collect();
    if is_list(arg) { format!("[{}]", written.join(", ")) } else { written.concat() }
}

/// As [`example`], as words that the flag takes.
pub(super) fn example_words(arg: &Arg) -> Vec<String> {
    let defaults: Vec<_> = arg.get_default_values().iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if !defaults.is_empty() {
        return defaults;
    }
    let name = key(arg);
    let wanted = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let made_up = [
        if wanted == "DIR" { "/var/lib/highwater".to_owned() } else { format!("/etc/highwater/{name}") },
        "127.0.0.1:4433".to_owned(),
        "engine.example".to_owned(),
        "16".to_owned(),
        "1".to_owned(),
        "10s".to_owned(),
        "1GiB".to_owned(),
    ];
    let fits = |word: &&String| {
        let is_path = word.starts_with('/');
        let is_address = word.contains(':');
        is_path == ["DIR", "FILE"].contains(&wanted)
            && is_address == (wanted == "HOST:PORT")
            && check_alone(arg, &[OsString::from(word.as_str())]).is_ok()
    };
    let found = made_up.iter().find(fits).cloned();
    found.or_else(|| arg.get_possible_values().first().map(|value| value.get_name().to_owned())).into_iter().collect()
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
