//! The memory disk as a [`Disk`] with open files.

use std::io;

use super::faults::input_output_error;
use super::{MemoryDisk, NameChange, directory_of};
use crate::disk::{Access, Disk, DiskFile};
use crate::memory_disk::inode::Inode;

impl Disk for MemoryDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let known = self.lock().names.get(path).copied();
        let inode = match (access, known) {
            (Access::Read | Access::Write, Some(inode)) => inode,
            (Access::Read | Access::Write, None) => return Err(io::ErrorKind::NotFound.into()),
            (Access::CreateNew | Access::CreateDirect, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::CreateNew | Access::CreateDirect, None) => {
                let mut state = self.lock();
                state.changing_call()?;
                if !state.dirs.contains(directory_of(path)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.allocate()?;
                let inode = state.inode_next;
                state.inode_next += 1;
                state.inodes.insert(inode, Inode::default());
                drop(state);
                self.change_name(NameChange::Link(path.to_owned(), inode));
                inode
            }
        };
        Ok(Box::new(MemoryFile { disk: self.clone(), inode }))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |path: &&String| !path.is_empty() && directory_of(path) == dir;
        let files = state.names.keys().filter(inside);
        let mut names: Vec<String> = files
            .chain(state.dirs.iter().filter(inside))
            .map(|path| path[path.rfind('/').map_or(0, |at| at + 1)..].to_owned())
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.changing_call()?;
        if !state.dirs.contains(dir) {
            state.allocate()?;
        }
        state.dirs.insert(dir.to_owned());
        Ok(())
    }

    fn exists(&self, path: &str) -> io::Result<bool> {
        let state = self.lock();
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        assert_eq!(directory_of(from), directory_of(to), "files are renamed within their directory");
        let mut state = self.lock();
        state.changing_call()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        drop(state);
        self.change_name(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.changing_call()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        drop(state);
        self.change_name(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.changing_call()?;
        if state.plan.sync.strikes() {
            // A file system that cannot write its journal takes no further change.
            state.plan.calls_left = Some(0);
            state.faults.failed_syncs += 1;
            return Err(input_output_error());
        }
        let pending = std::mem::take(&mut state.pending);
        for (of, change) in pending {
            if of == dir {
                change.apply(&mut state.durable_names);
            } else {
                state.pending.push((of, change));
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.lock();
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: u64,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inode(self.inode)?.current.len() as u64)
    }

    fn read_some_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.lock();
        if state.plan.read.strikes() {
            state.faults.failed_reads += 1;
            return Err(input_output_error());
        }
        let wanted = state.plan.read_len(buffer.len());
        state.faults.short_reads += u64::from(wanted < buffer.len());
        Ok(state.inode(self.inode)?.current.read(&mut buffer[..wanted], offset as usize))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if let Err(error) = state.changing_call() {
            // The failing write itself may have reached the disk.
            let _ = state.write(self.inode, bytes, offset);
            return Err(error);
        }
        if state.plan.write.strikes() {
            state.faults.failed_writes += 1;
            let written = state.random.below(bytes.len() as u64 + 1) as usize;
            state.write(self.inode, &bytes[..written], offset)?;
            return Err(input_output_error());
        }
        state.write(self.inode, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.changing_call()?;
        let number = self.inode;
        if state.plan.sync.strikes() {
            state.faults.failed_syncs += 1;
            let mut random = state.random.clone();
            let inode = state.inode(number)?;
            let len = inode.current.len();
            inode.fail_sync_range(0, len, &mut random);
            state.random = random;
            return Err(input_output_error());
        }
        // What a file system allocates only when it writes it out.
        if state.inode(number)?.is_dirty() {
            state.allocate()?;
        }
        let inode = state.inode(number)?;
        let len = inode.current.len();
        inode.sync_range(0, len);
        Ok(())
    }
}
