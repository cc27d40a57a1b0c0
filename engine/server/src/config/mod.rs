//! Configuration: what the command line, variables and a file say together.
//!
//! What it is not: a list of settings, which is `args.rs`; this works for whatever is defined there. Invariants: flag
//! before variable before file before default; every value was checked by its definition before any is used, and
//! nothing is opened but the file.

mod effective;
mod file;
pub mod nearest;
pub mod pages;
mod setting;
mod variables;

pub use effective::{Effective, log};

use crate::args::{Arguments, Command as Asked, definition};
use crate::checks::Misfit;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, FromArgMatches};
use file::SettingsFile;
use setting::CONFIG;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use variables::Variables;

/// Exit code for wrong usage.
const USAGE: u8 = 2;

/// What the process is to do.
#[derive(Debug)]
pub struct Invocation {
    /// The command with its settings.
    pub command: Asked,
    /// Every setting of the command, in the order of its help; none where no file is read.
    pub settings: Vec<Effective>,
    /// What is logged, if the environment says so.
    pub log: Option<EnvFilter>,
}

/// Why the process must not begin.
#[derive(Debug)]
pub enum Refusal {
    /// The command line, or that help was asked for; with a note.
    Line(clap::Error, String),
    /// Everything that is wrong with variables, file and the settings together.
    Settings(Vec<String>),
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Flag,
    Variable(String),
    File(PathBuf, file::Place),
    Default,
}

/// A value of a setting, as words that its flag would take.
#[derive(Debug, Clone)]
struct Given {
    words: Vec<OsString>,
    source: Source,
}

/// Values by key.
type Layer = BTreeMap<String, Given>;

/// Reads command line, variables and file.
///
/// # Errors
/// [`Refusal`] with all that is wrong, or with the help that was asked for.
pub fn read(
    line: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, Refusal> {
    let line: Vec<OsString> = line.into_iter().collect();
    let variables = Variables::new(variables);
    let definition = definition();
    let first_look = bare(definition.clone()).try_get_matches_from(&line);
    let first_look = first_look.map_err(|error| Refusal::Line(as_defined(&line, error), String::new()))?;
    let (name, flags) = first_look.subcommand().unwrap_or(("", &first_look));
    let mut wrong = Vec::new();
    let log = variables.log_filter().unwrap_or_else(|problem| {
        wrong.push(problem);
        None
    });
    let Some(command) = setting::file_commands(&definition).find(|command| command.get_name() == name) else {
        let command = asked(&first_look)?;
        wrong.extend(misfits(&command).into_iter().map(|misfit| misfit.text));
        return match wrong.is_empty() {
            true => Ok(Invocation { command, settings: Vec::new(), log }),
            false => Err(Refusal::Settings(wrong)),
        };
    };
    wrong.extend(variables.strangers(&definition));
    let (mut given, wrong_values) = variables.layer(command);
    wrong.extend(wrong_values);
    if let Some(path) = config_path(command, flags, &variables) {
        let file = SettingsFile::read(&path, &definition);
        wrong.extend(file.problems.iter().map(|problem| problem.within(&path)));
        for (key, value) in file.tables.into_iter().filter(|table| table.name == name).flat_map(|table| table.given) {
            given.entry(key).or_insert(value);
        }
    }
    if !wrong.is_empty() {
        return Err(Refusal::Settings(wrong));
    }
    let matches = layered(definition.clone(), name, &given).try_get_matches_from(&line);
    let matches = matches.map_err(|error| Refusal::lacking(error, command))?;
    let asked = asked(&matches)?;
    let flags = matches.subcommand_matches(name).unwrap_or(&matches);
    let told = |misfit: Misfit| format!("{}{}", misfit.text, effective::whence(command, flags, &given, misfit.key));
    let misfits: Vec<String> = misfits(&asked).into_iter().map(told).collect();
    if !misfits.is_empty() {
        return Err(Refusal::Settings(misfits));
    }
    Ok(Invocation { command: asked, settings: effective::all(command, flags, &given), log })
}

/// What does not fit together in a command's settings.
fn misfits(asked: &Asked) -> Vec<Misfit> {
    match asked {
        Asked::Serve(serve) => serve.check(),
        Asked::Export(export) => export.check(),
        _ => Vec::new(),
    }
}

fn asked(matches: &ArgMatches) -> Result<Asked, Refusal> {
    let arguments = Arguments::from_arg_matches(matches);
    Ok(arguments.map_err(|error| Refusal::Line(error.format(&mut definition()), String::new()))?.command)
}

/// The definition without variables, where nothing is required: to see what the flags alone say.
fn bare(definition: Command) -> Command {
    definition.mut_subcommands(|command| {
        let has_file = command.get_arguments().any(|arg| arg.get_id() == CONFIG);
        let bare = |arg: clap::Arg| arg.required(false).env(None::<&'static str>);
        if has_file { command.mut_args(bare) } else { command }
    })
}

/// Help and usage as they are defined, where a bare definition found something to say.
fn as_defined(line: &[OsString], found: clap::Error) -> clap::Error {
    definition().try_get_matches_from(line).err().filter(|error| error.kind() == found.kind()).unwrap_or(found)
}

/// The definition in which what variables and file give takes the place of the defaults of `name`.
fn layered(definition: Command, name: &str, given: &Layer) -> Command {
    definition.mut_subcommand(name, |command| {
        command.mut_args(|arg| {
            let arg = arg.env(None::<&'static str>);
            match given.get(setting::key(&arg)) {
                Some(given) => arg.required(false).default_values(given.words.clone()),
                None => arg,
            }
        })
    })
}

fn config_path(command: &Command, flags: &ArgMatches, variables: &Variables) -> Option<PathBuf> {
    let variable = command.get_arguments().find(|arg| arg.get_id() == CONFIG).and_then(|arg| arg.get_env());
    let by_flag = flags.get_one::<PathBuf>(CONFIG).cloned();
    by_flag.or_else(|| variable.and_then(|name: &OsStr| variables.get(name)).map(|path| Path::new(path).to_owned()))
}

impl Refusal {
    /// What clap says of settings that are given nowhere, and where else they can be given.
    fn lacking(error: clap::Error, command: &Command) -> Self {
        let told = match (error.kind(), error.get(ContextKind::InvalidArg)) {
            (ErrorKind::MissingRequiredArgument, Some(ContextValue::Strings(told))) => told.as_slice(),
            _ => &[],
        };
        let is_told = |key: &str| told.iter().any(|text| text.split(' ').next() == Some(&format!("--{key}")));
        let lacking = setting::settings(command).filter(|arg| is_told(setting::key(arg)));
        let variables: Vec<_> = lacking.map(|arg| setting::variable(arg).to_string_lossy().into_owned()).collect();
        let note = match variables.as_slice() {
            [] => String::new(),
            names => format!(
                "\nRequired settings may come from variables too ({}), or from [{}] in the file of --config.\n",
                names.join(", "),
                command.get_name()
            ),
        };
        Self::Line(error, note)
    }

    /// Says it; returns how the process ends.
    pub fn tell(&self) -> ExitCode {
        match self {
            Self::Line(error, note) => {
                let code = u8::try_from(error.exit_code()).unwrap_or(USAGE);
                let told = error.print();
                eprint!("{note}");
                ExitCode::from(if told.is_ok() { code } else { crate::fatal::FAILED })
            }
            Self::Settings(_) => {
                eprint!("{self}");
                ExitCode::from(USAGE)
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(error, note) => write!(f, "{error}{note}"),
            Self::Settings(problems) => problems.iter().try_for_each(|problem| writeln!(f, "error: {problem}")),
        }
    }
}

#[cfg(test)]
mod tests;
