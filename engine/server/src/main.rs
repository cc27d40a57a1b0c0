//! The binary `highwater`.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage; what else `status` ends with is in its help. Stdout carries only what
//! was asked for; all else goes to stderr.

use highwater::args::Command;
use highwater::config;
use highwater::fatal::FAILED;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let invocation = match config::read(std::env::args_os(), std::env::vars_os()) {
        Ok(invocation) => invocation,
        Err(refusal) => return refusal.tell(),
    };
    // A page that is drawn in place says itself what there is to say.
    let level = if matches!(invocation.command, Command::Top(_)) { "warn" } else { "info" };
    let filter = invocation.log.unwrap_or_else(|| EnvFilter::new(level));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).init();
    end_on_panic();
    fail_at_long_files();
    config::log(&invocation.settings);
    let outcome = match &invocation.command {
        Command::Serve(arguments) => highwater::serve::serve(arguments),
        Command::Sidecar(arguments) => highwater::sidecar::sidecar(arguments),
        Command::Demo(arguments) => highwater::demo::demo(arguments),
        Command::Top(arguments) => highwater::top::top(arguments),
        Command::Export(arguments) => highwater::export::export(arguments),
        Command::Audit(arguments) => highwater::audit::audit(arguments),
        Command::Check(arguments) => highwater::check::check(arguments),
        Command::Status(arguments) => match highwater::status::status(arguments) {
            Ok(state) => return ExitCode::from(state.exit_code()),
            Err(error) => Err(error),
        },
        Command::Config(arguments) => config::pages::config(&arguments.command),
        Command::Man(arguments) => config::pages::man(arguments.out.as_deref()),
        Command::Completions(arguments) => config::pages::completions(arguments.shell),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("highwater: {}", explain(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// The error with its causes, each said once: many texts hold their cause already.
fn explain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match text.as_str() {
        "" => cause,
        known if known.contains(&cause) => text,
        known => format!("{known}: {cause}"),
    })
}

/// Lets a write beyond the limit on the length of files fail with an error, instead of ending the process silently.
fn fail_at_long_files() {
    let caught = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, caught) {
        tracing::warn!(%error, "SIGXFSZ cannot be caught: a file beyond `ulimit -f` would end this process");
    }
}

/// A panic on any thread is a bug, and the process must not go on with half of its threads.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        highwater::screen::show_cursor();
        report(panic);
        std::process::abort();
    }));
}
