//! How connections end: closed by the engine, drained, or forgotten before that to make room.
//!
//! Invariant: the application hears of a loss before the connection is forgotten.

use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_proto::CloseReason;
use quinn_proto::{ConnectionHandle, EndpointEvent, VarInt};

use super::QuicDriver;
use crate::quic::link::{Link, Phase};
use crate::quic::{ConnectionKey, LossReason};

/// Who has read something of what waits for it within this time is not slow.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// Longest reason phrase of a close; it must fit into one packet.
const CLOSE_REASON_BYTES_MAX: usize = 512;

impl QuicDriver {
    /// Closes a connection with an application close code. What was written but not sent is dropped; the next turn
    /// tells the application of the loss. `reason` is cut to a length that fits one packet.
    pub fn close(&mut self, connection: ConnectionKey, code: u32, reason: &str) {
        let now = self.now;
        let Some(link) = self.links.get_mut(connection.index as usize).and_then(Option::as_deref_mut) else {
            return;
        };
        if link.key != connection || link.phase == Phase::Lost {
            return;
        }
        let end = reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        link.transport.close(now, VarInt::from_u32(code), Bytes::copy_from_slice(&reason.as_bytes()[..end]));
        let before = link.phase;
        link.lose(LossReason::ClosedHere);
        link.settle(0, &self.limits, &mut self.room, now);
        self.census.moved(connection.index, before, Phase::Lost);
        self.queue_service(connection.index);
        self.queue_transmit(connection.index);
    }

    /// Whether so many bytes more may wait for their peer's window. If not, and some connection has not read for long,
    /// that one is closed to make room.
    pub fn makes_room_for(&mut self, bytes: usize, now: Instant) -> bool {
        if !self.room.has_room_for(bytes)
            && let Some(since) = self.slowest().map(|link| link.unsent_since)
            && now.saturating_duration_since(since) >= SLOW_AFTER
        {
            self.close_slowest(now);
        }
        self.room.has_room_for(bytes)
    }

    fn slowest(&self) -> Option<&Link> {
        let waiting = self.links.iter().flatten().filter(|link| link.has_unsent() && link.phase == Phase::Open);
        waiting.min_by_key(|link| link.unsent_since).map(Box::as_ref)
    }

    /// Closes the connection that has not read for the longest.
    pub(super) fn close_slowest(&mut self, now: Instant) {
        let Some((key, since)) = self.slowest().map(|link| (link.key, link.unsent_since)) else { return };
        let text = format!(
            "nothing of what waits for this client was read for {} ms, and the memory for what is unsent is used up; read \
             the engine's answers as they come",
            now.saturating_duration_since(since).as_millis()
        );
        self.close_overloaded(key, &text);
    }

    pub(super) fn close_overloaded(&mut self, connection: ConnectionKey, text: &str) {
        self.stats.connections_overloaded += 1;
        self.close(connection, CloseReason::Overloaded.code(), text);
    }

    /// Closes every connection and refuses new ones from now on. Turn on until [`QuicDriver::is_idle`], or for as long
    /// as the shutdown may take: the close packets go out with the next turn already.
    pub fn close_all(&mut self, code: u32, reason: &str) {
        self.closing = true;
        let keys: Vec<_> = self.links.iter().flatten().map(|link| link.key).collect();
        for key in keys {
            self.close(key, code, reason);
        }
    }

    /// While more connections drain than may be open, forgets the one that was lost first, once its last packets were
    /// offered to the socket. A peer that still sends on it gets a stateless reset (RFC 9000, section 10.2).
    pub(super) fn abandon_surplus(&mut self) {
        while let Some(index) = self.census.surplus(self.limits.connections_max) {
            if self.links[index as usize].as_deref().is_some_and(|link| link.in_service) {
                break; // The application has not heard of the loss.
            }
            self.transmit(index, self.now);
            let handle = ConnectionHandle(index as usize);
            // An answer would be for the connection that is gone.
            let _ = self.endpoint.handle_event(handle, EndpointEvent::drained());
            self.forget(index);
        }
    }

    pub(super) fn forget(&mut self, index: u32) {
        if let Some(mut link) = self.links[index as usize].take() {
            link.leave(&mut self.room);
            if let Some(armed) = link.armed {
                self.deadlines.remove(&(armed, index));
            }
            self.census.gone(index, link.phase);
        }
    }
}
