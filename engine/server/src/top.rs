//! `highwater top`: the moving top list of a running engine, in the terminal.
//!
//! It reads the engine's snapshots over QUIC as any subscriber does, so it works from another machine too. Invariant:
//! what is shown is one snapshot as it was published, and a connection that is lost is said to be.

use crate::args::TopArguments;
use crate::live::{Feed, View};
use crate::screen::Screen;
use anyhow::{Context, Result};
use highwater_client::{ClientConfig, Link, Subscriber};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

/// Snapshots come each second: after this long without one, a connection is tried anew.
const SILENCE_MAX: Duration = Duration::from_secs(4);

/// Between two looks at whether the connection stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows pictures until Ctrl-C, or one with `--once`.
///
/// # Errors
/// What keeps the client from connecting, or a stdout that is closed.
pub fn top(arguments: &TopArguments) -> Result<()> {
    let mut stop = stop_signal()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let mut subscriber = tokio::select! {
            subscriber = Subscriber::connect(client(arguments)?) => subscriber?,
            _ = &mut stop => return Ok(()),
        };
        let outcome = tokio::select! {
            outcome = follow(&mut subscriber, arguments) => outcome,
            _ = &mut stop => Ok(()),
        };
        subscriber.close().await;
        outcome
    })
}

fn client(arguments: &TopArguments) -> Result<ClientConfig> {
    let config = ClientConfig::with_ca_file(&arguments.engine, &arguments.ca)?;
    Ok(arguments.credentials.apply(ClientConfig { idle_timeout: SILENCE_MAX, ..config })?)
}

/// Is told of the first SIGINT or SIGTERM.
fn stop_signal() -> Result<oneshot::Receiver<()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let (told, stop) = oneshot::channel();
    let wait = move || {
        if signals.forever().next().is_some() {
            // Nobody listens when the process is about to end anyway.
            let _ = told.send(());
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).context("no thread for signals")?;
    Ok(stop)
}

async fn follow(subscriber: &mut Subscriber, arguments: &TopArguments) -> Result<()> {
    let link = subscriber.link();
    let mut screen = Screen::stdout();
    let mut feed = Feed::default();
    loop {
        let snapshot = next(subscriber, &link, &feed, arguments, &mut screen).await?;
        feed.push(Arc::new(snapshot));
        screen.show(&feed.picture(view(arguments, &screen)))?;
        if arguments.once {
            return Ok(());
        }
    }
}

/// The next snapshot; while the connection is lost, the page says so.
async fn next(
    subscriber: &mut Subscriber,
    link: &watch::Receiver<Link>,
    feed: &Feed,
    arguments: &TopArguments,
    screen: &mut Screen,
) -> Result<highwater_proto::Snapshot> {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lost_since = None;
    // One future for the whole wait: dropped half-way it would give the connection up.
    let mut snapshot = std::pin::pin!(subscriber.wait_next());
    loop {
        tokio::select! {
            snapshot = &mut snapshot => return Ok(snapshot?),
            _ = looks.tick() => {}
        }
        if link.borrow().connected {
            lost_since = None;
            continue;
        }
        let lost: Instant = *lost_since.get_or_insert_with(Instant::now);
        screen.show(&lost_page(
            &arguments.engine,
            lost.elapsed(),
            feed,
            view(arguments, screen),
            screen.is_terminal(),
        ))?;
    }
}

/// Where pictures replace each other, the last one below the news and the seconds since; elsewhere the news alone,
/// once. The news stand first, so that a terminal with few lines shows them.
fn lost_page(engine: &str, lost_for: Duration, feed: &Feed, view: View, in_place: bool) -> String {
    let engine = engine.escape_debug();
    if in_place {
        format!("connection to {engine} lost for {} s; reconnecting\n{}", lost_for.as_secs(), feed.picture(view))
    } else {
        format!("connection to {engine} lost; reconnecting\n")
    }
}

fn view(arguments: &TopArguments, screen: &Screen) -> View {
    View { period: arguments.period, rows: arguments.rows.into(), width: screen.width() }
}
