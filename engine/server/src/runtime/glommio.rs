//! A core on a glommio executor.
//!
//! glommio can wait for sockets of its own only, and for no descriptor that others read without blocking. So the kernel
//! rings a bell ([`highwater_disk::Bell`]) when the socket, the log's ring or the wake-up can be read, and the executor
//! waits for the bell. That wait is raced with a timer: a watchdog, which counts whether it found work that the bell
//! had not told of.
//!
//! Invariant: one wait for the bell is under way at any time, and survives the timer, so nothing is ever cancelled.

use super::{check_cpu, park::Parking};
use crate::core::{CoreLoop, Rest, Turned};
use crate::fatal::fatal;
use anyhow::{Context, Result, bail};
use crossbeam_channel::bounded;
use glommio::net::UdpSocket;
use glommio::timer::Timer;
use glommio::{LocalExecutorBuilder, Placement};
use highwater_disk::Bell;
use rustix::process::{Resource, geteuid, getrlimit};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory that glommio registers for its own file operations, of which a core makes none: its least.
const IO_MEMORY_BYTES: usize = 64 << 10;

/// Below this glommio refuses to start.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// What an executor locks: glommio registers its memory with each of its three rings.
const MEMLOCK_BYTES_PER_CORE: u64 = 4 * IO_MEMORY_BYTES as u64;

/// When glommio's timer ends the turn of what runs: practically never. A timer that fires just before the executor
/// looks for tasks makes glommio 0.9 sleep over those that can run, until something else wakes it, if ever. A core
/// needs none: it looks at everything in each turn, and the bell alone asks it to yield.
const PREEMPT_EVERY: Duration = Duration::from_hours(1);

/// Longest wait for the bell while there is anybody to hear from, so that a bell that stays silent costs no more.
const WATCHDOG: Duration = Duration::from_millis(20);

/// Longest wait while nobody is connected.
const WATCHDOG_ALONE: Duration = Duration::from_millis(250);

/// Starts the executor and waits until it is pinned.
pub(super) fn spawn(
    name: &str,
    cpu: usize,
    parking: Parking,
    make: impl FnOnce() -> CoreLoop + Send + 'static,
) -> Result<JoinHandle<()>> {
    check_cpu(cpu)?;
    let (ready, is_ready) = bounded(1);
    let executor_name = name.to_owned();
    let thread = crate::helpers::spawn(name, move || {
        let executor = builder(Placement::Fixed(cpu)).name(&executor_name).make();
        // The receiver waits for exactly this message.
        match executor {
            Ok(executor) => {
                let _ = ready.send(Ok(()));
                executor.run(run(make(), parking));
            }
            Err(error) => drop(ready.send(Err(error.to_string()))),
        }
    })?;
    match is_ready.recv().context("a core's thread ended before its executor was made")? {
        Ok(()) => Ok(thread),
        Err(error) => bail!("glommio has no executor for CPU {cpu}: {error}; start with --runtime=thread"),
    }
}

/// An executor that does no I/O but the bell's.
fn builder(placement: Placement) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement).io_memory(IO_MEMORY_BYTES).preempt_timer(PREEMPT_EVERY)
}

/// Refuses what glommio would answer by silently doing without.
pub(super) fn check_memlock(cores: u64) -> Result<()> {
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    let needed = if geteuid().is_root() { 0 } else { cores * MEMLOCK_BYTES_PER_CORE };
    let needed = needed.max(MEMLOCK_BYTES_MIN);
    if limit < needed {
        bail!(
            "RLIMIT_MEMLOCK is {limit} bytes, --runtime=glommio needs {needed} for {cores} cores; raise it by \
             LimitMEMLOCK=64M in the systemd unit, `ulimit -l 65536`, or `docker run --ulimit memlock=67108864`, or \
             start with --runtime=thread"
        );
    }
    Ok(())
}

async fn run(mut core: CoreLoop, mut parking: Parking) {
    let watched = [core.udp_fd(), core.ring_fd(), parking.event()].map(|one| one.try_clone_to_owned());
    let (mut bell, heard) = match hang_bell(watched) {
        Ok(pair) => pair,
        Err(error) => fatal("the core's bell cannot be made", &error),
    };
    let listener = glommio::spawn_local(listen(heard.clone(), core.number()));
    let mut by_watchdog = false;
    loop {
        match core.turn() {
            Turned::Worked => {
                if std::mem::take(&mut by_watchdog) {
                    core.count_silence();
                }
                glommio::yield_if_needed().await;
            }
            Turned::Idle(rest) => {
                by_watchdog = false;
                if parking.begin() {
                    match bell.arm() {
                        Ok(true) => by_watchdog = heard.rest(&rest).await,
                        Ok(false) => {}
                        Err(error) => fatal("the core's bell cannot be armed", &error),
                    }
                    parking.end();
                }
                core.rested(rest);
            }
            Turned::Stopped => break,
        }
    }
    core.close();
    listener.cancel().await;
}

/// How long to wait for the bell.
fn until(rest: &Rest) -> Duration {
    let watchdog = if rest.alone { WATCHDOG_ALONE } else { WATCHDOG };
    // Nothing rings when the socket can be written again.
    let watchdog = if rest.socket_writable { Duration::from_millis(1) } else { watchdog };
    rest.deadline.saturating_duration_since(Instant::now()).min(watchdog)
}

/// What the listener tells the core.
struct Heard {
    socket: UdpSocket,
    rung: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByBell,
    ByTimer,
}

/// A bell for some descriptors, and where it is heard.
fn hang_bell(watched: impl IntoIterator<Item = io::Result<OwnedFd>>) -> io::Result<(Bell, Rc<Heard>)> {
    let watched = watched.into_iter().collect::<io::Result<Vec<_>>>()?;
    let (heard, rung) = socket_pair()?;
    let socket = UdpSocket::from(socket2::Socket::from(heard));
    let heard = Heard { socket, rung: Cell::new(false), waiting: RefCell::new(None) };
    Ok((Bell::new(watched, rung.into())?, Rc::new(heard)))
}

/// Two connected UDP sockets on loopback: glommio asks for peers that have an internet address.
fn socket_pair() -> io::Result<(std::net::UdpSocket, std::net::UdpSocket)> {
    let bind = || std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (bind()?, bind()?);
    one.connect(other.local_addr()?)?;
    other.connect(one.local_addr()?)?;
    Ok((one, other))
}

/// Listens for the bell for as long as the core runs.
async fn listen(heard: Rc<Heard>, core: u16) {
    let mut bytes = [0; 8];
    loop {
        if let Err(error) = heard.socket.recv(&mut bytes).await {
            fatal(&format!("core {core} cannot listen for its bell"), &error);
        }
        heard.rung.set(true);
        if let Some(waker) = heard.waiting.take() {
            waker.wake();
        }
    }
}

impl Heard {
    /// Lets the core rest; returns whether the watchdog ended it, ahead of the core's own deadline.
    async fn rest(&self, rest: &Rest) -> bool {
        let ended = self.wait(until(rest)).await;
        // Nothing rings when the socket can be written again, so its timer says nothing about the bell.
        ended == Ended::ByTimer && !rest.socket_writable && Instant::now() < rest.deadline
    }

    /// Waits until the bell has rung since the last wait, for so long at most.
    async fn wait(&self, at_most: Duration) -> Ended {
        let mut timer = pin!(Timer::new(at_most));
        poll_fn(|context| {
            if self.rung.replace(false) {
                return Poll::Ready(Ended::ByBell);
            }
            if timer.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ended::ByTimer);
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    const LONG: Duration = Duration::from_secs(10);

    /// Runs with a bell for a socket that does not block and a wake-up.
    fn with_bell<F: Future<Output = ()>>(
        test: impl FnOnce(std::net::UdpSocket, Parking, Bell, Rc<Heard>) -> F + Send + 'static,
    ) {
        let run = move || {
            let executor = builder(Placement::Unbound).make().unwrap();
            executor.run(async {
                let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                socket.set_nonblocking(true).unwrap();
                let parking = Parking::new().unwrap();
                let watched = [socket.as_fd(), parking.event()].map(|one| one.try_clone_to_owned());
                let (bell, heard) = hang_bell(watched).unwrap();
                let listener = glommio::spawn_local(listen(heard.clone(), 0));
                test(socket, parking, bell, heard).await;
                listener.cancel().await;
            });
        };
        thread::spawn(run).join().unwrap();
    }

    #[test]
    fn a_packet_rings_before_and_during_a_wait_and_silence_ends_by_the_timer() {
        with_bell(|socket, _parking, mut bell, heard| async move {
            let to = socket.local_addr().unwrap();
            bell.arm().unwrap();
            assert_eq!(heard.wait(Duration::from_millis(20)).await, Ended::ByTimer);
            for _ in 0..100 {
                socket.send_to(b"x", to).unwrap();
                bell.arm().unwrap();
                assert_eq!(heard.wait(LONG).await, Ended::ByBell);
                socket.recv(&mut [0; 8]).unwrap();
            }
            let sender = socket.try_clone().unwrap();
            let later = thread::spawn(move || {
                thread::sleep(Duration::from_millis(30));
                sender.send_to(b"x", to).unwrap();
            });
            // What rang for a packet that is read by now costs one wait that ends at once.
            while socket.recv(&mut [0; 8]).is_err() {
                bell.arm().unwrap();
                assert_eq!(heard.wait(LONG).await, Ended::ByBell);
            }
            later.join().unwrap();
        });
    }

    #[test]
    fn whatever_can_run_is_never_slept_over() {
        let (rounds, round) = bounded(1);
        thread::spawn(move || {
            with_bell(|_socket, _parking, _bell, heard| async move {
                for count in 0..10_000 {
                    assert_eq!(heard.wait(Duration::from_micros(100)).await, Ended::ByTimer);
                    glommio::yield_if_needed().await;
                    // The test that has given up does not listen.
                    let _ = rounds.send(count);
                }
            });
        });
        let mut last = 0;
        while last < 9_999 {
            last = round.recv_timeout(LONG).unwrap_or_else(|error| panic!("it sleeps after round {last}: {error}"));
        }
    }

    #[test]
    fn a_waker_rings_from_another_thread_every_time() {
        with_bell(|_socket, mut parking, mut bell, heard| async move {
            let waker = parking.waker();
            let (ask, asked) = bounded::<u64>(1);
            let called = Arc::new(AtomicU64::new(0));
            let seen = called.clone();
            let calls = thread::spawn(move || {
                for round in asked {
                    called.store(round, Ordering::Relaxed);
                    waker.wake();
                }
            });
            for round in 1..=500 {
                ask.send(round).unwrap();
                while seen.load(Ordering::Relaxed) < round {
                    if parking.begin() {
                        bell.arm().unwrap();
                        assert_eq!(heard.wait(LONG).await, Ended::ByBell);
                        parking.end();
                    }
                }
            }
            drop(ask);
            calls.join().unwrap();
        });
    }
}
