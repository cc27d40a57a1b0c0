//! What the definition of the command line says about one setting.
//!
//! What it is not: a list of settings. Invariant: a value is checked by the very parser that reads its flag.

use super::nearest::did_you_mean;
use bytesize::ByteSize;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use std::any::TypeId;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// The flag that names the file; the file itself cannot set it.
pub(super) const CONFIG: &str = "config";

/// How a setting's value is written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Switch,
    Number,
    Size,
    Duration,
    Text,
}

/// The commands that read a file, each from the table of its name.
pub(super) fn file_commands(definition: &Command) -> impl Iterator<Item = &Command> {
    definition.get_subcommands().filter(|command| command.get_arguments().any(|arg| arg.get_id() == CONFIG))
}

/// What can be set of a command, by flag, variable or file.
pub(super) fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some() && arg.get_env().is_some() && arg.get_id() != CONFIG)
}

/// The name of a setting in a file: that of its flag.
pub(super) fn key(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

/// The name of a setting's variable.
pub(super) fn variable(arg: &Arg) -> &OsStr {
    arg.get_env().unwrap_or_default()
}

/// The keys of a command's table.
pub(super) fn keys(command: &Command) -> Vec<&str> {
    settings(command).map(key).collect()
}

/// How the setting's value is written.
pub(super) fn kind(arg: &Arg) -> Kind {
    let found = arg.get_value_parser().type_id();
    let is = |known: TypeId| found == known;
    if is(TypeId::of::<bool>()) {
        Kind::Switch
    } else if is(TypeId::of::<u16>()) || is(TypeId::of::<u64>()) || is(TypeId::of::<usize>()) {
        Kind::Number
    } else if is(TypeId::of::<ByteSize>()) {
        Kind::Size
    } else if is(TypeId::of::<Duration>()) {
        Kind::Duration
    } else {
        Kind::Text
    }
}

/// Whether the setting takes several values.
pub(super) fn is_list(arg: &Arg) -> bool {
    arg.get_value_delimiter().is_some()
}

/// Checks values of one setting, whatever the others are.
///
/// # Errors
/// Why one of them is not allowed, and what is.
pub(super) fn check_alone(arg: &Arg, words: &[OsString]) -> Result<(), String> {
    let alone = arg.clone().required(false).env(None::<&'static str>);
    let flag = |word: &OsString| {
        let mut flag = OsString::from(format!("--{}=", key(arg)));
        flag.push(word);
        flag
    };
    let command = Command::new("setting").no_binary_name(true).disable_help_flag(true).arg(alone);
    command.try_get_matches_from(words.iter().map(flag)).map(|_| ()).map_err(|error| reason(&error))
}

/// The reason alone, without the flag around it.
fn reason(error: &clap::Error) -> String {
    let list = |kind| match error.get(kind) {
        Some(ContextValue::Strings(words)) => words.as_slice(),
        _ => &[],
    };
    match (error.kind(), error.source(), list(ContextKind::ValidValue)) {
        (_, Some(source), _) => source.to_string(),
        (ErrorKind::InvalidValue, None, []) => "a value is missing".to_owned(),
        (ErrorKind::InvalidValue, None, allowed) => {
            let wrong = error.get(ContextKind::InvalidValue).map(ToString::to_string).unwrap_or_default();
            let tip = did_you_mean(&wrong, allowed.iter().map(String::as_str));
            format!("allowed are {}{tip}", allowed.join(", "))
        }
        (ErrorKind::InvalidUtf8, ..) => "it is not UTF-8".to_owned(),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::definition;

    fn refused(key_wanted: &str, word: &str) -> String {
        let definition = definition();
        let arg = file_commands(&definition).flat_map(settings).find(|arg| key(arg) == key_wanted).unwrap();
        check_alone(arg, &[word.into()]).unwrap_err()
    }

    #[test]
    fn every_setting_has_a_variable_of_its_name() {
        let definition = definition();
        assert_eq!(file_commands(&definition).map(Command::get_name).collect::<Vec<_>>(), ["serve", "sidecar", "top"]);
        for command in file_commands(&definition) {
            for arg in command.get_arguments() {
                let name = format!("HIGHWATER_{}", key(arg).to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env(), Some(OsStr::new(&name)), "{}: every flag has its variable", key(arg));
            }
        }
    }

    #[test]
    fn the_reason_says_what_is_allowed() {
        assert!(refused("runtime", "tread").ends_with(" (did you mean thread?)"));
        assert!(refused("period", "week").starts_with("allowed are hour, day, month, all-time"));
        assert!(refused("shards", "257").contains("1..=256"));
        assert!(refused("memory", "4").contains("unit is missing"));
        assert_eq!(refused("data-dir", ""), "a value is missing");
    }
}
