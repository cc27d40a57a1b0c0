//! The helper that merges the cores' lists of an epoch and publishes the snapshot.
//!
//! It decides nothing. Invariant: a snapshot is published when every core has frozen its epoch, and every core hears of
//! it.

use crate::prefault::{Fill, Reports};
use crate::runtime::Waker;
use crate::snapshots::{CoreStatus, Snapshots};
use crossbeam_channel::{Receiver, Sender};
use highwater_pipeline::Gather;
use highwater_proto::limits::TOP_K_MAX;
use highwater_proto::{InstanceId, Snapshot};
use highwater_ranking::{CoreTop, WindowLengths, merge};
use std::sync::Arc;

/// What a core sends when it has frozen an epoch.
#[derive(Debug)]
pub struct Frozen {
    /// The core.
    pub core: u16,
    /// Its lists.
    pub top: CoreTop,
    /// What it says of itself.
    pub status: CoreStatus,
    /// How full its shards are.
    pub fill: Fill,
}

/// The helper's state.
pub struct Publisher {
    instance: InstanceId,
    frozen: Receiver<Frozen>,
    snapshots: Arc<Snapshots>,
    /// How each core hears of what is published.
    cores: Vec<(Sender<Arc<Snapshot>>, Waker)>,
    gather: Gather<(CoreTop, CoreStatus)>,
    prefault: Reports,
}

impl Publisher {
    /// A publisher for as many cores as there are senders.
    pub fn new(
        instance: InstanceId,
        frozen: Receiver<Frozen>,
        snapshots: Arc<Snapshots>,
        cores: Vec<(Sender<Arc<Snapshot>>, Waker)>,
        prefault: Reports,
    ) -> Self {
        let gather = Gather::new(cores.len());
        Self { instance, frozen, snapshots, cores, gather, prefault }
    }

    /// Merges until the cores hang up.
    pub fn run(mut self) {
        let windows = WindowLengths::default();
        while let Ok(Frozen { core, top, status, fill }) = self.frozen.recv() {
            self.prefault.send(fill);
            let Some(frozen) = self.gather.put(usize::from(core), (top, status)) else { continue };
            let (tops, statuses): (Vec<_>, Vec<_>) = frozen.into_iter().unzip();
            let snapshot = Arc::new(merge(self.instance, &tops, TOP_K_MAX, &windows));
            self.snapshots.publish(snapshot.clone(), statuses);
            for (published, waker) in &self.cores {
                // A core that is gone needs to hear nothing.
                if published.send(snapshot.clone()).is_ok() {
                    waker.wake();
                }
            }
        }
    }
}
