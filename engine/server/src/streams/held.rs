//! Batches that are not whole, or wait for the pipeline: one amount of memory for all streams of a core.
//!
//! While it is used up, streams wait before they are read on, and QUIC holds their senders; only the frame that began
//! first goes on, so that there is always one that becomes whole and gives its memory back. A sender that takes its
//! time over a frame meanwhile is not waited for. Streams on which no whole batch has come yet have half of it to
//! themselves and no more, so that whoever opens many and finishes nothing cannot hold up those that do.
//!
//! Invariant: what is held is never more than the amount and two frames.

use super::stream::Stream;
use crate::quic::StreamKey;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// While memory is short, a frame must come by this much in each [`SPAN`]; what a stream waits by the engine's will
/// does not count.
const SPAN_BYTES: usize = 64 << 10;
const SPAN: Duration = Duration::from_secs(1);
/// How often the rates are looked at while memory is short.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What is reckoned for a stream that is read on.
const STREAM_BYTES: usize = 64 << 10;

/// How a stream's frame has been coming.
#[derive(Debug, Default)]
pub(super) struct Coming {
    /// Whether a whole batch has come on the stream before.
    pub(super) is_proven: bool,
    /// The place in the order of beginning, while a frame's payload has begun and is not whole.
    place: Option<u64>,
    /// The time that it has been coming until `since`.
    for_time: Duration,
    since: Option<Instant>,
    /// When its rate was last found good, and what had come by then.
    good_time: Duration,
    good_bytes: usize,
    /// Whether the stream waits for memory.
    pub(super) waits: bool,
}

impl Coming {
    fn time(&self, now: Instant) -> Duration {
        self.for_time + self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Nothing of a frame has come.
    fn reset(&mut self) {
        *self = Self { is_proven: self.is_proven, ..Self::default() };
    }
}

/// The streams of one kind: those that are proven, or the others.
#[derive(Debug, Default)]
struct Kind {
    bytes: usize,
    begun: BTreeMap<u64, StreamKey>,
    waiting: VecDeque<StreamKey>,
}

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    bytes_max: usize,
    /// Unproven and proven.
    kinds: [Kind; 2],
    place_next: u64,
    looked_at: Option<Instant>,
}

impl Held {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kinds: [Kind::default(), Kind::default()], place_next: 0, looked_at: None }
    }

    pub(super) fn bytes(&self) -> usize {
        self.kinds.iter().map(|kind| kind.bytes).sum()
    }

    fn room_left(&self, is_proven: bool) -> usize {
        let left = self.bytes_max.saturating_sub(self.bytes());
        if is_proven { left } else { left.min((self.bytes_max / 2).saturating_sub(self.kinds[0].bytes)) }
    }

    /// Whether a stream's payload may be read on; if not, it waits.
    pub(super) fn may_read(&mut self, key: StreamKey, coming: &mut Coming, now: Instant) -> bool {
        let has_room = self.room_left(coming.is_proven) > 0;
        let kind = &mut self.kinds[usize::from(coming.is_proven)];
        let is_first = coming.place.is_some() && kind.begun.keys().next().copied() == coming.place;
        if has_room || is_first {
            return true;
        }
        coming.for_time = coming.time(now);
        coming.since = None;
        if !std::mem::replace(&mut coming.waits, true) {
            kind.waiting.push_back(key);
        }
        false
    }

    /// Bytes of a payload have come; it is whole or not.
    pub(super) fn came(&mut self, key: StreamKey, coming: &mut Coming, bytes: usize, is_whole: bool, now: Instant) {
        let kind = &mut self.kinds[usize::from(coming.is_proven)];
        kind.bytes += bytes;
        match (coming.place, is_whole) {
            (None, false) => {
                coming.place = Some(self.place_next);
                coming.since = Some(now);
                kind.begun.insert(self.place_next, key);
                self.place_next += 1;
            }
            (Some(place), true) => {
                kind.begun.remove(&place);
                coming.reset();
            }
            (None, true) | (Some(_), false) => {}
        }
    }

    /// A frame is done with, or its stream is gone.
    pub(super) fn release(&mut self, key: StreamKey, coming: &mut Coming, bytes: usize) {
        let kind = &mut self.kinds[usize::from(coming.is_proven)];
        kind.bytes -= bytes;
        if let Some(place) = coming.place {
            kind.begun.remove(&place);
        }
        if coming.waits {
            kind.waiting.retain(|one| *one != key);
        }
        coming.reset();
    }

    /// The streams that may be read on now: all that there is room for, or else the one that began first.
    pub(super) fn poll_resumed(&mut self, streams: &mut BTreeMap<StreamKey, Stream>, now: Instant) -> Vec<StreamKey> {
        let mut resumed = Vec::new();
        for is_proven in [true, false] {
            let left = self.room_left(is_proven);
            let Kind { begun, waiting, .. } = &mut self.kinds[usize::from(is_proven)];
            if waiting.is_empty() {
                continue;
            }
            if left > 0 {
                let count = 1 + left / STREAM_BYTES;
                resumed.extend(waiting.drain(..count.min(waiting.len())));
            } else if let Some(first) = begun.values().next().copied()
                && streams.get(&first).is_some_and(|stream| stream.coming.waits)
            {
                waiting.retain(|one| *one != first);
                resumed.push(first);
            }
        }
        for key in &resumed {
            if let Some(stream) = streams.get_mut(key) {
                stream.coming.waits = false;
                stream.coming.since = stream.coming.place.map(|_| now);
            }
        }
        resumed
    }

    /// The streams whose frames come too slowly while memory is short, with the bytes that came in the last of their
    /// time.
    pub(super) fn poll_slow(
        &mut self,
        streams: &mut BTreeMap<StreamKey, Stream>,
        now: Instant,
    ) -> Vec<(StreamKey, usize, Duration)> {
        let is_due = self.looked_at.is_none_or(|last| now.saturating_duration_since(last) >= LOOK_EVERY);
        let mut slow = Vec::new();
        for is_proven in [false, true] {
            if !is_due || self.room_left(is_proven) > 0 {
                continue;
            }
            self.looked_at = Some(now);
            for key in self.kinds[usize::from(is_proven)].begun.values() {
                let Some(stream) = streams.get_mut(key) else { continue };
                let time = stream.coming.time(now);
                let (span, bytes) =
                    (time.saturating_sub(stream.coming.good_time), stream.chunk_bytes - stream.coming.good_bytes);
                if bytes >= SPAN_BYTES {
                    (stream.coming.good_time, stream.coming.good_bytes) = (time, stream.chunk_bytes);
                } else if span >= SPAN {
                    slow.push((*key, bytes, span));
                }
            }
        }
        slow
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
            self.held.poll_slow(&mut self.streams, self.now).into_iter().map(|(key, ..)| key).collect()
        }
    }

    fn proven(streams: u32, bytes_max: usize) -> World {
        let mut world = World::new(streams, bytes_max);
        world.streams.values_mut().for_each(|stream| stream.coming.is_proven = true);
        world
    }

    #[test]
    fn without_room_only_the_frame_that_began_first_goes_on() {
        let mut world = proven(4, 1000);
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
        let kind = &world.held.kinds[1];
        assert_eq!((world.held.bytes(), kind.begun.len(), kind.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn who_takes_his_time_is_slow_only_without_room_and_not_while_he_is_made_to_wait() {
        let mut world = proven(3, 300_000);
        assert!(world.read(0, 100_000, false));
        world.now += 10 * SPAN;
        assert_eq!(world.slow(), []);
        assert!(world.read(1, 200_000, false));
        // What came at once before is good for another span.
        assert_eq!(world.slow(), []);
        assert!(!world.read(1, 1, false));
        world.now += SPAN;
        assert_eq!(world.slow(), [StreamKey::made_up(0)]);
        world.release(0);
        assert_eq!(world.resumed(), [StreamKey::made_up(1)]);
        assert!(world.read(1, SPAN_BYTES, false) && world.read(2, 100_000, true));
        world.now += SPAN;
        assert_eq!(world.slow(), []);
        world.now += SPAN / 2;
        assert_eq!(world.slow(), []);
        world.now += SPAN / 2;
        assert_eq!(world.slow(), [StreamKey::made_up(1)]);
    }

    #[test]
    fn who_has_finished_nothing_yet_cannot_use_up_the_memory_of_who_has() {
        let mut world = World::new(4, 1000);
        world.streams.get_mut(&StreamKey::made_up(3)).unwrap().coming.is_proven = true;
        assert!(world.read(0, 300, false) && world.read(1, 300, false));
        assert!(!world.read(2, 1, false) && !world.read(1, 1, false));
        assert!(world.read(3, 300, false) && world.read(3, 50, true));
        world.release(3);
        assert!(world.read(0, 1, true));
        world.release(0);
        assert_eq!(world.resumed(), [StreamKey::made_up(2)]);
        assert_eq!(world.resumed(), [StreamKey::made_up(1)]);
    }

    #[test]
    fn a_stream_that_is_gone_waits_no_more() {
        let mut world = proven(2, 10);
        assert!(world.read(0, 10, false));
        assert!(!world.read(1, 1, false));
        world.release(1);
        world.release(0);
        assert_eq!(world.resumed(), []);
    }
}
