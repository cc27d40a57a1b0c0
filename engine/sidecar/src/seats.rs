//! The connections that a listener holds, and which of them goes when there is no room for another.
//!
//! Not how they are served. Invariants: a connection with a request that is being answered is never sent away for
//! another; one that idles, trickles its header or does not read its answer is, the longest idle first, so that
//! whoever holds connections open without use cannot keep readers out. No address holds more than its share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A connection is let alone for this long after it was opened or answered.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// One connection. The atomics are hints to the listener on the same thread or another, and order nothing.
#[derive(Debug)]
pub(crate) struct Seat {
    address: IpAddr,
    opened: Instant,
    /// Milliseconds from `opened` to the last answer.
    answered_ms: AtomicU64,
    is_answering: AtomicBool,
    is_leaving: AtomicBool,
    leave: Notify,
}

impl Seat {
    pub(crate) fn begin(&self) {
        self.is_answering.store(true, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.answered_ms.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.is_answering.store(false, Ordering::Relaxed);
    }

    /// Waits until the connection is to go.
    pub(crate) async fn left(&self) {
        self.leave.notified().await;
    }

    fn idle_since(&self) -> Option<Instant> {
        let is_idle = !self.is_answering.load(Ordering::Relaxed) && !self.is_leaving.load(Ordering::Relaxed);
        is_idle.then(|| self.opened + Duration::from_millis(self.answered_ms.load(Ordering::Relaxed)))
    }

    fn send_away(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        self.leave.notify_one();
    }
}

/// What becomes of a connection that asks for a seat.
#[derive(Debug)]
pub(crate) enum Seating {
    /// It is seated, by this number.
    Seated(u64, Arc<Seat>),
    /// Another has been told to leave, or may be from then on: ask again when one has ended, or then.
    Later(Instant),
    /// Its address holds its share, and all of that is in use.
    Refused,
}

/// All seats of a listener.
#[derive(Debug)]
pub(crate) struct Seats {
    seats: HashMap<u64, Arc<Seat>>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
    most: usize,
    /// Connections sent away for others, ever.
    pub(crate) sent_away: u64,
}

impl Seats {
    /// `most` seats, at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self { seats: HashMap::new(), by_address: HashMap::new(), next: 0, most: most.max(1), sent_away: 0 }
    }

    /// Seats that one address may take.
    fn share(&self) -> usize {
        self.most.div_ceil(2)
    }

    pub(crate) fn seat(&mut self, address: IpAddr, now: Instant) -> Seating {
        let taken = self.by_address.get(&address).copied().unwrap_or(0);
        let has_share = taken < self.share();
        if has_share && self.seats.len() < self.most {
            let seat = Arc::new(Seat {
                address,
                opened: now,
                answered_ms: AtomicU64::new(0),
                is_answering: AtomicBool::new(false),
                is_leaving: AtomicBool::new(false),
                leave: Notify::new(),
            });
            self.next += 1;
            self.seats.insert(self.next, seat.clone());
            *self.by_address.entry(address).or_default() += 1;
            return Seating::Seated(self.next, seat);
        }
        let rivals = self.seats.values().filter(|seat| has_share || seat.address == address);
        let longest = rivals.filter_map(|seat| Some((seat.idle_since()?, seat))).min_by_key(|(since, _)| *since);
        match longest {
            Some((since, seat)) if now >= since + GRACE => {
                seat.send_away();
                self.sent_away += 1;
                Seating::Later(now + GRACE)
            }
            _ if !has_share => Seating::Refused,
            Some((since, _)) => Seating::Later(since + GRACE),
            None => Seating::Later(now + GRACE),
        }
    }

    /// A connection has ended.
    pub(crate) fn leave(&mut self, number: u64) {
        let Some(seat) = self.seats.remove(&number) else { return };
        if let Some(taken) = self.by_address.get_mut(&seat.address) {
            *taken -= 1;
            if *taken == 0 {
                self.by_address.remove(&seat.address);
            }
        }
    }

    pub(crate) fn taken(&self) -> usize {
        self.seats.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_longest_idle_goes_and_never_one_that_is_being_answered() {
        let (mut seats, now) = (Seats::new(2), Instant::now());
        let Seating::Seated(first, busy) = seats.seat(address(1), now) else { panic!() };
        let Seating::Seated(second, idle) = seats.seat(address(2), now) else { panic!() };
        busy.begin();
        assert!(matches!(seats.seat(address(3), now), Seating::Later(then) if then == now + GRACE));
        assert!(matches!(seats.seat(address(3), now + GRACE), Seating::Later(_)));
        assert!(idle.is_leaving.load(Ordering::Relaxed) && !busy.is_leaving.load(Ordering::Relaxed));
        // Who has been told to leave is not told again, and who is being answered is let alone.
        assert!(matches!(seats.seat(address(3), now + 2 * GRACE), Seating::Later(_)));
        assert_eq!((seats.sent_away, seats.taken()), (1, 2));
        seats.leave(second);
        assert!(matches!(seats.seat(address(3), now + GRACE), Seating::Seated(..)));
        busy.end();
        seats.leave(first);
        seats.leave(first);
        assert_eq!((seats.taken(), seats.by_address.len()), (1, 1));
    }

    #[test]
    fn an_address_beyond_its_share_pays_with_its_own_seats() {
        let (mut seats, now) = (Seats::new(4), Instant::now());
        for _ in 0..2 {
            assert!(matches!(seats.seat(address(1), now), Seating::Seated(..)));
        }
        assert!(matches!(seats.seat(address(1), now), Seating::Refused));
        let Seating::Seated(..) = seats.seat(address(2), now) else { panic!() };
        assert!(matches!(seats.seat(address(1), now + GRACE), Seating::Later(_)));
        let leaving: Vec<_> = seats.seats.values().filter(|seat| seat.is_leaving.load(Ordering::Relaxed)).collect();
        assert_eq!((leaving.len(), leaving[0].address), (1, address(1)));
    }
}
