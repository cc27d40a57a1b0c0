//! Look-ups of single videos from inside the engine's process: a bounded channel to each core.
//!
//! The cores answer; here is only the way to them. Invariant: what waits at a core is at most [`LOOKUPS_WAITING_MAX`],
//! and whoever asks has an answer or an error within [`LOOKUP_WAIT`].

use crate::runtime::Waker;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use highwater_pipeline::{Pipeline, Targets};
use highwater_proto::VideoCounts;
use highwater_sidecar::{LOOKUP_WAIT, LookupError};
use tokio::sync::oneshot;

/// Look-ups that may wait at one core.
pub const LOOKUPS_WAITING_MAX: usize = 64;

/// Look-ups that a core answers in one turn: each costs some microseconds, most of them for the ranks.
pub const LOOKUPS_PER_TURN: usize = 16;

const _: () = assert!(LOOKUPS_PER_TURN <= LOOKUPS_WAITING_MAX);

/// One question, and where its answer goes.
#[derive(Debug)]
pub struct LookupRequest {
    /// The video, 1 to 255 bytes.
    pub video_id: Box<str>,
    /// Whoever asked may have gone.
    pub answer: oneshot::Sender<VideoCounts>,
}

/// The asking end of one core's channel.
#[derive(Debug, Clone)]
pub struct LookupDoor {
    /// Questions to the core.
    pub requests: Sender<LookupRequest>,
    /// Wakes it.
    pub waker: Waker,
}

/// The way to the core that counts a video.
#[derive(Debug)]
pub struct Lookups {
    /// Which core counts what.
    pub targets: Targets,
    /// One for each core.
    pub doors: Vec<LookupDoor>,
}

/// A core's door, and the end at which the core takes the questions.
#[must_use]
pub fn lookup_door(waker: Waker) -> (LookupDoor, Receiver<LookupRequest>) {
    let (requests, received) = bounded(LOOKUPS_WAITING_MAX);
    (LookupDoor { requests, waker }, received)
}

impl Lookups {
    /// Asks the core that counts the video.
    ///
    /// # Errors
    /// [`LookupError`] when the core has too much to answer, does not answer in time or has stopped.
    pub async fn ask(&self, video_id: &str) -> Result<VideoCounts, LookupError> {
        let door = &self.doors[self.targets.core_of(video_id)];
        let (answer, answered) = oneshot::channel();
        let stopping = || LookupError::Unreachable("the engine is shutting down".to_owned());
        door.requests.try_send(LookupRequest { video_id: video_id.into(), answer }).map_err(|error| match error {
            TrySendError::Full(_) => LookupError::Busy,
            TrySendError::Disconnected(_) => stopping(),
        })?;
        door.waker.wake();
        match tokio::time::timeout(LOOKUP_WAIT, answered).await {
            Ok(Ok(counts)) => Ok(counts),
            Ok(Err(_)) => Err(stopping()),
            Err(_) => Err(LookupError::Late),
        }
    }
}

/// Answers a bounded number of the questions that wait; returns whether there were any.
pub fn answer_waiting(requests: &Receiver<LookupRequest>, pipeline: &mut Pipeline) -> bool {
    let mut answered = false;
    for request in requests.try_iter().take(LOOKUPS_PER_TURN) {
        answered = true;
        match pipeline.handle_lookup(&request.video_id) {
            // Whoever asked may have given up.
            Ok(counts) => drop(request.answer.send(counts)),
            Err(redirect) => unreachable!("a look-up for core {} was put to another one", redirect.home_core),
        }
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Parking;
    use highwater_proto::{Epoch, InstanceId};
    use highwater_ranking::IdHash;
    use std::time::Duration;

    fn lookups(cores: u16) -> (Lookups, Vec<Receiver<LookupRequest>>) {
        let (doors, received) = (0..cores).map(|_| lookup_door(Parking::new().unwrap().waker())).unzip();
        (Lookups { targets: Targets::new(IdHash::new(7), 16, cores), doors }, received)
    }

    fn counts(video_id: Box<str>) -> VideoCounts {
        VideoCounts { instance: InstanceId(1), video_id, epoch: Epoch(1), as_of_ms: 0, counts: vec![] }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn each_video_is_asked_for_at_its_core() {
        let (lookups, received) = lookups(3);
        runtime().block_on(async {
            for number in 0..50 {
                let id = format!("video-{number}");
                let owner = lookups.targets.core_of(&id);
                let answering = async {
                    let request = loop {
                        match received[owner].try_recv() {
                            Ok(request) => break request,
                            Err(_) => tokio::task::yield_now().await,
                        }
                    };
                    request.answer.send(counts(request.video_id)).unwrap();
                };
                let (found, ()) = tokio::join!(lookups.ask(&id), answering);
                assert_eq!(*found.unwrap().video_id, *id);
            }
        });
    }

    #[test]
    fn a_full_channel_a_silent_core_and_a_stopped_one_are_told() {
        let (lookups, mut received) = lookups(1);
        runtime().block_on(async {
            for number in 0..LOOKUPS_WAITING_MAX {
                let id = format!("video-{number}");
                let asked = tokio::time::timeout(Duration::ZERO, lookups.ask(&id));
                assert!(asked.await.is_err(), "nobody answers");
            }
            assert_eq!(lookups.ask("one more").await, Err(LookupError::Busy));
            while received[0].try_recv().is_ok() {}
            assert_eq!(lookups.ask("a").await, Err(LookupError::Late));
            received.clear();
            assert!(matches!(lookups.ask("a").await, Err(LookupError::Unreachable(_))));
        });
    }
}
