//! What comes in: datagrams from the socket to their connections, and newcomers who are accepted, refused or asked
//! for a proof of their address.
//!
//! Invariant: one call takes a bounded number of bytes, and never more connections are live than may be.

use std::io;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Incoming};
use quinn_udp::RecvMeta;

use super::QuicDriver;
use crate::quic::ConnectionKey;
use crate::quic::link::Link;
use crate::quic::socket::ecn_of;

/// Receive calls in one turn.
const RECEIVE_CALLS_MAX: usize = 4;
/// No further receive call in a turn that has taken this much: at some 900 MB/s it is a quarter of a millisecond.
const RECEIVE_BYTES_PER_TURN: usize = 256 * 1024;
/// Of every so many connections allowed one may be in its handshake before newcomers must prove their address.
const HANDSHAKES_DIVISOR: usize = 4;

impl QuicDriver {
    pub(super) fn receive(&mut self, now: Instant) -> bool {
        let mut bytes_taken = 0;
        for _ in 0..RECEIVE_CALLS_MAX {
            let count = match self.port.receive() {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    self.stats.receive_errors += 1;
                    tracing::debug!(%error, "a receive call failed");
                    break;
                }
            };
            for index in 0..count {
                let meta = self.port.meta(index);
                bytes_taken += meta.len;
                let mut start = 0;
                while start < meta.len {
                    let piece = self.port.piece(index, start);
                    start += piece.len();
                    self.take_datagrams(now, &meta, piece);
                }
            }
            if count == 0 || bytes_taken >= RECEIVE_BYTES_PER_TURN {
                break;
            }
        }
        self.stats.bytes_received += bytes_taken as u64;
        bytes_taken > 0
    }

    /// Takes a message apart into its datagrams and routes them.
    fn take_datagrams(&mut self, now: Instant, meta: &RecvMeta, mut bytes: BytesMut) {
        while !bytes.is_empty() {
            let datagram = bytes.split_to(meta.stride.clamp(1, bytes.len()));
            self.stats.datagrams_received += 1;
            self.response.clear();
            match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn_of(meta), datagram, &mut self.response) {
                Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                    if let Some(link) = self.links.get_mut(handle.0).and_then(Option::as_deref_mut) {
                        link.transport.handle_event(event);
                        self.queue_service(handle.0 as u32);
                    }
                }
                Some(DatagramEvent::NewConnection(incoming)) => self.take_connection(now, incoming),
                Some(DatagramEvent::Response(transmit)) => self.respond(transmit),
                None => {}
            }
        }
    }

    /// Accepts, refuses, or asks for a proof of address.
    fn take_connection(&mut self, now: Instant, incoming: Incoming) {
        self.response.clear();
        let max = self.limits.connections_max;
        let connections = self.census.live;
        if self.closing || connections >= max {
            self.stats.connections_refused += 1;
            tracing::debug!(peer = %incoming.remote_address(), connections, max, "refused a connection");
            let transmit = self.endpoint.refuse(incoming, &mut self.response);
            self.respond(transmit);
            return;
        }
        let crowded = self.census.handshaking * HANDSHAKES_DIVISOR > max;
        if crowded && incoming.may_retry() && !incoming.remote_address_validated() {
            self.stats.retries_sent += 1;
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.response) {
                self.respond(transmit);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut self.response, None) {
            Ok((handle, transport)) => {
                let index = handle.0;
                if self.links.len() <= index {
                    self.links.resize_with(index + 1, || None);
                }
                assert!(self.links[index].is_none(), "the endpoint reused handle {index} before it was drained");
                self.generation = self.generation.wrapping_add(1);
                let key = ConnectionKey { index: index as u32, generation: self.generation };
                self.links[index] = Some(Box::new(Link::new(key, transport, &self.limits, now)));
                self.census.began();
                self.queue_service(key.index);
            }
            Err(error) => {
                tracing::debug!(cause = %error.cause, "a connection attempt failed");
                if let Some(transmit) = error.response {
                    self.respond(transmit);
                }
            }
        }
    }

    fn respond(&mut self, transmit: quinn_proto::Transmit) {
        self.stats.count_sent(self.port.respond(&transmit, &self.response), transmit.size);
    }
}
