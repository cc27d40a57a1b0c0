//! The log's device on a [`MemoryDisk`].
//!
//! Not faster than the disk under it. Invariant: a write is durable when, and only when, it was completed without
//! error.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::faults::input_output_error;
use super::{MemoryDisk, Random};
use crate::log::{GroupWrite, GroupWritten, LogDevice, PreparedSegment, SegmentHandle};

/// A [`LogDevice`] on a [`MemoryDisk`]: writes land at once, are durable when completed, and complete in an order that
/// a seed gives.
#[derive(Debug)]
pub struct MemoryLogDevice {
    disk: MemoryDisk,
    attached: BTreeMap<u32, u64>,
    handle_next: u32,
    in_flight: VecDeque<(GroupWrite, io::Result<()>)>,
    depth: usize,
    random: Random,
}

impl MemoryLogDevice {
    /// A device that holds up to `depth` writes.
    #[must_use]
    pub fn new(disk: &MemoryDisk, depth: usize, seed: u64) -> Self {
        Self {
            disk: disk.clone(),
            attached: BTreeMap::new(),
            handle_next: 0,
            in_flight: VecDeque::with_capacity(depth),
            depth,
            random: Random(seed),
        }
    }
}

impl LogDevice for MemoryLogDevice {
    fn attach(&mut self, segment: &PreparedSegment) -> io::Result<SegmentHandle> {
        let inode = self.disk.lock().names.get(&segment.path).copied().ok_or(io::ErrorKind::NotFound)?;
        let handle = self.handle_next;
        self.handle_next += 1;
        self.attached.insert(handle, inode);
        Ok(SegmentHandle(handle))
    }

    fn detach(&mut self, handle: SegmentHandle) {
        assert!(self.in_flight.iter().all(|(write, _)| write.file != handle), "nothing is in flight into {handle:?}");
        self.attached.remove(&handle.0).expect("only attached segments are detached");
    }

    fn submit(&mut self, write: GroupWrite) -> Result<(), GroupWrite> {
        if self.in_flight.len() == self.depth {
            return Err(write);
        }
        let inode = self.attached[&write.file.0];
        let mut state = self.disk.lock();
        let powered = state.changing_call();
        let bytes = &write.buffer[..write.len];
        let written = if state.plan.write.strikes() {
            state.faults.failed_writes += 1;
            let mut random = state.random.clone();
            let part = state.inode(inode).map(|file| file.write_in_part(bytes, write.offset as usize, &mut random));
            state.random = random;
            part.and_then(|()| Err(input_output_error()))
        } else {
            state.write(inode, bytes, write.offset)
        };
        drop(state);
        self.in_flight.push_back((write, powered.and(written)));
        Ok(())
    }

    fn complete(&mut self) -> Option<GroupWritten> {
        if self.in_flight.is_empty() {
            return None;
        }
        let index = self.random.below(self.in_flight.len() as u64) as usize;
        let (write, result) = self.in_flight.remove(index)?;
        let inode = self.attached[&write.file.0];
        let mut state = self.disk.lock();
        state.faults.writes_reordered += u64::from(index > 0);
        let result = result.and_then(|()| state.changing_call()).and_then(|()| {
            let (start, end) = (write.offset as usize, write.offset as usize + write.len);
            if state.plan.sync.strikes() {
                state.faults.failed_syncs += 1;
                let mut random = state.random.clone();
                state.inode(inode)?.fail_write(start, end, &mut random);
                state.random = random;
                return Err(input_output_error());
            }
            state.inode(inode)?.sync_range(start, end);
            Ok(())
        });
        drop(state);
        Some(GroupWritten { write, result })
    }

    fn in_flight(&self) -> usize {
        self.in_flight.len()
    }
}
