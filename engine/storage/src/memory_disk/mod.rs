//! A disk in memory that can lose power: for tests and simulation.
//!
//! Not fast and not for users' data. Invariants of the model: what was synced survives a crash; of what was written and
//! not synced each 512-byte sector survives or not, by the seed; of name changes not synced a prefix survives.
//! The same seed and the same calls give the same bytes.

mod device;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Access, Disk, DiskFile};

pub use device::MemoryLogDevice;

const SECTOR_BYTES: usize = 512;

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<String, u64>,
    dirs: BTreeSet<String>,
    durable_names: BTreeMap<String, u64>,
    /// Name changes not yet durable, in order, with the directory they belong to.
    pending: Vec<(String, NameChange)>,
    capacity_bytes: u64,
    /// Changing calls until the power fails.
    calls_left: Option<u64>,
    /// Changing calls until nothing can be allocated any more.
    room_left: Option<u64>,
    calls: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    dirty_sectors: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk of 1 TiB.
    #[must_use]
    pub fn new() -> Self {
        Self::with_capacity(1 << 40)
    }

    /// An empty disk that is full at `capacity_bytes`.
    #[must_use]
    pub fn with_capacity(capacity_bytes: u64) -> Self {
        let state = State {
            inodes: BTreeMap::new(),
            inode_next: 1,
            names: BTreeMap::new(),
            dirs: BTreeSet::from([String::new()]),
            durable_names: BTreeMap::new(),
            pending: Vec::new(),
            capacity_bytes,
            calls_left: None,
            room_left: None,
            calls: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the capacity.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Lets the power fail at the `calls`-th changing call from now: that one and all later ones fail.
    pub fn fail_after(&self, calls: u64) {
        self.lock().calls_left = Some(calls);
    }

    /// Lets the disk be full from the `calls`-th changing call on, until [`make_room`](Self::make_room): new files and
    /// directories, writes that lengthen a file, and syncs of what was written find no room. Without that, only writes
    /// beyond the capacity do.
    pub fn fill_after(&self, calls: u64) {
        self.lock().room_left = Some(calls);
    }

    /// Ends what [`fill_after`](Self::fill_after) began.
    pub fn make_room(&self) {
        self.lock().room_left = None;
    }

    /// Ends a failure by [`fail_after`](Self::fail_after) without a crash: only the process died, so what it wrote and
    /// did not sync is still there, and still not durable.
    pub fn restart(&self) {
        self.lock().calls_left = None;
    }

    /// Changing calls so far: writes, syncs, renames, removals, new files and directories.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The power fails and comes back: what was not synced survives or not, as `seed` has it. Open files are void.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let state = self.lock();
        let mut names = state.durable_names.clone();
        let survivors = random.below(state.pending.len() as u64 + 1) as usize;
        for (_, change) in &state.pending[..survivors] {
            change.apply(&mut names);
        }
        let mut inodes = BTreeMap::new();
        for inode in names.values() {
            inodes.insert(*inode, state.inodes[inode].after_crash(&mut random));
        }
        let survived = State {
            inodes,
            inode_next: state.inode_next,
            durable_names: names.clone(),
            names,
            dirs: state.dirs.clone(),
            pending: Vec::new(),
            capacity_bytes: state.capacity_bytes,
            calls_left: None,
            room_left: None,
            calls: 0,
        };
        Self { state: Arc::new(Mutex::new(survived)) }
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn contents(&self, path: &str) -> Vec<u8> {
        let state = self.lock();
        state.inodes[&state.names[path]].current.clone()
    }

    /// Replaces the bytes of a file, durably: damage that no power cut leaves.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn damage(&self, path: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let inode = Inode { current: bytes.clone(), durable: bytes, dirty_sectors: BTreeSet::new() };
        let number = state.names[path];
        state.inodes.insert(number, inode);
    }

    /// Flips one bit of a file, durably.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &str, byte: usize, bit: u32) {
        let mut state = self.lock();
        let number = state.names[path];
        let inode = state.inodes.get_mut(&number).expect("a named file has an inode");
        inode.current[byte] ^= 1 << bit;
        if let Some(durable) = inode.durable.get_mut(byte) {
            *durable ^= 1 << bit;
        }
    }

    /// Paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_name(&self, change: NameChange) {
        let mut state = self.lock();
        let dir = directory_of(change.path()).to_owned();
        change.apply(&mut state.names);
        state.pending.push((dir, change));
    }
}

impl State {
    fn changing_call(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.room_left = self.room_left.map(|left| left.saturating_sub(1));
        match &mut self.calls_left {
            Some(0) => Err(io::Error::other("the power has failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fails when nothing can be allocated.
    fn allocate(&self) -> io::Result<()> {
        if self.room_left == Some(0) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].current.len() as u64).sum()
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(|| io::Error::other("the file is gone"))
    }

    fn write(&mut self, number: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset as usize + bytes.len();
        let growth = end.saturating_sub(self.inode(number)?.current.len());
        if growth > 0 {
            self.allocate()?;
        }
        if growth > 0 && self.used_bytes() + growth as u64 > self.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inode(number)?;
        if inode.current.len() < end {
            inode.current.resize(end, 0);
        }
        inode.current[offset as usize..end].copy_from_slice(bytes);
        inode.dirty_sectors.extend(offset as usize / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        Ok(())
    }
}

impl Inode {
    /// Makes the sectors of a byte range durable.
    fn sync_range(&mut self, start: usize, end: usize) {
        if self.durable.len() < self.current.len() {
            self.durable.resize(self.current.len(), 0);
        }
        let sectors: Vec<usize> =
            self.dirty_sectors.range(start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).copied().collect();
        for sector in sectors {
            copy_sector(&self.current, &mut self.durable, sector);
            self.dirty_sectors.remove(&sector);
        }
    }

    fn after_crash(&self, random: &mut Random) -> Self {
        let mut survived = self.durable.clone();
        if survived.len() < self.current.len() && random.below(2) == 0 {
            survived.resize(self.current.len(), 0);
        }
        // One fate for all sectors now and then, so that whole writes survive and vanish too.
        let mode = random.below(4);
        for sector in &self.dirty_sectors {
            let survives = match mode {
                0 => true,
                1 => false,
                _ => random.below(2) == 0,
            };
            if survives {
                copy_sector(&self.current, &mut survived, *sector);
            }
        }
        Self { current: survived.clone(), durable: survived, dirty_sectors: BTreeSet::new() }
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let start = sector * SECTOR_BYTES;
    let end = (start + SECTOR_BYTES).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

impl NameChange {
    fn path(&self) -> &str {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Disk for MemoryDisk {
    fn open(&self, path: &str, access: Access) -> io::Result<Box<dyn DiskFile>> {
        let known = self.lock().names.get(path).copied();
        let inode = match (access, known) {
            (Access::Read | Access::Write, Some(inode)) => inode,
            (Access::Read | Access::Write, None) => return Err(io::ErrorKind::NotFound.into()),
            (Access::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Access::CreateNew, None) => {
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

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        let current = &state.inode(self.inode)?.current;
        let bytes = current.get(offset as usize..).and_then(|tail| tail.get(..buffer.len()));
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        if let Err(error) = state.changing_call() {
            // The failing write itself may have reached the disk.
            let _ = state.write(self.inode, bytes, offset);
            return Err(error);
        }
        state.write(self.inode, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.changing_call()?;
        // What a file system allocates only when it writes it out.
        if !state.inode(self.inode)?.dirty_sectors.is_empty() {
            state.allocate()?;
        }
        let inode = state.inode(self.inode)?;
        let len = inode.current.len();
        inode.sync_range(0, len);
        Ok(())
    }
}

/// SplitMix64: small, seeded, good enough to choose fates.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
