//! A disk in memory that can lose power and fail: for tests and simulation.
//!
//! Not fast and not for users' data. Invariants of the model: what was synced survives a crash; of what was written and
//! not synced each 512-byte sector survives or not, by the seed; of name changes not synced a prefix survives; a write
//! or sync that fails has done some of what it was to do, and a later sync does not make up for it.
//! The same seed and the same calls give the same bytes.

mod content;
mod device;
mod faults;
mod files;
mod inode;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use content::{Content, SECTOR_BYTES};
pub use device::MemoryLogDevice;
pub use faults::DiskFaults;
use faults::FaultPlan;
use inode::Inode;
use random::Random;

/// A disk in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<String, u64>,
    dirs: BTreeSet<String>,
    durable_names: BTreeMap<String, u64>,
    /// The file that each name was taken from by a rename.
    replaced: BTreeMap<String, u64>,
    /// Name changes not yet durable, in order, with the directory they belong to.
    pending: Vec<(String, NameChange)>,
    capacity_bytes: u64,
    calls: u64,
    plan: FaultPlan,
    faults: DiskFaults,
    /// Chooses what a failed write or sync has done.
    random: Random,
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
        Self::over(State {
            inodes: BTreeMap::new(),
            inode_next: 1,
            names: BTreeMap::new(),
            dirs: BTreeSet::from([String::new()]),
            durable_names: BTreeMap::new(),
            replaced: BTreeMap::new(),
            pending: Vec::new(),
            capacity_bytes,
            calls: 0,
            plan: FaultPlan::default(),
            faults: DiskFaults::default(),
            random: Random(0),
        })
    }

    fn over(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Another disk that holds the same, synced or not; what happens to one does not happen to the other.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self::over(self.lock().clone())
    }

    /// Changes the capacity.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// Lets the power fail at the `calls`-th changing call from now: that one and all later ones fail.
    pub fn fail_after(&self, calls: u64) {
        self.lock().plan.calls_left = Some(calls);
    }

    /// Lets the disk be full from the `calls`-th changing call on, until [`make_room`](Self::make_room): new files and
    /// directories, writes that lengthen a file, and syncs of what was written find no room. Without that, only writes
    /// beyond the capacity do.
    pub fn fill_after(&self, calls: u64) {
        self.lock().plan.room_left = Some(calls);
    }

    /// Lets one write fail with an input/output error, the `writes`-th from now; part of it is written.
    pub fn fail_write_after(&self, writes: u64) {
        self.lock().plan.write.0 = Some(writes);
    }

    /// Lets one sync fail with an input/output error, the `syncs`-th from now. Of a file, some sectors are durable, and
    /// the others are forgotten: readers see them, a later sync succeeds, and a crash takes them away. Of names, the
    /// file system takes no further change.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.lock().plan.sync.0 = Some(syncs);
    }

    /// Lets one read fail with an input/output error, the `reads`-th from now.
    pub fn fail_read_after(&self, reads: u64) {
        self.lock().plan.read.0 = Some(reads);
    }

    /// Lets one in eight reads give fewer bytes than are asked for.
    pub fn shorten_reads(&self, seed: u64) {
        self.lock().plan.short_reads = Some(Random(seed));
    }

    /// Ends what [`fill_after`](Self::fill_after) began.
    pub fn make_room(&self) {
        self.lock().plan.room_left = None;
    }

    /// Ends a failure by [`fail_after`](Self::fail_after), and single ones that have not come, without a crash: only
    /// the process died, so what it wrote and did not sync is still there, and still not durable.
    pub fn restart(&self) {
        let mut state = self.lock();
        let room_left = state.plan.room_left;
        state.plan = FaultPlan { room_left, ..state.plan.after_crash() };
    }

    /// Changing calls so far: writes, syncs, renames, removals, new files and directories.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// How often each kind of fault has happened, on this disk and those that it came from by [`crash`](Self::crash).
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        self.lock().faults
    }

    /// The power fails and comes back: what was not synced survives or not, as `seed` has it. Open files are void.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let state = self.lock();
        let mut faults = state.faults;
        let mut names = state.durable_names.clone();
        let survivors = random.below(state.pending.len() as u64 + 1) as usize;
        for (_, change) in &state.pending[..survivors] {
            change.apply(&mut names);
        }
        faults.power_cuts += 1;
        faults.names_lost += (state.pending.len() - survivors) as u64;
        let mut inodes = BTreeMap::new();
        let replaced: BTreeMap<String, u64> = state.replaced.clone();
        for inode in names.values().chain(replaced.values()).collect::<BTreeSet<_>>() {
            inodes.insert(*inode, state.inodes[inode].after_crash(&mut random, &mut faults));
        }
        Self::over(State {
            inodes,
            inode_next: state.inode_next,
            durable_names: names.clone(),
            names,
            replaced,
            dirs: state.dirs.clone(),
            pending: Vec::new(),
            capacity_bytes: state.capacity_bytes,
            calls: 0,
            plan: state.plan.after_crash(),
            faults,
            random: random.clone(),
        })
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// When there is no such file.
    #[must_use]
    pub fn contents(&self, path: &str) -> Vec<u8> {
        let state = self.lock();
        state.inodes[&state.names[path]].current.to_vec()
    }

    /// Replaces the bytes of a file, durably: damage that no power cut leaves.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn damage(&self, path: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let number = state.names[path];
        state.inodes.insert(number, Inode::at_rest(Content::of(&bytes)));
    }

    /// Flips one bit of a file, durably.
    ///
    /// # Panics
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &str, byte: usize, bit: u32) {
        let mut state = self.lock();
        let number = state.names[path];
        let inode = state.inodes.get_mut(&number).expect("a named file has an inode");
        assert!(byte < inode.current.len(), "{path} has no byte {byte}");
        inode.flip_bit(byte, bit);
    }

    /// Puts the 512 bytes around a byte of a file back to what they durably were before their last change, zeros at
    /// first: a write that the disk has acknowledged and lost. Returns whether anything is different now.
    ///
    /// # Panics
    /// When there is no such file.
    pub fn go_stale(&self, path: &str, byte: usize) -> bool {
        let mut state = self.lock();
        let number = state.names[path];
        let inode = state.inodes.get_mut(&number).expect("a named file has an inode");
        inode.go_stale(byte / SECTOR_BYTES)
    }

    /// Gives a name back, durably, to the file that the last rename took it from, as if the disk had acknowledged the
    /// change of the directory and lost it. Returns whether the name was taken from a file.
    pub fn go_back(&self, path: &str) -> bool {
        let mut state = self.lock();
        let Some(before) = state.replaced.get(path).copied() else { return false };
        state.durable_names.insert(path.to_owned(), before);
        state.names.insert(path.to_owned(), before) != Some(before)
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
        if let NameChange::Rename(_, to) = &change
            && let Some(before) = state.names.get(to).copied()
        {
            state.replaced.insert(to.clone(), before);
        }
        change.apply(&mut state.names);
        state.pending.push((dir, change));
    }
}

impl State {
    fn changing_call(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.plan.room_left = self.plan.room_left.map(|left| left.saturating_sub(1));
        match &mut self.plan.calls_left {
            Some(0) => {
                self.faults.calls_without_power += 1;
                Err(io::Error::other("the power has failed"))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fails when nothing can be allocated.
    fn allocate(&mut self) -> io::Result<()> {
        if self.plan.room_left == Some(0) { Err(self.no_room()) } else { Ok(()) }
    }

    fn no_room(&mut self) -> io::Error {
        self.faults.no_room += 1;
        io::ErrorKind::StorageFull.into()
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
            return Err(self.no_room());
        }
        self.inode(number)?.write(bytes, offset as usize);
        Ok(())
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
