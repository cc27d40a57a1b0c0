//! The effective configuration: every setting, its value as it would stand in a file, and where it came from.
//!
//! Invariant: a value that is printed here and put into a file gives the same setting. A file that holds a secret is
//! named, its content is never read here.

use super::setting::{self, CONFIG, Kind, is_list, kind};
use super::{Layer, Source};
use crate::units::{duration_text, size_text, switch};
use bytesize::ByteSize;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use std::fmt;
use std::time::Duration;

/// One setting of a running process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Its name in a file.
    pub key: String,
    /// Its value as it would stand in a file; `None` when it is not set and has no default.
    pub value: Option<String>,
    /// Where it came from.
    pub source: String,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}  # {}", self.key, self.source),
            None => write!(f, "{} is not set  # {}", self.key, self.source),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path, place) => write!(f, "file {}:{}", path.display(), place.line),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Logs every setting, a line each.
pub fn log(settings: &[Effective]) {
    for setting in settings {
        tracing::info!(target: "highwater::settings", "{setting}");
    }
}

/// Every setting of a command, the file first.
pub(super) fn all(command: &Command, flags: &ArgMatches, given: &Layer) -> Vec<Effective> {
    let file = command.get_arguments().filter(|arg| arg.get_id() == CONFIG);
    let effective = |arg: &Arg| Effective {
        key: setting::key(arg).to_owned(),
        value: value(arg, flags),
        source: source(arg, flags, given).to_string(),
    };
    file.chain(setting::settings(command)).map(effective).collect()
}

/// ` (source)` of a setting, or nothing where everybody sees it: a flag, a default.
pub(super) fn whence(command: &Command, flags: &ArgMatches, given: &Layer, key: &str) -> String {
    let found = setting::settings(command).find(|arg| setting::key(arg) == key);
    match found.map(|arg| source(arg, flags, given)) {
        None | Some(Source::Flag | Source::Default) => String::new(),
        Some(source) => format!(" (from {source})"),
    }
}

fn source(arg: &Arg, flags: &ArgMatches, given: &Layer) -> Source {
    if flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine) {
        return Source::Flag;
    }
    given.get(setting::key(arg)).map_or(Source::Default, |given| given.source.clone())
}

/// The value as it would stand in a file.
fn value(arg: &Arg, flags: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    let words: Vec<String> = match kind(arg) {
        Kind::Size => flags.get_many::<ByteSize>(id)?.map(|size| quoted(&size_text(size.as_u64()))).collect(),
        Kind::Duration => flags.get_many::<Duration>(id)?.map(|time| quoted(&duration_text(*time))).collect(),
        kind => flags.get_raw(id)?.map(|word| written(kind, &word.to_string_lossy())).collect(),
    };
    Some(if is_list(arg) { format!("[{}]", words.join(", ")) } else { words.concat() })
}

/// A word as it stands in a file.
pub(super) fn written(kind: Kind, word: &str) -> String {
    match kind {
        Kind::Switch => switch(word).unwrap_or_default().to_string(),
        // 016 and +16 are numbers of a flag, but none of TOML.
        Kind::Number => word.trim().parse().map_or_else(|_| quoted(word), |number: i128| number.to_string()),
        Kind::Size | Kind::Duration | Kind::Text => quoted(word),
    }
}

fn quoted(word: &str) -> String {
    toml::Value::String(word.to_owned()).to_string()
}
