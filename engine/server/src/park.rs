//! Where a core's thread sleeps, how it is woken, and which CPU it runs on.
//!
//! Not a scheduler: the core's loop decides when there is nothing to do. Invariant: [`Parking::wait`] returns when a
//! watched descriptor is ready, a [`Waker`] was used since the last return, or the deadline has passed; a wake-up that
//! comes before the wait is not lost.
//!
//! Sources: Linux manual pages ppoll(2), eventfd(2), sched_setaffinity(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Wakes the core that parks on the [`Parking`] it came from. Cheap to clone; may be used from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Makes the current or next [`Parking::wait`] return. One system call: use it only for a core that says it is
    /// parked.
    pub fn wake(&self) {
        // Fails only when the counter is full, and then the core is about to wake anyway.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }
}

/// What ended a wait. All false: the deadline passed, or a signal came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Woken {
    /// The socket can be read, or written where that was asked for.
    pub socket: bool,
    /// The second descriptor (the log's ring) can be read.
    pub ring: bool,
    /// A [`Waker`] was used.
    pub waker: bool,
}

/// A core's place to sleep.
#[derive(Debug)]
pub struct Parking {
    event: Arc<OwnedFd>,
}

impl Parking {
    /// A new place, with nothing pending.
    ///
    /// # Errors
    /// The system's error when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// A handle by which other threads wake this core.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { event: self.event.clone() }
    }

    /// Sleeps until `socket` can be read (or written, if `socket_writable`), `ring` can be read, a waker is used, or
    /// `deadline` has passed. `None` for no deadline.
    ///
    /// # Errors
    /// The system's error; a signal is not one.
    pub fn wait(
        &self,
        socket: BorrowedFd<'_>,
        socket_writable: bool,
        ring: Option<BorrowedFd<'_>>,
        deadline: Option<Instant>,
    ) -> io::Result<Woken> {
        let socket_flags = if socket_writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let ring_flags = if ring.is_some() { PollFlags::IN } else { PollFlags::empty() };
        let event = self.event.as_fd();
        let mut watched = [
            PollFd::from_borrowed_fd(event, PollFlags::IN),
            PollFd::from_borrowed_fd(socket, socket_flags),
            PollFd::from_borrowed_fd(ring.unwrap_or(event), ring_flags),
        ];
        let timeout = deadline.map(timespec_until);
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Woken::default()),
            Err(error) => return Err(error.into()),
        }
        let woken = Woken {
            waker: !watched[0].revents().is_empty(),
            socket: !watched[1].revents().is_empty(),
            ring: ring.is_some() && !watched[2].revents().is_empty(),
        };
        if woken.waker {
            // Resets the counter; fails only if somebody else did.
            let _ = rustix::io::read(&*self.event, &mut [0; 8]);
        }
        Ok(woken)
    }
}

fn timespec_until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}

/// What went wrong with a thread's affinity.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The CPU is none that this process may use.
    #[error("cannot pin a core to CPU {cpu}: this process may use the CPUs {allowed}; choose from them by --cores")]
    NotAllowed {
        /// The CPU asked for.
        cpu: usize,
        /// The CPUs that the process may use, as ranges.
        allowed: String,
    },
    /// The system refused.
    #[error("cannot pin a core to CPU {cpu}: {source}")]
    System {
        /// The CPU asked for.
        cpu: usize,
        /// The system's error.
        source: io::Error,
    },
}

/// Pins the calling thread to one CPU.
///
/// # Errors
/// [`PinError`] when the process may not use that CPU.
pub fn pin_current_thread(cpu: usize) -> Result<(), PinError> {
    let system = |error: Errno| PinError::System { cpu, source: error.into() };
    let allowed = sched_getaffinity(None).map_err(system)?;
    if cpu >= CpuSet::MAX_CPU || !allowed.is_set(cpu) {
        return Err(PinError::NotAllowed { cpu, allowed: ranges(&allowed) });
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).map_err(system)
}

/// Lets the calling thread run on any of some CPUs.
///
/// # Errors
/// The system's error.
pub fn allow_current_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().filter(|&&cpu| cpu < CpuSet::MAX_CPU).for_each(|&cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The CPUs that the calling thread may use, ascending.
///
/// # Errors
/// The system's error.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let allowed = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// A CPU set as `0-3,8`.
fn ranges(set: &CpuSet) -> String {
    let mut parts = Vec::new();
    let mut cpu = 0;
    while cpu < CpuSet::MAX_CPU {
        if !set.is_set(cpu) {
            cpu += 1;
            continue;
        }
        let first = cpu;
        while cpu < CpuSet::MAX_CPU && set.is_set(cpu) {
            cpu += 1;
        }
        parts.push(if cpu - first == 1 { first.to_string() } else { format!("{first}-{}", cpu - 1) });
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::thread;
    use std::time::Duration;

    fn soon(ms: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(ms))
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let parking = Parking::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let start = Instant::now();
        assert_eq!(parking.wait(socket.as_fd(), false, None, soon(20)).unwrap(), Woken::default());
        assert!(start.elapsed() >= Duration::from_millis(19));
    }

    #[test]
    fn a_wake_before_the_wait_is_not_lost_and_counts_once() {
        let parking = Parking::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        parking.waker().wake();
        parking.waker().wake();
        assert!(parking.wait(socket.as_fd(), false, None, soon(5000)).unwrap().waker);
        assert!(!parking.wait(socket.as_fd(), false, None, soon(1)).unwrap().waker);
    }

    #[test]
    fn another_thread_wakes() {
        let parking = Parking::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let waker = parking.waker();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert!(parking.wait(socket.as_fd(), false, None, soon(5000)).unwrap().waker);
        thread.join().unwrap();
    }

    #[test]
    fn socket_and_ring_are_told_apart() {
        let parking = Parking::new().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ring = UdpSocket::bind("127.0.0.1:0").unwrap();
        ring.send_to(b"x", ring.local_addr().unwrap()).unwrap();
        let woken = parking.wait(socket.as_fd(), false, Some(ring.as_fd()), soon(5000)).unwrap();
        assert_eq!(woken, Woken { ring: true, ..Woken::default() });
        let woken = parking.wait(socket.as_fd(), true, None, soon(5000)).unwrap();
        assert_eq!(woken, Woken { socket: true, ..Woken::default() });
    }

    #[test]
    fn pinning_to_a_cpu_that_is_not_there_names_those_that_are() {
        thread::spawn(|| {
            let allowed = sched_getaffinity(None).unwrap();
            let cpu = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu)).unwrap();
            let text = pin_current_thread(CpuSet::MAX_CPU).unwrap_err().to_string();
            assert!(text.contains(&ranges(&allowed)), "{text}");
            pin_current_thread(cpu).unwrap();
            assert_eq!(ranges(&sched_getaffinity(None).unwrap()), cpu.to_string());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn ranges_read_well() {
        let mut set = CpuSet::new();
        for cpu in [0, 1, 2, 5, 7, 8] {
            set.set(cpu);
        }
        assert_eq!(ranges(&set), "0-2,5,7-8");
    }
}
