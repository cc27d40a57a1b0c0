//! Where a core sleeps and how it is woken, whatever runs it.
//!
//! Not a scheduler: the core's loop decides when there is nothing to do. Invariants: a [`Waker`] costs a system call
//! only while the core sleeps; a wake-up that comes before the sleep is not lost.
//!
//! Sources: Linux manual pages ppoll(2), eventfd(2); the argument about wake-ups is in `highwater_lanes`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use highwater_lanes::{Caller, Sleeper, parking_flag};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Wakes the core that parks on the [`Parking`] it came from. Cheap to clone; may be used from any thread.
#[derive(Debug, Clone)]
pub struct Waker {
    caller: Caller,
    event: Arc<OwnedFd>,
}

impl Waker {
    /// Lets the core do another turn before it sleeps, or ends its sleep: one system call if it sleeps, else none.
    pub fn wake(&self) {
        if self.caller.call() {
            // Fails only when the counter is full, and then the core is about to wake anyway.
            let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// A core's place to sleep.
#[derive(Debug)]
pub struct Parking {
    sleeper: Sleeper,
    caller: Caller,
    event: Arc<OwnedFd>,
}

impl Parking {
    /// A new place, with nothing pending.
    ///
    /// # Errors
    /// The system's error when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (sleeper, caller) = parking_flag();
        Ok(Self { sleeper, caller, event: Arc::new(event) })
    }

    /// A handle by which other threads wake this core.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker { caller: self.caller.clone(), event: self.event.clone() }
    }

    /// Says that the core is going to sleep. False: it was called meanwhile, and must do another turn instead.
    #[must_use]
    pub fn begin(&mut self) -> bool {
        self.sleeper.begin()
    }

    /// Says that the core is awake again. A turn must follow.
    pub fn end(&mut self) {
        self.sleeper.end();
        // Resets the counter; there is nothing to read when something else ended the sleep.
        let _ = rustix::io::read(&*self.event, &mut [0; 8]);
    }

    /// The descriptor that can be read once a waker has called a core that sleeps.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Sleeps until `socket` can be read (or written, if `socket_writable`), `ring` can be read, a waker is used, or
    /// `deadline` has passed.
    ///
    /// # Errors
    /// The system's error; a signal is not one.
    pub fn wait(
        &mut self,
        socket: BorrowedFd<'_>,
        socket_writable: bool,
        ring: BorrowedFd<'_>,
        deadline: Instant,
    ) -> io::Result<()> {
        if !self.begin() {
            return Ok(());
        }
        let socket_flags = if socket_writable { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut watched = [
            PollFd::from_borrowed_fd(self.event.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(socket, socket_flags),
            PollFd::from_borrowed_fd(ring, PollFlags::IN),
        ];
        let outcome = poll(&mut watched, Some(&timespec_until(deadline)));
        self.end();
        match outcome {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sleeps until `socket` can be read or `deadline` has passed.
///
/// # Errors
/// The system's error; a signal is not one.
pub fn wait_for_socket(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<()> {
    match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&timespec_until(deadline))) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn timespec_until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::thread;
    use std::time::Duration;

    struct Place {
        parking: Parking,
        socket: UdpSocket,
        ring: UdpSocket,
    }

    impl Place {
        fn new() -> Self {
            let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
            Self { parking: Parking::new().unwrap(), socket: socket(), ring: socket() }
        }

        /// Waits for so long at most; returns how long it took.
        fn wait(&mut self, ms: u64, writable: bool) -> Duration {
            let start = Instant::now();
            let deadline = start + Duration::from_millis(ms);
            self.parking.wait(self.socket.as_fd(), writable, self.ring.as_fd(), deadline).unwrap();
            start.elapsed()
        }
    }

    const LONG_MS: u64 = 10_000;
    const LONG: Duration = Duration::from_millis(LONG_MS);

    #[test]
    fn a_deadline_ends_the_wait() {
        assert!(Place::new().wait(20, false) >= Duration::from_millis(19));
    }

    #[test]
    fn a_wake_before_the_wait_is_not_lost_and_counts_once() {
        let mut place = Place::new();
        let waker = place.parking.waker();
        waker.wake();
        waker.wake();
        assert!(place.wait(LONG_MS, false) < LONG);
        assert!(place.wait(10, false) >= Duration::from_millis(9));
    }

    #[test]
    fn another_thread_wakes() {
        let mut place = Place::new();
        let waker = place.parking.waker();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert!(place.wait(LONG_MS, false) < LONG);
        thread.join().unwrap();
    }

    #[test]
    fn socket_and_ring_end_the_wait() {
        let mut place = Place::new();
        assert!(place.wait(LONG_MS, true) < LONG, "an idle socket can be written");
        place.ring.send_to(b"x", place.ring.local_addr().unwrap()).unwrap();
        assert!(place.wait(LONG_MS, false) < LONG);
        place.ring.recv(&mut [0; 8]).unwrap();
        place.socket.send_to(b"x", place.socket.local_addr().unwrap()).unwrap();
        assert!(place.wait(LONG_MS, false) < LONG);
    }
}
