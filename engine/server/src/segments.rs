//! The helper that makes log segments ahead of their use.
//!
//! Apart from the store's helper, which may be at a cut file of millions of videos for seconds: a log that fills
//! meanwhile does not wait for that. Invariants: no other thread makes segments, so a core gets them in order; after a
//! failed write or sync the process ends here. Only a full disk is no end: the core is told so, and asks again.

use crate::desks::{CoreDesk, MadeSegment};
use crate::fatal::fatal;
use crate::room::RoomSeeker;
use crossbeam_channel::Receiver;
use highwater_storage::{Disk, LogNumber, SegmentMaker, StorageError};

/// The helper's state.
#[derive(Debug)]
pub struct SegmentHelper<D: Disk> {
    /// Makes them.
    pub maker: SegmentMaker<D>,
    /// Numbers of cores that want one.
    pub wanted: Receiver<u16>,
    /// By core.
    pub desks: Vec<CoreDesk<MadeSegment>>,
    /// Where room is asked for.
    pub room: RoomSeeker,
}

impl<D: Disk> SegmentHelper<D> {
    /// Makes segments until the cores hang up.
    pub fn run(mut self) {
        while let Ok(core) = self.wanted.recv() {
            let made = self.make(LogNumber(u32::from(core)));
            self.desks[usize::from(core)].bring(made);
        }
    }

    fn make(&mut self, log: LogNumber) -> MadeSegment {
        // What the engine's markers wait for comes first.
        if let Some(missing) = self.room.waiting() {
            return Err(missing);
        }
        let mut made = self.maker.prepare(log);
        if made.as_ref().is_err_and(StorageError::is_no_space) && self.room.ask() {
            made = self.maker.prepare(log);
        }
        made.map_err(|error| match error.is_no_space() {
            true => error.to_string(),
            false => fatal("a log segment could not be made", &error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::room;
    use crate::runtime::Parking;
    use crate::storekeeper::tests::DIRECTORY;
    use crossbeam_channel::bounded;
    use highwater_storage::{MemoryDisk, OpenOptions, Store};

    #[test]
    fn segments_are_brought_in_turn_and_on_a_full_disk_the_core_is_told() {
        let disk = MemoryDisk::new();
        let mut store = Store::open(disk.clone(), OpenOptions::new(DIRECTORY)).unwrap();
        store.replay_logs::<StorageError>(|_, _| Ok(())).unwrap();
        store.open_generations(2).unwrap();
        let (want, wanted) = bounded(16);
        let waker = Parking::new().unwrap().waker();
        let (desks, brought): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| bounded(16))
            .map(|(brought, received)| (CoreDesk { brought, waker: waker.clone() }, received))
            .unzip();
        let (seeker, keeper) = room();
        let helper = SegmentHelper { maker: store.segment_maker(), wanted, desks, room: seeker };
        let thread = std::thread::spawn(move || helper.run());
        let ask = |core: u16| {
            want.send(core).unwrap();
            brought[usize::from(core)].recv().unwrap().map(|segment| segment.number.0)
        };
        assert_eq!([0, 1, 0].map(ask), [Ok(0), Ok(0), Ok(1)]);
        // Room is asked for, and what is made is taken at once.
        disk.fill_after(0);
        let makes_room = std::thread::spawn({
            let disk = disk.clone();
            move || {
                keeper.wanted.recv().unwrap();
                disk.make_room();
                keeper.tried();
                keeper
            }
        });
        assert_eq!(ask(1), Ok(1));
        let keeper = makes_room.join().unwrap();
        // What waits for room is not robbed of it.
        keeper.wait(Some("the next cut file".into()));
        assert_eq!(ask(0), Err("the next cut file".into()));
        keeper.wait(None);
        assert_eq!(ask(0), Ok(2));
        // Nobody makes room in time, then nobody is there.
        disk.fill_after(0);
        assert!(ask(0).unwrap_err().contains("space"));
        assert!(keeper.wanted.try_recv().is_ok());
        drop(keeper);
        assert!(ask(0).unwrap_err().contains("space"));
        disk.make_room();
        assert_eq!(ask(0), Ok(3), "what found no room has no number");
        drop(want);
        thread.join().unwrap();
    }
}
