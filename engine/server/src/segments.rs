//! The helper that makes log segments ahead of their use.
//!
//! Apart from the store's helper, which may be at a cut file of millions of videos for seconds: a log that fills
//! meanwhile does not wait for that. What is not made for want of room is the store's helper's to see to. Invariant:
//! after a failed write or sync the process ends here.

use crate::desks::{Brought, CoreDesk};
use crate::fatal::fatal;
use crossbeam_channel::{Receiver, Sender};
use highwater_pipeline::StoreRequest;
use highwater_storage::{Disk, LogNumber, SegmentMaker};

/// The helper's state.
#[derive(Debug)]
pub struct SegmentHelper<D: Disk> {
    /// Makes them.
    pub maker: SegmentMaker<D>,
    /// Numbers of cores that want one.
    pub wanted: Receiver<u16>,
    /// By core.
    pub desks: Vec<CoreDesk>,
    /// To the store's helper, for what found the disk full.
    pub errands: Sender<(u16, StoreRequest)>,
}

impl<D: Disk> SegmentHelper<D> {
    /// Makes segments until the cores hang up.
    pub fn run(self) {
        for core in &self.wanted {
            match self.maker.prepare(LogNumber(u32::from(core))) {
                Ok(segment) => self.desks[usize::from(core)].bring(Brought::Segment(segment)),
                Err(error) if error.is_no_space() => {
                    // Gone only when the process ends.
                    let _ = self.errands.send((core, StoreRequest::PrepareSegment));
                }
                Err(error) => fatal("a log segment could not be made", &error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Parking;
    use crate::storekeeper::tests::DIRECTORY;
    use crossbeam_channel::bounded;
    use highwater_storage::{MemoryDisk, OpenOptions, StorageError, Store};

    #[test]
    fn segments_are_brought_in_turn_and_a_full_disk_is_the_store_s_to_see_to() {
        let disk = MemoryDisk::new();
        let mut store = Store::open(disk.clone(), OpenOptions::new(DIRECTORY)).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(2).unwrap();
        let (want, wanted) = bounded(16);
        let (errands, errands_received) = bounded(16);
        let waker = Parking::new().unwrap().waker();
        let (desks, brought): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| bounded(16))
            .map(|(brought, received)| (CoreDesk { brought, waker: waker.clone() }, received))
            .unzip();
        for core in [0, 1, 0] {
            want.send(core).unwrap();
        }
        drop(want);
        SegmentHelper { maker: store.segment_maker(), wanted, desks: desks.clone(), errands: errands.clone() }.run();
        let numbers = |core: usize| -> Vec<u64> {
            let segment = |one| if let Brought::Segment(segment) = one { segment.number.0 } else { u64::MAX };
            brought[core].try_iter().map(segment).collect()
        };
        assert_eq!((numbers(0), numbers(1)), (vec![0, 1], vec![0]));
        assert_eq!(store.prepare_segment(LogNumber(0)).unwrap().number.0, 2, "the store goes on from there");
        disk.fill_after(0);
        let (want, wanted) = bounded(16);
        want.send(1).unwrap();
        drop(want);
        SegmentHelper { maker: store.segment_maker(), wanted, desks, errands }.run();
        assert!(matches!(errands_received.try_recv(), Ok((1, StoreRequest::PrepareSegment))));
        assert_eq!(numbers(1), Vec::<u64>::new());
    }
}
