//! A bell that the kernel rings when one of some descriptors can be read: for an executor that can wait for a socket
//! of its own only.
//!
//! Not for reading or writing anything. Each watched descriptor has one chain in a small ring: a poll, and behind it a
//! send of one byte to the bell. Invariants: a descriptor has at most one chain under way; no chain is under way any
//! more when the bell is dropped, so that it holds no socket's port. Sources: io_uring_enter(2) on
//! `IORING_OP_POLL_ADD`, `IORING_OP_SEND` and `IOSQE_IO_LINK`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{IoUring, opcode, squeue, types};

/// What is sent to the bell.
static RING: [u8; 1] = [1];

/// Marks the completion of a removal.
const REMOVAL: u64 = u64::MAX;

/// Descriptors that can be watched.
const WATCHED_MAX: usize = 8;

/// The polls of some descriptors, and the bell behind them.
pub struct Bell {
    ring: IoUring,
    watched: Vec<Watched>,
    bell: OwnedFd,
}

struct Watched {
    descriptor: OwnedFd,
    /// Completions that its chain still owes.
    due: u8,
}

impl Bell {
    /// A bell for `watched`, rung by a byte sent to the datagram socket `bell`.
    ///
    /// # Errors
    /// When the kernel refuses another ring.
    ///
    /// # Panics
    /// When more than 8 descriptors are watched.
    pub fn new(watched: Vec<OwnedFd>, bell: OwnedFd) -> io::Result<Self> {
        assert!(watched.len() <= WATCHED_MAX, "{} descriptors are too many to watch", watched.len());
        let ring = IoUring::new(4 * WATCHED_MAX as u32)?;
        let watched = watched.into_iter().map(|descriptor| Watched { descriptor, due: 0 }).collect();
        Ok(Self { ring, watched, bell })
    }

    /// Sees to it that the bell rings, once, for each watched descriptor that can be read now or from now on. One
    /// system call if any has rung since the last time, else none. False when the kernel has no room for it at this
    /// moment: then the bell may stay silent, and this must be called again.
    ///
    /// # Errors
    /// When a descriptor cannot be watched, or the kernel refuses for good.
    pub fn arm(&mut self) -> io::Result<bool> {
        self.reap()?;
        for index in 0..self.watched.len() {
            let one = &mut self.watched[index];
            if one.due > 0 {
                continue;
            }
            one.due = 2;
            let poll = opcode::PollAdd::new(types::Fd(one.descriptor.as_raw_fd()), libc::POLLIN as u32)
                .build()
                .user_data(index as u64)
                .flags(squeue::Flags::IO_LINK);
            let send = opcode::Send::new(types::Fd(self.bell.as_raw_fd()), RING.as_ptr(), RING.len() as u32)
                .flags(libc::MSG_DONTWAIT)
                .build()
                .user_data(index as u64);
            self.push(&[poll, send])?;
        }
        if self.ring.submission().is_empty() {
            return Ok(true);
        }
        match self.ring.submit() {
            Ok(_) => Ok(self.ring.submission().is_empty()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::EINTR)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the completions that are there. A full bell has rung often enough, and a removed poll cancels its send.
    fn reap(&mut self) -> io::Result<()> {
        let mut failed = Ok(());
        for entry in self.ring.completion() {
            if entry.user_data() == REMOVAL {
                continue;
            }
            self.watched[entry.user_data() as usize].due -= 1;
            if entry.result() < 0 && !matches!(-entry.result(), libc::ECANCELED | libc::EAGAIN) {
                failed = Err(io::Error::from_raw_os_error(-entry.result()));
            }
        }
        failed
    }

    fn push(&mut self, chain: &[squeue::Entry]) -> io::Result<()> {
        // SAFETY: the entries poll, or send a static byte to, descriptors that `self` owns until all chains are done,
        // or remove a poll. Covered by `it_rings_for_whatever_can_be_read` and `a_dropped_bell_gives_back_its_ports`.
        let pushed = unsafe { self.ring.submission().push_multiple(chain) };
        pushed.map_err(|_| io::Error::other("the submission queue is full, though each descriptor has one chain"))
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let armed = (0..self.watched.len()).filter(|index| self.watched[*index].due > 0);
        let removals: Vec<_> =
            armed.map(|index| opcode::PollRemove::new(index as u64).build().user_data(REMOVAL)).collect();
        let removed = self.push(&removals).and_then(|()| self.ring.submit());
        // A ring that refuses even this is torn down by the kernel, some milliseconds later.
        while removed.is_ok() && self.watched.iter().any(|one| one.due > 0) {
            if self.ring.submit_and_wait(1).is_err() || self.reap().is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    fn rings(bell: &UnixDatagram) -> usize {
        let mut bytes = [0; 8];
        std::iter::from_fn(|| bell.recv(&mut bytes).ok()).count()
    }

    #[test]
    fn it_rings_for_whatever_can_be_read() {
        let (first, to_first) = UnixDatagram::pair().unwrap();
        let (second, to_second) = UnixDatagram::pair().unwrap();
        let (heard, rung) = UnixDatagram::pair().unwrap();
        heard.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        first.set_nonblocking(true).unwrap();
        let watched = [&first, &second].map(|one| OwnedFd::from(one.try_clone().unwrap())).into();
        let mut bell = Bell::new(watched, rung.into()).unwrap();
        assert!(bell.arm().unwrap());
        assert!(bell.arm().unwrap());
        assert_eq!(rings(&heard), 0, "nothing can be read");
        to_first.send(b"x").unwrap();
        assert_eq!(rings(&heard), 1);
        bell.arm().unwrap();
        assert_eq!(rings(&heard), 1, "it can still be read");
        first.recv(&mut [0; 8]).unwrap();
        bell.arm().unwrap();
        to_second.send(b"x").unwrap();
        to_first.send(b"x").unwrap();
        assert_eq!(rings(&heard), 2);
    }

    #[test]
    fn a_bell_that_nobody_hears_is_no_error_for_long() {
        let (read, write) = UnixDatagram::pair().unwrap();
        let (heard, rung) = UnixDatagram::pair().unwrap();
        let mut bell = Bell::new(vec![read.into()], rung.into()).unwrap();
        write.send(b"x").unwrap();
        for _ in 0..2000 {
            bell.arm().unwrap();
        }
        heard.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(rings(&heard) > 0);
    }

    /// A ring that is closed with polls under way keeps their sockets for some milliseconds.
    #[test]
    fn a_dropped_bell_gives_back_its_ports() {
        let mut address = "127.0.0.1:0".parse().unwrap();
        for _ in 0..50 {
            let socket = std::net::UdpSocket::bind::<std::net::SocketAddr>(address).unwrap();
            address = socket.local_addr().unwrap();
            let (_heard, rung) = UnixDatagram::pair().unwrap();
            let mut bell = Bell::new(vec![socket.into()], rung.into()).unwrap();
            assert!(bell.arm().unwrap());
        }
    }
}
