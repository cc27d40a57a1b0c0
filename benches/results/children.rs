//! Other programs as children: run to their end, what they say on stderr passed on and its end remembered.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{ChildStderr, Command, Stdio};

/// Lines of a child's stderr that its failure shows.
const LINES_MAX: usize = 8;

/// Runs it and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started, or ends with a failure, with the end of its stderr.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} cannot be started"))?;
    let errors = child.stderr.take().context("stderr was not piped")?;
    let errors = std::thread::spawn(move || pass_on(errors));
    let mut said = String::new();
    let read = child.stdout.take().context("stdout was not piped")?.read_to_string(&mut said);
    let status = child.wait().with_context(|| format!("{program} cannot be waited for"))?;
    let end = errors.join().unwrap_or_default();
    read.with_context(|| format!("{program} wrote no text"))?;
    if !status.success() {
        bail!("{program} ended with {status}: {end}");
    }
    Ok(said)
}

/// Copies lines to this program's stderr; returns the last ones.
fn pass_on(errors: ChildStderr) -> String {
    let mut last = VecDeque::with_capacity(LINES_MAX);
    for line in BufReader::new(errors).lines().map_while(Result::ok) {
        eprintln!("    {line}");
        if last.len() == LINES_MAX {
            last.pop_front();
        }
        last.push_back(line);
    }
    Vec::from(last).join("\n")
}

/// Whether a tool can be run.
///
/// # Errors
/// When it cannot, with how to get it.
pub(crate) fn find_tool(name: &str, remedy: &str) -> Result<()> {
    let tried = Command::new(name).arg("--version").stdin(Stdio::null()).output();
    match tried {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => bail!("`{name} --version` ended with {}; {remedy}", output.status),
        Err(error) => bail!("`{name}` cannot be run: {error}; {remedy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_tells_the_end_of_what_was_said() {
        assert_eq!(run(Command::new("sh").args(["-c", "echo yes"])).unwrap(), "yes\n");
        let many = "for i in 1 2 3 4 5 6 7 8 9 10 11; do echo line-$i-end >&2; done; exit 3";
        let error = run(Command::new("sh").args(["-c", many])).unwrap_err().to_string();
        assert!(error.contains("3") && error.contains("line-11-end") && !error.contains("line-3-end"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_told_with_the_remedy() {
        let error = find_tool("no-such-tool-here", "build it").unwrap_err().to_string();
        assert!(error.contains("no-such-tool-here") && error.contains("build it"), "{error}");
    }
}
