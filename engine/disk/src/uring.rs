//! The log's writes: io_uring, direct I/O, durable at completion.
//!
//! Not for reading and not for other files. Invariants: a [`GroupWrite`] stays in `in_flight`, unmoved in memory that
//! matters to the kernel (its buffer is on the heap), from submission until its completion was reaped; `Drop` reaps
//! them all before any buffer is freed. Sources: io_uring(7), `RWF_DSYNC` in pwritev2(2), `O_DIRECT` in open(2).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use highwater_storage::{BLOCK_BYTES, GroupWrite, GroupWritten, LogDevice, PreparedSegment, SegmentHandle};
use io_uring::{IoUring, opcode, squeue, types};

use crate::refusal::{Surroundings, UringError, explain};

struct Attached {
    file: File,
    path: String,
}

/// A [`LogDevice`] on io_uring. Belongs to one core; may be made on another thread.
pub struct UringLog {
    ring: IoUring,
    root: PathBuf,
    /// By handle; a detached one leaves a hole that is used again.
    attached: Vec<Option<Attached>>,
    /// By slot, which is the completion's user data.
    in_flight: Vec<Option<GroupWrite>>,
    in_flight_count: usize,
    is_direct: bool,
}

impl UringLog {
    /// A ring for up to `depth` writes into files under the data directory `root`. Sends one operation through it, so
    /// that a ring that does not work is found now.
    ///
    /// # Errors
    /// When the kernel refuses; the text says why and what to change.
    ///
    /// # Panics
    /// When `depth` is 0 or above 4096.
    pub fn open(root: &Path, depth: usize) -> Result<Self, UringError> {
        assert!((1..=4096).contains(&depth), "a ring has a depth of 1 to 4096, not {depth}");
        let entries = (depth as u32).next_power_of_two();
        let refused = |source| explain(entries, source, Surroundings::read());
        let ring = IoUring::new(entries).map_err(refused)?;
        let mut log = Self {
            ring,
            root: root.to_owned(),
            attached: Vec::new(),
            in_flight: (0..depth).map(|_| None).collect(),
            in_flight_count: 0,
            is_direct: true,
        };
        log.probe().map_err(refused)?;
        Ok(log)
    }

    /// Whether the last attached segment is written around the page cache; some file systems, such as tmpfs, refuse
    /// that.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// Sends a no-op through the ring.
    fn probe(&mut self) -> io::Result<()> {
        self.push(&opcode::Nop::new().build())?;
        self.ring.submit_and_wait(1)?;
        let result = self.ring.completion().next().map(|entry| entry.result());
        match result {
            Some(0) => Ok(()),
            Some(code) => Err(io::Error::from_raw_os_error(-code)),
            None => Err(io::Error::other("the ring completed nothing")),
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        let mut queue = self.ring.submission();
        // SAFETY: the entry is a no-op, or a write whose buffer and file are owned by `in_flight` and `attached`, where
        // they stay until the completion is reaped: `complete` takes them out only then, `detach` refuses a file in
        // use, and `drop` waits. Covered by `groups_come_back_durable_and_whole` and `dropping_waits_for_writes`.
        let pushed = unsafe { queue.push(entry) };
        pushed.map_err(|_| io::Error::other("the submission queue is full, though depth is below its length"))
    }

    fn write_entry(&self, slot: usize, write: &GroupWrite) -> squeue::Entry {
        let attached = self.attached(write.file).expect("writes go to attached segments");
        opcode::Write::new(types::Fd(attached.file.as_raw_fd()), write.buffer.as_ptr(), write.len as u32)
            .offset(write.offset)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(slot as u64)
    }

    /// Hands the write in `slot` to the kernel.
    fn start(&mut self, slot: usize) -> io::Result<()> {
        let write = self.in_flight[slot].as_ref().expect("the slot was just filled");
        let entry = self.write_entry(slot, write);
        self.push(&entry)?;
        self.enter()
    }

    /// Tells the kernel of pushed entries; they stay queued when it is out of resources for the moment.
    fn enter(&mut self) -> io::Result<()> {
        loop {
            match self.ring.submit() {
                Ok(_) => return Ok(()),
                Err(error) if is_transient(&error) => {
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn attached(&self, handle: SegmentHandle) -> Option<&Attached> {
        self.attached.get(handle.0 as usize)?.as_ref()
    }

    /// What the kernel's result means for a write.
    fn outcome(&self, write: &GroupWrite, code: i32) -> io::Result<()> {
        let path = self.attached(write.file).map_or("?", |attached| attached.path.as_str());
        if code < 0 {
            let error = io::Error::from_raw_os_error(-code);
            return Err(io::Error::new(error.kind(), format!("write of {} bytes to {path}: {error}", write.len)));
        }
        if code as usize != write.len {
            let text = format!("write to {path} at {}: {code} of {} bytes", write.offset, write.len);
            return Err(io::Error::other(text));
        }
        Ok(())
    }

    fn open_segment(&mut self, path: &Path) -> io::Result<File> {
        let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path);
        match direct {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                self.is_direct = false;
                OpenOptions::new().read(true).write(true).open(path)
            }
            opened => {
                self.is_direct = true;
                opened
            }
        }
    }
}

/// Not a failed write: nothing was attempted.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

impl LogDevice for UringLog {
    fn attach(&mut self, segment: &PreparedSegment) -> io::Result<SegmentHandle> {
        let file = self.open_segment(&self.root.join(&segment.path))?;
        let attached = Attached { file, path: segment.path.clone() };
        let hole = self.attached.iter().position(Option::is_none);
        let index = hole.unwrap_or(self.attached.len());
        if hole.is_none() {
            self.attached.push(None);
        }
        self.attached[index] = Some(attached);
        Ok(SegmentHandle(index as u32))
    }

    fn detach(&mut self, handle: SegmentHandle) {
        assert!(
            self.in_flight.iter().flatten().all(|write| write.file != handle),
            "writes into {handle:?} are in flight"
        );
        let attached = self.attached.get_mut(handle.0 as usize).and_then(Option::take);
        assert!(attached.is_some(), "{handle:?} is attached");
    }

    fn submit(&mut self, write: GroupWrite) -> Result<(), GroupWrite> {
        assert!(write.len <= write.buffer.len() && write.len.is_multiple_of(BLOCK_BYTES), "whole blocks of the buffer");
        let Some(slot) = self.in_flight.iter().position(Option::is_none) else { return Err(write) };
        self.in_flight[slot] = Some(write);
        self.in_flight_count += 1;
        // A ring that refuses to be entered has failed for good; the log cannot go on, nor can the process.
        self.start(slot).unwrap_or_else(|error| panic!("the log's io_uring refuses writes: {error}"));
        Ok(())
    }

    fn complete(&mut self) -> Option<GroupWritten> {
        loop {
            let Some(entry) = self.ring.completion().next() else {
                if self.in_flight_count > 0 && !self.ring.submission().is_empty() {
                    self.enter().unwrap_or_else(|error| panic!("the log's io_uring refuses writes: {error}"));
                }
                return None;
            };
            let slot = entry.user_data() as usize;
            let code = entry.result();
            if code == -libc::EAGAIN || code == -libc::EINTR {
                self.start(slot).unwrap_or_else(|error| panic!("the log's io_uring refuses writes: {error}"));
                continue;
            }
            let write = self.in_flight[slot].take().expect("completions belong to writes in flight");
            self.in_flight_count -= 1;
            let result = self.outcome(&write, code);
            return Some(GroupWritten { write, result });
        }
    }

    fn in_flight(&self) -> usize {
        self.in_flight_count
    }
}

impl AsFd for UringLog {
    /// The ring, readable when a completion waits: for parking.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring's descriptor stays open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

impl Drop for UringLog {
    fn drop(&mut self) {
        while self.in_flight_count > 0 {
            let waited = self.ring.submit_and_wait(1);
            if waited.is_err_and(|error| !is_transient(&error)) {
                // The kernel may still read the buffers: leak them rather than free them.
                std::mem::forget(std::mem::take(&mut self.in_flight));
                return;
            }
            let reaped = self.ring.completion().map(|entry| entry.user_data() as usize).collect::<Vec<_>>();
            for slot in reaped {
                if self.in_flight[slot].take().is_some() {
                    self.in_flight_count -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use highwater_memory::AlignedBuffer;
    use highwater_storage::{LogNumber, SegmentNumber};

    use super::*;

    const SEGMENT_BYTES: usize = 1 << 20;

    fn segment(root: &Path) -> PreparedSegment {
        std::fs::write(root.join("segment"), vec![0; SEGMENT_BYTES]).unwrap();
        PreparedSegment { log: LogNumber(0), generation: 1, number: SegmentNumber(0), path: "segment".to_owned() }
    }

    fn write(group: u64, file: SegmentHandle) -> GroupWrite {
        let len = 4096 * (1 + group as usize % 3);
        let mut buffer = AlignedBuffer::zeroed(16384);
        buffer[..len].fill(group as u8 + 1);
        GroupWrite { group, segment: SegmentNumber(0), file, offset: group * 16384, buffer, len }
    }

    fn wait(log: &mut UringLog) -> GroupWritten {
        loop {
            if let Some(written) = log.complete() {
                return written;
            }
            let mut fds = [rustix::event::PollFd::new(&*log, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
        }
    }

    #[test]
    fn groups_come_back_durable_and_whole() {
        let root = tempfile::tempdir_in(".").unwrap();
        let mut log = UringLog::open(root.path(), 8).unwrap();
        let handle = log.attach(&segment(root.path())).unwrap();
        let mut submitted = 0;
        let mut written = 0;
        while written < 40 {
            while submitted < 40 {
                match log.submit(write(submitted, handle)) {
                    Ok(()) => submitted += 1,
                    Err(refused) => {
                        assert_eq!((refused.group, log.in_flight()), (submitted, 8));
                        break;
                    }
                }
            }
            let back = wait(&mut log);
            back.result.unwrap();
            assert_eq!(back.write.buffer[0], back.write.group as u8 + 1);
            written += 1;
        }
        assert_eq!(log.in_flight(), 0);
        log.detach(handle);
        let bytes = std::fs::read(root.path().join("segment")).unwrap();
        for group in 0..40u64 {
            let expected = write(group, handle);
            assert_eq!(&bytes[group as usize * 16384..][..16384], &expected.buffer[..]);
        }
    }

    #[test]
    fn dropping_waits_for_writes() {
        let root = tempfile::tempdir_in(".").unwrap();
        let mut log = UringLog::open(root.path(), 4).unwrap();
        let handle = log.attach(&segment(root.path())).unwrap();
        for group in 0..4 {
            log.submit(write(group, handle)).unwrap();
        }
        drop(log);
        let bytes = std::fs::read(root.path().join("segment")).unwrap();
        assert_eq!(bytes[3 * 16384], 4);
    }

    #[test]
    fn a_failed_write_says_so() {
        let root = tempfile::tempdir_in(".").unwrap();
        let mut log = UringLog::open(root.path(), 2).unwrap();
        let handle = log.attach(&segment(root.path())).unwrap();
        let misaligned = GroupWrite { offset: 100, ..write(0, handle) };
        log.submit(misaligned).unwrap();
        let back = wait(&mut log);
        if log.is_direct() {
            let error = back.result.unwrap_err();
            assert!(error.to_string().contains("segment"), "{error}");
        }
        let missing = PreparedSegment { path: "none".to_owned(), ..segment(root.path()) };
        assert!(log.attach(&missing).is_err());
    }

    #[test]
    fn a_file_system_without_direct_io_is_written_through_the_cache() {
        let Ok(root) = tempfile::tempdir_in("/dev/shm") else { return };
        let mut log = UringLog::open(root.path(), 2).unwrap();
        let handle = log.attach(&segment(root.path())).unwrap();
        log.submit(write(1, handle)).unwrap();
        wait(&mut log).result.unwrap();
        assert_eq!(std::fs::read(root.path().join("segment")).unwrap()[16384], 2);
    }
}
