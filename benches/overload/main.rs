//! `overload`: one engine after the other under attack, beside a well-behaved client whose latency is measured.
//!
//! It prints a table: what was done to the engine, what it did about it, its memory, and how the client fared.
//! Invariant: each attack is bounded in count and time and has an engine of its own; a client that lost or miscounted
//! anything, an engine that ended, or one that took more than its `--memory`, is an error at the end of the table.

mod attack;
mod client;
mod handshakes;
mod http;
mod line;
mod table;

use anyhow::{Context, Result, bail};
use attack::{ATTACKS, Attack};
use clap::Parser;
use client::Client;
use highwater_benches::flags::LoadFlags;
use highwater_loadgen::process::cpu;
use highwater_loadgen::process::engine::{Engine, Setup};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use table::Row;

/// Attacks engines and measures a well-behaved client beside it.
///
/// Exit codes: 0 nobody was harmed, 1 somebody was, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "overload", version, about, max_term_width = 100)]
struct Arguments {
    /// How long each attack lasts.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Views that the well-behaved client sends, each second.
    #[arg(long, value_name = "VIEWS", default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Percent of each attack's usual number of connections, sockets or requests.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    scale: u32,
    /// Only these attacks, by name, with commas between.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// The engine and its load.
    #[command(flatten)]
    flags: LoadFlags,
}

fn main() -> ExitCode {
    match overload(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("overload: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn overload(arguments: &Arguments) -> Result<()> {
    let loadgen = arguments.flags.loadgen()?;
    if let Some(unknown) = arguments.only.iter().find(|name| ATTACKS.iter().all(|attack| attack.name != **name)) {
        let names: Vec<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        bail!("--only={unknown}: there are {}", names.join(", "));
    }
    let wanted = |one: &&Attack| arguments.only.is_empty() || arguments.only.iter().any(|name| *name == one.name);
    let attacks =
        ATTACKS.iter().filter(wanted).map(|attack| Ok((attack, arguments.flags.engine.setup(attack.memory)?)));
    let attacks = attacks.collect::<Result<Vec<_>>>()?;
    cpu::confine_current_thread(&[arguments.flags.engine.load_cpu])?;
    let mut harmed = Vec::new();
    println!("{}", table::heading());
    for (attack, setup) in attacks {
        let row = run(attack, &setup, &loadgen, arguments).with_context(|| format!("under {}", attack.name))?;
        println!("{row}");
        harmed.extend(row.harm().map(|harm| format!("{}: {harm}", attack.name)));
    }
    if harmed.is_empty() { Ok(()) } else { bail!("{}", harmed.join("; ")) }
}

/// One attack on an engine of its own, with the client beside it from before its start to after its end.
fn run(attack: &Attack, setup: &Setup, loadgen: &std::path::Path, arguments: &Arguments) -> Result<Row> {
    let duration = Duration::from_secs(arguments.seconds);
    let engine = Engine::start(setup, "thread")?;
    let client = Client::start(&engine, loadgen, attack, duration, arguments.rate)?;
    client.wait_until_known(&engine)?;
    let before = engine.metrics()?;
    let stop = Arc::new(AtomicBool::new(false));
    let scaled = (attack.count as u64 * u64::from(arguments.scale)).div_ceil(100) as usize;
    let (target, stopped) = (line::Target::of(&engine)?, stop.clone());
    let act = attack.act;
    let attacking = std::thread::spawn(move || act(&target, scaled, &stopped));
    let outcome = client.wait(&engine, duration);
    // The attackers look at it each turn.
    stop.store(true, Ordering::Relaxed);
    let done = attacking.join().map_err(|_| anyhow::anyhow!("the attack's thread panicked"))??;
    let outcome = outcome?;
    let after = engine.metrics()?;
    let memory = engine.memory()?;
    engine.stop()?;
    Ok(Row::new(attack, done, &before, &after, memory, outcome))
}
