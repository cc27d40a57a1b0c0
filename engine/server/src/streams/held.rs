//! Frames that are not whole, or wait for the pipeline: one amount of memory for all streams of a core.
//!
//! While it is used up, streams wait before they are read on, and QUIC holds their senders; only the frame that began
//! first goes on, so that there is always one that becomes whole and gives its memory back. A sender that takes its
//! time over a frame meanwhile is not waited for. Invariant: what is held is never more than the amount and one frame.

use super::stream::Stream;
use crate::quic::StreamKey;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// While memory is short, a frame must come at this rate; what a stream waits by the engine's will does not count.
const RATE_BYTES_PER_S: u128 = 64 << 10;
/// A frame has this long before its rate matters.
const GRACE: Duration = Duration::from_secs(1);
/// How often the rates are looked at while memory is short.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is reckoned for a stream that is read on.
const STREAM_BYTES: usize = 64 << 10;

/// The time that a stream's frame has been coming.
#[derive(Debug, Default)]
pub(super) struct Coming {
    /// The place in the order of beginning, while a frame's payload has begun and is not whole.
    place: Option<u64>,
    for_time: Duration,
    since: Option<Instant>,
    /// Whether the stream waits for memory.
    pub(super) waits: bool,
}

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    bytes: usize,
    bytes_max: usize,
    begun: BTreeMap<u64, StreamKey>,
    place_next: u64,
    waiting: VecDeque<StreamKey>,
    looked_at: Option<Instant>,
}

impl Held {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes: 0, bytes_max, begun: BTreeMap::new(), place_next: 0, waiting: VecDeque::new(), looked_at: None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn has_room(&self) -> bool {
        self.bytes < self.bytes_max
    }

    /// Whether a stream's payload may be read on; if not, it waits.
    pub(super) fn may_read(&mut self, key: StreamKey, coming: &mut Coming, now: Instant) -> bool {
        let is_first = || coming.place.is_some() && self.begun.keys().next().copied() == coming.place;
        if self.has_room() || is_first() {
            return true;
        }
        if let Some(since) = coming.since.take() {
            coming.for_time += now.saturating_duration_since(since);
        }
        if !std::mem::replace(&mut coming.waits, true) {
            self.waiting.push_back(key);
        }
        false
    }

    /// Bytes of a payload have come; it is whole or not.
    pub(super) fn came(&mut self, key: StreamKey, coming: &mut Coming, bytes: usize, is_whole: bool, now: Instant) {
        self.bytes += bytes;
        match (coming.place, is_whole) {
            (None, false) => {
                coming.place = Some(self.place_next);
                coming.since = Some(now);
                self.begun.insert(self.place_next, key);
                self.place_next += 1;
            }
            (Some(place), true) => {
                self.begun.remove(&place);
                *coming = Coming::default();
            }
            (None, true) | (Some(_), false) => {}
        }
    }

    /// A frame is done with, or its stream is gone.
    pub(super) fn release(&mut self, key: StreamKey, coming: &mut Coming, bytes: usize) {
        self.bytes -= bytes;
        if let Some(place) = coming.place {
            self.begun.remove(&place);
        }
        if coming.waits {
            self.waiting.retain(|one| *one != key);
        }
        *coming = Coming::default();
    }

    /// The streams that may be read on now: all that there is room for, or else the one that began first.
    pub(super) fn poll_resumed(&mut self, streams: &mut BTreeMap<StreamKey, Stream>, now: Instant) -> Vec<StreamKey> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let resumed: Vec<StreamKey> = if self.has_room() {
            let count = 1 + (self.bytes_max - self.bytes) / STREAM_BYTES;
            self.waiting.drain(..count.min(self.waiting.len())).collect()
        } else {
            let first = self.begun.values().next().copied();
            let waits = |key: &StreamKey| streams.get(key).is_some_and(|stream| stream.coming.waits);
            let first = first.filter(waits);
            self.waiting.retain(|one| Some(*one) != first);
            first.into_iter().collect()
        };
        for key in &resumed {
            if let Some(stream) = streams.get_mut(key) {
                stream.coming.waits = false;
                stream.coming.since = stream.coming.place.map(|_| now);
            }
        }
        resumed
    }

    /// The streams whose frames come too slowly while memory is short, with the bytes and the time of each.
    pub(super) fn poll_slow(
        &mut self,
        streams: &BTreeMap<StreamKey, Stream>,
        now: Instant,
    ) -> Vec<(StreamKey, usize, Duration)> {
        let is_due = self.looked_at.is_none_or(|last| now.saturating_duration_since(last) >= LOOK_EVERY);
        if self.has_room() || !is_due {
            return Vec::new();
        }
        self.looked_at = Some(now);
        let slow = |key: &StreamKey| {
            let stream = streams.get(key)?;
            let coming = &stream.coming;
            let running = coming.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let time = coming.for_time + running;
            let due = RATE_BYTES_PER_S * time.as_millis() / 1000;
            (time >= GRACE && (stream.chunk_bytes as u128) < due).then_some((*key, stream.chunk_bytes, time))
        };
        self.begun.values().filter_map(slow).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_pipeline::SessionId;

    struct World {
        held: Held,
        streams: BTreeMap<StreamKey, Stream>,
        now: Instant,
    }

    impl World {
        fn new(streams: u32, bytes_max: usize) -> Self {
            let stream = |index: u32| (StreamKey::made_up(index), Stream::new(SessionId(index.into())));
            Self { held: Held::new(bytes_max), streams: (0..streams).map(stream).collect(), now: Instant::now() }
        }

        fn read(&mut self, index: u32, bytes: usize, is_whole: bool) -> bool {
            let key = StreamKey::made_up(index);
            let stream = self.streams.get_mut(&key).unwrap();
            let may = self.held.may_read(key, &mut stream.coming, self.now);
            if may {
                stream.chunk_bytes += bytes;
                self.held.came(key, &mut stream.coming, bytes, is_whole, self.now);
            }
            may
        }

        fn release(&mut self, index: u32) {
            let key = StreamKey::made_up(index);
            let stream = self.streams.get_mut(&key).unwrap();
            self.held.release(key, &mut stream.coming, std::mem::take(&mut stream.chunk_bytes));
        }

        fn resumed(&mut self) -> Vec<StreamKey> {
            self.held.poll_resumed(&mut self.streams, self.now)
        }

        fn slow(&mut self) -> Vec<StreamKey> {
            self.held.poll_slow(&self.streams, self.now).into_iter().map(|(key, ..)| key).collect()
        }
    }

    #[test]
    fn without_room_only_the_frame_that_began_first_goes_on() {
        let mut world = World::new(4, 1000);
        assert!(world.read(0, 400, false) && world.read(1, 400, false) && world.read(2, 400, true));
        assert!(!world.read(1, 1, false) && !world.read(3, 1, false) && !world.read(1, 1, false));
        assert!(world.read(0, 10, false));
        assert!(world.resumed().is_empty(), "the first is not waiting");
        assert!(world.read(0, 10, true));
        // The next one is the first now, and it waits.
        assert_eq!(world.resumed(), [StreamKey::made_up(1)]);
        assert!(world.read(1, 10, false));
        world.release(0);
        world.release(2);
        assert_eq!(world.resumed(), [StreamKey::made_up(3)]);
        assert!(world.read(3, 1, true));
        world.release(1);
        world.release(3);
        assert_eq!((world.held.bytes(), world.held.begun.len(), world.held.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn who_takes_his_time_is_slow_only_without_room_and_not_while_he_is_made_to_wait() {
        let mut world = World::new(3, 200_000);
        assert!(world.read(0, 100, false));
        world.now += 10 * GRACE;
        assert_eq!(world.slow(), []);
        assert!(world.read(1, 200_000, false));
        assert_eq!(world.slow(), [StreamKey::made_up(0)]);
        assert!(!world.read(1, 1, false));
        world.now += 10 * GRACE;
        assert_eq!(world.slow(), [StreamKey::made_up(0)]);
        world.release(0);
        assert_eq!(world.resumed(), [StreamKey::made_up(1)]);
        world.now += 10 * GRACE;
        assert_eq!(world.slow(), [StreamKey::made_up(1)]);
    }

    #[test]
    fn a_stream_that_is_gone_waits_no_more() {
        let mut world = World::new(2, 10);
        assert!(world.read(0, 10, false));
        assert!(!world.read(1, 1, false));
        world.release(1);
        world.release(0);
        assert_eq!(world.resumed(), []);
    }
}
