//! What is printed about the configuration: a check of a file, an example of one, man pages, completions.
//!
//! All are made from the definition of the command line. Invariant: nothing is started, and only `man --out` writes
//! files.

use super::file::{Place, Problem, SettingsFile, Table, example, example_words};
use super::setting::{self, file_commands, key, variable};
use super::{Given, Layer, Source, layered, misfits};
use crate::args::{Arguments, ConfigCommand, definition};
use anyhow::{Context, Result, bail};
use clap::{Arg, Command, FromArgMatches};
use clap_complete::Shell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Longest line of a comment in the example, in characters.
const COMMENT_CHARS_MAX: usize = 100;

/// Does what `highwater config` is asked for.
///
/// # Errors
/// All that is wrong with the file, or a stdout that is closed.
pub fn config(command: &ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Check { file } => print(check(file)?.as_bytes()),
        ConfigCommand::Example => print(example_file(&definition()).as_bytes()),
    }
}

/// Prints the main man page, or writes a page for each command to `out`.
///
/// # Errors
/// What keeps a page from being written.
pub fn man(out: Option<&Path>) -> Result<()> {
    let Some(out) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(definition()).render(&mut page).context("the page cannot be made")?;
        return print(&page);
    };
    let told = || format!("cannot write man pages to {}: name another directory by --out", out.display());
    std::fs::create_dir_all(out).with_context(told)?;
    clap_mangen::generate_to(definition(), out).with_context(told)
}

/// Prints a shell's completions.
///
/// # Errors
/// When stdout is closed.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "highwater", &mut script);
    print(&script)
}

fn print(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).context("stdout cannot be written")
}

/// One line for each table of a sound file.
///
/// # Errors
/// All that is wrong with it.
fn check(path: &Path) -> Result<String> {
    let definition = definition();
    let SettingsFile { tables, mut problems } = SettingsFile::read(path, &definition);
    let checked = tables.iter().map(|table| check_table(&definition, table));
    let mut told = String::new();
    for (table, (found, lacking)) in tables.iter().zip(checked) {
        problems.extend(found);
        let count = table.given.len();
        let settings = if count == 1 { "setting" } else { "settings" };
        let needs: String = lacking.iter().map(|needed| format!("; still needs {needed}")).collect();
        let _ = writeln!(told, "{}: {count} {settings}, sound{needs}", table.name);
    }
    if problems.is_empty() {
        return Ok(if told.is_empty() { format!("{}: sets nothing\n", path.display()) } else { told });
    }
    problems.sort_by_key(|problem| problem.place);
    let lines: Vec<_> = problems.iter().map(|problem| problem.within(path)).collect();
    bail!("{}", lines.join("\n"));
}

/// What does not fit together in a table, and what it leaves to flags and variables.
fn check_table(definition: &Command, table: &Table) -> (Vec<Problem>, Vec<String>) {
    let Some(command) = file_commands(definition).find(|command| command.get_name() == table.name) else {
        return (Vec::new(), Vec::new());
    };
    let mut given: Layer = table.given.clone();
    let mut lacking = Vec::new();
    let needed = |arg: &&Arg| arg.is_required_set() && !table.given.contains_key(key(arg));
    for arg in setting::settings(command).filter(needed) {
        lacking.push(format!("--{} or {}", key(arg), variable(arg).to_string_lossy()));
        // Something has to stand in for it, so that the others can be looked at.
        let words = example_words(arg).into_iter().map(Into::into).collect();
        given.insert(key(arg).to_owned(), Given { words, source: Source::Default });
    }
    let matches = layered(definition.clone(), &table.name, &given).try_get_matches_from(["highwater", &table.name]);
    let problem =
        |place: Place, text: String| Problem { place: Some(place), text: format!("[{}]: {text}", table.name) };
    let asked = match matches.and_then(|matches| Arguments::from_arg_matches(&matches)) {
        Ok(arguments) => arguments.command,
        Err(error) => return (vec![problem(table.place, error.to_string())], lacking),
    };
    let place = |key: &str| match table.given.get(key).map(|given| &given.source) {
        Some(Source::File(_, place)) => *place,
        _ => table.place,
    };
    let found = misfits(&asked).into_iter().map(|misfit| problem(place(misfit.key), misfit.text)).collect();
    (found, lacking)
}

/// A file with every setting as a comment without a blank behind the `#`, below what it means.
fn example_file(definition: &Command) -> String {
    let mut text = String::new();
    comment(&mut text, "Configuration of highwater. Each command reads the table of its name.");
    comment(&mut text, "A flag wins over a variable, a variable over this file, this file over the defaults.");
    comment(&mut text, "Take the # away in front of a key to set it; the values below are defaults or examples.");
    comment(&mut text, "Try it by: highwater config check FILE");
    for command in file_commands(definition) {
        text.push('\n');
        comment(&mut text, &command.get_about().map(ToString::to_string).unwrap_or_default());
        let _ = writeln!(text, "[{}]", command.get_name());
        for arg in setting::settings(command) {
            text.push('\n');
            let help = arg.get_long_help().or(arg.get_help());
            comment(&mut text, &help.map(ToString::to_string).unwrap_or_default());
            let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            if !values.is_empty() {
                comment(&mut text, &format!("Allowed: {}.", values.join(", ")));
            }
            let standing = match (arg.is_required_set(), arg.get_default_values()) {
                (true, _) => "Required",
                (false, []) => "Not set by default",
                (false, _) => "Default below",
            };
            comment(&mut text, &format!("{standing}. Variable: {}.", variable(arg).to_string_lossy()));
            let _ = writeln!(text, "#{} = {}", key(arg), example(arg));
        }
    }
    text
}

/// Adds lines of prose.
fn comment(text: &mut String, prose: &str) {
    let mut line = String::from("#");
    for word in prose.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > COMMENT_CHARS_MAX {
            text.push_str(&line);
            text.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("highwater.toml");
        std::fs::write(&path, text).unwrap();
        check(&path)
    }

    #[test]
    fn the_example_is_sound_as_it_is_and_with_every_line_in_use() {
        let example = example_file(&definition());
        assert!(check_text(&example).unwrap().contains("serve: 0 settings, sound; still needs --data-dir"));
        let is_prose = |line: &str| line.starts_with("# ") || line == "#";
        let in_use: Vec<_> =
            example.lines().filter(|line| !is_prose(line)).map(|line| line.trim_start_matches('#')).collect();
        let told = check_text(&in_use.join("\n")).unwrap();
        let definition = definition();
        for command in file_commands(&definition) {
            let count = setting::settings(command).count();
            assert!(told.contains(&format!("{}: {count} settings, sound\n", command.get_name())), "{told}\n{example}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told_at_its_key() {
        let error =
            check_text("[serve]\ncores = [0, 1]\nmemory = \"512MiB\"\ntls-key = \"k\"\n").unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].contains(".toml:3:1: [serve]: --memory") && lines[0].contains("2 cores"), "{error}");
        assert!(lines[1].contains(".toml:4:1: [serve]: --tls-key"), "{error}");
        assert_eq!(lines.len(), 2, "{error}");
    }

    #[test]
    fn a_file_that_sets_nothing_is_said_to() {
        assert!(check_text("# nothing\n").unwrap().ends_with("sets nothing\n"));
    }
}
